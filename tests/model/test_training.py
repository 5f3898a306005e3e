"""The fit finds known physics again at shapes that it never saw, and says how sure it is."""

from dataclasses import replace

import numpy as np
import pytest

from model.analytical import AnalyticalCostModel
from model.blobs import unpack
from model.composite import CompositeCostModel
from model.cost_model import FittedCostModel
from model.dimensions import architecture_of_dimensions
from model.errors import NotEnoughMeasurementsError
from model.estimate import Phase
from model.execution import step_operations
from model.hardware import data_sheet
from model.measurement import LONGEST_MS, Distribution, Measurement
from model.operations import LINEARS, OperationKind, all_reduce, linear
from model.precision import Precision
from model.training import fit_cost_model
from model.workload import Parallelism, Sequences

KINDS = ("linear", "attention", "layer", "prefill", "decode")


def step(architecture, count, query, kv, precision=Precision.FP32, engine="transformers"):
    return step_operations(
        architecture,
        (Sequences(count=count, query_tokens=query, kv_tokens=kv),),
        Parallelism(),
        precision,
        precision,
        engine,
        first=query > 1,
    )


STEPS = [
    (Phase.DECODE, (1, 1, 80)),
    (Phase.DECODE, (4, 1, 500)),
    (Phase.PREFILL, (1, 64, 64)),
    (Phase.PREFILL, (2, 200, 200)),
]


def unseen_steps(device, count=15):
    """Steps of architectures that no measurement is of, with the device's true latency."""
    for index in range(count):
        architecture = device.architecture(f"unseen-{index}")
        for phase, sizes in STEPS:
            operations = step(architecture, *sizes, device.precision)
            yield phase, operations, device.truth(operations)


@pytest.fixture(scope="module")
def rows(synthetic_device):
    return synthetic_device(seed=0).campaign(linears=30, attentions=80, models=8)


@pytest.fixture(scope="module")
def cost_model(rows):
    return fit_cost_model(rows)


@pytest.fixture(scope="module")
def few(synthetic_device):
    """Rows so few that they are fitted in no time."""
    return synthetic_device(seed=7).campaign(linears=8, attentions=16, models=4)


@pytest.fixture(scope="module")
def few_fitted(few):
    return fit_cost_model(few)


def test_steps_of_unseen_architectures_are_predicted(synthetic_device, cost_model):
    errors = {phase: [] for phase in Phase}
    for phase, operations, truth in unseen_steps(synthetic_device(seed=99)):
        value = cost_model.estimate(operations, phase, 0.9).value_ms
        errors[phase].append(abs(value / truth - 1))
    for phase in Phase:
        assert np.median(errors[phase]) < 0.04, phase
        assert np.max(errors[phase]) < 0.20, phase


def test_intervals_hold_on_unseen_architectures(synthetic_device, cost_model):
    device = synthetic_device(seed=98)
    held = []
    for phase, operations, truth in unseen_steps(device, 30):
        answer = cost_model.estimate(operations, phase, 0.9)
        measured = truth * np.exp(device.noise * device.rng.normal())
        held.append(answer.lower_ms <= measured <= answer.upper_ms)
    assert np.mean(held) >= 0.85


def test_linears_of_unseen_shapes_are_predicted(synthetic_device, cost_model):
    device = synthetic_device(seed=97)
    errors = []
    for _ in range(60):
        m, n, k = (
            int(v)
            for v in np.exp(device.rng.uniform(np.log((1, 150, 150)), np.log((300, 3000, 3000))))
        )
        row = linear("x", m, n, k, Precision.FP32)
        errors.append(
            abs(cost_model.estimate([row], Phase.DECODE, 0.9).value_ms / device.true_ms(row) - 1)
        )
    assert np.median(errors) < 0.03
    assert np.quantile(errors, 0.95) < 0.12


def test_every_kind_is_scored_on_whole_groups_held_out(rows, cost_model):
    assert {score.kind for score in cost_model.scores} == set(KINDS)
    for score in cost_model.scores:
        same = [row for row in rows if row.kind == score.kind]
        assert (score.rows, score.groups) == (len(same), len({row.group for row in same}))
        assert 0 < score.median_error <= score.p90_error < 0.15
        assert score.median_error < 0.05
        assert 0.75 <= score.coverage <= 1.0


