"""Plain decoders are timed: as many passes, steps and points as asked, on GPUs from graphs."""

from dataclasses import asdict
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.utils import counters

import profiler.plain_attention
import profiler.plain_models
from model.dimensions import architecture_of_dimensions
from model.operations import OperationKind
from model.precision import Precision
from model.shapes import operations_of, step_of_shape
from profiler.device import Device, open_device
from profiler.plain import PlainDecoder
from profiler.plain_models import GreedyRequest, PlainModel, PlainModelPoint, nearest, spread
from profiler.points import Measured
from profiler.static_attention import StaticAttentionPoint, measure_static_attention
from profiler.timing import Effort, captured
from profiler.wholes import ForwardPoint, GeneratePoint, measure_whole

CPU = Device("cpu", 1 << 20)
QUICK = Effort(seconds=0.0, min_samples=2, max_samples=3)
TINY = architecture_of_dimensions(
    name="tiny",
    query_heads=4,
    kv_heads=2,
    hidden_size=32,
    layer_count=3,
    intermediate_size=64,
    vocab_size=128,
)
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
devices = pytest.mark.parametrize("name", ["cpu", pytest.param("cuda:0", marks=gpu)])
POINT = PlainModelPoint(
    TINY,
    (ForwardPoint(2, 1, 12), ForwardPoint(1, 6, 6), ForwardPoint(2, 3, 9, 5, 12)),
    (GeneratePoint(1, 8, 5), GeneratePoint(3, 4, 2)),
)


@devices
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch's compiler
@torch.inference_mode()
def test_compiled_layers_compute_the_same_from_a_graph(name):
    torch.compiler.reset()
    counters.clear()
    device = open_device(name)
    decoder = PlainDecoder(TINY, Precision.FP32, device)
    prompt = torch.randint(TINY.vocab_size, (2, 6), device=device.torch_device)
    cache = decoder.new_cache(2, 6)
    expected = decoder(prompt, cache, 0)
    decoder.compile_layers()
    found = torch.zeros_like(expected)
    run = captured(device, [lambda: found.copy_(decoder(prompt, cache, 0))])
    found.zero_()
    run()
    assert counters["stats"]["unique_graphs"] > 0
    tolerance = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)


@devices
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16, Precision.INT4])
def test_all_that_is_asked_of_a_plain_model_is_measured(name, precision):
    rows = list(measure_whole(POINT, precision, open_device(name), QUICK))
    assert [row.kind for row in rows] == ["layer"] * 3 + ["prefill", "decode"] * 2
    (decode,) = step_of_shape(rows[4].shape)
    assert (decode.count, decode.query_tokens, decode.kv_tokens) == (1, 1, 10)
    assert {(row.engine, row.group, row.precision) for row in rows} == {
        ("torch", "tiny", precision)
    }
    assert POINT.is_measured(precision, Measured(rows))
    chunk, beside = step_of_shape(rows[2].shape)
    assert (chunk.count, chunk.query_tokens, chunk.kv_tokens) == (2, 3, 9)
    assert (beside.count, beside.query_tokens, beside.kv_tokens) == (5, 1, 12)
    attentions = [o for o in operations_of(rows[2]) if o.kind is OperationKind.STATIC_ATTENTION]
    assert len(attentions) == 2
    assert {o.shape[0] for o in operations_of(rows[2]) if o.name == "qkv_proj"} == {2 * 3 + 5}
    kinds = {operation.kind for row in rows for operation in operations_of(row)}
    assert OperationKind.STATIC_ATTENTION in kinds
    assert OperationKind.ATTENTION not in kinds
    names = {operation.name for row in rows for operation in operations_of(row)}
    assert {"qkv_proj", "gate_up_proj"} <= names


def test_a_request_decodes_greedily_over_its_own_tokens(monkeypatch):
    decoder = PlainDecoder(TINY, Precision.FP32, CPU)
    request = GreedyRequest(decoder, GeneratePoint(2, 5, 4))
    passes = []
    forward = PlainDecoder.forward

    def spy(self, ids, cache, past):
        logits = forward(self, ids, cache, past)
        passes.append((past, ids.clone(), logits.argmax(dim=-1)))
        return logits

    monkeypatch.setattr(PlainDecoder, "forward", spy)
    first, steps, _ = request.once()
    assert first > 0
    assert len(steps) == 3
    assert [past for past, _, _ in passes] == [0, 5, 6, 7]
    for (_, _, chosen), (_, ids, _) in pairwise(passes):
        assert torch.equal(ids[:, 0], chosen)
    prompt = passes[0][1]
    request.once()
    assert not torch.equal(prompt, passes[4][1])


