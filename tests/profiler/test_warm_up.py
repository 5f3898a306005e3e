"""Warming up: it ends when the clock is steady, or after some seconds at the latest."""

import pytest
import torch

from profiler.device import Device, open_device
from profiler.warm_up import settle, warm_up


class Gpu:
    """A device whose time passes as it works."""

    def __init__(self, clocks):
        self.seconds = 0.0
        self.worked = 0
        self._clocks = iter(clocks)

    def work(self):
        self.seconds += 0.05
        self.worked += 1

    def clock_mhz(self):
        return next(self._clocks)

    def now(self):
        return self.seconds


def rounds(clocks):
    gpu = Gpu(clocks)
    settle(gpu.work, gpu.clock_mhz, gpu.now)
    return gpu.worked


def test_a_steady_clock_is_believed_after_a_few_readings():
    assert rounds([1980.0] * 100) == 4


def test_a_rising_clock_is_waited_for():
    rising = [345.0, 900.0, 1500.0, 1900.0]
    assert rounds([*rising, *[1980.0] * 100]) == len(rising) + 4


def test_a_clock_that_never_settles_is_left_after_seconds():
    restless = [1980.0, 1500.0] * 1000
    assert rounds(restless) == pytest.approx(60, abs=1)


def test_without_a_clock_half_a_second_of_work_has_to_do():
    assert rounds([None] * 100) == pytest.approx(10, abs=1)


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(Device, "random", None)
    warm_up(Device("cpu", 1 << 20))


@pytest.mark.gpu
def test_a_gpu_is_warmed_up():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    warm_up(open_device("cuda:0"))