def test_more_noise_is_reported_as_more_error_and_wider_intervals(synthetic_device):
    # An interval is the largest of so few residuals: three architectures make it chance.
    even, noisy = (
        fit_cost_model(synthetic_device(seed=7, noise=noise).campaign(14, 24, 4))
        for noise in (0.02, 0.2)
    )
    for quiet, loud in zip(even.scores, noisy.scores, strict=True):
        assert (quiet.kind, quiet.precision) == (loud.kind, loud.precision)
        assert loud.median_error > 2 * quiet.median_error
    operations = step(synthetic_device(seed=1).architecture("one"), 1, 1, 100)
    widths = [
        np.log(answer.upper_ms / answer.lower_ms)
        for answer in (m.estimate(operations, Phase.DECODE, 0.9) for m in (even, noisy))
    ]
    assert widths[1] > 1.5 * widths[0]


def test_a_device_that_is_slower_throughout_is_predicted_slower_by_as_much(
    synthetic_device, few, few_fitted
):
    def slower(row, factor):
        spread = replace(row.latency_ms, median=factor * row.latency_ms.median)
        return replace(row, latency_ms=spread)

    for factor in (0.125, 8.0):
        scaled = fit_cost_model([slower(row, factor) for row in few])
        for phase, operations, _ in unseen_steps(synthetic_device(seed=96), 4):
            once, other = (m.estimate(operations, phase, 0.9) for m in (few_fitted, scaled))
            assert other.value_ms == pytest.approx(factor * once.value_ms, rel=0.03)


def assert_alike(one, other):
    """Two fits of the same rows: the last digits may differ, what is learned may not."""
    assert one.measurement_count == other.measurement_count
    for left, right in zip(one.scores, other.scores, strict=True):
        assert (left.kind, left.rows, left.groups) == (right.kind, right.rows, right.groups)
        assert left.median_error == pytest.approx(right.median_error, rel=0.01)
        assert left.p90_error == pytest.approx(right.p90_error, rel=0.01)


def test_equal_measurements_give_equal_cost_models(synthetic_device):
    rows = synthetic_device(seed=8).campaign(linears=12, attentions=44, models=2)
    assert_alike(fit_cost_model(rows), fit_cost_model(rows))


@pytest.mark.parametrize("missing", KINDS)
def test_what_is_missing_is_named(few, missing):
    with pytest.raises(NotEnoughMeasurementsError, match=f"fp32 lacks {missing} points"):
        fit_cost_model([row for row in few if row.kind != missing])


def test_the_precision_that_is_closest_is_named(few):
    rows = [row for row in few if row.kind in {"linear", "attention", "layer"}]
    other = [replace(row, precision=Precision.BF16) for row in rows if row.kind == "linear"]
    with pytest.raises(NotEnoughMeasurementsError, match="fp32 lacks prefill and decode points"):
        fit_cost_model([*other, *rows])


def test_layers_of_one_engine_and_steps_of_another_make_none(few):
    rows = [replace(row, engine="vllm") if row.kind == "layer" else row for row in few]
    with pytest.raises(NotEnoughMeasurementsError, match="layer"):
        fit_cost_model(rows)


def test_each_engine_has_terms_and_attention_of_its_own(synthetic_device, few):
    other = synthetic_device(seed=6, engine="torch")
    rows = other.campaign(linears=8, attentions=32, models=4)
    both = fit_cost_model([*few, *rows])
    assert both.engines == ("torch", "transformers")
    architecture = other.architecture("other")
    long = step(architecture, 4, 1, 2000, engine="torch")
    assert OperationKind.STATIC_ATTENTION in {operation.kind for operation in long}
    value = both.estimate(long, Phase.DECODE, 0.9, "torch").value_ms
    assert value == pytest.approx(other.truth(long), rel=0.25)
    without = fit_cost_model([*few, *(r for r in rows if r.kind != "static_attention")])
    assert without.engines == ("transformers",)


@pytest.fixture(scope="module")
def serving(synthetic_device, few):
    """Points of transformers and torch, as campaigns of a GPU have them."""
    plain = synthetic_device(seed=6, engine="torch")
    return [*few, *plain.campaign(linears=0, attentions=32, models=0)]


def paged(synthetic_device, engine, count=32, slowness=1.0):
    """Attention over pages by an engine's or a library's code."""
    device = synthetic_device(seed=11, engine="vllm", slowness=slowness)
    rows = device.campaign(linears=0, attentions=count, models=0)
    return [replace(row, engine=engine) for row in rows]