class Graphed(Device):
    """The CPU, taken for a device of graphs."""

    is_cuda = True


@pytest.mark.parametrize(
    ("tokens", "whole", "steps"), [(41, False, 8), (41, True, 40), (3, True, 2)]
)
def test_few_graphs_stand_for_all_steps_of_a_whole_request(monkeypatch, tokens, whole, steps):
    made, ran = [], []

    def captured(_, runs):
        context = runs[0].args[-1]
        made.append(context)
        return partial(ran.append, context)

    monkeypatch.setattr(profiler.plain_models, "captured", captured)
    decoder = PlainDecoder(TINY, Precision.FP32, CPU)
    decoder.device = Graphed("cpu", 1 << 20)
    told = []
    GreedyRequest(decoder, GeneratePoint(2, 100, tokens), whole=whole).run(lambda: told.append(1))
    first, *contexts = ran
    assert first == 0
    assert len(told) == 1 + steps == len(ran)
    assert made == [0, *sorted(set(contexts))]
    assert len(made) == 1 + min(8, steps)
    assert sum(contexts) / steps == pytest.approx(100 + (tokens - 2) / 2, abs=0.5)
    if whole:
        assert all(abs(at - real) <= 3 for at, real in zip(contexts, range(100, 140), strict=False))


def test_layers_are_timed_in_a_pass_of_their_own(monkeypatch):
    calls = []
    attend = profiler.plain_attention.attend

    def spy(query, key, value, keys, values, past, window=None):
        calls.append((tuple(query.shape[:2]), past))
        return attend(query, key, value, keys, values, past, window)

    monkeypatch.setattr(profiler.plain_attention, "attend", spy)
    model = PlainModel(PlainDecoder(TINY, Precision.FP32, CPU))
    timing = model.layer(ForwardPoint(2, 3, 9), QUICK)
    assert timing.distribution.p10 > 0
    assert set(calls) == {((2, 3), 6)}
    assert len(calls) % 3 == 0
    calls.clear()
    model.layer(ForwardPoint(2, 3, 9, 4, 8), QUICK)
    assert set(calls) == {((2, 3), 6), ((4, 1), 7)}


@given(st.integers(0, 50), st.integers(2, 10))
def test_few_of_many_are_spread_evenly(length, count):
    items = range(7, 7 + length)
    found = list(spread(items, count))
    assert len(found) == min(length, count)
    assert found == sorted(set(found))
    if found:
        assert (found[0], found[-1]) == (items[0], items[-1])
        standing = nearest(items, found)
        assert sorted(set(standing)) == found
        assert all(
            abs(one - item) == min(abs(other - item) for other in found)
            for one, item in zip(standing, items, strict=True)
        )


@devices
def test_runs_that_are_captured_do_what_they_did(name):
    device = open_device(name)
    total = torch.zeros(1, device=device.torch_device)
    run = captured(device, [lambda: total.add_(1), lambda: total.mul_(2)])
    total.zero_()
    run()
    run()
    assert float(total) == 6.0


@devices
@pytest.mark.parametrize(("query", "kv"), [(1, 30), (7, 7), (3, 12)])
def test_static_attention_is_timed_over_caches_of_its_own(name, query, kv, timed):
    point = StaticAttentionPoint(2, query, kv, 4, 2, 8)
    (row,) = measure_static_attention(point, Precision.BF16, open_device(name), QUICK)
    assert (row.kind, row.engine, row.precision) == ("static_attention", "torch", Precision.BF16)
    assert row.shape == asdict(point)
    (operation,) = operations_of(row)
    assert (operation,) == tuple(point.operations(Precision.BF16))
    assert point.is_measured(Precision.BF16, Measured([row]))
    if name == "cpu":
        caches = [run.args[3].data_ptr() for run in timed[0]]
        assert len(set(caches)) == len(caches) >= 2
