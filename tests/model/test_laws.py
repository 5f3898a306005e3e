"""The law of an operation is physics: more work never takes less time, and units scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.blocks import Attention
from model.law_fitting import fit_law
from model.laws import KERNELS, REGIMES, Law, Sizes, law_ms, sizes_of
from model.operations import OperationKind, attention, linear
from model.precision import Precision

positive = st.floats(1e-9, 1e3)
laws = st.builds(Law, positive, positive, positive, positive, st.floats(1.0, 20.0), positive)
works = st.tuples(*(st.floats(1.0, top) for top in (1e12, 1e12, 1e9, 1e9)))
NAMES = ("flops", "bytes", "outputs", "items")


def sizes(*works_):
    flops, moved, outputs, items = (np.array(column) for column in zip(*works_, strict=True))
    extent = np.column_stack([np.ones((len(works_), 3)), flops, moved])
    return Sizes(extent, outputs, items, np.zeros(len(works_), dtype=np.intp))


def linears(count, seed, rows=(20, 3000)):
    rng = np.random.default_rng(seed)
    shapes = np.exp(
        rng.uniform(np.log((rows[0], 64, 64)), np.log((rows[1], 8192, 8192)), (count, 3))
    )
    rows = [linear("x", *(int(v) for v in shape), Precision.FP32) for shape in shapes]
    return sizes_of(OperationKind.LINEAR, rows)


@given(laws, works, st.sampled_from(NAMES), st.floats(1.0, 1e3))
def test_more_work_never_takes_less_time(law, work, grown, factor):
    position = NAMES.index(grown)
    more = tuple(w * (factor if i == position else 1.0) for i, w in enumerate(work))
    less_ms, more_ms = law(sizes(work, more))
    assert more_ms >= less_ms * (1 - 1e-12)


@given(laws, works)
def test_an_operation_takes_longer_than_either_bound_and_less_than_both_together(law, work):
    flops, moved, outputs, items = work
    (value,) = law(sizes(work))
    fixed = law.start_ms + law.output_ms * outputs + law.item_ms * items
    compute, move = law.flop_ms * flops, law.byte_ms * moved
    assert fixed + max(compute, move) <= value * (1 + 1e-9)
    assert value <= (fixed + compute + move) * (1 + 1e-9)


@given(laws, works, st.floats(0.1, 10.0))
def test_a_slower_clock_scales_the_law(law, work, factor):
    assert law.scaled(factor)(sizes(work)) == pytest.approx(factor * law(sizes(work)))


def test_a_sharper_corner_comes_closer_to_the_larger_of_both():
    work = sizes((2e9, 3e9, 1.0, 1.0))
    values = [law_ms(work, 0.0, 0.0, 1e-9, 1e-9, p, 0.0)[0] for p in (1.0, 2.0, 8.0, 50.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(5.0)
    assert values[-1] == pytest.approx(3.0, rel=0.01)


@given(st.integers(1, 4096), st.integers(1, 4096), st.integers(1, 4096))
def test_a_linears_regime_follows_its_rows_alone(m, n, k):
    (wide, other) = sizes_of(
        OperationKind.LINEAR,
        [linear("x", m, n, k, Precision.FP32), linear("x", m, k, n, Precision.BF16)],
    ).regime
    assert wide == other
    assert 0 <= wide < REGIMES[OperationKind.LINEAR]


@given(st.integers(1, 64), st.integers(1, 500), st.integers(0, 500))
def test_decode_whole_prompts_and_chunks_are_regimes_of_their_own(sequences, query, past):
    heads = Attention(query_heads=4, kv_heads=2, head_dim=16)
    row = attention(sequences, query, query + past, heads, Precision.FP32)
    columns = sizes_of(OperationKind.ATTENTION, [row])
    assert columns.outputs[0] == sequences * query * 4 * 16
    expected = 0 if query == 1 else 1 if not past else 2
    assert columns.regime[0] == expected


def test_taking_rows_takes_all_columns():
    whole = linears(6, seed=0)
    half = whole.take(np.arange(6) % 2 == 0)
    for name in ("shape", "flops", "bytes", "outputs", "regime"):
        assert np.array_equal(getattr(half, name), getattr(whole, name)[::2])


def test_kinds_with_a_law_all_have_regimes():
    assert set(REGIMES) == set(KERNELS)


def test_a_fit_finds_a_law_again_at_sizes_it_never_saw():
    truth = Law(0.01, 2e-9, 1.1e-8, 9e-8, 3.0)
    seen, unseen = linears(150, seed=1), linears(60, seed=2)
    noise = np.exp(0.03 * np.random.default_rng(3).normal(size=150))
    fitted = fit_law(seen, truth(seen) * noise)
    errors = np.abs(fitted(unseen) / truth(unseen) - 1)
    assert np.median(errors) < 0.02
    assert errors.max() < 0.10


def test_outliers_hardly_move_a_fit():
    truth = Law(0.01, 2e-9, 1.1e-8, 9e-8, 3.0)
    seen, unseen = linears(150, seed=1), linears(60, seed=2)
    latency = truth(seen)
    latency[::15] *= 10
    errors = np.abs(fit_law(seen, latency)(unseen) / truth(unseen) - 1)
    assert np.median(errors) < 0.05


@settings(max_examples=15)
@given(st.floats(1e-3, 1e3))
def test_latencies_in_another_unit_give_the_same_law_in_that_unit(unit):
    truth = Law(0.01, 2e-9, 1.1e-8, 9e-8, 3.0)
    seen = linears(40, seed=4)
    latency = truth(seen) * np.exp(0.05 * np.random.default_rng(5).normal(size=40))
    assert fit_law(seen, unit * latency)(seen) == pytest.approx(
        unit * fit_law(seen, latency)(seen), rel=1e-3
    )


@settings(max_examples=15)
@given(st.integers(1, 3), st.floats(1e-3, 1e3))
def test_few_points_still_make_a_finite_positive_law(count, latency):
    seen = linears(count, seed=6)
    law = fit_law(seen, np.full(count, latency))
    values = law(linears(20, seed=7))
    assert np.all(np.isfinite(values))
    assert np.all(values > 0)
    assert law.corner >= 1
