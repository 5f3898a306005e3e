"""Ranks run on GPUs of one kind or on cores of their own, or one of them runs alone."""

from dataclasses import replace

import pytest

from model.presets import preset
from profiler import telemetry
from profiler.interface import Environment
from profiler.telemetry import LocalDevice
from server.devices import DeviceRegistry
from server.rank_devices import ranks_of

LLAMA = preset("llama-3.1-8b")


def gpu(index, name):
    environment = Environment(device_name=name, device_kind="cuda", device_uuid=f"GPU-{index}")
    return LocalDevice(
        torch_name=f"cuda:{index}",
        display_name=name,
        memory_bytes=1 << 36,
        last_level_cache_bytes=0,
        environment=environment,
    )


@pytest.fixture
def registry(monkeypatch):
    """Devices of a machine with three GPUs of one kind, another one, and a CPU."""
    cpu = telemetry.local_devices()[-1]
    gpus = [gpu(i, name) for i, name in enumerate(["an H200", "an L4", "an H200", "an H200"])]
    monkeypatch.setattr(telemetry, "local_devices", lambda: (*gpus, cpu))
    return DeviceRegistry()


@pytest.mark.parametrize(
    ("asked", "tensor", "found"),
    [
        ("local", 1, ["cuda:0"]),
        ("local", 2, ["cuda:0", "cuda:2"]),
        ("local:3", 3, ["cuda:3", "cuda:0", "cuda:2"]),
    ],
)
def test_ranks_run_on_gpus_of_the_kind_that_was_asked_for(registry, asked, tensor, found):
    ranks = ranks_of(registry.get(asked), tensor, LLAMA, registry)
    assert [device.torch_name for device in ranks.devices] == found
    assert ranks.alone == ""
    assert ranks.on_one == 1
    assert len(ranks.each) == tensor


@pytest.mark.parametrize(("asked", "tensor"), [("local", 4), ("local:1", 2)])
def test_where_there_are_too_few_gpus_one_rank_runs_alone(registry, asked, tensor):
    ranks = ranks_of(registry.get(asked), tensor, LLAMA, registry)
    assert ranks.devices == (registry.get(asked),)
    assert ranks.alone == f"GPUs of its kind here: {3 if asked == 'local' else 1}"


@pytest.mark.parametrize(("cores", "together"), [(7, False), (8, True)])
def test_on_the_cpu_each_rank_has_cores_for_its_threads(monkeypatch, registry, cores, together):
    monkeypatch.setattr(telemetry, "core_count", lambda: cores)
    cpu = registry.get("cpu")
    device = replace(cpu, environment=replace(cpu.environment, threads=4))
    ranks = ranks_of(device, 2, LLAMA, registry)
    assert len(ranks.devices) == ranks.on_one == 1 + together
    assert list(ranks.each) == ["cpu"]
    assert bool(ranks.alone) != together


def test_experts_run_on_one_rank(registry):
    ranks = ranks_of(registry.get("local"), 2, preset("qwen3-30b-a3b"), registry)
    assert len(ranks.devices) == 1
    assert "experts" in ranks.alone
