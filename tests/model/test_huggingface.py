"""Reading config.json: values, defaults, windows, errors; transformers' classes are the judge."""

import contextlib
import json
import math
import warnings
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.blocks import (
    Activation,
    Attention,
    Experts,
    FeedForward,
    Indexer,
    LatentAttention,
    LinearAttention,
)
from model.errors import InvalidFieldError
from model.families import ALIASES, FAMILIES, WRAPPERS
from model.huggingface import architecture_from_config
from model.precision import Precision
from model.presets import preset, preset_names

LLAMA = {
    "model_type": "llama",
    "hidden_size": 512.0,
    "intermediate_size": 1024.0,
    "num_hidden_layers": 4.0,
    "num_attention_heads": 8.0,
    "num_key_value_heads": 2.0,
    "vocab_size": 1000.0,
}


def config_of(name):
    path = files("model") / "data" / "presets" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["config"]


def rejected(config):
    with pytest.raises(InvalidFieldError) as caught:
        architecture_from_config(config)
    return caught.value


def windows(config):
    groups = architecture_from_config(config).layers
    return {group.layer.attention.window: group.count for group in groups}


@contextlib.contextmanager
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def parameters_in_transformers():
    """Counts the parameters of the module that transformers builds, on the meta device."""
    with quiet():
        torch = pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")

    def count(config):
        options = {key: value for key, value in config.items() if key != "model_type"}
        with quiet(), torch.device("meta"):
            settings = transformers.AutoConfig.for_model(config["model_type"], **options)
            module = transformers.AutoModelForCausalLM.from_config(settings)
        return sum(parameter.numel() for parameter in module.parameters()), settings

    return count


def left_out(architecture):
    """Parameters of transformers' module that the architecture leaves out."""
    attention = architecture.layers[0].layer.attention
    layers = architecture.layer_count
    if architecture.model_type in {"qwen2_moe", "qwen3_next", "qwen3_5_moe_text"}:
        # The shared expert's gate, of one row.
        blocks = ((g.layer.feed_forward, g.count) for g in architecture.layers)
        mixtures = sum(count for block, count in blocks if isinstance(block, Experts))
        return mixtures * architecture.hidden_size
    if architecture.model_type == "gpt_oss":  # attention sinks
        return layers * attention.query_heads
    if architecture.model_type == "minimax_m2":  # norms over all heads instead of over one
        return layers * (attention.query_heads + attention.kv_heads - 2) * attention.head_dim
    if architecture.model_type == "llama4_text":  # norms without weights
        return -layers * 2 * attention.head_dim * attention.qk_norm
    return 0


WITHOUT_DEFAULT = {"deepseek_v2": {"num_experts_per_tok": 6}, "glm4_moe": {"head_dim": 128}}
"""Keys that the configuration class leaves open and this reader asks for."""


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_defaults_are_those_of_transformers(model_type, parameters_in_transformers):
    config = {"model_type": model_type} | WITHOUT_DEFAULT.get(model_type, {})
    expected, settings = parameters_in_transformers(config)
    architecture = architecture_from_config(config)
    assert architecture.parameter_count() + left_out(architecture) == expected
    assert architecture.layer_count == settings.num_hidden_layers
    assert windowed_layers(architecture) == windowed_layers_in(settings)
    routed = architecture.experts
    if routed:
        assert routed.top_k == settings.num_experts_per_tok


@pytest.mark.parametrize(("model_type", "keys"), sorted(WITHOUT_DEFAULT.items()))
def test_a_key_without_default_is_asked_for(model_type, keys):
    assert {rejected({"model_type": model_type}).field} == set(keys)


def windowed_layers(architecture):
    return sum(g.count for g in architecture.layers if g.layer.attention.window)


def windowed_layers_in(settings):
    types = getattr(settings, "layer_types", None)
    if types is None:
        return settings.num_hidden_layers * bool(getattr(settings, "sliding_window", None))
    return types.count("sliding_attention") + types.count("chunked_attention")