def attention_ms(fitted, device, engine):
    """Milliseconds of the attentions of a decode step, and what they truly take."""
    decode = step(device.architecture("served"), 4, 1, 2000, engine=engine)
    chosen = [operation for operation in decode if operation.name == "attention"]
    value = fitted.estimate(chosen, Phase.DECODE, 0.9, engine).value_ms
    return value, device.truth(chosen)


@pytest.mark.parametrize("library", ["vllm", "flashinfer"])
def test_engines_with_pages_are_priced_by_attention_over_pages(synthetic_device, serving, library):
    fitted = fit_cost_model([*serving, *paged(synthetic_device, library)])
    for engine in ("vllm", "sglang", "torch"):
        value, truth = attention_ms(fitted, synthetic_device(seed=3), engine)
        assert value == pytest.approx(truth, rel=0.2), engine
    assert fitted.engines_of(OperationKind.PAGED_ATTENTION, Precision.FP32) == (library,)
    assert fitted.engines_of(OperationKind.STATIC_ATTENTION, Precision.FP32) == ()
    stored = FittedCostModel.from_bytes(fitted.to_bytes())
    assert stored.engines_of(OperationKind.PAGED_ATTENTION, Precision.FP32) == (library,)


def test_pages_that_were_copied_together_first_price_no_engine(synthetic_device, serving):
    without = fit_cost_model(serving)
    gathered = paged(synthetic_device, "torch", slowness=3.0)
    fitted = fit_cost_model([*serving, *gathered])
    assert fitted.measurement_count == without.measurement_count
    for engine in ("vllm", "torch"):
        found, as_before = (
            attention_ms(model, synthetic_device(seed=3), engine)[0] for model in (fitted, without)
        )
        assert found == pytest.approx(as_before, rel=0.01)
    # Priced as over a static cache they would look like a drift of the device.
    assert len(fitted.errors_on(gathered)) == 0


def test_a_few_points_over_pages_do_not_stand_for_many_over_a_static_cache(
    synthetic_device, serving
):
    few_of_them = paged(synthetic_device, "vllm", count=20)
    fitted, without = fit_cost_model([*serving, *few_of_them]), fit_cost_model(serving)
    assert fitted.measurement_count == without.measurement_count
    assert fitted.engines_of(OperationKind.PAGED_ATTENTION, Precision.FP32) == ()


def test_attention_over_pages_is_fitted_on_one_code_alone(synthetic_device, serving):
    many, other = (
        paged(synthetic_device, "vllm", 40),
        paged(synthetic_device, "flashinfer", 20, 3.0),
    )
    fitted = fit_cost_model([*serving, *other, *many])
    value, truth = attention_ms(fitted, synthetic_device(seed=3), "vllm")
    assert value == pytest.approx(truth, rel=0.2)
    assert fitted.engines_of(OperationKind.PAGED_ATTENTION, Precision.FP32) == ("vllm",)


def scaled(synthetic_device, kind, matrices=10):
    """Linears in fp8 of one scaling, at six numbers of rows each."""
    device = synthetic_device(seed=12, precision=Precision.FP8)
    sizes = [(256 * (1 + i % 5), 320 * (1 + i % 4)) for i in range(matrices)]
    return [device.linear(m, n, k, kind) for n, k in sizes for m in (1, 2, 3, 8, 40, 300)]


@pytest.fixture(scope="module")
def scaled_per_row(synthetic_device, few):
    """What is fitted where fp8 was measured with that scaling alone."""
    return fit_cost_model([*few, *scaled(synthetic_device, "linear")])


def linears_ms(fitted, engine):
    """Milliseconds of the linears of an fp8 step by an engine."""
    architecture = architecture_of_dimensions(
        hidden_size=512, layer_count=2, query_heads=8, intermediate_size=1024, vocab_size=1280
    )
    rows = step(architecture, 4, 1, 200, Precision.FP8, engine)
    chosen = [row for row in rows if row.kind in LINEARS]
    assert len(chosen) >= 5
    return fitted.estimate(chosen, Phase.DECODE, 0.9, engine).value_ms, chosen


