"""Of several candidates those are measured next that tell the cost model most."""

import pytest

from model.dimensions import architecture_of_dimensions
from model.precision import Precision
from model.training import fit_cost_model
from profiler.experts import ExpertsPoint
from profiler.models import ModelPoint
from profiler.operations import AttentionPoint, LinearPoint
from profiler.selection import most_telling
from profiler.wholes import ForwardPoint, GeneratePoint


@pytest.fixture(scope="module")
def cost_model(synthetic_device):
    return fit_cost_model(synthetic_device(seed=1).campaign(linears=12, attentions=44, models=3))


def model_point(hidden, context):
    architecture = architecture_of_dimensions(
        hidden_size=hidden,
        layer_count=2,
        query_heads=8,
        intermediate_size=2 * hidden,
        vocab_size=256,
    )
    return ModelPoint(architecture, (ForwardPoint(1, 1, context),), (GeneratePoint(1, 8, 4),))


NEAR_AND_FAR = [
    (LinearPoint(1024, 1024, (4, 40)), LinearPoint(100_000, 50_000, (4, 40))),
    (AttentionPoint(2, 1, 300, 8, 4, 64), AttentionPoint(2, 1, 500_000, 64, 64, 512)),
    (model_point(512, 200), model_point(32_768, 100_000)),
]


@pytest.mark.parametrize(("near", "far"), NEAR_AND_FAR, ids=["linear", "attention", "model"])
def test_what_is_far_from_all_measured_points_comes_first(cost_model, near, far):
    assert most_telling(cost_model, [near, far], Precision.FP32, 1) == [1]
    assert most_telling(cost_model, [far, near], Precision.FP32, 1) == [0]


def test_where_nothing_was_measured_all_are_equally_unsure(cost_model):
    candidates = [near for near, _ in NEAR_AND_FAR]
    assert sorted(most_telling(cost_model, candidates, Precision.BF16, 9)) == [0, 1, 2]


def test_each_kind_keeps_its_share(cost_model):
    linear, _ = NEAR_AND_FAR[0]
    new = ExpertsPoint(64, 32, 4, 8, 2, (1, 9))
    candidates = [linear, linear, linear, new, new, linear, linear, linear]
    found = most_telling(cost_model, candidates, Precision.FP32, 4)
    assert sum(candidates[index] is new for index in found) == 1


def test_what_was_taken_tells_nothing_a_second_time(cost_model):
    far = LinearPoint(100_000, 50_000, (4, 40))
    candidates = [far, far, LinearPoint(90_000, 256, (4, 40)), *[NEAR_AND_FAR[0][0]] * 3]
    found = most_telling(cost_model, candidates, Precision.FP32, 3)
    assert len({0, 1} & set(found[:2])) == 1


def test_a_precision_that_was_never_measured_leaves_more_doubt(cost_model):
    near, _ = NEAR_AND_FAR[0]
    known, unknown = (near.operations(p) for p in (Precision.FP32, Precision.BF16))
    doubts = cost_model.doubt([*known, *unknown])
    assert doubts[: len(known)].max() < doubts[len(known) :].min()