def linear_layers(architecture):
    groups = architecture.layers
    return sum(g.count for g in groups if isinstance(g.layer.attention, LinearAttention))


def linear_layers_in(settings):
    return (getattr(settings, "layer_types", None) or []).count("linear_attention")


SMALLEST_PRESETS = {
    preset(name).model_type: name
    for name in sorted(preset_names(), key=lambda name: -preset(name).parameter_count())
}


@pytest.mark.parametrize("name", sorted(SMALLEST_PRESETS.values()))
def test_a_preset_is_what_transformers_builds_from_its_config(name, parameters_in_transformers):
    expected, settings = parameters_in_transformers(config_of(name))
    architecture = preset(name)
    assert architecture.parameter_count() + left_out(architecture) == expected
    assert windowed_layers(architecture) == windowed_layers_in(settings)
    assert linear_layers(architecture) == linear_layers_in(settings)


@pytest.mark.parametrize(
    "options",
    [
        {"attention_bias": True, "mlp_bias": True},
        {"head_dim": 96, "tie_word_embeddings": True},
        {"num_key_value_heads": None},
        {"model_type": "qwen3", "head_dim": 64, "attention_bias": True},
        {"model_type": "starcoder2", "use_bias": False},
        {"model_type": "stablelm", "use_qkv_bias": True},
        {"model_type": "granite", "mlp_bias": True},
        {"model_type": "gemma3_text", "num_hidden_layers": 13, "sliding_window_pattern": 4},
        {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 3},
        {"model_type": "qwen3_5_text"},
        {"model_type": "qwen3_5_text", "linear_num_value_heads": 48, "attention_bias": True},
        {
            "model_type": "smollm3",
            "pad_token_id": 0,
            "use_sliding_window": True,
            "sliding_window": 64,
        },
    ],
)
def test_options_change_what_they_change_in_transformers(options, parameters_in_transformers):
    integers = {k: int(v) if isinstance(v, float) else v for k, v in LLAMA.items()}
    config = integers | options
    expected, settings = parameters_in_transformers(config)
    architecture = architecture_from_config(config)
    assert architecture.parameter_count() == expected
    types = getattr(settings, "layer_types", None)
    if types is not None:
        assert windowed_layers(architecture) == types.count("sliding_attention")


SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
    "pad_token_id": 0,
    "num_experts_per_tok": 2,
}
FINE = {"moe_intermediate_size": 24}
DEEPSEEK = FINE | {
    "n_routed_experts": 8,
    "kv_lora_rank": 20,
    "q_lora_rank": 28,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
}


