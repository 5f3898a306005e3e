"""Latent attention timed alone: the numbers of transformers' own, over cold caches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

import profiler.operations
from model.dimensions import architecture_of_dimensions
from model.precision import Precision
from model.shapes import operations_of
from profiler.device import Device, open_device
from profiler.latent import (
    BatchedLinearPoint,
    LatentPoint,
    attend_expanded,
    attend_to_latents,
    latent_values,
    measure_batched_linear,
    measure_latent,
    multiply_heads,
)
from profiler.modules import build_model
from profiler.operations import AttentionModule, causal_mask
from profiler.timing import Effort

SMALL_CACHE = Device("cpu", 1 << 16)
QUICK = Effort(seconds=0.0, min_samples=2, max_samples=2, sample_ms=0.01)
HEADS, RANK, ROPE, DIM, VALUE, HIDDEN = 4, 16, 8, 12, 10, 32
DECODE = LatentPoint(2, 1, 9, HEADS, RANK, ROPE, DIM, VALUE)
CHUNK = LatentPoint(2, 4, 9, HEADS, RANK, ROPE, DIM, VALUE)
PROMPT = LatentPoint(2, 9, 9, HEADS, RANK, ROPE, DIM, VALUE)

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=gpu)])


@pytest.fixture(scope="module")
def layer():
    """DeepSeek's attention with random weights wide enough that scores differ."""
    architecture = architecture_of_dimensions(
        hidden_size=HIDDEN,
        layer_count=1,
        query_heads=HEADS,
        head_dim=DIM,
        kv_rank=RANK,
        query_rank=24,
        rope_dim=ROPE,
        value_dim=VALUE,
        intermediate_size=48,
        vocab_size=64,
    )
    model = build_model(architecture, Precision.FP32, SMALL_CACHE)
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.mul_(20)
    return model, attention


@pytest.fixture
def pass_through(layer):
    """Runs transformers' attention; returns what goes into its output projection, and the cache."""
    model, attention = layer

    def run(x, cache):
        inner = []
        handle = attention.o_proj.register_forward_pre_hook(lambda _, args: inner.append(args[0]))
        past = cache.get_seq_length()
        positions = torch.arange(past, past + x.shape[1])[None]
        rotary = model.model.rotary_emb(x, positions)
        mask = causal_mask(
            LatentPoint(x.shape[0], x.shape[1], past + x.shape[1], HEADS, RANK, ROPE, DIM, VALUE),
            SMALL_CACHE,
        )
        with torch.inference_mode():
            attention(x, position_embeddings=rotary, attention_mask=mask, cache=cache)
        handle.remove()
        return inner[0].unflatten(-1, (HEADS, VALUE))

    return run


def rotated_query(layer, x, past):
    """The query as transformers' attention makes it, (sequences, heads, tokens, dim + rope)."""
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
        apply_rotary_pos_emb_interleave,
    )

    model, attention = layer
    query = attention.q_b_proj(attention.q_a_layernorm(attention.q_a_proj(x)))
    query = query.unflatten(-1, (HEADS, DIM + ROPE)).transpose(1, 2)
    plain, rotary = query.split([DIM, ROPE], dim=-1)
    cos, sin = model.model.rotary_emb(x, torch.arange(past, past + x.shape[1])[None])
    rotary, _ = apply_rotary_pos_emb_interleave(rotary, rotary[:, :1], cos, sin)
    return plain, rotary


@torch.inference_mode()
@pytest.mark.parametrize("past", [1, 7])
def test_absorbed_decode_is_transformers_attention_with_its_weights(layer, pass_through, past):
    torch.manual_seed(past)
    cache = DynamicCache()
    pass_through(torch.randn(3, past, HIDDEN), cache)
    x = torch.randn(3, 1, HIDDEN)
    expected = pass_through(x, cache)  # (sequences, 1, heads, value)
    latents = torch.cat([cache.layers[0].keys, cache.layers[0].values], dim=-1)[:, 0]
    plain, rotary = rotated_query(layer, x, past)
    _, attention = layer
    expand = attention.kv_b_proj.weight.unflatten(0, (HEADS, DIM + VALUE))
    absorbed = multiply_heads(plain[:, :, 0], expand[:, :DIM])
    query = torch.cat([absorbed, rotary[:, :, 0]], dim=-1)
    emptied = latents.clone()
    emptied[:, -1] = 0
    found = attend_to_latents(query, emptied, latents[:, -1:], RANK, attention.scaling)
    found = multiply_heads(found, expand[:, DIM:].transpose(1, 2))
    assert torch.allclose(found, expected[:, 0], rtol=1e-4, atol=1e-4 * expected.abs().max())
    assert expected.std() > 0
    assert torch.equal(emptied, latents)


