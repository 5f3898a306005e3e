"""Plain layers compute what transformers' modules compute with the same weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.architecture import Architecture, Norm
from model.blocks import Activation
from model.dimensions import architecture_of_dimensions
from model.errors import InvalidFieldError
from model.huggingface import architecture_from_config
from model.precision import Precision
from profiler.device import Device, open_device
from profiler.modules import build_model
from profiler.plain import PlainDecoder, Share
from profiler.plain_attention import Rotary, attend
from profiler.plain_limits import check_plain

CPU = Device("cpu", 1 << 20)
SIZES = {"hidden_size": 32, "layer_count": 3, "intermediate_size": 64, "vocab_size": 96}
HEADS = {"query_heads": 4, "kv_heads": 2}
LLAMA = architecture_of_dimensions(**SIZES, **HEADS)
QWEN2 = architecture_of_dimensions(**SIZES, **HEADS, qkv_bias=True, tied_embeddings=True)
QWEN3 = architecture_of_dimensions(**SIZES, **HEADS, qk_norm=True)
WINDOWED = architecture_from_config(
    {
        "model_type": "mistral",
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "intermediate_size": 64,
        "vocab_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 4,
    },
    "windowed",
)
GPT2 = architecture_of_dimensions(
    query_heads=4,
    plain_mlp=True,
    activation=Activation.GELU,
    qkv_bias=True,
    attention_output_bias=True,
    mlp_bias=True,
    learned_positions=64,
    norm=Norm.LAYER,
    tied_embeddings=True,
    **SIZES,
)
MIXTRAL = architecture_from_config(
    {
        "model_type": "mixtral",
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "intermediate_size": 48,
        "vocab_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
    },
    "mixtral",
)
ARCHITECTURES = {
    "llama": LLAMA,
    "experts": MIXTRAL,
    "biased": QWEN2,
    "normed heads": QWEN3,
    "window": WINDOWED,
}
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
devices = pytest.mark.parametrize("name", ["cpu", pytest.param("cuda:0", marks=gpu)])
TOLERANCES = {Precision.FP32: 2e-5, Precision.BF16: 5e-2}


def copy_weights(decoder, model):
    """Gives a plain decoder the weights of transformers' model."""
    base = model.model
    decoder.embedding.weight.copy_(base.embed_tokens.weight)
    decoder.norm.weight.copy_(base.norm.weight)
    decoder.head.weight.copy_(model.lm_head.weight)
    for plain, layer in zip(decoder.layers, base.layers, strict=True):
        heads = layer.self_attn
        projections = (heads.q_proj, heads.k_proj, heads.v_proj)
        plain.attention.qkv.weight.copy_(torch.cat([p.weight for p in projections]))
        if projections[0].bias is not None:
            plain.attention.qkv.bias.copy_(torch.cat([p.bias for p in projections]))
        plain.attention.output.weight.copy_(heads.o_proj.weight)
        if plain.attention.query_norm is not None:
            plain.attention.query_norm.weight.copy_(heads.q_norm.weight)
            plain.attention.key_norm.weight.copy_(heads.k_norm.weight)
        if hasattr(layer.mlp, "experts"):
            plain.feed_forward.router.weight.copy_(layer.mlp.gate.weight)
            plain.feed_forward.up.copy_(layer.mlp.experts.gate_up_proj)
            plain.feed_forward.down.copy_(layer.mlp.experts.down_proj)
        else:
            projections = (layer.mlp.gate_proj, layer.mlp.up_proj)
            plain.feed_forward.up.weight.copy_(torch.cat([p.weight for p in projections]))
            plain.feed_forward.down.weight.copy_(layer.mlp.down_proj.weight)
        plain.attention_norm.weight.copy_(layer.input_layernorm.weight)
        plain.feed_forward_norm.weight.copy_(layer.post_attention_layernorm.weight)


def with_plain_constants(model):
    """Gives a model the constants of plain layers, where families differ."""
    rotary = model.model.rotary_emb
    steps = torch.arange(0, 8, 2, device=rotary.inv_freq.device) / 8
    rotary.inv_freq.copy_(10_000.0**-steps)
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 1e-6


def larger(model):
    """Weights of a size at which a wrong sign or position shows."""
    for parameter in model.parameters():
        parameter.mul_(10)