LINEAR = FINE | {
    "num_experts": 8,
    "shared_expert_intermediate_size": 40,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 20,
}
SPARSE = {"index_topk": 16, "index_n_heads": 3, "index_head_dim": 14}


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("mixtral", {"num_local_experts": 4, "sliding_window": 32}),
        ("mixtral", {"num_local_experts": 4, "tie_word_embeddings": True}),
        ("qwen2_moe", FINE | {"num_experts": 8, "shared_expert_intermediate_size": 40}),
        ("qwen2_moe", FINE | {"num_experts": 8, "qkv_bias": False, "decoder_sparse_step": 2}),
        ("qwen3_moe", FINE | {"num_experts": 8, "attention_bias": True}),
        ("qwen3_moe", FINE | {"num_experts": 8, "decoder_sparse_step": 4}),
        ("qwen3_moe", FINE | {"num_local_experts": 8, "mlp_only_layers": [0, 4, 5]}),
        (
            "qwen3_moe",
            FINE | {"num_experts": 8, "decoder_sparse_step": 2, "mlp_only_layers": [0, 1]},
        ),
        ("gpt_oss", {"num_local_experts": 8, "num_hidden_layers": 5}),
        ("gpt_oss", {"num_local_experts": 8, "attention_bias": False}),
        (
            "gpt_oss",
            {"num_local_experts": 8, "layer_types": ["sliding_attention"] + ["full_attention"] * 5},
        ),
        ("minimax_m2", {"num_local_experts": 8}),
        ("deepseek_v2", DEEPSEEK | {"first_k_dense_replace": 1, "n_shared_experts": 2}),
        ("deepseek_v2", DEEPSEEK | {"q_lora_rank": None, "first_k_dense_replace": 0}),
        ("deepseek_v3", DEEPSEEK | {"first_k_dense_replace": 4, "n_shared_experts": 3}),
        ("deepseek_v3", DEEPSEEK | {"q_lora_rank": None, "num_nextn_predict_layers": 1}),
        ("glm4_moe", FINE | {"n_routed_experts": 8, "first_k_dense_replace": 2}),
        (
            "glm4_moe",
            FINE | {"n_routed_experts": 8, "attention_bias": True, "use_qk_norm": True},
        ),
        ("llama4_text", {"num_local_experts": 4, "intermediate_size_mlp": 160}),
        (
            "llama4_text",
            {
                "num_local_experts": 4,
                "interleave_moe_layer_step": 2,
                "use_qk_norm": False,
                "attention_bias": True,
            },
        ),
        ("llama4_text", {"num_local_experts": 4, "moe_layers": [1, 2, 5], "no_rope_layers": []}),
        ("llama4_text", {"num_local_experts": 4, "no_rope_layers": [1, 0, 0, 1, 0, 1]}),
        ("llama4_text", {"num_local_experts": 4, "no_rope_layer_interval": 3}),
        ("qwen3_next", LINEAR | {"mlp_only_layers": [1, 5]}),
        ("qwen3_next", LINEAR | {"decoder_sparse_step": 2, "attention_bias": True}),
        ("qwen3_next", LINEAR | {"full_attention_interval": 2, "linear_conv_kernel_dim": 3}),
        (
            "qwen3_next",
            LINEAR
            | {"layer_types": ["full_attention", "linear_attention"] + ["full_attention"] * 4},
        ),
        ("qwen3_next", LINEAR | {"layer_types": ["full_attention"] * 6}),
        ("qwen3_5_moe_text", LINEAR | {"tie_word_embeddings": True}),
        ("deepseek_v32", DEEPSEEK | SPARSE | {"first_k_dense_replace": 2, "n_shared_experts": 2}),
        (
            "deepseek_v32",
            DEEPSEEK | SPARSE | {"mlp_layer_types": ["dense", "sparse"] * 2 + ["dense"] * 2},
        ),
        ("glm_moe_dsa", DEEPSEEK | SPARSE | {"first_k_dense_replace": 1}),
    ],
)
def test_a_model_with_experts_is_what_transformers_builds(
    model_type, options, parameters_in_transformers
):
    config = {"model_type": model_type} | SMALL | options
    expected, settings = parameters_in_transformers(config)
    architecture = architecture_from_config(config)
    assert architecture.experts
    assert architecture.parameter_count() + left_out(architecture) == expected
    assert windowed_layers(architecture) == windowed_layers_in(settings)
    assert linear_layers(architecture) == linear_layers_in(settings)


def test_doubles_that_are_integral_are_integers():
    architecture = architecture_from_config(LLAMA)
    assert architecture.hidden_size == 512
    assert isinstance(architecture.hidden_size, int)
    assert architecture.layers[0].layer.attention.head_dim == 64
    assert architecture.name == "llama"
    assert architecture_from_config(LLAMA, "mine").name == "mine"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 512.5),
        ("hidden_size", math.nan),
        ("hidden_size", math.inf),
        ("hidden_size", True),
        ("hidden_size", "512"),
        ("hidden_size", [512]),
        ("hidden_size", None),
        ("hidden_size", -512),
        ("hidden_size", 0),
        ("hidden_size", 1e300),
        ("num_hidden_layers", 4097),
        ("num_attention_heads", 0),
        ("num_key_value_heads", 3),
        ("num_key_value_heads", 0),
        ("intermediate_size", None),
        ("vocab_size", 2**24 + 1),
        ("hidden_act", "tanhexp"),
        ("hidden_act", 3.0),
        ("attention_bias", 1.0),
        ("mlp_bias", "true"),
        ("tie_word_embeddings", "no"),
        ("torch_dtype", "float7"),
        ("dtype", 16.0),
        ("quantization_config", "fp8"),
    ],
)
def test_a_value_that_cannot_be_used_names_its_key(key, value):
    assert rejected(LLAMA | {key: value}).field == key


