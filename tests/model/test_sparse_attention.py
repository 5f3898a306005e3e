"""Sparse attention: what the indexer and the chosen latents cost, by hand and by physics."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.analytical import AnalyticalCostModel
from model.blocks import Indexer
from model.dimensions import architecture_of_dimensions, dimensions_of
from model.errors import InvalidFieldError
from model.estimate import Phase
from model.execution import step_operations
from model.hardware import data_sheet
from model.memory import kv_cache_bytes_per_sequence, weights_bytes
from model.operations import OperationKind, indexer, mla, sparse_mla, top_k
from model.precision import Precision
from model.presets import preset
from model.workload import Parallelism, Sequences

V32, V3, GLM = preset("deepseek-v3.2"), preset("deepseek-v3"), preset("glm-5")
HEADS = V32.layers[0].layer.attention
H200 = AnalyticalCostModel(data_sheet("h200-sxm"), "sglang")


def rows_of(architecture, query=1, kv=4096, count=4, **degrees):
    return step_operations(
        architecture,
        (Sequences(count=count, query_tokens=query, kv_tokens=kv),),
        Parallelism(**degrees),
        Precision.FP8_BLOCK,
        Precision.BF16,
        "sglang",
    )


@pytest.mark.parametrize("architecture", [V32, GLM])
def test_the_dimensions_come_back(architecture):
    again = architecture_of_dimensions(
        **dimensions_of(architecture),
        stored_precision=architecture.stored_precision,
        source=architecture.source,
        model_type=architecture.model_type,
    )
    assert again == architecture


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"index_top_k": 0}, "index_top_k"),
        ({"index_heads": 0}, "index_heads"),
        ({"index_head_dim": 65_537}, "index_head_dim"),
        ({"query_rank": 0}, "query_rank"),
        ({"kv_rank": 0, "query_rank": 0, "rope_dim": 0, "value_dim": 0}, "index_top_k"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, field):
    with pytest.raises(InvalidFieldError) as caught:
        architecture_of_dimensions(**{**dimensions_of(V32), **changes})
    assert caught.value.field == field


def test_a_query_sees_the_latents_chosen_for_it():
    row = sparse_mla(2, 1, 100_000, HEADS, 2048, Precision.BF16)
    assert row.flops == 2 * 2 * 2048 * 128 * (576 + 512)
    assert row.bytes == 2 * 2 * (2048 * 576 + 128 * (576 + 512))
    # A context that all fits in what is chosen is absorbed latent attention.
    short = sparse_mla(2, 1, 500, HEADS, 2048, Precision.BF16)
    dense = mla(2, 1, 500, replace(HEADS, indexer=None), Precision.BF16)
    assert (short.flops, short.bytes) == (dense.flops, dense.bytes)


def test_queries_share_no_more_than_the_cache_holds():
    row = sparse_mla(1, 100, 10_000, HEADS, 2048, Precision.FP8)
    assert row.flops == 2 * 100 * 2048 * 128 * (576 + 512)
    assert row.bytes == 10_000 * 576 + 100 * 128 * (576 + 512) * 2


def test_the_indexer_scores_every_key_in_fp8():
    row = indexer(2, 3, 1000, HEADS.indexer)
    seen = 998 + 999 + 1000
    assert row.precision is Precision.FP8
    assert row.flops == 2 * 2 * seen * 64 * 129
    assert row.bytes == 2 * (1000 * (128 + 4) + 3 * 64 * (128 + 4) + 4 * seen)


def test_the_choice_reads_every_score_and_keeps_the_best():
    row = top_k(2, 1, 5000, 2048)
    assert (row.flops, row.bytes) == (2 * 5000, 2 * 4 * (5000 + 2048))


def test_a_layer_projects_scores_chooses_and_attends_absorbed():
    for query in (1, 100):
        rows = {row.name: row for row in rows_of(V32, query=query) if row.count == 58}
        assert {"index_q_proj", "index_k_proj", "index_weights", "indexer", "top_k"} <= set(rows)
        assert rows["attention"].kind is OperationKind.SPARSE_MLA
        assert rows["q_absorb"].shape == (4 * query, 512, 128, 128)
        assert rows["index_q_proj"].shape == (4 * query, 64 * 128, 1536)
        assert "kv_b_proj" not in rows


def test_every_rank_keeps_and_scores_all_of_the_indexer():
    alone, ranks = (rows_of(V32, tensor=tensor) for tensor in (1, 8))
    for kind in (OperationKind.INDEXER, OperationKind.TOP_K):
        first, second = (next(r for r in rows if r.kind is kind) for rows in (alone, ranks))
        assert first == second
    one, eight = (
        kv_cache_bytes_per_sequence(V32, Parallelism(tensor=t), Precision.BF16, 1000)
        for t in (1, 8)
    )
    assert one == eight == 61 * 1000 * (576 * 2 + 128 + 4)


def test_an_indexer_adds_its_weights_to_memory():
    added = weights_bytes(V32, Parallelism(), Precision.BF16) - weights_bytes(
        V3, Parallelism(), Precision.BF16
    )
    index = Indexer(heads=64, head_dim=128, top_k=2048)
    assert added == 2 * 61 * index.parameter_count(7168, 1536)


def test_beyond_what_is_chosen_sparse_attention_is_cheaper_than_dense():
    def milliseconds(architecture, kv):
        rows = rows_of(architecture, kv=kv, count=32, tensor=8)
        return H200.estimate(rows, Phase.DECODE, 0.9).value_ms

    assert milliseconds(V32, 100_000) < milliseconds(V3, 100_000)
    assert milliseconds(V32, 500) > milliseconds(V3, 500)


@given(
    st.sampled_from([V32, GLM]),
    st.integers(1, 256),
    st.sampled_from([1, 2, 200, 2048]),
    st.integers(0, 200_000),
    st.integers(1, 3000),
)
def test_a_longer_context_or_a_larger_batch_never_costs_less(
    architecture, count, query, past, more
):
    def cost(count, query, past):
        rows = rows_of(architecture, query=query, kv=query + past, count=count, tensor=8)
        work = [sum(getattr(r, name) * r.count for r in rows) for name in ("flops", "bytes")]
        return [*work, H200.estimate(rows, Phase.PREFILL, 0.9).value_ms]

    base = cost(count, query, past)
    for grown in ((count, query, past + more), (count + more, query, past)):
        assert all(a >= b for a, b in zip(cost(*grown), base, strict=True))
    assert all(a > b for a, b in zip(cost(count, query + more, past), base, strict=True))


@given(st.integers(1, 200_000), st.integers(1, 10_000))
def test_memory_grows_with_every_token(tokens, more):
    for architecture in (V32, GLM):
        shorter, longer = (
            kv_cache_bytes_per_sequence(architecture, Parallelism(), Precision.FP8, length)
            for length in (tokens, tokens + more)
        )
        assert shorter < longer
