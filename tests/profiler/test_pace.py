"""The pace: slow laps are told from usual ones, and a GPU has none."""

from profiler import pace as module
from profiler.device import Device
from profiler.pace import Pace

CPU = Device("cpu", 1 << 20)


def test_an_even_pace_is_not_slow(monkeypatch):
    pace = Pace(CPU)
    monkeypatch.setattr(pace, "_time", lambda _: 1.0)
    assert not any(pace.lap() for _ in range(20))


def test_a_slow_lap_marks_what_lies_on_both_sides(monkeypatch):
    pace = Pace(CPU)
    times = iter([1.0] * 20 + [1.5] * 2 + [1.0] * 20)
    monkeypatch.setattr(pace, "_time", lambda _: next(times))
    found = [pace.lap() for _ in range(16)]
    assert found == [False] * 10 + [True, True] + [False] * 4


def test_the_first_laps_say_nothing(monkeypatch):
    pace = Pace(CPU)
    times = iter([1.0, 1.0, 9.0, 9.0])
    monkeypatch.setattr(pace, "_time", lambda _: next(times))
    assert [pace.lap(), pace.lap()] == [False, False]


def test_products_are_really_timed():
    pace = Pace(CPU)
    assert 0 < pace._time(2) < pace._time(module._ROWS[1]) * 50


def test_a_gpu_has_no_neighbours():
    pace = Pace(Device("cuda:0", 1 << 20))
    assert not any(pace.lap() for _ in range(10))