def test_heads_that_do_not_divide_name_the_kv_heads():
    assert rejected(LLAMA | {"num_attention_heads": 7}).field == "num_key_value_heads"


def test_heads_that_do_not_divide_the_width_ask_for_head_dim():
    assert rejected(LLAMA | {"hidden_size": 516}).field == "head_dim"
    assert architecture_from_config(LLAMA | {"hidden_size": 516, "head_dim": 64})


@pytest.mark.parametrize(
    "model_type",
    [
        "bert",
        "t5",
        "whisper",
        "kimi_linear",
        "deepseek_v4",
        "LLAMA",
        "",
    ],
)
def test_an_unknown_architecture_names_model_type_and_lists_the_known(model_type):
    error = rejected({"model_type": model_type, "hidden_size": 768})
    assert error.field == "model_type"
    assert repr(model_type) in error.message
    assert all(known in error.message for known in (*FAMILIES, *ALIASES, *WRAPPERS))


def test_a_missing_or_wrong_model_type_is_named():
    assert rejected({}).field == "model_type"
    assert rejected({"model_type": 3.0}).field == "model_type"
    refused = rejected({"model_type": "llama", "is_encoder_decoder": True})
    assert refused.field == "is_encoder_decoder"
    assert "use false" in refused.message
    inner = {"model_type": "gemma3", "text_config": {"is_encoder_decoder": True}}
    assert rejected(inner).field == "text_config.is_encoder_decoder"


def test_long_values_are_cut_in_messages():
    assert len(str(rejected({"model_type": "x" * 1_000_000}))) < 500
    assert len(str(rejected(LLAMA | {"hidden_act": "y" * 1_000_000}))) < 500
    assert len(str(rejected(LLAMA | {"hidden_size": ["z"] * 100_000}))) < 500


@pytest.mark.parametrize(
    ("model_type", "key"),
    [
        ("phi", "qk_layernorm"),
        ("stablelm", "use_parallel_residual"),
        ("gemma", "use_bidirectional_attention"),
        ("gpt2", "add_cross_attention"),
        ("deepseek_v3", "attention_bias"),
        ("qwen3_moe", "use_sliding_window"),
    ],
)
def test_a_block_of_another_kind_is_refused(model_type, key):
    assert rejected({"model_type": model_type, key: True}).field == key
    assert architecture_from_config({"model_type": model_type, key: False})


def test_gemma3_is_its_text_decoder():
    text = {"hidden_size": 2560.0, "intermediate_size": 10240.0, "num_hidden_layers": 34.0}
    config = {"model_type": "gemma3", "text_config": text | {"sliding_window": 1024.0}}
    architecture = architecture_from_config(config | {"torch_dtype": "float16"})
    assert architecture.layers == preset("gemma-3-4b").layers
    assert architecture.parameter_count() == preset("gemma-3-4b").parameter_count()
    assert architecture.model_type == "gemma3_text"
    assert architecture.stored_precision is Precision.FP16
    bad = {"model_type": "gemma3", "text_config": text | {"num_hidden_layers": 1.5}}
    assert rejected(bad).field == "text_config.num_hidden_layers"
    assert rejected({"model_type": "gemma3", "text_config": []}).field == "text_config"
    assert rejected(config | {"torch_dtype": "float7"}).field == "torch_dtype"


