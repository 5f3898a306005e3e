"""Built models are the architectures that they stand for, whole or cut into ranks."""

from dataclasses import replace

import pytest
import torch

from model.architecture import LayerGroup
from model.blocks import Activation, Experts
from model.dimensions import architecture_of_dimensions
from model.errors import InvalidFieldError
from model.families import FAMILIES, WindowRule
from model.huggingface import architecture_from_config
from model.precision import Precision
from profiler.device import open_device
from profiler.models import decoder
from profiler.modules import build_model, configuration_of, shard, with_depth

CPU = open_device("cpu")
DENSE = sorted(
    name
    for name, family in FAMILIES.items()
    if not {"experts", "kv_rank", "linear_key_heads"} & {*family.keys}
)
MIXED = sorted(
    name
    for name, family in FAMILIES.items()
    if {"experts", "kv_rank"} & {*family.keys}
    and not {"index_top_k", "linear_key_heads"} & {*family.keys}
)
"""Families with experts or latent attention."""
UNCOUNTED = {
    # Sinks, one a head.
    "gpt_oss": lambda layer, hidden: layer.attention.query_heads,
    # One norm over all heads in the place of one a head.
    "minimax_m2": lambda layer, hidden: (
        layer.attention.head_dim * (layer.attention.query_heads + layer.attention.kv_heads - 2)
    ),
    # A gate of the shared experts.
    "qwen2_moe": lambda layer, hidden: hidden,
    # Its norm of queries and keys has no weights.
    "llama4_text": lambda layer, hidden: -2 * layer.attention.head_dim,
}
"""Parameters of a layer that modules have and the architecture leaves out: no work to speak of."""
CUTTABLE = sorted(name for name in DENSE if "head_dim" in FAMILIES[name].keys)
SIZES = {
    "hidden_size": 32,
    "layer_count": 2,
    "query_heads": 4,
    "kv_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "vocab_size": 128,
    "learned_positions": 64,
}
MIXED_SIZES = SIZES | {
    "layer_count": 3,
    "experts": 8,
    "experts_per_token": 2,
    "expert_intermediate_size": 16,
    "leading_dense_layers": 1,
    "kv_rank": 16,
    "query_rank": 24,
    "rope_dim": 4,
    "value_dim": 12,
}
MIXED_EXTRA = {
    "llama4_text": {
        "intermediate_size": 16,
        "intermediate_size_mlp": 48,
        "moe_layers": [1, 2],
        "attention_chunk_size": 16,
    },
    "qwen2_moe": {"mlp_only_layers": [2], "shared_expert_intermediate_size": 20},
    "qwen3_moe": {"mlp_only_layers": [0]},
}


def tiny_mixture(family, **changes):
    """A tiny architecture with a layer without experts where the family may have one."""
    keys = FAMILIES[family].keys
    config = {
        names[0]: value
        for name, value in (MIXED_SIZES | changes).items()
        if (names := keys.get(name))
    }
    config |= _extra(family) | MIXED_EXTRA.get(family, {})
    return architecture_from_config({"model_type": family} | config, family)


def tiny(family, **changes):
    """A tiny architecture as a config.json of the family would give it."""
    keys = FAMILIES[family].keys
    config = {
        names[0]: value for name, value in (SIZES | changes).items() if (names := keys.get(name))
    }
    return architecture_from_config({"model_type": family} | config | _extra(family), family)


def _extra(family):
    return {"sliding_window": 16} if FAMILIES[family].window is WindowRule.PATTERN else {}


def build(architecture, precision=Precision.FP32):
    return build_model(architecture, precision, CPU)


@pytest.mark.parametrize("family", DENSE)
def test_a_built_model_has_the_parameters_that_its_architecture_counts(family):
    architecture = tiny(family)
    model = build(architecture)
    assert model.config.model_type == family
    assert model.num_parameters() == architecture.parameter_count()
    assert len(decoder(model).layers) == architecture.layer_count
    assert not model.training


