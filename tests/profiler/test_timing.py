"""Repeated timings: warm, in turn, as many as asked, and marked where others disturbed them."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from profiler.device import Device, open_device
from profiler.timing import DISTURBED_FLAG, Effort, RunDelay, Timing, distribution, time_runs

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