def test_llama4_is_its_text_decoder():
    text = {"num_local_experts": 16.0, "interleave_moe_layer_step": 1.0}
    config = {"model_type": "llama4", "text_config": text, "vision_config": {"hidden_size": 1408}}
    architecture = architecture_from_config(config)
    assert architecture.layers == preset("llama-4-scout").layers
    assert architecture.model_type == "llama4_text"
    bad = {"model_type": "llama4", "text_config": text | {"moe_layers": [0, 48]}}
    assert rejected(bad).field == "text_config.moe_layers[1]"


def test_kimi_k2_is_read_with_the_keys_of_deepseek_v3():
    architecture = architecture_from_config({"model_type": "kimi_k2", "n_routed_experts": 384})
    assert (architecture.name, architecture.model_type) == ("kimi_k2", "deepseek_v3")
    assert architecture.experts.count == 384


def test_kimi_k2_5_is_its_text_decoder():
    text = config_of("kimi-k2.5")
    wrapped = {"model_type": "kimi_k25", "text_config": text, "vision_config": {"depth": 27}}
    architecture = architecture_from_config(wrapped)
    assert architecture.layers == preset("kimi-k2").layers
    assert architecture.stored_experts.precision is Precision.INT4
    bad = text | {"quantization_config": {"quant_method": "compressed-tensors"}}
    error = rejected(wrapped | {"text_config": bad})
    assert error.field == "text_config.quantization_config.config_groups"


def test_latent_attention_is_read():
    v3 = architecture_from_config({"model_type": "deepseek_v3"})
    assert v3.layers[0].layer.attention == LatentAttention(
        query_heads=128, kv_rank=512, query_rank=1536, head_dim=128, rope_dim=64, value_dim=128
    )
    direct = architecture_from_config({"model_type": "deepseek_v3", "q_lora_rank": None})
    assert direct.layers[0].layer.attention.query_rank == 0


def test_linear_attention_is_read():
    attentions = {
        type(g.layer.attention): (g.layer.attention, g.count)
        for g in architecture_from_config({"model_type": "qwen3_next"}).layers
    }
    assert attentions[LinearAttention] == (
        LinearAttention(key_heads=16, value_heads=32, key_dim=128, value_dim=128, conv_width=4),
        36,
    )
    gated, count = attentions[Attention]
    assert (gated.output_gate, gated.qk_norm, count) == (True, True, 12)


def test_qwen3_5_is_its_text_decoder():
    text = config_of("qwen3.5-397b-a17b")
    wrapped = {
        "model_type": "qwen3_5_moe",
        "text_config": {key: value for key, value in text.items() if key != "tie_word_embeddings"},
        "vision_config": {"hidden_size": 1152},
    }
    architecture = architecture_from_config(wrapped)
    assert architecture.layers == preset("qwen3.5-397b-a17b").layers
    assert architecture.model_type == "qwen3_5_moe_text"
    tied = architecture_from_config(wrapped | {"tie_word_embeddings": True})
    assert (architecture.tied_embeddings, tied.tied_embeddings) == (False, True)
    bad = wrapped | {"text_config": text | {"linear_num_value_heads": 24}}
    assert rejected(bad).field == "text_config.linear_num_value_heads"


def test_an_indexer_is_read():
    attention = architecture_from_config({"model_type": "deepseek_v32"}).layers[0].layer.attention
    assert attention.indexer == Indexer(heads=64, head_dim=128, top_k=2048)
    v3 = architecture_from_config({"model_type": "deepseek_v3"})
    assert v3.layers[0].layer.attention.indexer is None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"indexer_types": ["full"] * 3 + ["shared"] * 75}, "indexer_types"),
        ({"indexer_types": ["full"] * 3}, "indexer_types"),
        ({"index_topk_pattern": "F" * 77 + "S"}, "index_topk_pattern"),
        ({"index_topk_freq": 4.0}, "index_topk_freq"),
        ({"mlp_layer_types": ["dense"] * 78}, "mlp_layer_types"),
        ({"mlp_layer_types": ["moe"] * 78}, "mlp_layer_types[0]"),
        ({"index_topk": None}, "index_topk"),
        ({"q_lora_rank": None}, "q_lora_rank"),
    ],
)
def test_an_indexer_that_cannot_be_used_names_its_key(options, field):
    assert rejected({"model_type": "glm_moe_dsa"} | options).field == field