def test_serving_engines_are_priced_by_fp8_scaled_per_tensor_where_it_was_measured(
    synthetic_device, few, scaled_per_row
):
    per_row = scaled(synthetic_device, "linear")
    fitted = fit_cost_model([*few, *per_row, *scaled(synthetic_device, "linear_per_tensor")])
    fitted = FittedCostModel.from_bytes(fitted.to_bytes())
    device = synthetic_device()
    for engine in ("vllm", "sglang", "trtllm", "torch", "transformers"):
        value, chosen = linears_ms(fitted, engine)
        assert value == pytest.approx(device.truth(chosen), rel=0.1), engine
        # Without them those scaled per row stand in.
        as_before, _ = linears_ms(scaled_per_row, engine)
        plain = [row._replace(kind=OperationKind.LINEAR) for row in chosen]
        assert as_before == scaled_per_row.estimate(plain, Phase.DECODE, 0.9, engine).value_ms
    assert linears_ms(fitted, "torch")[0] == linears_ms(scaled_per_row, "torch")[0]


def test_a_few_linears_per_tensor_do_not_stand_for_many_per_row(
    synthetic_device, few, scaled_per_row
):
    per_row = scaled(synthetic_device, "linear")
    some = scaled(synthetic_device, "linear_per_tensor", matrices=6)
    fitted = fit_cost_model([*few, *per_row, *some])
    assert fitted.measurement_count == scaled_per_row.measurement_count
    assert linears_ms(fitted, "vllm")[0] == linears_ms(scaled_per_row, "vllm")[0]
    # Where they are all that there is, few are better than none.
    alone = fit_cost_model([*few, *some])
    assert alone.holds(OperationKind.LINEAR, Precision.FP8)
    assert alone.measurement_count == len(few) + len(some)


def test_an_engine_whose_linears_are_all_per_tensor_has_terms(synthetic_device, few):
    device = synthetic_device(seed=6, engine="vllm", precision=Precision.FP8)
    rows = [
        replace(row, precision=Precision.BF16) if row.kind == "paged_attention" else row
        for row in device.campaign(linears=0, attentions=32, models=4)
    ]
    fitted = fit_cost_model([*few, *rows, *scaled(synthetic_device, "linear_per_tensor")])
    assert fitted.supports(Precision.FP8, "vllm")


def test_an_engine_brought_from_elsewhere_has_terms_beside_either_attention(synthetic_device, few):
    device = synthetic_device(seed=6, engine="vllm")
    rows = device.campaign(linears=8, attentions=32, models=4)
    static = paged(synthetic_device, "torch")
    static = [replace(row, kind="static_attention", group=f"s{row.group}") for row in static]
    for attentions in ([], static):
        others = [row for row in rows if not attentions or row.kind != "paged_attention"]
        fitted = fit_cost_model([*few, *others, *attentions])
        assert fitted.engines == ("transformers", "vllm")


def test_layers_whose_experts_were_not_measured_are_left_out(synthetic_device, few):
    device = synthetic_device(seed=9)
    device.rates[OperationKind.EXPERTS] = (0.02, 3e7, 8e6)
    mixture = architecture_of_dimensions(
        name="mixture",
        hidden_size=256,
        layer_count=2,
        query_heads=4,
        vocab_size=640,
        experts=4,
        experts_per_token=2,
        expert_intermediate_size=128,
        intermediate_size=128,
    )
    rows = device.model(mixture, ((1, 1, 100),), ((1, 32, 9),))
    fitted = fit_cost_model([*few, *rows])
    assert {score.groups for score in fitted.scores if score.kind == "decode"} == {
        len({row.group for row in few if row.kind == "decode"})
    }


def test_nothing_makes_no_cost_model():
    with pytest.raises(NotEnoughMeasurementsError, match="no measurements"):
        fit_cost_model([])


def test_a_precision_without_steps_is_not_supported_but_priced_by_its_kernels(
    synthetic_device, few
):
    other = synthetic_device(seed=5, precision=Precision.BF16, slowness=0.5)
    both = fit_cost_model([*few, *other.campaign(linears=8, attentions=16, models=0)])
    assert both.precisions == (Precision.FP32,)
    assert both.supports(Precision.FP32, "transformers")
    assert not both.supports(Precision.BF16, "transformers")
    assert not both.supports(Precision.FP32, "torch")
    quick = linear("x", 8, 1024, 1024, Precision.BF16)
    mixed = [*step(other.architecture("other"), 1, 1, 90), quick]
    value = both.estimate(mixed, Phase.DECODE, 0.9).operations_ms[-1]
    assert value == pytest.approx(other.true_ms(quick), rel=0.25)