@torch.inference_mode()
@pytest.mark.parametrize("past", [0, 5])
def test_expanded_attention_is_transformers_with_its_weights(layer, pass_through, past):
    torch.manual_seed(past)
    cache = DynamicCache()
    if past:
        pass_through(torch.randn(2, past, HIDDEN), cache)
    x = torch.randn(2, 6, HIDDEN)
    expected = pass_through(x, cache)
    latents, rotary_keys = cache.layers[0].keys, cache.layers[0].values
    _, attention = layer
    expanded = attention.kv_b_proj(latents[:, 0]).unflatten(-1, (HEADS, DIM + VALUE))
    point = LatentPoint(2, 6, past + 6, HEADS, RANK, ROPE, DIM, VALUE)
    found = attend_expanded(
        AttentionModule(1, attention.scaling),
        torch.cat(rotated_query(layer, x, past), dim=-1),
        expanded.transpose(1, 2),
        rotary_keys,
        causal_mask(point, SMALL_CACHE),
    )
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max())


@devices
@pytest.mark.parametrize("point", [DECODE, CHUNK, PROMPT], ids=["decode", "chunk", "prompt"])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_a_latent_attention_is_measured_with_its_sizes(device, point, precision):
    opened = SMALL_CACHE if device == "cpu" else open_device(device)
    (row,) = measure_latent(point, precision, opened, QUICK)
    assert (row.kind, row.group, row.precision) == ("mla", point.group, precision)
    (operation,) = operations_of(row)
    assert operation.shape == (2, point.query_tokens, 9, HEADS, RANK, ROPE, DIM, VALUE)
    assert 0 < row.latency_ms.p10 <= row.latency_ms.median <= row.latency_ms.p90


@devices
def test_products_of_heads_are_measured_at_each_of_their_rows(device):
    opened = SMALL_CACHE if device == "cpu" else open_device(device)
    point = BatchedLinearPoint(16, 12, 4, (1, 3, 20))
    rows = list(measure_batched_linear(point, Precision.BF16, opened, QUICK))
    for row, m in zip(rows, point.rows, strict=True):
        assert (row.kind, row.group) == ("batched_linear", point.group)
        (operation,) = operations_of(row)
        assert operation.shape == (m, 16, 12, 4)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
def test_each_head_meets_its_own_weights(tokens, heads, k, n):
    x, weights = torch.randn(tokens, heads, k), torch.randn(heads, k, n)
    found = multiply_heads(x, weights)
    assert torch.allclose(found, torch.einsum("thk,hkn->thn", x, weights), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 12), st.integers(0, 12), st.integers(1, 4))
def test_caches_rotate_beyond_the_cache_of_the_device(sequences, query, past, heads):
    point = LatentPoint(sequences, query, query + past, heads, RANK, ROPE, DIM, VALUE)
    seen = []
    time_runs = profiler.operations.time_runs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            profiler.operations,
            "time_runs",
            lambda *args: (seen.extend(args[1]), time_runs(*args))[1],
        )
        list(measure_latent(point, Precision.FP32, SMALL_CACHE, QUICK))
    held = {
        tensor.data_ptr(): tensor.nbytes
        for run in seen
        for tensor in run.args
        if isinstance(tensor, torch.Tensor) and tensor.numel()
    }
    size = 4 * latent_values(point)
    tensors = sum(held.values())
    mask = point.query_tokens * point.kv_tokens * sequences * len(seen)
    assert tensors >= SMALL_CACHE.cold_bytes or len(seen) == profiler.operations.MAX_COPIES
    assert tensors <= SMALL_CACHE.cold_bytes + 2 * size + mask