@pytest.mark.parametrize(
    "options",
    [
        {"indexer_types": ["full"] * 78, "index_topk_freq": 4},
        {"index_topk_pattern": "F" * 78},
        {"index_topk_freq": 1},
    ],
)
def test_layers_with_indexers_of_their_own_are_read(options):
    assert architecture_from_config({"model_type": "glm_moe_dsa"} | options)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"linear_num_value_heads": 24}, "linear_num_value_heads"),
        ({"linear_num_key_heads": 0}, "linear_num_key_heads"),
        ({"linear_conv_kernel_dim": None}, "linear_conv_kernel_dim"),
        ({"full_attention_interval": 49}, "full_attention_interval"),
        ({"layer_types": ["linear_attention"] * 48}, "layer_types"),
        ({"layer_types": ["sliding_attention"] * 48}, "layer_types[0]"),
    ],
)
def test_linear_attention_that_cannot_be_used_names_its_key(options, field):
    assert rejected({"model_type": "qwen3_next"} | options).field == field


def test_experts_have_their_own_width_and_biases():
    config = {"model_type": "gpt_oss", "num_local_experts": 32.0, "num_hidden_layers": 24.0}
    routed = architecture_from_config(config).experts
    assert routed.expert == FeedForward(intermediate_size=2880, bias=True)
    assert (routed.count, routed.top_k, routed.router_bias) == (32, 4, True)
    assert isinstance(architecture_from_config(config).layers[0].layer.attention, Attention)


@pytest.mark.parametrize(
    ("model_type", "options", "field"),
    [
        ("mixtral", {"num_experts_per_tok": 9}, "num_experts_per_tok"),
        ("mixtral", {"num_local_experts": 0}, "num_local_experts"),
        ("mixtral", {"num_local_experts": None}, "num_local_experts"),
        ("mixtral", {"num_experts_per_tok": None}, "num_experts_per_tok"),
        ("mixtral", {"num_local_experts": 65_537}, "num_local_experts"),
        ("mixtral", {"num_experts_per_tok": 1.5}, "num_experts_per_tok"),
        ("deepseek_v2", {}, "num_experts_per_tok"),
        ("deepseek_v3", {"kv_lora_rank": None}, "kv_lora_rank"),
        ("deepseek_v3", {"kv_lora_rank": 0}, "kv_lora_rank"),
        ("deepseek_v3", {"first_k_dense_replace": 61}, "first_k_dense_replace"),
        ("deepseek_v3", {"first_k_dense_replace": -1}, "first_k_dense_replace"),
        ("deepseek_v3", {"n_shared_experts": 4096}, "n_shared_experts"),
        ("deepseek_v3", {"n_shared_experts": -1}, "n_shared_experts"),
        ("deepseek_v3", {"moe_intermediate_size": 0}, "moe_intermediate_size"),
        ("glm4_moe", {}, "head_dim"),
        ("qwen3_moe", {"decoder_sparse_step": 25}, "decoder_sparse_step"),
        ("qwen3_moe", {"decoder_sparse_step": 0}, "decoder_sparse_step"),
        ("qwen3_moe", {"mlp_only_layers": list(range(24))}, "mlp_only_layers"),
        ("qwen3_moe", {"mlp_only_layers": 3}, "mlp_only_layers"),
        ("qwen3_moe", {"mlp_only_layers": [24]}, "mlp_only_layers[0]"),
        ("llama4_text", {"moe_layers": []}, "moe_layers"),
        ("llama4_text", {"moe_layers": [0, 1.5]}, "moe_layers[1]"),
        ("llama4_text", {"no_rope_layers": [1] * 49}, "no_rope_layers"),
        ("llama4_text", {"no_rope_layers": [2] * 48}, "no_rope_layers[0]"),
        ("llama4_text", {"layer_types": ["sliding_attention"] * 48}, "layer_types[0]"),
        ("llama4_text", {"attention_chunk_size": 0}, "attention_chunk_size"),
    ],
)
def test_a_value_of_the_experts_that_cannot_be_used_names_its_key(model_type, options, field):
    assert rejected({"model_type": model_type} | options).field == field