def test_precisions_do_not_mix(synthetic_device, few, few_fitted):
    other = synthetic_device(seed=5, precision=Precision.BF16, slowness=0.25)
    both = fit_cost_model([*few, *other.campaign(linears=9, attentions=30, models=5)])
    assert both.precisions == (Precision.FP32, Precision.BF16)
    architecture = other.architecture("unseen")
    for phase, sizes in STEPS:
        slow = step(architecture, *sizes)
        quick = step(architecture, *sizes, Precision.BF16)
        assert both.estimate(slow, phase, 0.9).value_ms == pytest.approx(
            few_fitted.estimate(slow, phase, 0.9).value_ms, rel=1e-3
        )
        assert both.estimate(quick, phase, 0.9).value_ms == pytest.approx(
            other.truth(quick), rel=0.25
        )


def damaged(rows):
    """One row of each way in which a row may be damaged."""
    linear_row = next(row for row in rows if row.kind == "linear")
    layer_row = next(row for row in rows if row.kind == "layer")
    for name, value in (("m", 0.0), ("n", -64.0), ("k", float("nan")), ("m", float("inf"))):
        yield replace(linear_row, shape=linear_row.shape | {name: value})
    yield replace(linear_row, kind="convolution")
    yield replace(layer_row, shape={})
    yield replace(layer_row, shape=layer_row.shape | {"activation": 42.0})
    yield replace(layer_row, shape=layer_row.shape | {"kv_heads": 7.0})
    for latency in (0.0, -1.0, 1e300, float("nan"), float("inf")):
        spread = replace(layer_row.latency_ms, median=latency)
        yield replace(layer_row, latency_ms=spread)


def test_damaged_rows_are_left_out(few, few_fitted):
    fitted = fit_cost_model([*damaged(few), *few])
    assert fitted.measurement_count == len(few)
    assert_alike(fitted, few_fitted)


def test_disturbed_rows_are_left_out_where_most_are_clean(few, few_fitted):
    disturbed = [
        replace(row, flags=("disturbed",), latency_ms=replace(row.latency_ms, median=1e3))
        for row in few[::7]
    ]
    assert_alike(fit_cost_model([*few, *disturbed]), few_fitted)


def test_where_all_rows_are_disturbed_they_are_all_there_is(few, few_fitted):
    marked = [replace(row, flags=("disturbed",)) for row in few]
    fitted = fit_cost_model(marked)
    assert_alike(fitted, few_fitted)
    assert (fitted.disturbed, few_fitted.disturbed) == (1.0, 0.0)
    assert FittedCostModel.from_bytes(fitted.to_bytes()).disturbed == 1.0


def test_one_architecture_makes_a_cost_model_with_an_honest_interval(synthetic_device):
    device = synthetic_device(seed=3)
    alone = fit_cost_model(device.campaign(linears=12, attentions=20, models=1))
    assert {score.kind for score in alone.scores} <= {"linear", "attention"}
    answer = alone.estimate(step(device.architecture("other"), 1, 1, 90), Phase.DECODE, 0.9)
    assert 0 < answer.lower_ms < answer.value_ms < answer.upper_ms < np.inf


def test_errors_on_new_measurements_show_how_far_the_model_is_off(synthetic_device, cost_model):
    fresh = synthetic_device(seed=11).campaign(linears=6, attentions=12, models=3)
    drifted = synthetic_device(seed=11, slowness=1.5).campaign(linears=6, attentions=12, models=3)
    assert len(cost_model.errors_on(fresh)) == len(fresh)
    assert np.median(cost_model.errors_on(fresh)) < 0.05
    assert np.median(cost_model.errors_on(drifted)) == pytest.approx(0.5, abs=0.08)


def test_points_that_cannot_be_predicted_have_no_error(few, few_fitted):
    foreign = [replace(few[0], precision=Precision.FP8), replace(few[0], engine="vllm")]
    assert few_fitted.errors_on(foreign).size == 0
    unreadable = [row for row in damaged(few) if 0 < row.latency_ms.median < LONGEST_MS]
    assert few_fitted.errors_on([*unreadable, few[0]]).size == 1


