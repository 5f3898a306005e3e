"""Linear attention: parameters, state, operations, by hand, by transformers and by physics."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.analytical import AnalyticalCostModel
from model.blocks import Attention, LinearAttention
from model.dimensions import architecture_of_dimensions, dimensions_of
from model.errors import InvalidFieldError
from model.estimate import Phase
from model.execution import step_operations
from model.hardware import data_sheet
from model.memory import kv_cache_bytes_per_sequence
from model.operations import CHUNK_TOKENS, OperationKind, convolution, linear_attention
from model.precision import Precision
from model.presets import preset
from model.workload import Parallelism, Sequences

DIMENSIONS = {
    "hidden_size": 256,
    "layer_count": 8,
    "query_heads": 4,
    "kv_heads": 2,
    "head_dim": 64,
    "intermediate_size": 512,
    "vocab_size": 1000,
    "full_attention_interval": 4,
    "linear_key_heads": 4,
    "linear_value_heads": 8,
    "linear_key_dim": 32,
    "linear_value_dim": 48,
    "linear_conv_width": 4,
}
HYBRID = architecture_of_dimensions(**DIMENSIONS)
HEADS = LinearAttention(key_heads=4, value_heads=8, key_dim=32, value_dim=48, conv_width=4)
NEXT = preset("qwen3-next-80b-a3b")
BIG = preset("qwen3.5-397b-a17b")
H200 = AnalyticalCostModel(data_sheet("h200-sxm"), "sglang")


def rows_of(architecture, query=1, kv=4096, count=4, engine="vllm", **degrees):
    return step_operations(
        architecture,
        (Sequences(count=count, query_tokens=query, kv_tokens=kv),),
        Parallelism(**degrees),
        Precision.BF16,
        Precision.BF16,
        engine,
    )


def test_every_nth_layer_attends_to_everything_and_the_others_are_linear():
    counts = {type(g.layer.attention): g.count for g in HYBRID.layers}
    assert counts == {LinearAttention: 6, Attention: 2}
    assert HYBRID.layers[0].layer.attention == HEADS


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"full_attention_interval": 2, "attention_output_gate": True, "qk_norm": True},
        {"experts": 8, "experts_per_token": 2, "expert_intermediate_size": 64},
    ],
)
def test_the_dimensions_come_back(changes):
    built = architecture_of_dimensions(**DIMENSIONS | changes)
    assert architecture_of_dimensions(**dimensions_of(built)) == built


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"linear_value_heads": 6}, "linear_value_heads"),
        ({"linear_value_heads": 0}, "linear_value_heads"),
        ({"linear_conv_width": 0}, "linear_conv_width"),
        ({"linear_key_dim": 65_537}, "linear_key_dim"),
        ({"full_attention_interval": 0}, "full_attention_interval"),
        ({"full_attention_interval": 9}, "full_attention_interval"),
        ({"sliding_window": 128}, "sliding_window"),
        ({"linear_value_dim": 65_536, "linear_value_heads": 65_536, "hidden_size": 2**20}, ""),
    ],
)
def test_what_does_not_go_together_is_refused(changes, field):
    with pytest.raises(InvalidFieldError) as caught:
        architecture_of_dimensions(**DIMENSIONS | changes)
    assert caught.value.field == field


def test_ranks_share_the_heads_and_too_many_are_refused():
    rank = HEADS.shard(2)
    assert (rank.key_heads, rank.value_heads) == (2, 4)
    assert 2 * rank.state_values == HEADS.state_values
    with pytest.raises(InvalidFieldError) as caught:
        Parallelism(tensor=8).check(architecture_of_dimensions(**DIMENSIONS | {"query_heads": 8}))
    assert caught.value.field == "tensor"
    assert "linear attention" in caught.value.message


def test_the_state_is_the_same_at_any_length_and_only_full_layers_grow():
    def kept(tokens):
        return kv_cache_bytes_per_sequence(HYBRID, Parallelism(), Precision.BF16, tokens)

    state = 6 * (8 * 32 * 48 * 4 + 3 * (2 * 4 * 32 + 8 * 48) * 2)
    assert kept(1000) == state + 2 * 1000 * 2 * 2 * 64 * 2
    assert kept(2000) - kept(1000) == 2 * 1000 * 2 * 2 * 64 * 2


def test_one_token_goes_through_the_recurrence():
    row = linear_attention(3, 1, HEADS, Precision.BF16)
    assert row.flops == 3 * 8 * 7 * 32 * 48
    values = 2 * 4 * 32 + 2 * 8 * 48 + 2 * 8
    assert row.bytes == 3 * (2 * 4 * 8 * 32 * 48 + 2 * values)


@pytest.mark.parametrize(("key_dim", "value_dim"), [(128, 128), (32, 48)])
def test_a_prompt_has_the_products_that_transformers_runs(key_dim, value_dim):
    torch = pytest.importorskip("torch")
    flop_counter = pytest.importorskip("torch.utils.flop_counter")
    modeling = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    tokens, chunks, value_heads = 150, 3, 4
    with torch.device("meta"), flop_counter.FlopCounterMode(display=False) as counter:
        queries = torch.empty(1, tokens, value_heads, key_dim)
        values = torch.empty(1, tokens, value_heads, value_dim)
        gates = torch.empty(1, tokens, value_heads)
        modeling.torch_chunk_gated_delta_rule(
            queries, queries, values, gates, gates, chunk_size=CHUNK_TOKENS
        )
    heads = replace(HEADS, value_heads=value_heads, key_dim=key_dim, value_dim=value_dim)
    row = linear_attention(1, tokens, heads, Precision.BF16)
    # The counter knows products alone, not the triangular system and its solution.
    system = CHUNK_TOKENS**3 / 3 + 2 * CHUNK_TOKENS**2 * (key_dim + value_dim)
    assert row.flops - value_heads * chunks * system == pytest.approx(counter.get_total_flops())


def test_a_convolution_sees_its_width():
    row = convolution(2, 5, 96, 4, Precision.BF16)
    assert row.flops == 2 * 2 * 5 * 96 * 4
    assert row.bytes == 2 * (2 * (2 * 5 * 96 + 2 * 3 * 96) + 96 * 4)


def test_a_layer_runs_projections_convolution_and_recurrence():
    eager = {row.name: row for row in rows_of(HYBRID, engine="transformers") if row.count == 6}
    fused = {row.name: row for row in rows_of(HYBRID) if row.count == 6}
    assert {"z_proj", "b_proj", "a_proj", "convolution", "linear_attention"} <= set(eager)
    assert fused["qkvz_proj"].shape == (4, 2 * 128 + 2 * 384, 256)
    assert fused["ba_proj"].shape == (4, 16, 256)
    assert eager["qkv_proj"].shape == (4, 2 * 128 + 384, 256)
    assert "attention" not in fused
    products = [
        sum(r.flops for r in rows.values() if r.kind == "linear") for rows in (eager, fused)
    ]
    assert products[0] == products[1]


def test_gated_attention_projects_its_gate_beside_the_queries():
    gated = {row.name: row for row in rows_of(NEXT) if row.count == 12}
    assert gated["qkv_proj"].shape == (4, (2 * 16 + 2 * 2) * 256, 2048)
    assert gated["o_proj"].shape == (4, 2048, 16 * 256)


@given(
    st.sampled_from([HYBRID, NEXT, BIG]),
    st.integers(1, 64),
    st.integers(1, 600),
    st.integers(0, 10_000),
    st.integers(1, 300),
)
def test_more_tokens_sequences_or_context_never_cost_less(architecture, count, query, past, more):
    def work(count, query, past):
        rows = rows_of(architecture, query=query, kv=query + past, count=count)
        return (
            sum(row.flops * row.count for row in rows),
            sum(row.bytes * row.count for row in rows),
        )

    base = work(count, query, past)
    for grown in ((count + more, query, past), (count, query, past + more)):
        assert all(a > b for a, b in zip(work(*grown), base, strict=True))
    if query > 1:
        assert all(a > b for a, b in zip(work(count, query + more, past), base, strict=True))


@given(st.integers(1, 200_000), st.integers(1, 10_000), st.sampled_from([1, 2, 4, 8]))
def test_memory_never_shrinks_with_context(tokens, more, tensor):
    ranks = Parallelism(tensor=tensor)
    for architecture in (NEXT, BIG):
        shorter, longer = (
            kv_cache_bytes_per_sequence(architecture, ranks, Precision.FP8, length)
            for length in (tokens, tokens + more)
        )
        assert shorter < longer


@given(
    st.sampled_from([NEXT, BIG]),
    st.integers(1, 256),
    st.sampled_from([1, 7, 512]),
    st.integers(1, 100_000),
    st.integers(1, 1000),
)
def test_physics_never_prices_a_longer_context_or_a_larger_batch_lower(
    architecture, count, query, past, more
):
    def milliseconds(count, past):
        rows = rows_of(architecture, query=query, kv=query + past, count=count, tensor=8)
        return H200.estimate(rows, Phase.DECODE, 0.9).value_ms

    base = milliseconds(count, past)
    assert milliseconds(count, past + more) >= base
    assert milliseconds(count + more, past) >= base


def test_a_linear_layer_has_no_rotary_positions_and_a_gate():
    rows = rows_of(HYBRID)
    overheads = {r.count: r for r in rows if r.kind is OperationKind.LAYER_OVERHEAD}
    # Two norms, two sums, gate and product of the feed-forward; step size and decay; a gated norm.
    assert overheads[6].shape[0] == 2 * 6 + 2 + 2 + 5 + 8
    assert overheads[2].shape[0] == 2 * 6 + 2 + 2 + 10