@pytest.mark.parametrize("family", DENSE)
def test_a_built_model_runs_and_its_weights_are_no_zeros(family):
    model = build(tiny(family))
    assert all(parameter.std() > 0 for parameter in model.parameters() if parameter.numel() > 1)
    with torch.inference_mode():
        logits = model(input_ids=torch.arange(6).view(2, 3)).logits
    assert logits.shape == (2, 3, SIZES["vocab_size"])
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("tensor", [1, 2])
@pytest.mark.parametrize("family", MIXED)
def test_a_mixture_has_the_parameters_that_its_architecture_counts(family, tensor):
    architecture = shard(tiny_mixture(family), tensor)
    model = build(architecture)
    assert model.config.model_type == family
    counted = architecture.parameter_count()
    for group in architecture.layers:
        # Dense layers of qwen2_moe have no shared experts to gate.
        if family != "qwen2_moe" or isinstance(group.layer.feed_forward, Experts):
            extra = UNCOUNTED.get(family, lambda *_: 0)(group.layer, architecture.hidden_size)
            counted += group.count * extra
    assert model.num_parameters() == counted


@pytest.mark.parametrize("family", MIXED)
def test_layers_without_experts_come_first(family):
    architecture = tiny_mixture(family)
    counts = [len(list(_experts_of(layer))) for layer in decoder(build(architecture)).layers]
    dense = [
        group.count
        for group in architecture.layers
        if not isinstance(group.layer.feed_forward, Experts)
    ]
    assert counts == [0] * sum(dense) + [1] * (3 - sum(dense))
    assert bool(dense) is (family not in {"gpt_oss", "minimax_m2", "mixtral"})


@pytest.mark.parametrize("family", MIXED)
def test_a_mixture_runs_and_its_weights_are_no_zeros(family):
    model = build(tiny_mixture(family))
    assert all(parameter.std() > 0 for parameter in model.parameters() if parameter.numel() > 1)
    with torch.inference_mode():
        logits = model(input_ids=torch.arange(6).view(2, 3)).logits
    assert logits.shape == (2, 3, SIZES["vocab_size"])
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("family", sorted(set(MIXED) - {"llama4_text"}))
def test_random_weights_send_tokens_to_as_many_experts_as_are_expected(family):
    torch.manual_seed(1)
    model = build(tiny_mixture(family, hidden_size=64, experts=16, vocab_size=1024))
    blocks = [block for layer in decoder(model).layers for block in _experts_of(layer)]
    chosen = []
    for block in blocks:
        block.register_forward_pre_hook(
            lambda _, args, kwargs: chosen.append(args[1] if len(args) > 1 else kwargs),
            with_kwargs=True,
        )
    with torch.inference_mode():
        for _ in range(20):
            model(input_ids=torch.randint(0, 1024, (6, 1)))
    touched = [each.unique().numel() for each in chosen]
    count = blocks[0].num_experts
    top_k = chosen[0].shape[-1]
    expected = count * (1 - (1 - top_k / count) ** 6)
    assert sum(touched) / len(touched) == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize(
    ("family", "changes", "field"),
    [
        ("mixtral", {"leading_dense_layers": 1}, "leading_dense_layers"),
        ("mixtral", {"shared_intermediate_size": 16}, "shared_intermediate_size"),
        (
            "deepseek_v3",
            {"kv_rank": 8, "rope_dim": 4, "shared_intermediate_size": 20},
            "shared_intermediate_size",
        ),
        ("deepseek_v3", {}, "kv_rank"),
        ("qwen3_moe", {"shared_intermediate_size": 16}, "shared_intermediate_size"),
        ("llama4_text", {"shared_intermediate_size": 20}, "shared_intermediate_size"),
        ("llama", {}, "experts"),
        ("deepseek_v3", {"kv_rank": 8, "rope_dim": 3}, "rope_dim"),
        ("mixtral", {"kv_rank": 8, "rope_dim": 4}, "kv_rank"),
    ],
)
def test_blocks_that_modules_lack_are_refused_by_name(family, changes, field):
    sizes = {name: MIXED_SIZES[name] for name in ("experts", "experts_per_token")}
    sizes |= {name: SIZES[name] for name in ("hidden_size", "layer_count", "query_heads")}
    sizes |= {"intermediate_size": 48, "vocab_size": 128, "expert_intermediate_size": 16}
    architecture = architecture_of_dimensions(**sizes | changes, model_type=family)
    with pytest.raises(InvalidFieldError, match=family) as raised:
        build(architecture)
    assert raised.value.field == field