def test_doubt_is_larger_where_nothing_was_measured(cost_model):
    inside = linear("x", 40, 1024, 1024, Precision.FP32)
    outside = linear("x", 40, 65536, 65536, Precision.FP32)
    never = linear("x", 40, 1024, 1024, Precision.FP8)
    doubts = cost_model.doubt([inside, outside, never])
    assert doubts[0] < doubts[1]
    assert doubts[2] == 1.0


def test_what_a_campaigns_ranks_send_each_other_is_its_own(few, few_fitted):
    def took(message_bytes):
        return Measurement(
            kind="all_reduce",
            precision=Precision.FP32,
            engine="transformers",
            shape={"message_bytes": message_bytes, "ranks": 2.0},
            latency_ms=Distribution(median=message_bytes / 1e6, p10=0.0, p90=1e3, samples=9),
            group="all_reduce-2",
        )

    sums = [took(float(1 << power)) for power in range(10, 24)]
    physics = AnalyticalCostModel(data_sheet("l4"), "transformers")
    for fitted, own in ((few_fitted, False), (fit_cost_model([*few, *sums]), True)):
        model = CompositeCostModel(fitted, physics, Precision.FP32, Precision.FP32, "transformers")
        assert model.holds_communication is own
    (priced,) = model.estimate(
        [all_reduce(25_000, 2, Precision.FP32)], Phase.DECODE, 0.9
    ).operations_ms
    assert priced == pytest.approx(0.1, rel=0.2)


def powers(fitted):
    return {row["engine"]: row["power"] for row in unpack(fitted.to_bytes())["engines"]}


LAUNCHES = (0.2, 0.05)
"""So many that decode steps wait for the host and prompts for the device."""


@pytest.fixture(scope="module")
def launched(synthetic_device):
    return synthetic_device(seed=3, launches=LAUNCHES).campaign(14, 24, 8)


@pytest.fixture(scope="module")
def overlapping(launched):
    return fit_cost_model(launched)


def test_of_launches_and_what_they_start_steps_take_the_longer(
    synthetic_device, launched, overlapping
):
    fitted = overlapping
    assert powers(fitted) == {"transformers": 8.0}
    errors = {phase: [] for phase in Phase}
    for phase, operations, truth in unseen_steps(synthetic_device(seed=99, launches=LAUNCHES)):
        answer = fitted.estimate(operations, phase, 0.9)
        assert sum(answer.operations_ms) == pytest.approx(answer.value_ms)
        assert min(answer.operations_ms) >= 0.0
        errors[phase].append(abs(answer.value_ms / truth - 1))
    # By their sum a quarter of decode steps is off, at the median.
    for phase in Phase:
        assert np.median(errors[phase]) < 0.03, phase
    assert np.median(fitted.errors_on(launched)) < 0.04


def test_what_physics_guesses_beside_launches_adds_no_more_than_itself(
    synthetic_device, overlapping
):
    physics = AnalyticalCostModel(data_sheet("l4"), "transformers")
    model = CompositeCostModel(overlapping, physics, Precision.FP32, Precision.FP32, "transformers")
    device = synthetic_device(seed=99, launches=LAUNCHES)
    for phase, operations, _ in unseen_steps(device, count=2):
        assert model.are_priced(operations)
        measured = model.estimate(operations, phase, 0.9)
        for message_bytes in (1 << 10, 1 << 22, 1 << 34):
            guess = all_reduce(message_bytes, 2, Precision.FP32)
            assert not model.are_priced([guess])
            guessed = model.estimate([guess], phase, 0.9)
            both = model.estimate([*operations, guess], phase, 0.9)
            assert max(measured.value_ms, guessed.value_ms) <= both.value_ms
            assert both.value_ms <= (measured.value_ms + guessed.value_ms) * (1 + 1e-9)
            assert both.value_ms == pytest.approx(sum(both.operations_ms))


def test_launches_overlap_nothing_where_the_sum_explains_as_much(few_fitted):
    assert powers(few_fitted) == {"transformers": 1.0}


def test_launches_of_graphs_or_of_few_architectures_overlap_nothing(synthetic_device, launched):
    groups = sorted({row.group for row in launched if row.kind == "layer"})
    few = [row for row in launched if row.group not in groups[3:]]
    graphs = synthetic_device(seed=3, launches=LAUNCHES, engine="torch").campaign(8, 16, 5)
    assert powers(fit_cost_model([*few, *graphs])) == {"transformers": 1.0, "torch": 1.0}