@devices
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("which", ARCHITECTURES)
@torch.inference_mode()
def test_logits_are_those_of_transformers(which, precision, name):
    device, architecture = open_device(name), ARCHITECTURES[which]
    torch.manual_seed(0)  # in bf16 a tie of two experts may fall either way
    if device.is_cuda and (which, precision) == ("experts", Precision.BF16):
        pytest.skip("the seed has no ties on the CPU; a GPU draws other numbers")
    model = build_model(architecture, precision, device)
    larger(model)
    with_plain_constants(model)
    decoder = PlainDecoder(architecture, precision, device)
    copy_weights(decoder, model)
    ids = torch.randint(0, 96, (2, 11), device=device.torch_device)
    cache = decoder.new_cache(2, 16)
    # A prompt, a chunk behind it, and single tokens.
    for begin, end in ((0, 6), (6, 9), (9, 10), (10, 11)):
        found = decoder(ids[:, begin:end], cache, begin)
        exact = model(input_ids=ids[:, :end]).logits[:, -1].float()
        error = (found.float() - exact).norm() / exact.norm()
        assert error < TOLERANCES[precision], (begin, end)


@devices
@pytest.mark.parametrize("which", ["normed heads", "window", "experts", "deepseek"])
@torch.inference_mode()
def test_a_chunk_beside_decoding_sequences_is_what_both_are_alone(which, name):
    device = open_device(name)
    architecture = deepseek(24) if which == "deepseek" else ARCHITECTURES[which]
    torch.manual_seed(0)
    decoder = PlainDecoder(architecture, Precision.FP32, device)
    larger(decoder)
    pasts, counts, tokens = (5, 7), (2, 3), (4, 1)
    streams = [
        torch.randn(count * new, architecture.hidden_size, device=device.torch_device)
        for count, new in zip(counts, tokens, strict=True)
    ]
    shares = [
        Share(decoder.new_cache(count, 12), new, past)
        for count, new, past in zip(counts, tokens, pasts, strict=True)
    ]
    alone = [
        decoder.run_layers(stream, [share]) for stream, share in zip(streams, shares, strict=True)
    ]
    together = decoder.run_layers(torch.cat(streams), shares)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@torch.inference_mode()
def test_compiled_layers_compute_the_same():
    torch.compiler.reset()
    torch.manual_seed(0)
    decoder = PlainDecoder(next(iter(ARCHITECTURES.values())), Precision.FP32, CPU)
    larger(decoder)
    ids = torch.randint(0, 96, (2, 7))
    cache = decoder.new_cache(2, 8)
    spans = ((0, 6), (6, 7))
    exact = [decoder(ids[:, begin:end], cache, begin) for begin, end in spans]
    decoder.compile_layers()
    found = [decoder(ids[:, begin:end], cache, begin) for begin, end in spans]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


def deepseek(query_rank):
    """Latent attention in a dense layer and one of experts."""
    config = {
        "model_type": "deepseek_v3",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 48,
        "vocab_size": 96,
        "num_attention_heads": 4,
        "q_lora_rank": query_rank,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 12,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
    }
    return architecture_from_config(config, "deepseek")


@devices
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("query_rank", [None, 24])
@torch.inference_mode()
def test_latent_attention_is_that_of_transformers(query_rank, precision, name):
    torch.manual_seed(0)
    device, architecture = open_device(name), deepseek(query_rank)
    model = build_model(architecture, precision, device)
    larger(model)
    with_plain_constants(model)
    model.config.rope_interleave = False  # the same turn of rows in another order
    decoder, layer = PlainDecoder(architecture, precision, device), model.model.layers[0]
    plain, heads = decoder.layers[0].attention, layer.self_attn
    if query_rank:
        plain.compress.weight.copy_(
            torch.cat([heads.q_a_proj.weight, heads.kv_a_proj_with_mqa.weight])
        )
        plain.query_norm.weight.copy_(heads.q_a_layernorm.weight)
        plain.query.weight.copy_(heads.q_b_proj.weight)
    else:
        plain.compress.weight.copy_(heads.kv_a_proj_with_mqa.weight)
        plain.query.weight.copy_(heads.q_proj.weight)
    plain.latent_norm.weight.copy_(heads.kv_a_layernorm.weight)
    plain.expand.weight.copy_(heads.kv_b_proj.weight)
    plain.output.weight.copy_(heads.o_proj.weight)
    stream = torch.randn(2, 11, 32, device=device.torch_device, dtype=decoder.dtype)
    cache = decoder.new_cache(2, 16)
    for begin, end in ((0, 6), (6, 9), (9, 10), (10, 11)):
        share = Share(cache, end - begin, begin)
        found = plain(stream[:, begin:end].flatten(0, 1), [share.part(0)])
        positions = torch.arange(end, device=device.torch_device)[None]
        turned = model.model.rotary_emb(stream, positions)
        exact = heads(stream[:, :end], turned, None)[0][:, begin:].flatten(0, 1).float()
        assert (found.float() - exact).norm() / exact.norm() < TOLERANCES[precision], (begin, end)


