"""Experts and latent attention: parameters, shards and operations, by hand and by physics."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.blocks import Experts, FeedForward, LatentAttention
from model.dimensions import architecture_of_dimensions, dimensions_of, with_window
from model.errors import InvalidFieldError
from model.execution import step_operations
from model.memory import activations_bytes, kv_cache_bytes_per_sequence, weights_bytes
from model.operations import OperationKind, batched_linear, experts, mla
from model.precision import Precision
from model.workload import Parallelism, Sequences

DEEPSEEK_V3 = {
    "hidden_size": 7168,
    "layer_count": 61,
    "query_heads": 128,
    "head_dim": 128,
    "intermediate_size": 18432,
    "vocab_size": 129280,
    "experts": 256,
    "experts_per_token": 8,
    "expert_intermediate_size": 2048,
    "shared_intermediate_size": 2048,
    "leading_dense_layers": 3,
    "kv_rank": 512,
    "query_rank": 1536,
    "rope_dim": 64,
    "value_dim": 128,
}
"""deepseek-ai/DeepSeek-V3, config.json."""
V3 = architecture_of_dimensions(**DEEPSEEK_V3)
MIXTRAL = architecture_of_dimensions(
    hidden_size=4096,
    layer_count=32,
    query_heads=32,
    kv_heads=8,
    intermediate_size=14336,
    vocab_size=32000,
    experts=8,
    experts_per_token=2,
    expert_intermediate_size=14336,
)
HEADS = V3.layers[0].layer.attention
BLOCK = Experts(expert=FeedForward(intermediate_size=2048), count=256, top_k=8)


def rows_of(architecture, query=1, kv=1024, count=4, **degrees):
    return step_operations(
        architecture,
        (Sequences(count=count, query_tokens=query, kv_tokens=kv),),
        Parallelism(**degrees),
        Precision.BF16,
        Precision.BF16,
        "vllm",
    )


def of_kind(rows, kind):
    return [row for row in rows if row.kind is kind]


def runs(rows, kind):
    return sum(row.count for row in of_kind(rows, kind))


# --- parameters -----------------------------------------------------------------


def test_deepseek_v3_comes_to_its_671_billion_of_which_a_token_meets_37():
    # The paper (arXiv 2412.19437, section 4.2): 671B in all, 37B activated for each token.
    assert V3.parameter_count() == pytest.approx(671.0e9, rel=0.001)
    assert V3.active_parameters() == pytest.approx(37e9, rel=0.02)


def test_mixtral_comes_to_its_46_7_billion_of_which_a_token_meets_12_9():
    # The paper (arXiv 2401.04088): 47B parameters, 13B active.
    assert MIXTRAL.parameter_count() == pytest.approx(46.7e9, rel=0.001)
    assert MIXTRAL.active_parameters() == pytest.approx(12.9e9, rel=0.005)


def test_all_parameters_of_a_dense_model_are_active():
    dense = architecture_of_dimensions(
        hidden_size=512, layer_count=2, query_heads=8, intermediate_size=1024, vocab_size=1000
    )
    assert dense.active_parameters() == dense.parameter_count()
    assert dense.experts is None


def test_dense_layers_lead_and_interleave():
    assert [(type(g.layer.feed_forward), g.count) for g in V3.layers] == [
        (FeedForward, 3),
        (Experts, 58),
    ]
    every_second = architecture_of_dimensions(
        **DEEPSEEK_V3 | {"leading_dense_layers": 0, "expert_interval": 2, "layer_count": 48}
    )
    assert [g.count for g in every_second.layers] == [24, 24]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"leading_dense_layers": 0},
        {"leading_dense_layers": 0, "expert_interval": 2, "layer_count": 48},
        {"shared_intermediate_size": 0, "expert_bias": True},
        {"query_rank": 0},
    ],
)
def test_the_dimensions_come_back(changes):
    built = architecture_of_dimensions(**DEEPSEEK_V3 | changes)
    again = architecture_of_dimensions(**dimensions_of(built), model_type=built.model_type)
    assert again == built


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"experts": 0}, "experts_per_token"),
        ({"experts_per_token": 0}, "experts_per_token"),
        ({"experts_per_token": 257}, "experts_per_token"),
        ({"expert_intermediate_size": 0}, "expert_intermediate_size"),
        ({"leading_dense_layers": 61}, "leading_dense_layers"),
        ({"expert_interval": 59}, "expert_interval"),
        ({"kv_rank": 0}, "query_rank"),
        ({"sliding_window": 128}, "sliding_window"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, field):
    with pytest.raises(InvalidFieldError) as caught:
        architecture_of_dimensions(**DEEPSEEK_V3 | changes)
    assert caught.value.field == field


def test_windows_are_shared_out_among_dense_layers_and_those_with_experts():
    plain = {k: v for k, v in DEEPSEEK_V3.items() if k not in {"kv_rank", "query_rank"}}
    plain |= {"rope_dim": 0, "value_dim": 0, "layer_count": 40, "leading_dense_layers": 8}
    windowed = with_window(architecture_of_dimensions(**plain), 128, 20)
    counts = [(g.layer.attention.window, g.count) for g in windowed.layers]
    assert counts == [(128, 4), (None, 4), (128, 16), (None, 16)]


# --- shards ---------------------------------------------------------------------


def test_experts_are_spread_and_cut_over_what_is_left_of_the_ranks():
    rank = BLOCK.shard(tensor=8, expert=4, expert_tensor=2)
    assert (rank.held, rank.expert.intermediate_size) == (64, 1024)
    assert rank.shared is None


def test_experts_that_the_ranks_do_not_divide_are_refused():
    with pytest.raises(InvalidFieldError) as caught:
        Parallelism(tensor=3, expert=3).check(replace(MIXTRAL, layers=MIXTRAL.layers))
    assert caught.value.field == "expert"


def test_every_rank_keeps_the_whole_latent():
    assert HEADS.shard(8).cached_values == HEADS.cached_values == 576
    assert HEADS.shard(8).query_heads == 16
    alone = kv_cache_bytes_per_sequence(V3, Parallelism(), Precision.BF16, 1000)
    assert alone == 61 * 1000 * 576 * 2
    assert kv_cache_bytes_per_sequence(V3, Parallelism(tensor=8), Precision.BF16, 1000) == alone


@pytest.mark.parametrize("degrees", [{"tensor": 8}, {"tensor": 8, "expert": 8}])
def test_eight_ranks_hold_an_eighth_of_the_experts(degrees):
    whole = weights_bytes(V3, Parallelism(), Precision.FP8)
    rank = weights_bytes(V3, Parallelism(**degrees), Precision.FP8)
    assert rank == pytest.approx(whole / 8, rel=0.05)


def test_attention_data_parallel_ranks_share_the_experts_and_repeat_the_rest():
    spread = weights_bytes(V3, Parallelism(data=8, expert=8), Precision.FP8)
    alone = weights_bytes(V3, Parallelism(tensor=8, expert=8), Precision.FP8)
    assert alone < spread < 2 * alone


# --- operations -----------------------------------------------------------------


def test_routed_experts_cost_what_is_assigned_and_touched():
    row = experts(16, 7168, BLOCK, Precision.FP8)
    touched = 256 * (1 - (1 - 8 / 256) ** 16)
    one = 3 * 7168 * 2048
    assert row.shape == (16, 7168, 2048, 256, 128, pytest.approx(touched), 256)
    assert row.flops == 2 * 128 * one
    assert row.bytes == pytest.approx(touched * one + 128 * 2 * (7168 + 2048) * 2)


def test_an_uneven_load_falls_on_the_fullest_rank_and_never_exceeds_all_tokens():
    rank = BLOCK.shard(tensor=8, expert=8, expert_tensor=1)
    even, skewed = (experts(1000, 7168, rank, Precision.FP8, imbalance=i) for i in (1.0, 2.0))
    assert skewed.flops == 2 * even.flops
    most = experts(1000, 7168, rank, Precision.FP8, imbalance=64.0)
    assert most.shape[4] == 1000 * BLOCK.top_k


def test_a_rank_that_holds_all_experts_has_its_share_whatever_the_imbalance():
    even, skewed = (experts(16, 7168, BLOCK, Precision.FP8, imbalance=i) for i in (1.0, 4.0))
    assert skewed == even


@given(st.integers(1, 4096), st.integers(1, 64))
def test_more_tokens_touch_more_experts_up_to_all(tokens, top_k):
    block = replace(BLOCK, top_k=top_k)
    assert top_k <= block.touched(tokens) + 1e-9
    assert block.touched(tokens) <= block.touched(tokens + 1) <= block.count


def test_a_single_query_attends_to_the_latents_that_all_heads_share():
    row = mla(2, 1, 1000, HEADS, Precision.BF16)
    assert row.flops == 2 * 2 * 1000 * 128 * (576 + 512)
    assert row.bytes == 2 * 2 * (1000 * 576 + 128 * (576 + 512))


def test_a_prompt_attends_to_expanded_keys_and_values():
    row = mla(1, 100, 100, HEADS, Precision.BF16)
    assert row.flops == 2 * 5050 * 128 * (192 + 128)
    assert row.bytes == 2 * (2 * 100 * 128 * (192 + 128))


def test_a_batched_linear_is_as_many_linears():
    row = batched_linear("x", 3, 5, 7, 11, Precision.BF16)
    assert row.flops == 11 * 2 * 3 * 5 * 7
    assert row.bytes == 11 * 2 * (5 * 7 + 3 * 5 + 3 * 7)


def test_decode_absorbs_and_a_prompt_expands():
    decode = {row.name: row for row in rows_of(V3) if row.count == 58}
    assert {"q_absorb", "v_absorb", "router", "experts", "gate_up_proj"} <= set(decode)
    assert "kv_b_proj" not in decode
    assert decode["q_absorb"].shape == (4, 512, 128, 128)
    prompt = {row.name: row for row in rows_of(V3, query=100, kv=100) if row.count == 58}
    assert "q_absorb" not in prompt
    assert prompt["kv_b_proj"].shape == (400, 128 * 256, 512)


def test_tensor_ranks_sum_and_data_ranks_exchange():
    tensor = rows_of(V3, tensor=8, expert=8)
    assert runs(tensor, OperationKind.ALL_REDUCE) == 2 * 61
    assert runs(tensor, OperationKind.ALL_TO_ALL) == 0
    both = rows_of(V3, tensor=2, data=4, expert=8)
    assert runs(both, OperationKind.ALL_REDUCE) == 2 * 3 + 58
    assert runs(both, OperationKind.ALL_TO_ALL) == 2 * 58
    (exchange,) = of_kind(both, OperationKind.ALL_TO_ALL)
    assert exchange.bytes == 4 * 8 * 7168 / 2 * 2 * 7 / 8


def test_experts_see_the_tokens_of_all_data_ranks():
    (alone,) = of_kind(rows_of(V3, expert=1), OperationKind.EXPERTS)
    (spread,) = of_kind(rows_of(V3, data=8, expert=8), OperationKind.EXPERTS)
    assert (alone.shape[0], spread.shape[0]) == (4, 32)
    assert spread.shape[4] == 32 * 8 / 8


@given(st.sampled_from([V3, MIXTRAL]), st.integers(1, 64), st.integers(1, 4096))
def test_work_and_memory_grow_with_batch_and_context(architecture, count, kv):
    def moved(count, kv):
        rows = rows_of(architecture, count=count, kv=kv)
        return sum(row.bytes * row.count for row in rows), sum(r.flops * r.count for r in rows)

    base = moved(count, kv)
    assert all(more > less for more, less in zip(moved(count + 1, kv), base, strict=True))
    assert all(more > less for more, less in zip(moved(count, kv + 1), base, strict=True))
    one = Parallelism()
    small = activations_bytes(architecture, one, Precision.BF16, count, count)
    assert activations_bytes(architecture, one, Precision.BF16, count + 1, count + 1) > small


def test_latents_say_what_they_lack():
    assert isinstance(HEADS, LatentAttention)
    assert HEADS.window is None
