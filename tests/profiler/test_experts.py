"""Experts timed alone: tokens assigned as asked, cold weights, and the mixture's own result."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import InvalidFieldError
from model.precision import Precision
from model.shapes import operations_of
from profiler.device import Device, open_device
from profiler.experts import ExpertsPoint, draw_assignment, expert_values, measure_experts
from profiler.timing import Effort

SMALL_CACHE = Device("cpu", 1 << 16)
QUICK = Effort(seconds=0.0, min_samples=2, max_samples=2, sample_ms=0.01)
ALL = ExpertsPoint(32, 16, 8, 8, 2, (1, 5, 40))
RANK = ExpertsPoint(32, 16, 2, 8, 3, (1, 5, 40), 1.5)

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=gpu)])


@devices
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize("point", [ALL, RANK], ids=["all", "rank"])
def test_experts_are_measured_at_each_number_of_tokens(device, precision, point):
    opened = SMALL_CACHE if device == "cpu" else open_device(device)
    is_runnable = precision is Precision.BF16 and opened.capability[0] in {9, 10}
    if opened.is_cuda and not is_runnable:
        with pytest.raises(InvalidFieldError, match="grouped products run"):
            next(measure_experts(point, precision, opened, QUICK))
        return
    rows = list(measure_experts(point, precision, opened, QUICK))
    assert [row.shape["tokens"] for row in rows] == [1, 5, 40]
    for row in rows:
        assert (row.kind, row.group, row.precision) == ("experts", point.group, precision)
        assert row.shape.get("imbalance", 1.0) == point.imbalance
        assert 0 < row.latency_ms.p10 <= row.latency_ms.median <= row.latency_ms.p90
        (operation,) = operations_of(row)
        assert operation.shape[:4] == (row.shape["tokens"], 32, 16, point.local_experts)


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 30),
    st.floats(1.0, 3.0),
    st.integers(0, 1000),
)
def test_each_token_goes_to_distinct_experts_and_the_rank_gets_its_load(
    ranks, local, top_k, tokens, imbalance, seed
):
    experts = ranks * local
    top_k, imbalance = min(top_k, experts), min(imbalance, ranks)
    point = ExpertsPoint(8, 8, local, experts, top_k, (tokens,), imbalance)
    chosen = draw_assignment(point, tokens, torch.Generator().manual_seed(seed))
    assert chosen.shape == (tokens, top_k)
    mine = [[e for e in row if e < local] for row in chosen.tolist()]
    assert all(len(set(row)) == len(row) for row in mine)
    assert set(chosen.flatten().tolist()) <= set(range(local + (ranks > 1)))
    # What is left of a token's choices, other ranks' experts can take.
    assert all(top_k - len(row) <= experts - local for row in mine)
    most = tokens * min(top_k, local)
    asked = min(most, tokens * top_k * imbalance / ranks)
    assert abs(sum(map(len, mine)) - asked) <= 1 or sum(map(len, mine)) > asked


def test_every_expert_is_as_likely_as_any_other():
    draw = torch.Generator().manual_seed(3)
    point = ExpertsPoint(8, 8, 4, 16, 2, (1,))
    loads = torch.zeros(5)
    for _ in range(400):
        loads += torch.bincount(draw_assignment(point, 16, draw).flatten(), minlength=5)
    even = 400 * 16 * 2 / 16
    assert loads[:4].tolist() == pytest.approx([even] * 4, rel=0.1)


def test_an_uneven_load_is_the_ranks_and_fractions_come_right():
    draw = torch.Generator().manual_seed(3)
    point = ExpertsPoint(8, 8, 2, 16, 1, (1,), 2.0)
    drawn = [int((draw_assignment(point, 3, draw) < 2).sum()) for _ in range(2000)]
    assert sum(drawn) / 2000 == pytest.approx(3 * 2 / 16 * 2.0, rel=0.1)


@pytest.mark.parametrize("tokens", [1, 6])
@pytest.mark.parametrize("point", [ALL, RANK], ids=["all", "rank"])
def test_what_is_timed_is_the_chosen_experts_weighted_sum(timed, point, tokens):
    only = ExpertsPoint(32, 16, point.local_experts, 8, point.top_k, (tokens,), point.imbalance)
    list(measure_experts(only, Precision.FP32, SMALL_CACHE, QUICK))
    run = timed[0][0]
    x, chosen, weights = run.args
    expected = torch.zeros_like(x)
    for token in range(tokens):
        for choice, weight in zip(chosen[token], weights[token], strict=True):
            if choice < point.local_experts:
                gate, up = (run.func.gate_up_proj[choice] @ x[token]).chunk(2)
                down = run.func.down_proj[choice] @ (F.silu(gate) * up)
                expected[token] += weight * down
    assert torch.allclose(run(), expected, atol=1e-6)
    assert expected.abs().max() > 0 or tokens == 1


def test_experts_are_weighted_in_their_own_type(timed):
    list(measure_experts(RANK, Precision.BF16, SMALL_CACHE, QUICK))
    assert {run.args[2].dtype for runs in timed for run in runs} == {torch.bfloat16}


def test_runs_meet_all_experts_in_turn_and_weights_overflow_the_cache(timed):
    list(measure_experts(ALL, Precision.FP32, SMALL_CACHE, QUICK))
    for runs, tokens in zip(timed, ALL.tokens, strict=True):
        modules = list(dict.fromkeys(run.func for run in runs))
        assert len(modules) * 4 * expert_values(ALL) >= SMALL_CACHE.cold_bytes
        for module in modules:
            met = [run.args[1].unique().tolist() for run in runs if run.func is module]
            assert set().union(*met) == set(range(8))
            if tokens == 1:
                assert sum(map(len, met)) == 8


def test_a_precision_that_experts_are_not_held_in_is_refused():
    with pytest.raises(InvalidFieldError, match="int8") as raised:
        list(measure_experts(ALL, Precision.INT8_WEIGHT_ONLY, SMALL_CACHE, QUICK))
    assert raised.value.field == "precision"


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9))
def test_more_tokens_touch_as_many_experts_as_the_model_expects(top_k, ranks, tokens):
    local = 16 // ranks
    point = ExpertsPoint(8, 8, local, local * ranks, top_k, (tokens,))
    draw = torch.Generator().manual_seed(tokens)
    drawn = [draw_assignment(point, tokens, draw) for _ in range(300)]
    touched = sum(len(each[each < local].unique()) for each in drawn) / 300
    expected = local * (1 - (1 - top_k / point.experts) ** tokens)
    assert touched == pytest.approx(expected, rel=0.15, abs=0.15)
