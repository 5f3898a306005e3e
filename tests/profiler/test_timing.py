"""Repeated timings: warm, in turn, as many as asked, and marked where others disturbed them."""

import contextlib
import gc
import os
import subprocess
import sys
import time
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import profiler.timing
from profiler.device import Device, open_device
from profiler.timing import (
    DISTURBED_FLAG,
    CaptureError,
    Effort,
    RunDelay,
    Timing,
    captured,
    distribution,
    sample_runs,
    time_runs,
)

CPU = Device("cpu", 1 << 20)
positive = st.floats(1e-6, 1e6)


def counting(calls, name, seconds=0.0):
    def run():
        calls.append(name)
        if seconds:
            time.sleep(seconds)

    return run


def test_a_run_takes_as_long_as_it_takes():
    timing = time_runs(CPU, [counting([], "a", 0.004)], Effort(seconds=0.05, sample_ms=1.0))
    assert 4.0 <= timing.distribution.median < 40.0
    assert timing.distribution.p10 <= timing.distribution.median <= timing.distribution.p90


def test_runs_take_turns():
    calls = []
    runs = [counting(calls, name, 0.001) for name in "abc"]
    time_runs(CPU, runs, Effort(seconds=0.0, min_samples=6, max_samples=6, sample_ms=0.001))
    # The first warms up, the last is timed once to know how long one takes.
    assert "".join(calls[2:]) == "abcabc"


def test_samples_are_taken_whatever_the_time():
    calls = []
    effort = Effort(seconds=0.0, min_samples=4, max_samples=9, sample_ms=0.001)
    timing = time_runs(CPU, [counting(calls, "a", 0.001)], effort)
    assert len(calls) == 2 + 4
    assert 1 <= timing.distribution.samples <= 4


def test_samples_are_never_more_than_asked():
    calls = []
    effort = Effort(seconds=60.0, min_samples=1, max_samples=5, sample_ms=0.001)
    begin = time.monotonic()
    time_runs(CPU, [counting(calls, "a", 0.001)], effort)
    assert time.monotonic() - begin < 30
    assert len(calls) == 2 + 5


def test_short_runs_are_repeated_within_a_sample():
    calls = []
    runs = [counting(calls, "a")] * 200
    effort = Effort(seconds=0.0, min_samples=2, max_samples=2, sample_ms=1.0)
    timing = time_runs(CPU, runs, effort)
    assert len(calls) > 3 + 2 * 20
    assert timing.distribution.median < 0.1


def test_long_runs_are_not():
    calls = []
    runs = [counting(calls, "a", 0.003)] * 10
    time_runs(CPU, runs, Effort(seconds=0.0, min_samples=2, max_samples=2, sample_ms=1.0))
    assert len(calls) == 2 + 2


class Gpu:
    """A GPU whose launches take the host a while; time passes by what they do alone."""

    launch_ms = 0.01

    def __init__(self, work_ms):
        self.work_ms = work_ms
        self.runs = 0
        self.host = self.device = 0.0

    def run(self):
        self.runs += 1
        self.host += self.launch_ms
        self.device = max(self.device, self.host) + self.work_ms

    def synchronize(self, *_):
        self.host = self.device = max(self.host, self.device)

    def event(self, **_):
        return Event(self)


class Event:
    def __init__(self, gpu):
        self.gpu = gpu
        self.at = None

    def record(self):
        self.at = max(self.gpu.device, self.gpu.host)

    def synchronize(self):
        self.gpu.synchronize()

    def elapsed_time(self, end):
        return end.at - self.at


@pytest.fixture
def gpu_of(monkeypatch):
    """Puts a GPU behind torch's events whose every run takes so many milliseconds."""

    def make(work_ms):
        gpu = Gpu(work_ms)
        monkeypatch.setattr(torch.cuda, "Event", gpu.event)
        monkeypatch.setattr(torch.cuda, "synchronize", gpu.synchronize)
        return gpu

    return make


CUDA = Device("cuda:0", 1 << 20)
FEW = Effort(seconds=0.0, min_samples=3, max_samples=3, sample_ms=1.0)


@pytest.mark.parametrize("work_ms", [0.02, 0.03, 0.3])
def test_a_lone_graph_is_replayed_until_its_launch_counts_for_little(gpu_of, work_ms):
    gpu = gpu_of(work_ms)
    samples = sample_runs(CUDA, [gpu.run], FEW)
    assert [ms for ms, _ in samples] == pytest.approx([work_ms] * 3, rel=0.02)


def test_a_long_graph_is_replayed_once_a_sample(gpu_of):
    gpu = gpu_of(5.0)
    sample_runs(CUDA, [gpu.run], FEW)
    assert gpu.runs == 2 + 3


def test_replays_of_a_graph_of_next_to_nothing_are_bounded(gpu_of):
    gpu = gpu_of(0.0)
    gpu.launch_ms = 0.0
    sample_runs(CUDA, [gpu.run], FEW)
    assert gpu.runs == 2 + 3 * 256


def test_ranks_replay_as_often_as_the_slowest_of_them(gpu_of):
    class Slower:
        def slowest(self, values):
            return [max(value, 0.25) for value in values]

    gpu = gpu_of(0.02)
    sample_runs(CUDA, [gpu.run], FEW, Slower())
    assert gpu.runs == 2 + 3 * 4


