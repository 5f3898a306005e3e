"""int8 weights: the numerics against floats, and models that hold nothing else."""

import pytest
import torch
from torch import nn

from model.dimensions import architecture_of_dimensions
from model.operations import OperationKind
from model.precision import Precision
from model.shapes import operations_of
from profiler.device import Device
from profiler.int8 import Int8Linear, quantize
from profiler.models import ForwardPoint, GeneratePoint, ModelPoint, generate_once, measure_model
from profiler.modules import build_model
from profiler.operations import AttentionPoint, LinearPoint, measure_attention, measure_linear
from profiler.timing import Effort

CPU = Device("cpu", 1 << 16)
QUICK = Effort(seconds=0.0, min_samples=2, max_samples=2)
TINY = architecture_of_dimensions(
    name="tiny",
    hidden_size=64,
    layer_count=2,
    query_heads=4,
    kv_heads=2,
    intermediate_size=128,
    vocab_size=128,
    tied_embeddings=True,
)


def relative_error(found, exact):
    return float((found.float() - exact).norm() / exact.norm())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 64), (3, 64), (2, 5, 64)])
def test_a_linear_is_within_two_percent_of_floats(bias, shape):
    torch.manual_seed(0)
    linear = nn.Linear(64, 96, bias=bias)
    x = torch.randn(shape)
    exact = linear(x).detach()
    with torch.inference_mode():
        found = Int8Linear(linear.to(torch.bfloat16))(x.to(torch.bfloat16))
    assert found.shape == exact.shape
    assert relative_error(found, exact) < 0.02


def test_a_row_of_zeros_stays_zero():
    weight, scales = quantize(torch.zeros(2, 4))
    assert not weight.any()
    assert torch.isfinite(scales).all()


def test_a_model_holds_no_other_linear_and_generates():
    model = build_model(TINY, Precision.INT8_WEIGHT_ONLY, CPU)
    kinds = [type(module) for module in model.modules()]
    assert nn.Linear not in kinds
    assert kinds.count(Int8Linear) == 2 * 7 + 1
    first, steps, _ = generate_once(model, GeneratePoint(2, 5, 4), CPU)
    assert first > 0
    assert len(steps) == 3


def test_points_carry_the_precision_of_what_ran():
    (linear,) = measure_linear(LinearPoint(64, 32, (3,)), Precision.INT8_WEIGHT_ONLY, CPU, QUICK)
    assert linear.precision is Precision.INT8_WEIGHT_ONLY
    point = AttentionPoint(1, 1, 8, 4, 2, 16)
    (attention,) = measure_attention(point, Precision.INT8_WEIGHT_ONLY, CPU, QUICK)
    assert attention.precision is Precision.BF16
    whole = ModelPoint(TINY, (ForwardPoint(1, 1, 4),), ())
    (layer,) = measure_model(whole, Precision.INT8_WEIGHT_ONLY, CPU, QUICK)
    precisions = {o.kind: o.precision for o in operations_of(layer)}
    assert precisions[OperationKind.LINEAR] is Precision.INT8_WEIGHT_ONLY
    assert precisions[OperationKind.ATTENTION] is Precision.BF16
