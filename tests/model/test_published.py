"""Kernels that others measured make a cost model; a device without any borrows one."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import execution
from model.analytical import AnalyticalCostModel
from model.blobs import pack, unpack
from model.blocks import Experts, FeedForward
from model.collectives import Collective, fit_collective
from model.composite import CompositeCostModel
from model.cost_model import FittedCostModel
from model.errors import NotEnoughMeasurementsError
from model.estimate import Phase, Provenance
from model.hardware import data_sheet
from model.inference import predict
from model.laws import sizes_of
from model.measurement import Distribution, Measurement
from model.notices import foreign_notice
from model.operations import (
    OperationKind,
    all_reduce,
    embedding,
    experts,
    linear,
    point_to_point,
)
from model.overheads import TERMS
from model.precision import Precision
from model.presets import preset
from model.published import fit_published
from model.shapes import operations_of
from model.steps import Question
from model.transfer import TransferredCostModel, nearest
from model.workload import Parallelism, Workload

DEVICE = AnalyticalCostModel(data_sheet("h100-sxm"), "vllm")


def row(kind, shape, precision=Precision.BF16, group=""):
    def make(latency):
        return Measurement(
            kind=kind,
            precision=precision,
            engine="vllm",
            shape=shape,
            latency_ms=Distribution(median=latency, p10=latency, p90=latency, samples=1),
            group=group or str(shape),
        )

    (operation,) = operations_of(make(1.0))
    return make(1e3 * DEVICE.seconds(operation))


def rows():
    sizes = (512, 1024, 2048, 4096)
    found = [
        row("linear", {"m": m, "n": n, "k": k}, group=f"{n}x{k}")
        for m in (1, 2, 8, 64, 512)
        for n in sizes
        for k in sizes
    ]
    for tokens in (1, 8, 64, 512):
        for count in (8, 64):
            shape = {"tokens": tokens, "hidden_size": 1024, "intermediate_size": 512}
            shape |= {"local_experts": count, "experts": count, "top_k": 4}
            shape["touched"] = min(count, 4 * tokens)
            found.append(row("experts", shape, group=str(count)))
    messages = [(size, ranks) for ranks in (2, 8) for size in (1 << 10, 1 << 16, 1 << 22)]
    for kind in ("all_reduce", "all_gather"):
        found += [row(kind, {"message_bytes": s, "ranks": r}) for s, r in messages]
    return found + [row("point_to_point", {"message_bytes": s}) for s, _ in messages[:3]]


@pytest.fixture(scope="module")
def published():
    return FittedCostModel.from_bytes(fit_published(rows()).to_bytes())


def test_it_predicts_every_kind_and_says_whose_it_is(published):
    assert published.provenance is Provenance.REFERENCE_DATA
    assert published.precisions == (Precision.BF16,)
    assert published.engines == ()
    for kind in ("linear", "experts", "all_reduce", "all_gather", "point_to_point"):
        assert published.holds(OperationKind(kind), Precision.BF16)
    assert not published.holds(OperationKind.LAYER_OVERHEAD, Precision.BF16)
    measured = rows()
    operations = [operations_of(r)[0] for r in measured]
    step = published.estimate(operations, Phase.DECODE, 0.9)
    found = np.array(step.operations_ms) / np.array([r.latency_ms.median for r in measured])
    assert np.median(np.abs(found - 1)) < 0.1
    assert step.lower_ms < step.value_ms < step.upper_ms


@pytest.fixture
def brought_home(synthetic_device):
    """What a campaign measured elsewhere, layers and steps among it."""
    device = synthetic_device(precision=Precision.BF16)
    measured = device.campaign(linears=20, attentions=30, models=5)
    return device, FittedCostModel.from_bytes(fit_published(measured).to_bytes())


def test_layers_and_steps_give_their_engine_terms_and_no_other_one(brought_home):
    device, fitted = brought_home
    assert fitted.provenance is Provenance.REFERENCE_DATA
    assert fitted.engines == ("transformers",)
    assert {score.kind for score in fitted.scores} >= {"linear", "attention", "layer", "decode"}
    steps = [row for row in device.campaign(models=3) if row.kind == "decode"]
    assert np.median(fitted.errors_on(steps)) < 0.15
    operations = operations_of(steps[0])
    own, other = (
        fitted.estimate(operations, Phase.DECODE, 0.9, engine)
        for engine in ("transformers", "vllm")
    )
    for operation, here, elsewhere in zip(
        operations, own.operations_ms, other.operations_ms, strict=True
    ):
        if operation.kind in TERMS:
            assert elsewhere == 0.0
            assert here >= 0.0
    overhead = [o.kind is OperationKind.STEP_OVERHEAD for o in operations].index(True)
    assert own.operations_ms[overhead] > 0.0


def test_an_engine_that_was_not_measured_keeps_its_coefficients(brought_home):
    _, fitted = brought_home
    analytical = AnalyticalCostModel(data_sheet("h200-sxm"), "vllm")
    composite = CompositeCostModel(fitted, analytical, Precision.BF16, Precision.BF16, "vllm")
    one = [embedding(8, 4096, Precision.BF16)]
    priced = composite.estimate(one, Phase.DECODE, 0.9).value_ms
    guessed = analytical.beside_measured_kernels().estimate(one, Phase.DECODE, 0.9).value_ms
    assert priced == guessed > 0.0
    borrowed = TransferredCostModel(fitted, data_sheet("h200-sxm"), data_sheet("h100-sxm"))
    assert not borrowed.supports(Precision.BF16, "transformers")


def test_what_a_stage_hands_on_is_priced_as_measured_or_by_the_link(published):
    analytical = AnalyticalCostModel(data_sheet("h200-sxm"), "vllm")
    handed = [point_to_point(1 << 15, Precision.BF16, count=3)]

    def ms(fitted):
        composite = CompositeCostModel(fitted, analytical, Precision.BF16, Precision.BF16, "vllm")
        return composite.estimate(handed, Phase.DECODE, 0.9).value_ms

    without = [one for one in rows() if one.kind != "point_to_point"]
    # As measured on the H100, and at the H200's link.
    assert ms(published) == pytest.approx(3e3 * DEVICE.seconds(handed[0]), rel=0.01)
    assert ms(fit_published(without)) == ms(None)


def foreign(fitted, operations, engine="vllm"):
    """What an answer says of kernels of other engines, empty where it says nothing."""
    analytical = AnalyticalCostModel(data_sheet("h100-sxm"), engine)
    composite = CompositeCostModel(fitted, analytical, Precision.BF16, Precision.BF16, engine)
    found = composite.foreign(operations)
    return foreign_notice(found, engine).text if found else ""


def test_another_engines_kernels_are_named_where_they_are_asked_for():
    """Tables that lack experts have another engine's, and an all-reduce is NCCL's for all."""
    ran = {"experts": "sglang", "all_reduce": "nccl"}
    measured = [replace(one, engine=ran.get(one.kind, one.engine)) for one in rows()]
    fitted = FittedCostModel.from_bytes(fit_published(measured).to_bytes())
    dense = [linear("x", 8, 512, 512, Precision.BF16), all_reduce(64, 2, Precision.BF16)]
    block = Experts(expert=FeedForward(intermediate_size=512), count=8, top_k=4)
    routed = [*dense, experts(8, 1024, block, Precision.BF16)]
    assert foreign(fitted, dense) == ""
    assert "experts in bf16 (sglang)" in foreign(fitted, routed)
    assert "linear" not in foreign(fitted, routed)
    # All that an engine without tables is answered by is another's.
    assert "linear in bf16 (vllm)" in foreign(fitted, dense, "trtllm")
    assert "linear in bf16 (vllm)" in foreign(fitted, routed, "sglang")
    assert "experts" not in foreign(fitted, routed, "sglang")
    sheet = data_sheet("h100-pcie")
    borrowed = TransferredCostModel(fitted, data_sheet("h100-sxm"), sheet)
    assert "experts in bf16 (sglang)" in foreign(borrowed, routed)


def test_a_cost_model_stored_before_that_was_kept_loads_and_says_nothing(published):
    stored = unpack(published.to_bytes())
    for kernel in stored["kernels"]:
        assert kernel.pop("engines") == ["vllm"]
    old = FittedCostModel.from_bytes(pack(stored))
    assert foreign(old, [linear("x", 8, 512, 512, Precision.BF16)], "sglang") == ""


def test_collectives_hold_for_any_precision(published):
    assert published.holds(OperationKind.ALL_REDUCE, Precision.FP8_BLOCK)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP32, Precision.FP4])
def test_what_is_held_in_any_precision_is_priced_without_linears_of_it(published, precision):
    composite = CompositeCostModel(published, DEVICE, precision, precision.activation, "vllm")
    step = [linear("qkv", 8, 1024, 1024, precision), all_reduce(1 << 20, 2, precision)]
    found = composite.estimate(step, Phase.DECODE, 0.9)
    assert 0 < found.lower_ms < found.value_ms < found.upper_ms
    assert found.operations_ms[1] == pytest.approx(
        published.estimate(step[1:], Phase.DECODE, 0.9).value_ms
    )
    assert composite.provenance_of(step) is Provenance.ANALYTICAL


def test_ranks_that_share_no_link_are_priced_by_the_network(published):
    composite = CompositeCostModel(published, DEVICE, Precision.BF16, Precision.BF16, "vllm")
    within, beyond = ([all_reduce(1 << 24, ranks, Precision.BF16)] for ranks in (8, 16))
    near, far = (composite.estimate(it, Phase.PREFILL, 0.9).value_ms for it in (within, beyond))
    assert near == published.estimate(within, Phase.PREFILL, 0.9).value_ms
    assert far == DEVICE.beside_measured_kernels().estimate(beyond, Phase.PREFILL, 0.9).value_ms
    assert composite.provenance_of(within) is Provenance.REFERENCE_DATA
    assert composite.provenance_of(beyond) is Provenance.ANALYTICAL


@pytest.mark.parametrize("count", [0, 1, 7])
def test_without_linears_enough_for_a_law_there_is_no_cost_model(count):
    linears = [r for r in rows() if r.kind == "linear"][:count]
    others = [r for r in rows() if r.kind == "experts"]
    said = f"the 8 linear points.*: {count} are there, {8 - count} are missing; measure more"
    with pytest.raises(NotEnoughMeasurementsError, match=said):
        fit_published([*others, *linears, *linears])  # the same sizes again tell nothing


def test_a_precision_with_too_few_linears_is_left_to_physics():
    few = [replace(r, precision=Precision.FP8) for r in rows() if r.kind == "linear"][:8]
    enough, lacking = fit_published([*rows(), *few]), fit_published([*rows(), *few[:7]])
    assert enough.holds(OperationKind.LINEAR, Precision.FP8)
    assert not lacking.holds(OperationKind.LINEAR, Precision.FP8)
    assert lacking.holds(OperationKind.LINEAR, Precision.BF16)
    assert lacking.measurement_count == len(rows())


def per_tensor(count=None):
    """Linears in fp8 with one scale for all weights, at sizes from one row to a prompt."""
    linears = [r for r in rows() if r.kind == "linear"]
    return [replace(r, kind="linear_per_tensor", precision=Precision.FP8) for r in linears[:count]]


def test_linears_scaled_per_tensor_are_linears_of_their_precision():
    """Where they alone were brought, all engines are priced by them, and too few are too few."""
    enough, lacking = (
        fit_published([*rows(), *per_tensor()]),
        fit_published([*rows(), *per_tensor(7)]),
    )
    for kind in (OperationKind.LINEAR, OperationKind.LINEAR_PER_TENSOR):
        assert enough.holds(kind, Precision.FP8)
        assert not lacking.holds(kind, Precision.FP8)
    assert enough.prices(Precision.FP8)
    assert lacking.measurement_count == len(rows())
    alone = fit_published(per_tensor())
    assert alone.precisions == (Precision.FP8,)


def llama_in_fp8(fitted, engine):
    """The prediction of Llama 3.1 8B in fp8 under load on two ranks of an H100."""
    question = Question(
        architecture=preset("llama-3.1-8b"),
        workload=Workload(input_tokens=700, output_tokens=90, concurrency=6),
        parallelism=Parallelism(tensor=2),
        precision=Precision.FP8,
        kv_precision=Precision.BF16,
        engine=engine,
        confidence=0.9,
    )
    analytical = AnalyticalCostModel(data_sheet("h100-sxm"), engine)
    composite = CompositeCostModel(fitted, analytical, Precision.FP8, Precision.BF16, engine)
    return predict(question, composite, with_breakdown=True)


@pytest.fixture(scope="module")
def of_rows():
    """What published tables hold: fp8 that is not told apart."""
    eighths = [row(r.kind, r.shape, Precision.FP8, r.group) for r in rows() if r.kind == "linear"]
    return [*rows(), *eighths]


@pytest.fixture(scope="module")
def fitted_of_rows(of_rows):
    return fit_published(of_rows)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("measured", [True, False], ids=["tables", "physics"])
def test_tables_that_tell_no_scalings_apart_predict_to_the_digit_what_they_did(
    monkeypatch, fitted_of_rows, engine, measured
):
    fitted = fitted_of_rows if measured else None
    found = llama_in_fp8(fitted, engine)
    assert "linear_per_tensor" in {cost.kind for cost in found.breakdown}
    as_before = replace(execution.projections_of(preset("llama-3.1-8b"), engine), per_tensor=False)
    monkeypatch.setattr(execution, "_FUSED_PAGED", as_before)
    before = llama_in_fp8(fitted, engine)
    assert "linear_per_tensor" not in {cost.kind for cost in before.breakdown}
    # But for the name of the kind, in the breakdown and in what is said of it.
    named = (
        replace(
            it,
            breakdown=tuple(replace(cost, kind=OperationKind.LINEAR) for cost in it.breakdown),
            notices=tuple(notice.code for notice in it.notices),
        )
        for it in (found, before)
    )
    assert next(named) == next(named)


def test_a_device_that_tells_scalings_apart_predicts_serving_engines_by_their_own(
    of_rows, fitted_of_rows
):
    def slower(r, factor):
        spread = replace(r.latency_ms, median=factor * r.latency_ms.median)
        return replace(r, latency_ms=spread)

    both = fit_published([*of_rows, *(slower(r, 3.0) for r in per_tensor())])
    for engine in ("vllm", "torch", "transformers"):
        own, other = (llama_in_fp8(it, engine).tpot_ms.value for it in (both, fitted_of_rows))
        assert own > 1.5 * other if engine == "vllm" else own == other


curves = {2: ((1e3, 1e6), (0.01, 0.1)), 8: ((1e3, 1e6), (0.02, 0.4))}


def time_of(message, ranks):
    sizes = sizes_of(OperationKind.ALL_REDUCE, [all_reduce(message / 2, ranks, Precision.BF16)])
    return float(Collective(OperationKind.ALL_REDUCE, curves).latency_ms(sizes)[0])


def test_collectives_pass_through_their_points_and_follow_the_bandwidth_beyond():
    assert time_of(1e3, 2) == pytest.approx(0.01)
    assert time_of(1e6, 8) == pytest.approx(0.4)
    assert time_of(3e7, 8) == pytest.approx(12.0)
    assert time_of(10, 2) == pytest.approx(0.01)


@given(
    small=st.floats(2, 1e9), factor=st.floats(1, 1e3), ranks=st.sampled_from([2, 3, 4, 8, 16, 64])
)
def test_a_larger_message_is_never_faster(small, factor, ranks):
    assert time_of(small * factor, ranks) >= time_of(small, ranks) * (1 - 1e-9)


def test_equal_messages_count_by_their_median():
    one = all_reduce(512, 2, Precision.BF16)
    sizes = sizes_of(OperationKind.ALL_REDUCE, [one, one, one])
    fitted = fit_collective(OperationKind.ALL_REDUCE, sizes, np.array([1.0, 2.0, 9.0]))
    assert fitted.latency_ms(sizes) == pytest.approx(2.0)
    assert Collective.from_json(fitted.to_json()).curves == fitted.curves


def test_the_nearest_device_is_of_its_kind():
    sheets = [data_sheet(name) for name in ("a100-sxm", "h100-sxm", "l40s")]
    assert nearest(data_sheet("h100-pcie"), sheets).name == "h100-sxm"
    assert nearest(data_sheet("a100-sxm-40gb"), sheets).name == "a100-sxm"
    assert nearest(data_sheet("h100-pcie"), [data_sheet("cpu")]) is None


def test_a_borrowed_cost_model_is_scaled_and_wider(published):
    source, target = data_sheet("h100-sxm"), data_sheet("h100-pcie")
    borrowed = TransferredCostModel(published, source, target)
    assert borrowed.provenance is Provenance.TRANSFERRED
    big = operations_of(row("linear", {"m": 1, "n": 4096, "k": 4096}))
    own, other = (model.estimate(big, Phase.DECODE, 0.9) for model in (published, borrowed))
    assert other.value_ms > own.value_ms
    assert other.upper_ms / other.value_ms > own.upper_ms / own.value_ms
    far = TransferredCostModel(published, source, data_sheet("l40s"))
    further = far.estimate(big, Phase.DECODE, 0.9)
    assert further.upper_ms / further.value_ms > other.upper_ms / other.value_ms
    assert borrowed.prices(Precision.BF16)
    assert not borrowed.prices(Precision.INT4)


def test_a_sheet_without_rates_in_common_is_no_neighbour():
    assert nearest(SimpleNamespace(kind="cuda", name="x"), []) is None
