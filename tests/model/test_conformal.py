"""Half-widths cover what they promise on data that is exchangeable."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.conformal import coverage, half_width

residuals = st.lists(st.floats(0.0, 10.0), min_size=1, max_size=80).map(sorted)
confidences = st.floats(0.5, 0.999)


@given(residuals, confidences, confidences)
def test_more_confidence_is_never_narrower(scores, one, other):
    low, high = sorted((one, other))
    assert half_width(scores, low) <= half_width(scores, high) * (1 + 1e-9)


@given(residuals, confidences, st.floats(0.0, 1e3))
def test_residuals_in_another_unit_scale_the_width(scores, confidence, unit):
    scaled = half_width([unit * s for s in scores], confidence)
    assert scaled == pytest.approx(unit * half_width(scores, confidence))


@given(residuals, confidences, st.data())
def test_a_larger_residual_never_narrows_the_interval(scores, confidence, data):
    index = data.draw(st.integers(0, len(scores) - 1))
    grown = sorted([*scores[:index], scores[index] + 1.0, *scores[index + 1 :]])
    assert half_width(grown, confidence) >= half_width(scores, confidence)


def test_the_rank_is_that_of_split_conformal_prediction():
    scores = [float(i) for i in range(1, 100)]
    assert half_width(scores, 0.9) == 90.0
    assert half_width(scores, 0.5) == 50.0
    assert half_width(scores[:9], 0.9) == 9.0


@pytest.mark.parametrize("count", [1, 3, 8])
def test_beyond_what_few_residuals_can_tell_the_largest_is_stretched(count):
    scores = [float(i) for i in range(1, count + 1)]
    widths = [half_width(scores, confidence) for confidence in (0.9, 0.95, 0.99, 0.999)]
    assert widths[0] > scores[-1]
    assert widths == sorted(set(widths))
    assert np.isfinite(widths[-1])


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("count", [8, 60])
def test_a_further_point_is_covered_as_often_as_promised(confidence, count):
    rng = np.random.default_rng(count)
    draws = np.sort(np.abs(rng.standard_normal((4_000, count))), axis=1)
    further = np.abs(rng.standard_normal(4_000))
    held = np.mean([f <= half_width(s, confidence) for s, f in zip(draws, further, strict=True)])
    assert held >= confidence - 0.02
    if count > 1 / (1 - confidence):
        assert held <= confidence + 1 / (count + 1) + 0.02


def test_coverage_of_exchangeable_groups_is_what_was_asked():
    rng = np.random.default_rng(0)
    groups = [np.abs(rng.standard_normal(10)) for _ in range(60)]
    assert coverage(groups, 0.9) == pytest.approx(0.9, abs=0.03)


def test_a_group_is_not_covered_by_its_own_residuals():
    assert coverage([np.full(10, 1.0), np.full(10, 5.0)], 0.9) == 0.5


def test_every_residual_counts_once():
    groups = [np.array([1.0, 1.0, 1.0]), np.array([9.0])]
    assert coverage(groups, 0.5) == 0.75