def test_shared_experts_may_be_none_and_chunks_absent():
    v3 = architecture_from_config({"model_type": "deepseek_v3", "n_shared_experts": 0})
    assert v3.experts.shared is None
    scout = {"model_type": "llama4_text", "attention_chunk_size": None}
    assert windowed_layers(architecture_from_config(scout)) == 0


def test_sliding_windows_follow_their_family():
    assert windows(LLAMA | {"sliding_window": 64}) == {None: 4}
    mistral = LLAMA | {"model_type": "mistral"}
    assert windows(mistral) == {4096: 4}
    assert windows(mistral | {"sliding_window": None}) == {None: 4}
    qwen = LLAMA | {"model_type": "qwen2", "sliding_window": 64, "max_window_layers": 1}
    assert windows(qwen) == {None: 4}
    assert windows(qwen | {"use_sliding_window": True}) == {64: 3, None: 1}
    listed = ["sliding_attention", "full_attention"] * 2
    assert windows(qwen | {"use_sliding_window": True, "layer_types": listed}) == {64: 2, None: 2}
    gemma = LLAMA | {"model_type": "gemma3_text", "layer_types": ["full_attention"] * 4}
    assert windows(gemma) == {None: 4}


def test_layer_types_are_checked():
    gemma = LLAMA | {"model_type": "gemma2"}
    assert rejected(gemma | {"layer_types": ["full_attention"]}).field == "layer_types"
    odd = ["full_attention", "mamba", "full_attention", "full_attention"]
    assert rejected(gemma | {"layer_types": odd}).field == "layer_types[1]"


@pytest.mark.parametrize(
    ("extra", "precision"),
    [
        ({}, Precision.BF16),
        ({"torch_dtype": "float32"}, Precision.FP32),
        ({"dtype": "torch.float16", "torch_dtype": "float32"}, Precision.FP16),
        ({"quantization_config": {"quant_method": "fp8"}}, Precision.FP8),
        (
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
            Precision.FP8_BLOCK,
        ),
        ({"quantization_config": {"quant_method": "mxfp4"}}, Precision.FP4),
        ({"quantization_config": {"quant_method": "awq", "bits": 4.0}}, Precision.INT4),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, Precision.INT8_WEIGHT_ONLY),
    ],
)
def test_the_stored_precision_is_read(extra, precision):
    assert architecture_from_config(LLAMA | extra).stored_precision is precision


def test_an_unknown_quantisation_is_refused_with_its_path():
    error = rejected(LLAMA | {"quantization_config": {"quant_method": "squeezellm"}})
    assert error.field == "quantization_config.quant_method"


