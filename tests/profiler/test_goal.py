"""The error that was asked for: how many points it took, or may take."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.goal import Goal
from profiler.summary import summary


def noted(error, curve):
    goal = Goal(error)
    return [goal.note(*fit) for fit in curve], goal.text


def test_where_nothing_is_asked_for_nothing_ends_or_is_said():
    assert noted(0.0, [(100, 0.001), (200, 0.0)]) == ([False, False], "")


def test_a_goal_that_is_reached_tells_its_points():
    found, text = noted(0.05, [(300, 0.08), (1312, 0.049)])
    assert found == [False, True]
    assert text == "the asked error of 5.0% took 1,312 points"


def test_an_error_that_cannot_be_told_is_not_reached():
    found, text = noted(0.05, [(300, math.nan)])
    assert found == [False]
    assert text == "the asked error of 5.0% was not reached: it could not be told yet"


def test_a_falling_error_is_drawn_out_to_the_goal():
    curve = [(n, 2 / math.sqrt(n)) for n in (100, 200, 400)]
    assert noted(0.05, curve)[1] == (
        "the asked error of 5.0% was not reached: 10.0% with 400 points; it may take about 1,600"
    )


@pytest.mark.parametrize(
    "curve",
    [
        [(100, 0.2), (400, 0.1)],
        [(100, 0.2), (200, 0.2), (400, 0.2)],
        [(100, 0.1), (200, 0.15), (400, 0.2)],
        [(100, 0.2), (200, 0.1999), (400, 0.1998)],
    ],
)
def test_nothing_is_foreseen_from_too_little(curve):
    assert noted(0.05, curve)[1].endswith("points")


@given(
    st.floats(0.001, 0.5),
    st.lists(st.tuples(st.integers(1, 5000), st.floats(1e-4, 3.0)), min_size=1, max_size=9),
)
def test_what_is_foreseen_is_more_than_there_is(error, curve):
    goal = Goal(error)
    for points, found in curve:
        assert goal.note(points, found) == (found <= error)
    _, about, ahead = goal.text.partition("about ")
    if about:
        assert int(ahead.replace(",", "")) > curve[-1][0]


def test_the_summary_of_a_campaign_tells_it():
    lines = summary([], 0, {"too large": 2}, "nothing was measured", "the asked error took it all")
    assert lines.splitlines()[2:4] == [
        "the asked error took it all",
        "2 points were left out or made smaller:",
    ]
