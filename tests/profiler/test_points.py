"""Every kind of point: what it measures is what it is priced by, and is not measured twice."""

import pytest

from model.dimensions import architecture_of_dimensions
from model.measurement import Measurement
from model.operations import OperationKind
from model.precision import Precision
from model.shapes import operations_of
from profiler.device import Device
from profiler.experts import ExpertsPoint
from profiler.latent import BatchedLinearPoint, LatentPoint
from profiler.models import ModelPoint
from profiler.operations import AttentionPoint, LinearPoint
from profiler.paged_attention import PagedAttentionPoint
from profiler.points import Measured
from profiler.static_attention import StaticAttentionPoint
from profiler.wholes import ForwardPoint, GeneratePoint

CPU = Device("cpu", 1 << 16)
SMALL = architecture_of_dimensions(
    name="small",
    hidden_size=32,
    layer_count=2,
    query_heads=4,
    intermediate_size=64,
    vocab_size=128,
)
ALONE = [
    LinearPoint(64, 32, (1, 4)),
    LinearPoint(64, 32, (1, 4), OperationKind.LINEAR_TRANSPOSED),
    AttentionPoint(2, 1, 30, 4, 2, 16),
    StaticAttentionPoint(2, 1, 30, 4, 2, 16),
    PagedAttentionPoint(2, 1, 30, 4, 2, 16),
    ExpertsPoint(64, 32, 4, 8, 2, (1, 9)),
    ExpertsPoint(64, 32, 4, 8, 2, (1, 9), 1.2),
    LatentPoint(1, 1, 90, 4, 32, 8, 16, 16),
    BatchedLinearPoint(32, 16, 4, (1, 9)),
]
MODEL = ModelPoint(
    SMALL, (ForwardPoint(1, 1, 9),), (GeneratePoint(1, 8, 4), GeneratePoint(2, 8, 3))
)


@pytest.fixture(scope="module")
def rows():
    """What was measured of each point in fp32."""
    points = [*ALONE, MODEL]
    return {point: list(point.measure(Precision.FP32, CPU)) for point in points}


@pytest.mark.parametrize("point", ALONE, ids=lambda point: point.group)
def test_what_is_measured_is_what_is_priced(rows, point):
    assert all(isinstance(row, Measurement) for row in rows[point])
    measured = [operation for row in rows[point] for operation in operations_of(row)]
    priced = point.operations(Precision.FP32)
    assert [(o.kind, o.shape, o.precision, o.flops, o.bytes) for o in measured] == [
        (o.kind, o.shape, o.precision, o.flops, o.bytes) for o in priced
    ]


@pytest.mark.parametrize("point", [*ALONE, MODEL], ids=lambda point: point.group)
def test_a_point_is_measured_once_all_of_it_is(rows, point):
    others = [row for other, found in rows.items() if other is not point for row in found]
    assert not point.is_measured(Precision.FP32, Measured(others))
    assert not point.is_measured(Precision.FP32, Measured([*others, *rows[point][:-1]]))
    assert point.is_measured(Precision.FP32, Measured(rows[point]))
    assert not point.is_measured(Precision.BF16, Measured(rows[point]))


def halvings(point, rows=()):
    """All that a point can be made, the largest first."""
    while (point := point.halved(Precision.FP32, Measured(rows))) is not None:
        yield point


@pytest.mark.parametrize("point", [*ALONE, MODEL], ids=lambda point: point.group)
def test_a_point_gets_smaller_until_nothing_is_left(rows, point):
    smaller = list(halvings(point))
    assert 1 <= len(smaller) <= 8
    assert {it.group for it in smaller} == {point.group}
    assert len({it.sizes for it in (point, *smaller)}) == len(smaller) + 1
    need = [it.needed_bytes(Precision.FP32, CPU) for it in (point, *smaller)]
    assert need == sorted(need, reverse=True)
    found = list(smaller[0].measure(Precision.FP32, CPU))
    assert point.halved(Precision.FP32, Measured(found)) is None


def test_sequences_are_halved_first_and_a_whole_prompt_stays_one():
    sizes = [
        (it.sequences, it.query_tokens, it.kv_tokens)
        for it in halvings(AttentionPoint(5, 8, 8, 4, 2, 16))
    ]
    assert sizes == [(2, 8, 8), (1, 8, 8), (1, 4, 4), (1, 2, 2), (1, 1, 1)]
    decode = [it.kv_tokens for it in halvings(AttentionPoint(1, 1, 9, 4, 2, 16))]
    assert decode == [4, 2, 1]


def test_no_rows_are_beyond_half_of_the_most_and_the_others_stay():
    rows = [it.rows for it in halvings(LinearPoint(64, 32, (1, 2, 5, 33)))]
    assert rows == [(1, 2, 5, 16), (1, 2, 5, 8), (1, 2, 4), (1, 2), (1,)]


def test_of_a_model_the_widest_passes_are_halved_and_what_is_measured_is_left_out(rows):
    wide = ForwardPoint(4, 1, 64, decoding=3, decoding_kv_tokens=20)
    point = ModelPoint(
        SMALL, (ForwardPoint(1, 1, 9), wide), (GeneratePoint(1, 8, 4), GeneratePoint(40, 8, 3))
    )
    smaller = next(halvings(point))
    assert smaller.held_tokens <= point.held_tokens // 2
    assert smaller.forwards == (ForwardPoint(1, 1, 9), ForwardPoint(2, 1, 64, 1, 20))
    assert smaller.generates == (GeneratePoint(1, 8, 4), GeneratePoint(20, 8, 3))
    left = next(halvings(point, rows[MODEL]))
    assert left.forwards == smaller.forwards[1:]
    assert left.generates == smaller.generates[1:]


def test_linears_in_fp8_are_measured_and_priced_by_their_scaling():
    per_row, per_tensor = (
        LinearPoint(64, 32, (1, 4), kind)
        for kind in (OperationKind.LINEAR, OperationKind.LINEAR_PER_TENSOR)
    )
    for point, other in ((per_row, per_tensor), (per_tensor, per_row)):
        found = list(point.measure(Precision.FP8, CPU))
        priced = [operation for row in found for operation in operations_of(row)]
        assert [o.kind for o in priced] == [point.kind] * 2
        assert [(o.shape, o.bytes) for o in priced] == [
            (o.shape, o.bytes) for o in point.operations(Precision.FP8)
        ]
        assert point.is_measured(Precision.FP8, Measured(found))
        assert not other.is_measured(Precision.FP8, Measured(found))
        assert point.group != other.group


def test_what_holds_no_weights_is_measured_in_all_precisions_of_one_activation():
    point, weights = AttentionPoint(2, 1, 30, 4, 2, 16), LinearPoint(64, 32, (1,))
    for it in (point, weights):
        measured = Measured(it.measure(Precision.BF16, CPU))
        shared = it.is_measured(Precision.INT8_WEIGHT_ONLY, measured)
        assert shared is (it is point)


def test_a_model_is_priced_by_the_kernels_of_its_passes():
    longer = ModelPoint(SMALL, (ForwardPoint(1, 1, 9), ForwardPoint(1, 1, 90)), MODEL.generates)
    short, both = (point.operations(Precision.FP32) for point in (MODEL, longer))
    assert both[: len(short)] == short
    assert len(both) == 2 * len(short)
    assert {operation.kind.value for operation in both} == {"linear", "attention"}