def test_gpt2_takes_both_spellings_and_opens_its_inner_width():
    own = architecture_from_config({"model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 2})
    common = architecture_from_config(
        {
            "model_type": "gpt2",
            "hidden_size": 64,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
        }
    )
    assert own == common
    assert own.layers[0].layer.feed_forward.intermediate_size == 256
    assert own.layers[0].layer.feed_forward.activation is Activation.GELU
    assert own.learned_positions == 1024


def compressed(weights, *, activations=None, ignore=("lm_head",)):
    group = {"targets": ["Linear"], "input_activations": activations, "weights": weights}
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": group},
        "ignore": list(ignore),
    }


INT4 = {"type": "int", "num_bits": 4.0, "group_size": 32.0, "strategy": "group"}
KIMI = ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up)_proj.*"]
ROUTED = {"model_type": "deepseek_v3", "torch_dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("quantization", "stored", "experts"),
    [
        (compressed(INT4), Precision.INT4, None),
        (compressed(INT4, ignore=KIMI), Precision.BF16, (Precision.INT4, 0.5625)),
        (
            compressed(INT4, ignore=["model.layers.7.self_attn.o_proj"]),
            Precision.BF16,
            (Precision.INT4, 0.5625),
        ),
        (compressed(INT4, ignore=[*KIMI, "re:.*experts.*"]), Precision.BF16, None),
        (
            compressed(INT4, ignore=["re:.*mlp\\.experts.*"]),
            Precision.INT4,
            (Precision.BF16, 2.0),
        ),
        (
            compressed(INT4 | {"group_size": None, "num_bits": 8}, ignore=KIMI),
            Precision.BF16,
            (Precision.INT8_WEIGHT_ONLY, 1.0),
        ),
        (
            compressed({"type": "float", "num_bits": 8}, activations={"num_bits": 8}),
            Precision.FP8,
            None,
        ),
        (
            compressed(
                {"type": "float", "num_bits": 4, "group_size": 16},
                activations={"num_bits": 4},
                ignore=["re:.*self_attn.*"],
            ),
            Precision.BF16,
            (Precision.FP4, 0.5625),
        ),
        ({"quant_method": "mxfp4"}, Precision.BF16, (Precision.FP4, 0.53125)),
        ({"quant_method": "fp8"}, Precision.FP8, None),
    ],
)
def test_experts_may_be_stored_in_a_format_of_their_own(quantization, stored, experts):
    architecture = architecture_from_config(ROUTED | {"quantization_config": quantization})
    assert architecture.stored_precision is stored
    found = architecture.stored_experts
    assert (found and (found.precision, found.weight_bytes)) == experts


@pytest.mark.parametrize(
    ("quantization", "field"),
    [
        (compressed(INT4 | {"num_bits": 3}), "config_groups.'group_0'.weights"),
        (compressed(INT4 | {"num_bits": 4.5}), "config_groups.'group_0'.weights.num_bits"),
        (compressed("int4"), "config_groups.'group_0'"),
        (compressed(INT4) | {"config_groups": {}}, "config_groups"),
        (compressed(INT4) | {"ignore": [3.0]}, "ignore"),
    ],
)
def test_a_compressed_format_that_is_not_known_names_its_key(quantization, field):
    error = rejected(ROUTED | {"quantization_config": quantization})
    assert error.field == f"quantization_config.{field}"


def test_a_dense_model_of_two_formats_is_refused():
    quantization = compressed(INT4, ignore=["re:.*self_attn.*"])
    error = rejected(LLAMA | {"quantization_config": quantization})
    assert error.field == "quantization_config.ignore"


def test_a_pattern_that_would_take_for_ever_is_not_run():
    evil = "re:(a+)+$" + ".*" * 50_000
    quantization = compressed(INT4, ignore=[evil])
    assert architecture_from_config(ROUTED | {"quantization_config": quantization})


JSON_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.integers(),
    st.sampled_from(["", "silu", "auto", "fp8"]),
    st.lists(st.floats(), max_size=3),
    st.lists(st.integers(0, 30), max_size=3),
)
KEYS = sorted(
    {key for family in FAMILIES.values() for key in family.defaults}
    | {"layer_types", "use_sliding_window", "quantization_config", "text_config", "dtype"}
    | {"mlp_only_layers", "moe_layers", "no_rope_layers"}
    | {"mlp_layer_types", "indexer_types", "index_topk_pattern", "index_topk_freq"}
)


@given(
    model_type=st.sampled_from(sorted({*FAMILIES, *ALIASES, *WRAPPERS})),
    options=st.dictionaries(st.sampled_from(KEYS), JSON_VALUES, max_size=4),
)
def test_any_config_gives_an_architecture_or_names_a_field(model_type, options):
    try:
        architecture = architecture_from_config({**options, "model_type": model_type})
    except InvalidFieldError as error:
        assert error.message
    else:
        assert 0 < architecture.parameter_count() <= 10**15
