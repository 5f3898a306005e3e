"""A check measures every kind, tells a device's limits from failures, and ends by what failed."""

from functools import partial

import pytest
import torch

from model.precision import Precision
from profiler import point_kinds
from profiler.__main__ import main
from profiler.check import check
from profiler.device import Device, open_device
from profiler.interface import Skipped
from profiler.latent import BatchedLinearPoint, LatentPoint
from profiler.operations import AttentionPoint, LinearPoint
from profiler.paged_attention import PagedAttentionPoint
from profiler.point_kinds import EVERY_KIND, KindGroup
from profiler.static_attention import StaticAttentionPoint

CPU = Device("cpu", 1 << 16)
MEASURED = {
    "linear": ["linear"],
    "attention": ["attention"],
    "model": ["layer", "prefill", "decode"],
    "experts": ["experts"],
    "latent": ["mla", "batched_linear"],
    "mixture": ["layer", "prefill", "decode"],
    "static_attention": ["static_attention"],
    "plain_model": ["layer", "prefill", "decode"],
    "plain_mixture": ["layer", "prefill", "decode"],
    "paged_attention": ["paged_attention"],
    "linear_per_tensor": ["linear_per_tensor"],
}


def kinds(*names):
    return [kind for kind in EVERY_KIND if kind.name in names]


def failing(error, *first):
    def measure(point, precision, device):
        yield from first
        raise error

    return measure


def told(found):
    return [part.split()[0] for part in found.text.split(", ")]


def test_no_kind_of_a_campaign_is_left_out():
    groups = [group for group in vars(point_kinds).values() if isinstance(group, KindGroup)]
    assert {kind for group in groups for kind in group.kinds} == set(EVERY_KIND)
    assert {kind.name for kind in EVERY_KIND} == set(MEASURED)


def test_one_token_prompts_and_chunks_are_checked(monkeypatch):
    measured = []

    def noted(point, precision, device):
        measured.append((point.query_tokens, point.kv_tokens))
        yield Skipped(reason="noted")

    for point in (AttentionPoint, StaticAttentionPoint, PagedAttentionPoint, LatentPoint):
        monkeypatch.setattr(point, "measure", noted)
    for name in ("attention", "static_attention", "paged_attention", "latent"):
        measured.clear()
        list(check(CPU, [Precision.FP32], kinds(name)))
        queries = [(query == 1, query == kv) for query, kv in measured]
        assert sorted(queries) == [(False, False), (False, True), (True, False)], name


def test_the_precisions_that_a_device_runs_well_come_first():
    found = check(CPU, kinds=kinds("linear"))
    order = [checked.precision for checked in found]
    assert order[:3] == list(CPU.precisions)
    assert sorted(order) == sorted(Precision)


def test_every_kind_is_measured():
    found = {checked.kind: checked for checked in check(CPU, [Precision.FP32])}
    limit = found.pop("linear_per_tensor")
    assert not limit.failed
    assert limit.text.startswith("not timed: precision: fp32 is not timed with one scale")
    assert {kind: told(checked) for kind, checked in found.items()} == {
        kind: names for kind, names in MEASURED.items() if kind in found
    }
    assert len(found) == len(EVERY_KIND) - 1
    assert not any(checked.failed for checked in found.values())


def test_precisions_have_kinds_and_limits_of_their_own():
    chosen = kinds("linear", "experts", "linear_per_tensor")
    fp8, experts, per_tensor, fp4 = check(CPU, [Precision.FP8, Precision.FP4], chosen)
    assert told(fp8) == ["linear"]
    assert experts.text.startswith("not timed: precision: experts are not held in fp8")
    assert told(per_tensor) == ["linear_per_tensor"]
    assert fp4.line.split()[:5] == ["fp4", "every", "kind", "not", "timed:"]
    assert not any(found.failed for found in (fp8, experts, per_tensor, fp4))


def test_whatever_is_raised_is_a_failure_and_the_others_are_measured(monkeypatch):
    error = TypeError("takes no\n such argument")
    monkeypatch.setattr(LinearPoint, "measure", failing(error))
    linear, attention = check(CPU, [Precision.BF16], kinds("linear", "attention"))
    assert linear.failed
    assert linear.error is error
    assert linear.text == "FAILED: TypeError: takes no such argument"
    assert told(attention) == ["attention"]


def test_a_sort_of_point_or_a_library_that_fails_is_a_failure(monkeypatch):
    real = LatentPoint.measure
    monkeypatch.setattr(BatchedLinearPoint, "measure", failing(ValueError("no kernel")))
    (latent,) = check(CPU, [Precision.FP32], kinds("latent"))
    assert latent.failed

    def left_out(*arguments):
        yield Skipped(reason="mla by vllm is left out: ImportError")
        yield from real(*arguments)

    monkeypatch.undo()
    monkeypatch.setattr(LatentPoint, "measure", left_out)
    (latent,) = check(CPU, [Precision.FP32], kinds("latent"))
    assert latent.failed
    assert latent.text.startswith("mla ")
    assert latent.text.endswith(" ms, FAILED: mla by vllm is left out: ImportError")


class Lost(Device):
    """A device that answers no more."""

    __slots__ = ()
    is_cuda = True

    def synchronize(self):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_device_that_is_lost_ends_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", Lost("cpu", 1 << 16).synchronize)
    monkeypatch.setattr(LinearPoint, "measure", failing(RuntimeError("CUDA error")))
    found = list(check(Lost("cpu", 1 << 16), [Precision.FP32], kinds("linear", "attention")))
    assert [(each.kind, each.failed) for each in found] == [("linear", True)] * 2
    assert "the device is lost, nothing else was checked" in found[1].text
    assert "illegal memory access" in found[1].text


@pytest.fixture
def few(monkeypatch):
    """A check of attentions alone."""
    monkeypatch.setattr("profiler.check.check", partial(check, kinds=kinds("attention")))
    # Limits and environment would stay in force for the tests behind.
    monkeypatch.setattr("profiler.process_limits.limit_memory", lambda size: None)
    monkeypatch.setattr("profiler.process_limits.be_first_out_of_memory", lambda: None)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def test_the_command_says_a_line_each_and_ends_well(few, capsys):
    assert main(["check", "--device", "cpu", "--precisions", "fp32,fp4"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:3] == ["fp32", "attention", "attention"]
    assert float(first.split()[3]) > 0
    assert second.startswith("fp4 ")


def test_the_command_fails_where_a_point_does_and_says_where(few, monkeypatch, capsys):
    monkeypatch.setattr(AttentionPoint, "measure", failing(TypeError("no such argument")))
    assert main(["check", "--device", "cpu", "--precisions", "fp32,bf16"]) == 1
    said = capsys.readouterr()
    assert said.out.count("FAILED: TypeError: no such argument") == 2
    assert "2 failed on cpu" in said.err
    assert "in measure" in said.err  # the way to it


def test_a_device_that_is_not_there_is_wrong_usage(few, capsys):
    assert main(["check", "--device", "cuda:99"]) == 2
    assert "no device 'cuda:99'" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_fails_at_nothing_in_its_own_precision():
    device = open_device("cuda:0")
    found = list(check(device, [device.default_precision]))
    assert [each.line for each in found if each.failed] == []