@given(st.lists(positive, min_size=1, max_size=40))
def test_percentiles_are_in_order_and_within_the_samples(samples):
    spread = distribution(samples)
    low, high = min(samples) * (1 - 1e-9), max(samples) * (1 + 1e-9)
    assert low <= spread.p10 <= spread.median <= spread.p90 <= high
    assert spread.samples == len(samples)


@given(st.lists(positive, min_size=1, max_size=40), st.integers(1, 300))
def test_one_of_equal_runs_takes_its_share(samples, runs):
    whole = Timing(distribution(samples), ("throttled",))
    one = whole.per(runs)
    assert one.flags == whole.flags
    assert one.distribution.samples == whole.distribution.samples
    for name in ("median", "p10", "p90"):
        assert getattr(one.distribution, name) == getattr(whole.distribution, name) / runs


@contextlib.contextmanager
def sharing_a_core():
    """This thread has one core, and another process wants all of it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    rival = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    )
    try:
        rival.stdout.readline()
        yield
    finally:
        rival.kill()
        rival.wait()
        rival.stdout.close()
        os.sched_setaffinity(0, before)


def _work(seconds=0.02):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


needs_run_delay = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="the kernel counts no run delay"
)


@needs_run_delay
def test_time_that_others_took_is_seen_and_marked():
    with sharing_a_core():
        delay = RunDelay()
        _work(0.05)
        waited = delay.lap_ms()
        timing = time_runs(CPU, [_work], Effort(seconds=0.0, min_samples=3))
    assert waited > 5.0
    assert timing.flags == (DISTURBED_FLAG,)
    assert timing.distribution.samples == 3


@needs_run_delay
def test_a_lap_begins_where_the_last_one_ended():
    with sharing_a_core():
        delay = RunDelay()
        _work(0.05)
        first = delay.lap_ms()
    second = delay.lap_ms()
    assert 0 <= second < first


@pytest.mark.parametrize("ended", [False, True])
def test_a_capture_that_fails_is_left(monkeypatch, ended):
    """Torch's own end of it raises before it has set its stream back."""
    streams, pools = [], ["pool"]

    @contextlib.contextmanager
    def graph(_, pool, stream, **__):
        streams.append(stream)
        yield
        if ended:
            pools.remove(pool)
        raise RuntimeError("the capture was invalid")

    def end(index, pool):
        if pool not in pools:
            raise RuntimeError("not currently recording")
        pools.remove(pool)

    before, stream = (SimpleNamespace(wait_stream=lambda _: None) for _ in range(2))
    waited = []
    stubs = {
        "CUDAGraph": object,
        "Stream": lambda _: stream,
        "current_stream": lambda _: before,
        "graph": graph,
        "graph_pool_handle": lambda: "pool",
        "set_stream": streams.append,
        "set_sync_debug_mode": lambda _: None,
        "stream": contextlib.nullcontext,
        "synchronize": lambda _: waited.append(streams[-1:]),
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(torch.cuda, name, stub)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end)
    profiler.timing._capture_stream.cache_clear()
    with pytest.raises(CaptureError, match="the capture was invalid"):
        captured(CUDA, [lambda: None])
    profiler.timing._capture_stream.cache_clear()
    assert streams == [stream, before]
    assert waited[-1] == [before]
    assert not pools


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_after_a_capture_that_failed_another_works():
    gpu = open_device("cuda:0")
    total = torch.zeros(1, device=gpu.torch_device)
    before = torch.cuda.current_stream()

    def waits_when_captured():
        total.add_(1)
        if torch.cuda.is_current_stream_capturing():
            total.item()

    with pytest.raises(CaptureError, match="no CUDA graph holds it"):
        captured(gpu, [waits_when_captured])
    assert torch.cuda.current_stream() == before
    torch.cuda.empty_cache()
    run = captured(gpu, [lambda: total.add_(1)])
    total.zero_()
    run()
    run()
    assert float(total) == 2.0


@pytest.mark.parametrize(
    "name",
    [
        "cpu",
        pytest.param(
            "cuda:0",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ],
)
def test_what_runs_go_by_is_kept_as_long_as_their_graph(name):
    device = open_device(name)
    total, one = (torch.full((1 << 20,), float(n), device=device.torch_device) for n in (0, 1))
    kept = weakref.ref(one)
    run = captured(device, [partial(total.add_, one)])
    del one
    gc.collect()
    assert kept() is not None
    total.zero_()
    run()
    assert float(total.sum()) == 1 << 20
    del run
    gc.collect()
    assert kept() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_events_time_what_the_gpu_does_and_not_its_launch():
    gpu = open_device("cuda:0")
    small, large = (gpu.random(size, size, dtype=torch.float32) for size in (64, 8192))
    effort = Effort(seconds=0.05)
    quick, slow = (time_runs(gpu, [lambda a=a: a @ a], effort) for a in (small, large))
    assert 0 < quick.distribution.median < slow.distribution.median
    # 1.1 TFLOP: no GPU does it in half a millisecond, a launch takes microseconds.
    assert slow.distribution.median > 0.5
