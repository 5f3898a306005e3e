"""Warming up: it ends when the clock is steady, or after some seconds at the latest."""

from types import SimpleNamespace

import pytest
import torch

import profiler.warm_up
from profiler.device import Device, open_device
from profiler.warm_up import Warmth, settle, warm_up


class Gpu:
    """A device whose time passes as it works."""

    def __init__(self, clocks, work_s=1 / 16):
        self.work_s = work_s
        self.seconds = 0.0
        self.worked = 0
        self._clocks = iter(clocks)

    def work(self):
        self.seconds += self.work_s
        self.worked += 1

    def clock_mhz(self):
        return next(self._clocks)

    def now(self):
        return self.seconds


def rounds(clocks):
    gpu = Gpu(clocks)
    settle(gpu.work, gpu.clock_mhz, gpu.now)
    return gpu.worked


def test_a_steady_clock_is_believed_after_half_a_second():
    assert rounds([1980.0] * 100) == 1 + 8


def test_a_clock_that_rests_for_a_moment_is_not():
    resting = [1200.0] * 6
    steady = rounds([1980.0] * 100)
    assert rounds([*resting, *[1980.0] * 100]) == len(resting) + steady


def test_a_clock_that_creeps_is_not():
    creeping = [1500.0 * 1.004**i for i in range(30)]
    assert rounds([*creeping, *[1980.0] * 100]) > len(creeping)


def test_two_readings_far_apart_are_too_few():
    gpu = Gpu([1980.0] * 100, work_s=0.6)
    settle(gpu.work, gpu.clock_mhz, gpu.now)
    assert gpu.worked == 4


def test_a_rising_clock_is_waited_for():
    rising = [345.0, 900.0, 1500.0, 1900.0]
    assert rounds([*rising, *[1980.0] * 100]) == len(rising) + rounds([1980.0] * 100)


def test_a_clock_that_never_settles_is_left_after_seconds():
    restless = [1980.0, 1500.0] * 1000
    assert rounds(restless) == pytest.approx(48, abs=1)


def test_without_a_clock_half_a_second_of_work_has_to_do():
    assert rounds([None] * 100) == pytest.approx(8, abs=1)


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(Device, "random", None)
    warm_up(Device("cpu", 1 << 20))


@pytest.fixture
def moments(monkeypatch):
    """A clock that is set by hand, and when the GPU was warmed up, for half a second each time."""
    clock, warmed = SimpleNamespace(now=100.0), []

    def warm(device):
        warmed.append(clock.now)
        clock.now += 0.5

    monkeypatch.setattr(profiler.warm_up, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(profiler.warm_up, "warm_up", warm)
    return clock, warmed


def test_a_gpu_is_warmed_up_behind_pauses_alone(moments):
    clock, warmed = moments
    warmth = Warmth(Device("cuda:0", 1 << 20))
    warmth.renew()
    clock.now += 0.9
    warmth.renew()
    warmth.note_work()
    clock.now += 0.9
    warmth.renew()
    assert warmed == [100.0]
    clock.now += 0.2
    warmth.renew()
    assert warmed == [100.0, pytest.approx(102.5)]


def test_the_cpu_needs_no_warmth(moments):
    Warmth(Device("cpu", 1 << 20)).renew()
    assert moments[1] == []


@pytest.mark.gpu
def test_a_gpu_is_warmed_up():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    warm_up(open_device("cuda:0"))
