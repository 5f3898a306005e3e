"""Reading config.json: values, defaults, windows, errors; transformers' classes are the judge."""

import contextlib
import json
import math
import warnings
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.architecture import Activation
from model.errors import InvalidFieldError
from model.families import FAMILIES
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


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_defaults_are_those_of_transformers(model_type, parameters_in_transformers):
    expected, settings = parameters_in_transformers({"model_type": model_type})
    architecture = architecture_from_config({"model_type": model_type})
    assert architecture.parameter_count() == expected
    assert architecture.layer_count == settings.num_hidden_layers


SMALLEST_PRESETS = {
    preset(name).model_type: name
    for name in sorted(preset_names(), key=lambda name: -preset(name).parameter_count())
}


@pytest.mark.parametrize("name", sorted(SMALLEST_PRESETS.values()))
def test_a_preset_is_what_transformers_builds_from_its_config(name, parameters_in_transformers):
    expected, settings = parameters_in_transformers(config_of(name))
    architecture = preset(name)
    assert architecture.parameter_count() == expected
    types = getattr(settings, "layer_types", None)
    if types is not None:
        windowed = sum(g.count for g in architecture.layers if g.layer.attention.window)
        assert windowed == types.count("sliding_attention")


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
        windowed = sum(g.count for g in architecture.layers if g.layer.attention.window)
        assert windowed == types.count("sliding_attention")


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
    "model_type", ["bert", "t5", "whisper", "mixtral", "deepseek_v3", "qwen3_moe", "LLAMA", ""]
)
def test_an_unknown_architecture_names_model_type_and_lists_the_known(model_type):
    error = rejected({"model_type": model_type, "hidden_size": 768})
    assert error.field == "model_type"
    assert repr(model_type) in error.message
    assert all(known in error.message for known in (*FAMILIES, "gemma3"))


def test_a_missing_or_wrong_model_type_is_named():
    assert rejected({}).field == "model_type"
    assert rejected({"model_type": 3.0}).field == "model_type"
    assert rejected({"model_type": "llama", "is_encoder_decoder": True}).field == "model_type"


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


JSON_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.integers(),
    st.sampled_from(["", "silu", "auto", "fp8"]),
    st.lists(st.floats(), max_size=3),
)
KEYS = sorted(
    {key for family in FAMILIES.values() for key in family.defaults}
    | {"layer_types", "use_sliding_window", "quantization_config", "text_config", "dtype"}
)


@given(
    model_type=st.sampled_from([*sorted(FAMILIES), "gemma3"]),
    options=st.dictionaries(st.sampled_from(KEYS), JSON_VALUES, max_size=4),
)
def test_any_config_gives_an_architecture_or_names_a_field(model_type, options):
    try:
        architecture = architecture_from_config({**options, "model_type": model_type})
    except InvalidFieldError as error:
        assert error.message
    else:
        assert 0 < architecture.parameter_count() <= 10**15