def test_latents_and_experts_are_decoded():
    decoder = PlainDecoder(deepseek(24), Precision.FP32, CPU)
    assert [[tuple(kept.shape) for kept in layer] for layer in decoder.new_cache(2, 9).layers] == [
        [(2, 9, 24)]
    ] * 2
    assert sum(p.numel() for p in decoder.parameters()) == deepseek(24).parameter_count()
    with pytest.raises(InvalidFieldError, match="latent attention are not held in int8"):
        PlainDecoder(deepseek(24), Precision.INT8, CPU)


@torch.inference_mode()
def test_learned_positions_and_layer_norms_are_those_of_gpt2():
    model = build_model(GPT2, Precision.FP32, CPU)
    larger(model)
    decoder, base = PlainDecoder(GPT2, Precision.FP32, CPU), model.transformer
    decoder.embedding.weight.copy_(base.wte.weight)
    decoder.positions.weight.copy_(base.wpe.weight[:64])
    decoder.norm.load_state_dict(base.ln_f.state_dict())
    for plain, layer in zip(decoder.layers, base.h, strict=True):
        plain.attention_norm.load_state_dict(layer.ln_1.state_dict())
        plain.feed_forward_norm.load_state_dict(layer.ln_2.state_dict())
        for linear, transposed in (
            (plain.attention.qkv, layer.attn.c_attn),
            (plain.attention.output, layer.attn.c_proj),
            (plain.feed_forward.up, layer.mlp.c_fc),
            (plain.feed_forward.down, layer.mlp.c_proj),
        ):
            linear.weight.copy_(transposed.weight.t())
            linear.bias.copy_(transposed.bias)
    ids = torch.randint(0, 96, (2, 9))
    cache = decoder.new_cache(2, 9)
    for begin, end in ((0, 5), (5, 8), (8, 9)):
        found = decoder(ids[:, begin:end], cache, begin)
        exact = model(input_ids=ids[:, :end]).logits[:, -1]
        assert torch.allclose(found, exact, rtol=1e-4, atol=1e-4), (begin, end)


def test_each_matrix_has_the_parameters_of_the_architecture():
    for architecture in (*ARCHITECTURES.values(), GPT2):
        decoder = PlainDecoder(architecture, Precision.FP32, CPU)
        count = sum(parameter.numel() for parameter in decoder.parameters())
        assert count == architecture.parameter_count()


@settings(deadline=None, max_examples=30)
@given(
    sequences=st.integers(1, 3),
    tokens=st.integers(1, 9),
    past=st.integers(0, 9),
    kv_heads=st.sampled_from([1, 2, 4]),
    window=st.none() | st.integers(1, 12),
)
def test_attention_sees_what_came_before_within_its_window(
    sequences, tokens, past, kv_heads, window
):
    torch.manual_seed(0)
    query = torch.randn(sequences, tokens, 4, 8)
    key, value = torch.randn(2, sequences, tokens, kv_heads, 8)
    keys, values = torch.randn(2, sequences, kv_heads, past + tokens + 3, 8)
    behind = keys[:, :, past + tokens :].clone()
    found = attend(query, key, value, keys, values, past, window)
    end = past + tokens
    assert torch.equal(keys[:, :, past:end], key.transpose(1, 2))
    assert torch.equal(keys[:, :, end:], behind)
    wide = [kept[:, :, :end].repeat_interleave(4 // kv_heads, dim=1) for kept in (keys, values)]
    scores = query.transpose(1, 2) @ wide[0].transpose(2, 3) / 8**0.5
    at, of = torch.arange(past, end)[:, None], torch.arange(end)[None, :]
    seen = (of <= at) & (of > at - (window or end))
    shares = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1)
    exact = (shares @ wide[1]).transpose(1, 2).flatten(2)
    assert torch.allclose(found, exact, rtol=1e-4, atol=1e-5)


def test_rotary_turns_by_the_distance_alone():
    rotary = Rotary(8, 40, torch.float32, CPU)
    heads = torch.randn(1, 1, 2, 8)

    def score(first, second):
        a, b = rotary(heads, first), rotary(heads, second)
        return float((a[0, 0, 0] * b[0, 0, 1]).sum())

    assert score(3, 7) == pytest.approx(score(30, 34), abs=1e-4)
    assert score(3, 7) != pytest.approx(score(3, 20), abs=1e-4)


@pytest.mark.parametrize(
    ("config", "lacking"),
    [
        ({"model_type": "gpt_oss"}, "experts with biases"),
        ({"model_type": "deepseek_v32"}, "sparse"),
        ({"model_type": "qwen3_next"}, "linear"),
        ({"model_type": "gemma2"}, "4 norms"),
    ],
)
def test_what_plain_layers_lack_is_named(config, lacking):
    architecture = architecture_from_config(config, "x")
    assert isinstance(architecture, Architecture)
    with pytest.raises(InvalidFieldError, match=lacking) as raised:
        check_plain(architecture)
    assert raised.value.field == "model"
