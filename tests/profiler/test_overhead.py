"""What a campaign's time went to: samples, what is built for them, and the rest."""

import time

import pytest

from model.precision import Precision
from profiler.device import Device
from profiler.operations import AttentionPoint, measure_attention
from profiler.overhead import TIMED, Overhead, Tally
from profiler.timing import Effort

CPU = Device("cpu", 1 << 16)


def sleeping(count):
    for number in range(count):
        time.sleep(0.02)
        yield number


def test_making_items_is_counted_and_using_them_is_not():
    tally = Tally()
    for _ in tally.over(sleeping(2)):
        time.sleep(0.3)
    assert 0.04 <= tally.seconds < 0.3


def test_what_fails_is_counted_too():
    tally = Tally()
    with pytest.raises(ZeroDivisionError), tally.running():
        time.sleep(0.02)
        1 / 0  # noqa: B018 - the error is what is wanted
    assert tally.seconds >= 0.02


def test_each_lap_holds_the_time_since_the_one_before():
    tally = Tally()
    overhead = Overhead(time.monotonic() - 10.0, tally)
    with tally.running(), TIMED.running():
        time.sleep(0.02)
    with tally.running():
        time.sleep(0.05)
    first, second = overhead.lap(), overhead.lap()
    assert first["timing"] == pytest.approx(0.02, abs=0.02)
    assert first["building"] == pytest.approx(0.05, abs=0.03)
    assert first["choosing"] == pytest.approx(10.0, abs=0.5)
    assert sum(second.values()) < 0.1


def test_samples_of_a_point_are_timing_and_its_data_are_not():
    before = TIMED.seconds
    point = AttentionPoint(1, 1, 16, 2, 2, 16)
    begin = time.perf_counter()
    list(measure_attention(point, Precision.FP32, CPU, Effort(seconds=0.1)))
    assert 0.0 < TIMED.seconds - before < time.perf_counter() - begin
