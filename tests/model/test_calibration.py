"""Corrections on rows made from known laws."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.analytical import AnalyticalCostModel
from model.calibration import Correction, Observed, Point, deployment_of
from model.calibration_report import score_of
from model.composite import CompositeCostModel
from model.hardware import data_sheet
from model.inference import predict, with_latencies
from model.precision import PackedFormat, Precision
from model.presets import preset
from model.steps import Estimate, Question
from model.workload import Parallelism, Workload

LOADS = (1, 2, 4, 8, 16, 32, 64, 128)


def point(model="llama-3.1-8b", load=8, device="h100-sxm", engine="vllm", tensor=1, **sizes):
    question = Question(
        architecture=preset(model),
        workload=Workload(
            **{"input_tokens": 1024, "output_tokens": 256, "concurrency": load} | sizes
        ),
        parallelism=Parallelism(tensor=tensor),
        precision=Precision.BF16,
        kv_precision=Precision.BF16,
        engine=engine,
    )
    analytical = AnalyticalCostModel(data_sheet(device), engine)
    composite = CompositeCostModel(None, analytical, Precision.BF16, Precision.BF16, engine)
    inference = predict(question, composite, with_breakdown=True)
    return Point(deployment=deployment_of(question, device), question=question, inference=inference)


def observed(at, factor, figure="tpot_ms"):
    predicted = getattr(at.inference, figure)
    return Observed(point=at, predicted=predicted, measured=predicted.value * factor)


def corrected(correction, at, confidence=0.9):
    return correction.corrected(at, at.inference.tpot_ms, confidence)


def factor(correction, at):
    return corrected(correction, at).value / at.inference.tpot_ms.value


@pytest.fixture(scope="module")
def grid():
    return [point(load=load) for load in LOADS]


@given(st.floats(0.2, 5.0))
@settings(max_examples=30)
def test_a_factor_that_all_rows_share_is_learnt(shared):
    rows = [observed(point(load=load), shared) for load in LOADS[::2]]
    correction = Correction(rows, 0.9)
    assert factor(correction, point(load=16)) == pytest.approx(shared, rel=0.03)
    assert score_of("tpot", rows, correction).after.mean < 0.15 * abs(shared - 1) + 0.01


@given(st.floats(0.5, 2.0), st.floats(0.1, 10.0))
@settings(max_examples=30)
def test_other_units_change_nothing(shared, unit):
    """Prediction and measurement times one number: so is the answer."""
    at = [point(load=load) for load in LOADS[:4]]
    rows = [observed(it, shared * (1 + 0.1 * index)) for index, it in enumerate(at)]
    scaled = [
        replace(
            row,
            measured=row.measured * unit,
            predicted=Estimate(*(end * unit for end in row.predicted)),
        )
        for row in rows
    ]
    asked = point(load=64)
    other = Estimate(*(end * unit for end in asked.inference.tpot_ms))
    plain = corrected(Correction(rows, 0.9), asked)
    found = Correction(scaled, 0.9).corrected(asked, other, 0.9)
    assert found == pytest.approx([end * unit for end in plain], rel=1e-6)


def test_more_rows_move_the_answer_further_and_narrow_its_interval(grid):
    asked = point(load=24)
    shifts, widths = [], []
    for count in range(1, len(grid) + 1):
        found = corrected(Correction([observed(it, 1.5) for it in grid[:count]], 0.9), asked)
        shifts.append(found.value / asked.inference.tpot_ms.value)
        widths.append(found.upper / found.lower)
    gaps = [abs(math.log(shift / 1.5)) for shift in shifts]
    # Between rows the law may pass the factor by a hair.
    assert all(after < before + 0.005 for before, after in itertools.pairwise(gaps))
    assert 1.2 < shifts[0] < 1.4
    assert shifts[-1] == pytest.approx(1.5, rel=0.02)
    assert all(after < 1.01 * before for before, after in itertools.pairwise(widths))
    assert widths[-1] < 0.5 * widths[0]


def test_a_factor_that_changes_with_the_load_is_followed(grid):
    rows = [observed(it, 1 + 0.1 * math.log2(load)) for load, it in zip(LOADS, grid, strict=True)]
    correction = Correction(rows, 0.9)
    assert factor(correction, point(load=3)) == pytest.approx(1.158, rel=0.03)
    assert factor(correction, point(load=90)) == pytest.approx(1.649, rel=0.05)


def test_one_wild_row_does_not_take_the_others_along(grid):
    rows = [observed(it, 1.3) for it in grid]
    rows[3] = observed(grid[3], 30.0)
    correction = Correction(rows, 0.9)
    assert factor(correction, point(load=12)) == pytest.approx(1.3, rel=0.25)
    scores = correction.left_out.scores
    assert scores.argmax() == 3
    assert scores[3] > 4


def test_the_interval_is_wider_for_another_model_and_far_from_the_rows(grid):
    correction = Correction([observed(it, 1.3) for it in grid], 0.9)

    def width(at):
        found = corrected(correction, at)
        return found.upper / found.lower

    near = width(point(load=12))
    assert width(point("qwen3-32b", load=12)) > 1.5 * near
    assert width(point(load=12, input_tokens=100_000, tensor=8)) > 1.5 * near
    other = factor(correction, point("qwen3-32b", load=12))
    assert 1.0 < other < 1.3


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.99])
def test_more_confidence_is_a_wider_interval_around_the_same_value(grid, confidence):
    correction = Correction([observed(it, 1.3) for it in grid], 0.9)
    asked = point(load=12)
    less, more = (corrected(correction, asked, c) for c in (confidence, confidence + 0.009))
    assert less.value == more.value
    assert more.lower <= less.lower < less.value < less.upper <= more.upper


def test_rows_with_noise_lie_in_their_interval_as_often_as_it_says():
    rng = np.random.default_rng(0)
    rows = [
        observed(point(load=int(load), input_tokens=int(size)), 1.4 * math.exp(rng.normal(0, 0.1)))
        for load, size in zip(rng.integers(1, 128, 60), rng.integers(200, 4000, 60), strict=True)
    ]
    correction = Correction(rows, 0.9)
    assert 0.83 <= correction.coverage(0.9) <= 0.97
    score = score_of("tpot", rows, correction)
    assert score.before.median == pytest.approx(0.29, abs=0.04)
    assert score.after.median < 0.1


def test_a_trusted_prediction_is_moved_less_for_the_same_disagreement():
    at = point(load=8)
    row = observed(at, 1.5)
    narrow = Estimate(row.predicted.value, row.predicted.value / 1.05, row.predicted.value * 1.05)
    asked = point(load=64)
    loose = factor(Correction([row], 0.9), asked)
    tight = factor(Correction([replace(row, predicted=narrow)], 0.9), asked)
    assert 1.0 < tight < loose


def test_a_single_row_has_no_error_of_its_own(grid):
    rows = [observed(grid[0], 1.2)]
    score = score_of("tpot", rows, Correction(rows, 0.9))
    assert score.after is None
    assert score.before.mean == pytest.approx(1 - 1 / 1.2)


def test_one_model_under_two_names_is_one():
    base = point("deepseek-v3", tensor=8)
    same = point("deepseek-r1", tensor=8)
    assert base.deployment == same.deployment
    assert base.deployment != point("llama-3.1-8b").deployment


def test_a_checkpoint_whose_experts_have_another_format_is_the_same_model():
    stored = point("gpt-oss-120b")
    architecture = stored.question.architecture
    assert architecture.stored_experts is not None
    for experts in (None, PackedFormat(Precision.INT4, 0.5)):
        changed = replace(architecture, stored_experts=experts, stored_precision=Precision.FP8)
        question = replace(stored.question, architecture=changed)
        assert deployment_of(question, "h100-sxm") == stored.deployment


def test_what_follows_from_latencies_is_computed_anew():
    at = point(load=8)
    ttft, tpot = Estimate(100.0, 90.0, 120.0), Estimate(10.0, 9.0, 12.0)
    found = with_latencies(at.inference, at.question, ttft, tpot, ())
    assert found.request_latency_ms == Estimate(100 + 2550.0, 90 + 9 * 255.0, 120 + 12 * 255.0)
    assert found.tokens_per_second.value == pytest.approx(8 * 256 / 2.65)
    assert found.memory == at.inference.memory
