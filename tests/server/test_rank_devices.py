"""Ranks run on GPUs of one kind or on cores of their own, or one of them runs alone."""

from contextlib import ExitStack
from dataclasses import replace

import pytest

from model.errors import InvalidFieldError
from model.precision import Precision
from profiler import telemetry
from profiler.interface import Environment
from profiler.telemetry import LocalDevice
from server.cancellation import Cancellation
from server.device_queue import DeviceQueue
from server.devices import DeviceRegistry
from server.exchange_run import ExchangeError, ExchangeRun
from server.rank_devices import exchanging, ranks_of


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
    monkeypatch.setattr(DeviceRegistry, "telemetry", staticmethod(lambda *_: None))
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
    ranks = ranks_of(registry.get(asked), tensor, registry)
    assert [device.torch_name for device in ranks.devices] == found
    assert ranks.alone == ""
    assert ranks.on_one == 1
    assert len(ranks.each) == tensor


@pytest.mark.parametrize(("asked", "tensor"), [("local", 4), ("local:1", 2)])
def test_where_there_are_too_few_gpus_one_rank_runs_alone(registry, asked, tensor):
    ranks = ranks_of(registry.get(asked), tensor, registry)
    assert ranks.devices == (registry.get(asked),)
    assert ranks.alone == f"GPUs of its kind here: {3 if asked == 'local' else 1}"


@pytest.mark.parametrize(("cores", "together"), [(7, False), (8, True)])
def test_on_the_cpu_each_rank_has_cores_for_its_threads(monkeypatch, registry, cores, together):
    monkeypatch.setattr(telemetry, "core_count", lambda: cores)
    cpu = registry.get("cpu")
    device = replace(cpu, environment=replace(cpu.environment, threads=4))
    ranks = ranks_of(device, 2, registry)
    assert len(ranks.devices) == ranks.on_one == 1 + together
    assert list(ranks.each) == ["cpu"]
    assert bool(ranks.alone) != together


@pytest.mark.parametrize(
    ("asked", "ranks", "found"),
    [
        ("local", 0, ["cuda:0", "cuda:2", "cuda:3"]),
        ("local", 2, ["cuda:0", "cuda:2"]),
        ("local", 1, []),
        # another's jobs measure them, or there is none of its kind
        ("local:2", 0, []),
        ("local:1", 0, []),
        ("cpu", 0, []),
    ],
)
def test_messages_are_measured_by_the_first_gpu_of_a_kind(registry, asked, ranks, found):
    devices = exchanging(registry.get(asked), ranks, registry)
    assert [device.torch_name for device in devices] == found


@pytest.mark.parametrize(
    ("asked", "ranks", "words"),
    [
        ("local", 4, "more than the 3 GPUs"),
        ("local:2", 2, "measured by jobs of local"),
        ("local:1", 2, "more than the 1 GPUs"),
        ("cpu", 4_000, "threads need more than the"),
        ("local", -1, "is not in 0 to"),
        ("local", 4_097, "is not in 0 to"),
    ],
)
def test_messages_that_cannot_be_measured_are_refused(registry, asked, ranks, words):
    with pytest.raises(InvalidFieldError, match=words) as raised:
        exchanging(registry.get(asked), ranks, registry)
    assert raised.value.field == "ranks"


@pytest.fixture
def exchange(state, scripted, registry):
    """Makes runs of all GPUs of the first kind, and the queues of all devices."""
    queues = {device.stored_name: DeviceQueue(1) for device in registry.local()}

    def make(behaviour):
        return ExchangeRun(
            devices=exchanging(registry.get("local"), 0, registry),
            precision=Precision.BF16,
            state=replace(state, devices=registry),
            queue_of=lambda device: queues[device.stored_name],
            worker_command=scripted(behaviour),
        )

    return make, queues


def test_ranks_hold_the_other_devices_while_they_measure(exchange):
    make, queues = exchange
    held = []

    def take(_):
        held.append([name for name, queue in queues.items() if queue.busy])

    make("five").run(30.0, Cancellation(), 0, take)
    assert held == [["local:2", "local:3"]] * 2
    assert not any(queue.busy for queue in queues.values())


@pytest.mark.parametrize("is_held", [False, True])
def test_ranks_wait_no_longer_than_they_may(exchange, monkeypatch, is_held):
    make, queues = exchange
    monkeypatch.setattr("server.exchange_run._FEWEST_S", 0.0)
    with ExitStack() as stack:
        if is_held:
            stack.enter_context(queues["local:3"].measurement(Cancellation()))
        with pytest.raises(ExchangeError, match="not measured within 1 s"):
            make("sleep").run(1.0, Cancellation(), 0, lambda _: None)
    assert not any(queue.busy for queue in queues.values())