def test_shared_experts_are_counted_by_the_routed_ones_width():
    architecture = architecture_of_dimensions(
        **{name: size for name, size in MIXED_SIZES.items() if name != "learned_positions"},
        shared_intermediate_size=32,
    )
    model = build(architecture)
    assert model.config.n_shared_experts == 2
    assert model.num_parameters() == architecture.parameter_count()


@pytest.mark.parametrize(
    ("precision", "width"), [(Precision.FP32, 22), (Precision.BF16, 20), (Precision.FP16, 20)]
)
def test_widths_that_grouped_products_do_not_take_are_refused(precision, width):
    with pytest.raises(InvalidFieldError, match=f"not {width}") as raised:
        build(tiny_mixture("deepseek_v2", expert_intermediate_size=width), precision)
    assert raised.value.field == "expert_intermediate_size"


def test_experts_in_packed_weights_are_refused():
    with pytest.raises(InvalidFieldError, match="int8") as raised:
        build(tiny_mixture("mixtral"), Precision.INT8_WEIGHT_ONLY)
    assert raised.value.field == "precision"


@pytest.mark.parametrize(
    ("flags", "family"),
    [
        ({}, "llama"),
        ({"qkv_bias": True}, "qwen2"),
        ({"qk_norm": True}, "qwen3"),
        ({"qkv_bias": True, "attention_output_bias": True}, "llama"),
        ({"mlp_bias": True}, "llama"),
        ({"tied_embeddings": True}, "llama"),
    ],
)
def test_explicit_dimensions_get_modules_with_the_same_parameters(flags, family):
    architecture = architecture_of_dimensions(
        **{name: size for name, size in SIZES.items() if name != "learned_positions"}, **flags
    )
    model = build(architecture)
    assert model.config.model_type == family
    assert model.num_parameters() == architecture.parameter_count()


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_are_one_tensor_and_others_are_not(tied):
    model = build(replace(tiny("llama"), tied_embeddings=tied))
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (embedding.data_ptr() == head.data_ptr()) is tied


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16, Precision.FP16])
def test_weights_have_the_precisions_type(precision):
    model = build(tiny("llama"), precision)
    assert {p.element_size() for p in model.parameters()} == {precision.weight_bytes}


def test_a_precision_that_plain_modules_do_not_run_in_is_refused():
    with pytest.raises(InvalidFieldError, match="fp4") as raised:
        build(tiny("llama"), Precision.FP4)
    assert raised.value.field == "precision"


