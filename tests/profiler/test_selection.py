"""Of several candidates the one is measured next that the cost model knows least of."""

import pytest

from model.dimensions import architecture_of_dimensions
from model.precision import Precision
from model.training import fit_cost_model
from profiler.experts import ExpertsPoint
from profiler.latent import BatchedLinearPoint, LatentPoint
from profiler.models import ModelPoint
from profiler.operations import AttentionPoint, LinearPoint
from profiler.selection import least_sure
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
    assert least_sure(cost_model, [near, far, near], Precision.FP32) == 1
    assert least_sure(cost_model, [far, near, near], Precision.FP32) == 0


def test_where_nothing_was_measured_all_are_equally_unsure(cost_model):
    candidates = [near for near, _ in NEAR_AND_FAR]
    assert least_sure(cost_model, candidates, Precision.BF16) == 0


def test_experts_and_latents_never_measured_are_doubted_all_alike(cost_model):
    new = [
        ExpertsPoint(64, 32, 4, 8, 2, (1, 9)),
        LatentPoint(1, 1, 90, 4, 32, 8, 16, 16),
        BatchedLinearPoint(32, 16, 4, (1, 9)),
    ]
    known, _ = NEAR_AND_FAR[0]
    for point in new:
        assert least_sure(cost_model, [known, point, point], Precision.FP32) == 1


def test_a_precision_that_was_never_measured_leaves_more_doubt(cost_model):
    near, _ = NEAR_AND_FAR[0]
    assert least_sure(cost_model, [near], Precision.FP32) == 0
    operations = [
        *_linears(near, Precision.FP32),
        *_linears(near, Precision.BF16),
    ]
    doubts = cost_model.doubt(operations)
    assert doubts[: len(near.rows)].max() < doubts[len(near.rows) :].min()


def _linears(point, precision):
    from model.operations import linear

    return [linear("linear", m, point.n, point.k, precision) for m in point.rows]
