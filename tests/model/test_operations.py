"""FLOPs and bytes against figures computed by hand."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.architecture import Layer, Norm
from model.blocks import Attention, FeedForward
from model.errors import InvalidFieldError
from model.execution import layer_operations, layer_overhead, projections_of, step_operations
from model.operations import (
    LINEARS,
    SHAPE_FIELDS,
    OperationKind,
    all_reduce,
    attention,
    embedding,
    linear,
    sum_of_visible,
    total,
)
from model.precision import Precision
from model.presets import preset
from model.workload import Parallelism, Sequences

HEADS = Attention(query_heads=32, kv_heads=8, head_dim=128)


def step(count=1, query=1, kv=1):
    return (Sequences(count=count, query_tokens=query, kv_tokens=kv),)


def operations(name="llama-3.1-8b", steps=None, engine="vllm", first=False, **degrees):
    return step_operations(
        preset(name),
        steps or step(1, 1, 512),
        Parallelism(**degrees),
        Precision.BF16,
        Precision.BF16,
        engine,
        first=first,
    )


def named(rows, name):
    (row,) = [o for o in rows if o.name == name]
    return row


def test_a_linear_counts_a_multiply_add_as_two_and_moves_everything_once():
    row = linear("x", 3, 5, 7, Precision.BF16)
    assert row.flops == 2 * 3 * 5 * 7
    assert row.bytes == 2 * (5 * 7 + 3 * 5 + 3 * 7)


def test_packed_weights_shrink_the_weights_alone():
    row = linear("x", 1, 4096, 4096, Precision.FP8)
    assert row.bytes == 4096 * 4096 + 2 * 2 * 4096


def test_decode_attention_reads_the_whole_cache_of_the_kv_heads():
    row = attention(4, 1, 1000, HEADS, Precision.BF16)
    assert row.flops == 4 * 4 * 1000 * 32 * 128  # QK and PV, two each
    assert row.bytes == 4 * 2 * 2 * (1000 * 8 * 128 + 32 * 128)


def test_causal_prefill_sees_half_of_the_square():
    row = attention(1, 512, 512, HEADS, Precision.BF16)
    assert row.flops == 4 * (512 * 513 / 2) * 32 * 128


def test_a_window_bounds_what_is_seen_and_read():
    narrow = replace(HEADS, window=64)
    decode = attention(1, 1, 1000, narrow, Precision.BF16)
    assert decode.flops == 4 * 64 * 32 * 128
    assert decode.shape[2] == 64
    prefill = attention(1, 100, 100, narrow, Precision.BF16)
    assert prefill.flops == 4 * (64 * 65 / 2 + 36 * 64) * 32 * 128


@given(
    st.integers(1, 40),
    st.integers(0, 40),
    st.integers(1, 60),
)
def test_visible_keys_agree_with_counting_them_one_by_one(query, past, window):
    kv = query + past
    counted = sum(min(past + i + 1, window) for i in range(query))
    assert sum_of_visible(query, kv, window) == counted


def test_a_ring_all_reduce_sends_twice_the_message_less_ones_own_share():
    assert all_reduce(1000, 4, Precision.BF16).bytes == 2000 * 2 * 3 / 4


def test_the_embedding_reads_and_writes_its_rows():
    assert embedding(10, 64, Precision.FP32).bytes == 2 * 10 * 64 * 4


def test_elementwise_kernels_of_a_llama_layer():
    layer = Layer(
        attention=Attention(query_heads=4, kv_heads=2, head_dim=8),
        feed_forward=FeedForward(intermediate_size=100),
    )
    row = layer_overhead(32, layer, 3, 1, Precision.FP32)
    # Two RMS norms of 6, rotary and cache 10, activation and product 2, residual sums 2.
    assert row.shape == (26, 3 * ((12 + 2) * 32 + 5 * (32 + 16) + 2 * 100), 1)
    layer_norms = replace(layer, norm=Norm.LAYER)
    assert layer_overhead(32, layer_norms, 3, 1, Precision.FP32).shape[0] == 16


def test_a_decode_step_of_a_whole_model_does_two_flops_a_weight():
    flops, moved = total(operations(steps=step(1, 1, 1)))
    architecture = preset("llama-3.1-8b")
    used = architecture.parameter_count() - architecture.vocab_size * architecture.hidden_size
    assert flops == pytest.approx(2 * used, rel=0.005)
    assert moved == pytest.approx(2 * used, rel=0.01)


def test_eager_engines_run_projections_apart_and_fused_ones_together():
    eager, fused = operations(engine="transformers"), operations(engine="vllm")
    assert {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"} <= {o.name for o in eager}
    assert named(fused, "qkv_proj").shape == (1, 4096 + 2 * 1024, 4096)
    assert named(fused, "gate_up_proj").shape == (1, 2 * 14336, 4096)
    linear_flops = [
        sum(o.flops for o in rows if o.kind is OperationKind.LINEAR) for rows in (eager, fused)
    ]
    assert linear_flops[0] == linear_flops[1]


@pytest.mark.parametrize("tensor", [2, 4, 8, 16, 32])
def test_tensor_parallel_ranks_share_the_flops(tensor):
    one, many = operations(), operations(tensor=tensor)
    for name in ("o_proj", "gate_up_proj", "down_proj", "head", "attention"):
        assert named(many, name).flops * tensor == pytest.approx(named(one, name).flops, rel=1e-3)
    reduced = named(many, "all_reduce")
    assert reduced.count == 2 * 32
    assert reduced.shape == (4096 * 2, tensor)


@pytest.mark.parametrize("engine", ["transformers", "torch"])
def test_logits_of_a_cut_head_are_gathered(engine):
    vocab = preset("llama-3.1-8b").vocab_size
    for steps in (step(4, 1, 512), step(4, 512, 512)):
        gathered = named(operations(steps=steps, engine=engine, tensor=4), "all_gather")
        assert gathered.count == 1
        assert gathered.shape == (4 * vocab * 2, 4)
    assert "all_gather" not in {o.name for o in operations(engine=engine)}


def test_what_serving_engines_gather_is_in_their_steps_coefficients():
    assert "all_gather" not in {o.name for o in operations(engine="vllm", tensor=4)}


def test_kv_heads_are_replicated_when_there_are_too_few():
    assert named(operations(tensor=16), "attention").shape[3:5] == (2, 1)


def test_a_degree_that_does_not_fit_the_heads_is_named():
    with pytest.raises(InvalidFieldError) as caught:
        operations(tensor=3)
    assert caught.value.field == "tensor"


def test_pipeline_stages_hand_the_residual_stream_on():
    rows = operations(steps=step(4, 1, 100), pipeline=4)
    handed = named(rows, "stage_to_stage")
    assert handed.count == 3
    assert handed.bytes == 4 * 4096 * 2


def test_a_request_pays_its_overhead_once():
    kinds = [o.kind for o in operations(first=True)]
    assert kinds.count(OperationKind.REQUEST_OVERHEAD) == 1
    assert OperationKind.REQUEST_OVERHEAD not in [o.kind for o in operations()]


def test_transformers_expands_the_latents_of_the_whole_context_in_every_pass():
    absorbed, expanded = (
        _layer_of("deepseek-r1", step(2, 1, 300), engine) for engine in ("vllm", "transformers")
    )
    assert {"q_absorb", "v_absorb"} <= {o.name for o in absorbed}
    assert not {"q_absorb", "v_absorb"} & {o.name for o in expanded}
    assert named(absorbed, "attention").kind is OperationKind.MLA
    attending = named(expanded, "attention")
    # Of 128 heads, keys of 128 + 64 and values of 128: as two of 160.
    assert attending.shape == (2, 1, 300, 128, 128, 160)
    assert attending.flops == 2.0 * 2 * 300 * 128 * (192 + 128)
    assert named(expanded, "kv_b_proj").shape == (2 * 300, 128 * (128 + 128), 512)


def test_a_prompts_latents_are_expanded_by_every_engine():
    for engine in ("transformers", "vllm"):
        rows = _layer_of("deepseek-r1", step(2, 30, 300), engine)
        assert named(rows, "kv_b_proj").shape == (2 * 300, 128 * (128 + 128), 512)
        assert named(rows, "attention").kind is OperationKind.MLA


def _layer_of(name, steps, engine):
    architecture = preset(name)
    return layer_operations(
        architecture.hidden_size,
        architecture.layers[-1].layer,
        steps,
        Precision.BF16,
        Precision.BF16,
        projections_of(architecture, engine),
    )


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        ("transformers", OperationKind.ATTENTION),
        ("torch", OperationKind.STATIC_ATTENTION),
        ("gpt-fast", OperationKind.STATIC_ATTENTION),
        ("vllm", OperationKind.PAGED_ATTENTION),
        ("sglang", OperationKind.PAGED_ATTENTION),
    ],
)
def test_each_engine_attends_to_the_cache_that_it_has(engine, kind):
    attentions = [o for o in _layer_of("llama-3.1-8b", step(2, 3, 30), engine) if "att" in o.name]
    assert [o.kind for o in attentions] == [kind]


def _kinds(name, engine, precision):
    """The kinds of linears in a step, by their names."""
    sizes = (Parallelism(), precision, precision.activation)
    rows = step_operations(preset(name), step(2, 3, 30), *sizes, engine)
    return {row.name: row.kind for row in rows if row.kind in LINEARS}


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("name", ["llama-3.1-8b", "gpt2"])
def test_serving_engines_multiply_fp8_with_one_scale_for_all_weights(engine, name):
    names = {"qkv_proj", "o_proj", "down_proj", "head"}
    kinds = _kinds(name, engine, Precision.FP8)
    assert kinds.keys() >= names
    assert set(kinds.values()) == {OperationKind.LINEAR_PER_TENSOR}
    for precision in (Precision.BF16, Precision.FP8_BLOCK, Precision.INT8, Precision.FP4):
        assert set(_kinds(name, engine, precision).values()) == {OperationKind.LINEAR}


@pytest.mark.parametrize("engine", ["transformers", "torch", "gpt-fast", "fastertransformer"])
def test_other_engines_multiply_fp8_with_a_scale_a_row(engine):
    assert set(_kinds("llama-3.1-8b", engine, Precision.FP8).values()) == {OperationKind.LINEAR}


def test_neither_experts_nor_what_stays_in_bf16_is_scaled_per_tensor():
    rows = step_operations(
        preset("deepseek-r1"),
        step(2, 3, 30),
        Parallelism(),
        Precision.FP8,
        Precision.BF16,
        "vllm",
    )
    kinds = {(row.name, row.kind, row.precision) for row in rows}
    for name in ("kv_b_proj", "o_proj", "q_b_proj", "gate_up_proj", "head"):
        assert {(k, p) for n, k, p in kinds if n == name} == {
            (OperationKind.LINEAR_PER_TENSOR, Precision.FP8)
        }
    assert ("router", OperationKind.LINEAR, Precision.BF16) in kinds
    assert ("experts", OperationKind.EXPERTS, Precision.FP8) in kinds


def test_the_scaling_changes_no_flops_and_no_bytes():
    per_row, per_tensor = (
        linear("x", 3, 64, 32, Precision.FP8, kind=kind)
        for kind in (OperationKind.LINEAR, OperationKind.LINEAR_PER_TENSOR)
    )
    assert per_tensor._replace(kind=per_row.kind) == per_row


def test_windowed_and_full_layers_are_priced_apart():
    rows = operations("gemma-3-1b", step(1, 1, 4096))
    attentions = [o for o in rows if o.name == "attention"]
    assert sorted((o.shape[2], o.count) for o in attentions) == [(512, 22), (4096, 4)]


@given(
    st.sampled_from(["gpt2", "gemma-3-1b", "llama-3.2-1b", "qwen3-0.6b", "phi-2"]),
    st.integers(1, 64),
    st.integers(1, 2048),
    st.integers(0, 2048),
    st.sampled_from(["transformers", "vllm"]),
)
@settings(max_examples=60, deadline=None)
def test_every_operation_has_the_sizes_of_its_kind(name, count, query, past, engine):
    rows = operations(name, step(count, query, query + past), engine, first=True)
    for row in rows:
        assert len(row.shape) == len(SHAPE_FIELDS[row.kind])
        assert all(size > 0 for size in row.shape)
        assert row.flops >= 0
        assert row.bytes >= 0
        assert row.count > 0


@given(st.integers(1, 64), st.integers(1, 512), st.integers(0, 512), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_more_work_costs_more_flops_and_bytes(count, query, past, more):
    base = total(operations(steps=step(count, query, query + past)))
    for grown in (
        step(count + more, query, query + past),
        step(count, query + more, query + more + past),
        step(count, query, query + past + more),
    ):
        flops, moved = total(operations(steps=grown))
        assert flops > base[0]
        assert moved > base[1]


def test_gpt2_fuses_and_transposes_its_projections_but_not_its_head():
    rows = step_operations(
        preset("gpt2"),
        (Sequences(count=1, query_tokens=1, kv_tokens=8),),
        Parallelism(),
        Precision.FP32,
        Precision.FP32,
        "transformers",
    )
    kinds = {o.name: o.kind for o in rows}
    assert kinds["qkv_proj"] is OperationKind.LINEAR_TRANSPOSED
    assert kinds["down_proj"] is OperationKind.LINEAR_TRANSPOSED
    assert kinds["head"] is OperationKind.LINEAR
    assert "q_proj" not in kinds