@pytest.mark.parametrize("family", CUTTABLE)
def test_a_rank_has_its_share_of_heads_columns_and_vocabulary(family):
    whole, cut = tiny(family), shard(tiny(family), 2)
    model = build(cut)
    assert model.num_parameters() == cut.parameter_count()
    layer, hidden = cut.layers[0].layer, SIZES["hidden_size"]
    assert (layer.attention.query_heads, layer.attention.kv_heads) == (2, 1)
    assert layer.feed_forward.intermediate_size == SIZES["intermediate_size"] // 2
    assert cut.hidden_size == whole.hidden_size
    assert cut.layer_count == whole.layer_count
    shapes = {tuple(m.weight.shape) for m in _linears(decoder(model).layers[0])}
    # Queries alone, or with keys and values where the family fuses them.
    assert shapes & {(2 * 8, hidden), ((2 + 2 * 1) * 8, hidden)}
    assert (hidden, SIZES["intermediate_size"] // 2) in shapes
    assert model.get_output_embeddings().weight.shape == (SIZES["vocab_size"] // 2, hidden)


def test_too_few_kv_heads_are_replicated():
    cut = shard(tiny("llama"), 4)
    assert (cut.layers[0].layer.attention.query_heads, cut.layers[0].layer.attention.kv_heads) == (
        1,
        1,
    )
    assert build(cut).num_parameters() == cut.parameter_count()


def test_one_rank_is_the_whole():
    assert shard(tiny("gpt2"), 1) == tiny("gpt2")


@pytest.mark.parametrize("family", sorted(set(DENSE) - set(CUTTABLE)))
def test_a_family_whose_heads_follow_from_the_hidden_size_cannot_be_cut(family):
    with pytest.raises(InvalidFieldError, match=family) as raised:
        shard(tiny(family), 2)
    assert raised.value.field == "tensor"


def test_a_degree_that_does_not_fit_the_heads_is_refused():
    with pytest.raises(InvalidFieldError, match="3 does not divide") as raised:
        shard(tiny("llama"), 3)
    assert raised.value.field == "tensor"


def windows_of(model):
    types = getattr(model.config, "layer_types", None)
    return model.config.sliding_window, types


@pytest.mark.parametrize("family", ["mistral", "phi3", "starcoder2"])
def test_a_window_of_all_layers_is_kept(family):
    architecture = _windowed(tiny(family), [(16, 2)])
    assert build(architecture).config.sliding_window == 16
    assert build(_windowed(tiny(family), [(None, 2)])).config.sliding_window is None


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "smollm3", "gemma2", "gemma3_text"])
def test_a_window_of_some_layers_is_kept(family):
    config = build(_windowed(tiny(family), [(16, 2), (None, 1)])).config
    assert config.sliding_window == 16
    assert sorted(config.layer_types) == ["full_attention"] + ["sliding_attention"] * 2


def test_a_window_bounds_what_the_cache_keeps():
    model = build(_windowed(tiny("mistral"), [(8, 2)]))
    with torch.inference_mode():
        cache = model(input_ids=torch.zeros(1, 40, dtype=torch.long), use_cache=True)
    kept = {layer.keys.shape[-2] for layer in cache.past_key_values.layers}
    assert kept == {7}


def test_a_shallow_model_keeps_its_kinds_of_layers():
    deep = _windowed(tiny("gemma2"), [(16, 30), (None, 10)])
    assert [g.count for g in with_depth(deep, 4).layers] == [3, 1]
    assert [g.count for g in with_depth(deep, 2).layers] == [2, 1]
    assert with_depth(deep, 40) == deep
    assert with_depth(deep, 400) == deep


def test_a_request_of_any_length_finds_a_position():
    assert configuration_of(tiny("llama")).max_position_embeddings >= 1 << 20


def test_the_activation_is_the_families_own():
    # It costs next to nothing and families spell it their own way.
    plain = tiny("starcoder2")
    assert plain.layers[0].layer.feed_forward.activation is Activation.GELU
    assert configuration_of(plain).hidden_act == "gelu_pytorch_tanh"


def _experts_of(layer):
    return (module for module in layer.modules() if type(module).__name__.endswith("Experts"))


def _linears(module):
    return [m for m in module.modules() if hasattr(m, "weight") and m.weight.dim() == 2]


def _windowed(architecture, groups):
    layer = architecture.layers[0].layer
    return replace(
        architecture,
        layers=tuple(
            LayerGroup(
                layer=replace(layer, attention=replace(layer.attention, window=window)),
                count=count,
            )
            for window, count in groups
        ),
    )
