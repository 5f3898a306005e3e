"""The fitted cost model prices operations: values, intervals, domain, bytes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.blobs import pack, unpack
from model.blocks import Attention
from model.cost_model import EngineTerms, FittedCostModel
from model.dimensions import architecture_of_dimensions
from model.estimate import Phase, Provenance
from model.execution import step_operations
from model.kernels import Kernel
from model.laws import REGIMES, Law, sizes_of
from model.operations import OperationKind, all_reduce, attention, embedding, linear
from model.overheads import Overheads
from model.precision import Precision
from model.regimes import RegimeLaws
from model.training import fit_cost_model
from model.workload import Parallelism, Sequences

SCORES = {phase: tuple(0.01 * i for i in range(1, 40)) for phase in Phase}
LAW = Law(0.01, 0.0, 1e-8, 1e-7, 2.0)
HEADS = Attention(query_heads=4, kv_heads=2, head_dim=32)


def kernels(precision=Precision.FP32, law=LAW):
    """Laws alone, measured between small and middling sizes."""
    measured = {
        OperationKind.LINEAR: [
            linear("x", 1, 32, 32, precision),
            linear("x", 512, 1024, 1024, precision),
        ],
        OperationKind.ATTENTION: [
            attention(1, 1, 1, HEADS, precision),
            attention(8, 512, 512, HEADS, precision),
        ],
    }
    made = {}
    for kind, rows in measured.items():
        spread = sizes_of(kind, rows).extent
        laws = RegimeLaws((law,) * REGIMES[kind])
        made[kind, precision] = Kernel(kind, laws, None, spread.min(axis=0), spread.max(axis=0))
    return made


def by_hand(corrections=(0.0, 0.0), scores=SCORES, precision=Precision.FP32):
    """A cost model whose every constant is known."""
    terms = EngineTerms(
        overheads=Overheads({"element_ms": 1e-5, "layer_ms": 0.2, "step_ms": 1.0}),
        correction=dict(zip(Phase, corrections, strict=True)),
        scores=scores,
    )
    return FittedCostModel(kernels(precision), {("transformers", precision): terms}, (), 7)


PLAIN = by_hand()


def law_ms(flops, moved):
    return 0.01 + np.hypot(1e-8 * flops, 1e-7 * moved)


@st.composite
def steps(draw):
    heads = draw(st.sampled_from([1, 2, 4]))
    architecture = architecture_of_dimensions(
        hidden_size=32 * heads,
        layer_count=draw(st.integers(1, 4)),
        query_heads=heads,
        intermediate_size=draw(st.integers(16, 2048)),
        vocab_size=draw(st.integers(16, 5000)),
    )
    query = draw(st.integers(1, 800))
    step = Sequences(
        count=draw(st.integers(1, 16)),
        query_tokens=query,
        kv_tokens=query + draw(st.integers(0, 900)),
    )
    return step_operations(
        architecture,
        (step,),
        Parallelism(),
        Precision.FP32,
        Precision.FP32,
        "transformers",
        first=draw(st.booleans()),
    )


phases = st.sampled_from(Phase)
confidences = st.floats(0.5, 0.999)


@pytest.fixture(scope="module")
def fitted(synthetic_device):
    """A cost model with trees, of two precisions."""
    rows = synthetic_device(seed=1).campaign(linears=12, attentions=44, models=3)
    other = synthetic_device(seed=2, precision=Precision.BF16).campaign(8, 16, 2)
    return fit_cost_model([*rows, *other])


def test_a_linear_is_its_law_times_its_runs():
    row = linear("x", 8, 64, 128, Precision.FP32, count=3)
    answer = PLAIN.estimate([row], Phase.DECODE, 0.9)
    assert answer.value_ms == pytest.approx(3 * law_ms(row.flops, row.bytes))
    assert answer.operations_ms == (answer.value_ms,)
    assert answer.outside == ()


def test_overheads_are_their_terms():
    answer = PLAIN.estimate([embedding(4, 32, Precision.FP32)], Phase.DECODE, 0.9)
    assert answer.value_ms == pytest.approx(1e-5 * 4 * 32)


def test_the_correction_of_the_phase_scales_everything():
    row = linear("x", 8, 64, 128, Precision.FP32)
    corrected = by_hand(corrections=(np.log(1.25), np.log(0.8)))
    for phase, factor in zip(Phase, (1.25, 0.8), strict=True):
        plain, other = (m.estimate([row], phase, 0.9) for m in (PLAIN, corrected))
        assert other.value_ms == pytest.approx(factor * plain.value_ms)


def test_the_interval_is_that_of_steps_held_out():
    row = linear("x", 8, 64, 128, Precision.FP32)
    answer = PLAIN.estimate([row], Phase.DECODE, 0.9)
    # Rank ceil(40 x 0.9) of 39 residuals 0.01, 0.02, ...
    assert answer.upper_ms == pytest.approx(answer.value_ms * np.exp(0.36))
    assert answer.lower_ms == pytest.approx(answer.value_ms * np.exp(-0.36))


def test_each_phase_has_its_own_interval():
    scores = {Phase.PREFILL: (0.5,) * 39, Phase.DECODE: (0.1,) * 39}
    row = linear("x", 8, 64, 128, Precision.FP32)
    model = by_hand(scores=scores)
    assert model.estimate([row], Phase.PREFILL, 0.9).upper_ms == pytest.approx(
        model.estimate([row], Phase.DECODE, 0.9).upper_ms * np.exp(0.4)
    )


@given(steps(), phases, confidences)
def test_an_interval_contains_the_value_and_the_value_is_its_operations(rows, phase, confidence):
    answer = PLAIN.estimate(rows, phase, confidence)
    assert 0 < answer.lower_ms <= answer.value_ms <= answer.upper_ms < np.inf
    assert sum(answer.operations_ms) == pytest.approx(answer.value_ms)
    assert len(answer.operations_ms) == len(rows)


@given(steps(), phases, confidences, confidences)
def test_more_confidence_is_never_narrower(rows, phase, one, other):
    low, high = sorted((one, other))
    narrow, wide = (PLAIN.estimate(rows, phase, c) for c in (low, high))
    assert wide.lower_ms <= narrow.lower_ms * (1 + 1e-9)
    assert narrow.upper_ms <= wide.upper_ms * (1 + 1e-9)


@given(steps(), steps(), phases)
def test_steps_add_up(one, other, phase):
    parts = [PLAIN.estimate(rows, phase, 0.9).value_ms for rows in (one, other)]
    assert PLAIN.estimate([*one, *other], phase, 0.9).value_ms == pytest.approx(sum(parts))


def test_outside_what_was_measured_the_interval_widens_and_the_operation_is_named():
    inside = linear("small", 8, 64, 128, Precision.FP32)
    widths = []
    for size in (1024, 8192, 65_536):
        outside = linear("large", 8, size, size, Precision.FP32)
        answer = PLAIN.estimate([inside, outside], Phase.DECODE, 0.9)
        widths.append(np.log(answer.upper_ms / answer.lower_ms))
        assert answer.outside == (() if size == 1024 else ("large",))
    assert widths == sorted(set(widths))


def test_a_small_share_outside_widens_less_than_a_large_one():
    far = linear("far", 8, 8192, 64, Precision.FP32)
    near = linear("near", 256, 1024, 1024, Precision.FP32, count=1000)
    alone, among = (PLAIN.estimate(rows, Phase.DECODE, 0.9) for rows in ([far], [far, near]))
    assert among.upper_ms / among.value_ms < alone.upper_ms / alone.value_ms
    assert among.outside == alone.outside == ("far",)


def test_what_was_never_measured_is_refused():
    never = [
        [linear("x", 1, 64, 64, Precision.FP8)],
        [embedding(1, 32, Precision.BF16)],
        [all_reduce(64, 2, Precision.FP32)],
        [linear("x", 1, 64, 64, Precision.FP32), attention(1, 1, 1, HEADS, Precision.FP8)],
    ]
    for rows in never:
        with pytest.raises(KeyError):
            PLAIN.estimate(rows, Phase.DECODE, 0.9)


def test_it_knows_what_it_holds():
    assert PLAIN.provenance is Provenance.MEASURED_LOCALLY
    assert PLAIN.precisions == (Precision.FP32,)
    assert PLAIN.engines == ("transformers",)
    assert PLAIN.supports(Precision.FP32, "transformers")
    assert not PLAIN.supports(Precision.BF16, "transformers")
    assert not PLAIN.supports(Precision.FP32, "vllm")


def test_doubt_without_trees_is_whole_and_more_outside():
    rows = [
        linear("x", 8, 64, 128, Precision.FP32),
        linear("x", 8, 65_536, 128, Precision.FP32),
        linear("x", 8, 64, 128, Precision.FP8),
        embedding(1, 32, Precision.FP32),
    ]
    doubts = PLAIN.doubt(rows)
    assert doubts[0] == doubts[2] == doubts[3] == 1.0
    assert doubts[1] > 1.0


# --- bytes ----------------------------------------------------------------------


@settings(max_examples=40)
@given(rows=steps(), phase=phases, confidence=confidences)
def test_a_cost_model_written_as_bytes_answers_the_same(fitted, rows, phase, confidence):
    read = _read_again(fitted)
    assert read.estimate(rows, phase, confidence) == fitted.estimate(rows, phase, confidence)


_READ = {}


def _read_again(cost_model):
    """Reads it once for all examples."""
    if id(cost_model) not in _READ:
        _READ[id(cost_model)] = FittedCostModel.from_bytes(cost_model.to_bytes())
    return _READ[id(cost_model)]


def test_bytes_hold_all_there_is(fitted):
    read = _read_again(fitted)
    assert read.scores == fitted.scores
    assert read.measurement_count == fitted.measurement_count
    assert read.precisions == fitted.precisions == (Precision.FP32, Precision.BF16)
    assert read.engines == fitted.engines
    assert read.to_bytes() == fitted.to_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b"{}",
        b'{"format": 4}',
        b'{"format": 4, "kernels": 3, "engines": [], "scores": [], "measurement_count": 1}',
        b'{"format": 4, "kernels": [{}], "engines": [], "scores": [], "measurement_count": 1}',
    ],
)
def test_bytes_that_are_no_cost_model_are_refused(data):
    with pytest.raises(ValueError, match=r".+"):
        FittedCostModel.from_bytes(data)


def test_launches_of_models_stored_before_they_could_overlap_are_added():
    data = unpack(PLAIN.to_bytes())
    del data["engines"][0]["power"]
    assert FittedCostModel.from_bytes(pack(data)).to_bytes() == PLAIN.to_bytes()


def test_bytes_of_another_format_say_what_to_do():
    data = unpack(PLAIN.to_bytes()) | {"format": 99}
    with pytest.raises(ValueError, match=r"format 99 .* fit it again"):
        FittedCostModel.from_bytes(pack(data))


def test_cut_bytes_are_refused(fitted):
    data = fitted.to_bytes()
    for share in (0.1, 0.5, 0.99):
        with pytest.raises(ValueError, match=r".+"):
            FittedCostModel.from_bytes(data[: int(share * len(data))])


def test_trees_of_another_release_are_refused(fitted):
    data = unpack(fitted.to_bytes())
    data["kernels"][0]["residual"]["trees"]["model"] = b"xxx" * 100
    with pytest.raises(ValueError, match="trees"):
        FittedCostModel.from_bytes(pack(data))


def test_a_transposed_linear_never_measured_is_priced_as_a_plain_one():
    sizes = (4, 64, 64, Precision.FP32)
    plain, transposed = (
        PLAIN.estimate([linear("x", *sizes, kind=kind)], Phase.DECODE, 0.9).value_ms
        for kind in (OperationKind.LINEAR, OperationKind.LINEAR_TRANSPOSED)
    )
    assert transposed == plain


def of_kernels(held):
    """A cost model of kernels in fp8."""
    terms = EngineTerms(
        overheads=Overheads({}), correction=dict.fromkeys(Phase, 0.0), scores=SCORES
    )
    return FittedCostModel(held, {("transformers", Precision.FP8): terms}, (), 7)


@pytest.mark.parametrize(
    ("measured", "asked"),
    [
        (OperationKind.LINEAR, OperationKind.LINEAR_PER_TENSOR),
        (OperationKind.LINEAR_PER_TENSOR, OperationKind.LINEAR),
        (OperationKind.LINEAR_PER_TENSOR, OperationKind.LINEAR_TRANSPOSED),
    ],
)
def test_linears_of_one_scaling_stand_in_for_those_of_another(measured, asked):
    held = kernels(Precision.FP8)
    kernel = held.pop((OperationKind.LINEAR, Precision.FP8))
    held[measured, Precision.FP8] = replace(kernel, kind=measured)
    fitted = of_kernels(held)
    own, other = (linear("x", 4, 64, 64, Precision.FP8, kind=kind) for kind in (measured, asked))
    assert fitted.holds(asked, Precision.FP8)
    assert fitted.estimate([other], Phase.DECODE, 0.9) == fitted.estimate([own], Phase.DECODE, 0.9)
    # Of another format they tell nothing.
    assert not fitted.holds(asked, Precision.BF16)


def test_linears_are_priced_by_their_own_scaling_where_both_were_measured():
    held = kernels(Precision.FP8)
    slower = kernels(Precision.FP8, LAW.scaled(3.0))[OperationKind.LINEAR, Precision.FP8]
    kind = OperationKind.LINEAR_PER_TENSOR
    held[kind, Precision.FP8] = replace(slower, kind=kind)
    fitted = of_kernels(held)
    per_row, per_tensor, transposed = (
        fitted.estimate([linear("x", 4, 64, 64, Precision.FP8, kind=it)], Phase.DECODE, 0.9)
        for it in (OperationKind.LINEAR, kind, OperationKind.LINEAR_TRANSPOSED)
    )
    assert per_tensor.value_ms == pytest.approx(3.0 * per_row.value_ms)
    assert transposed.value_ms == per_row.value_ms


@pytest.mark.parametrize(
    "kind", [OperationKind.STATIC_ATTENTION, OperationKind.PAGED_ATTENTION], ids=str
)
def test_attention_over_a_cache_never_measured_is_priced_as_the_growing_one(kind):
    heads = Attention(query_heads=4, kv_heads=2, head_dim=64)
    growing, other = (
        PLAIN.estimate([attention(2, 1, 90, heads, Precision.FP32, kind=each)], Phase.DECODE, 0.9)
        for each in (OperationKind.ATTENTION, kind)
    )
    assert other.value_ms == growing.value_ms > 0
    assert PLAIN.holds(kind, Precision.FP32)
