import json

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import InvalidFieldError
from model.precision import Precision
from model.presets import preset, preset_names
from model.workload import Parallelism
from server.architectures import architecture_message
from server.conversions import (
    Violations,
    architecture_of,
    confidence_of,
    engine_name,
    parallelism_of,
    precision_of,
    provenance_of,
    workload_of,
)
from server.errors import ServiceError
from server.huggingface_config import MAX_CONFIG_BYTES, config_of
from server.messages import precision_number
from tokenpace.v1 import types_pb2

LLAMA = {"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 2}


def config(**keys):
    spec = types_pb2.ModelSpec()
    json_format.ParseDict(LLAMA | keys, spec.huggingface_config)
    return spec


def fault(spec, field="model"):
    with pytest.raises(InvalidFieldError) as caught:
        architecture_of(spec, field)
    return caught.value


# --- models -------------------------------------------------------------------


def test_every_way_to_a_model_leads_to_an_architecture():
    assert architecture_of(types_pb2.ModelSpec(preset="gpt2")) == preset("gpt2")
    assert architecture_of(config()).hidden_size == 2048
    counted = architecture_of(types_pb2.ModelSpec(parameter_count=7e9))
    assert counted.parameter_count() == pytest.approx(7e9, rel=0.03)
    message = types_pb2.Architecture(
        hidden_size=64, layer_count=2, query_heads=4, intermediate_size=100, vocab_size=1000
    )
    assert architecture_of(types_pb2.ModelSpec(architecture=message)).layer_count == 2


def test_an_unknown_preset_is_not_found_and_names_the_closest():
    with pytest.raises(ServiceError) as caught:
        architecture_of(types_pb2.ModelSpec(preset="llama-3.1-8"))
    assert caught.value.code.name == "NOT_FOUND"
    assert "llama-3.1-8b" in caught.value.message
    assert caught.value.details[1].resource_name == "llama-3.1-8"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (types_pb2.ModelSpec(), "model"),
        (types_pb2.ModelSpec(preset=""), "model.preset"),
        (types_pb2.ModelSpec(parameter_count=float("nan")), "model.parameter_count"),
        (types_pb2.ModelSpec(parameter_count=-1), "model.parameter_count"),
        (types_pb2.ModelSpec(parameter_count=1e14), "model.parameter_count"),
        (
            types_pb2.ModelSpec(architecture=types_pb2.Architecture(hidden_size=-1)),
            "model.architecture.hidden_size",
        ),
        (
            types_pb2.ModelSpec(architecture=types_pb2.Architecture(activation=9)),
            "model.architecture.activation",
        ),
        (config(hidden_size=-4), "model.huggingface_config.hidden_size"),
        (config(hidden_size=2048.5), "model.huggingface_config.hidden_size"),
        (config(hidden_size="wide"), "model.huggingface_config.hidden_size"),
        (config(model_type="bert"), "model.huggingface_config.model_type"),
    ],
)
def test_what_is_wrong_with_a_model_is_named_by_its_whole_path(spec, field):
    assert fault(spec).field == field


def test_the_path_begins_where_the_spec_lies():
    assert fault(types_pb2.ModelSpec(), "requests[3].model").field == "requests[3].model"


def test_a_configuration_of_two_megabytes_is_refused():
    error = fault(config(note="x" * (2 << 20)))
    assert error.field == "model.huggingface_config"
    assert str(MAX_CONFIG_BYTES) in error.message


def test_a_large_configuration_below_the_limit_is_read():
    assert architecture_of(config(note="x" * (512 << 10))).hidden_size == 2048


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_wherever_they_are(value):
    spec = config(rope_scaling={"factors": [1.0]})
    values = spec.huggingface_config.fields["rope_scaling"].struct_value.fields["factors"]
    values.list_value.values[0].number_value = value
    assert fault(spec).field == "model.huggingface_config.rope_scaling.factors[0]"


def test_a_struct_becomes_the_dictionary_that_it_was():
    plain = {"a": 1.5, "b": "x", "c": True, "d": None, "e": [1.0, {"f": 2.0}], "g": {}}
    message = struct_pb2.Struct()
    json_format.ParseDict(plain, message)
    assert config_of(message) == plain


def test_a_value_of_no_kind_counts_as_null():
    message = struct_pb2.Struct()
    message.fields["a"].CopyFrom(struct_pb2.Value())
    assert config_of(message) == {"a": None}


@pytest.mark.parametrize("name", preset_names())
def test_an_architecture_survives_the_way_out_and_in(name):
    message = architecture_message(preset(name))
    again = architecture_of(types_pb2.ModelSpec(architecture=message))
    assert message.parameter_count == preset(name).parameter_count()
    assert again.parameter_count() == preset(name).parameter_count()
    assert again.layers[-1].layer.attention.head_dim == message.head_dim
    assert json.loads(json_format.MessageToJson(architecture_message(again)))["hiddenSize"] == (
        preset(name).hidden_size
    )


# --- the rest of a request ----------------------------------------------------


def test_precisions_and_their_numbers_match():
    for precision in Precision:
        assert precision_of(precision_number(precision), "precision") is precision
    assert precision_of(0, "precision") is None


@pytest.mark.parametrize("number", [10, -1, 2**31 - 1])
def test_unknown_enum_numbers_are_refused(number):
    for read in (precision_of, provenance_of):
        with pytest.raises(InvalidFieldError) as caught:
            read(number, "some_field")
        assert caught.value.field == "some_field"


def test_zero_degrees_count_as_one():
    assert parallelism_of(types_pb2.Parallelism()) == Parallelism()


@pytest.mark.parametrize("value", [-1, 2**31 - 1])
@pytest.mark.parametrize("name", ["tensor", "pipeline", "expert", "data"])
def test_degrees_out_of_range_are_named(name, value):
    with pytest.raises(InvalidFieldError) as caught:
        parallelism_of(types_pb2.Parallelism(**{name: value}))
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_tokens", 0),
        ("input_tokens", 16_777_217),
        ("output_tokens", -1),
        ("batch_size", 2**31 - 1),
        ("concurrency", 1_048_577),
        ("cached_prefix_tokens", 8),
        ("prefill_chunk_tokens", -5),
    ],
)
def test_sizes_out_of_range_are_named(name, value):
    with pytest.raises(InvalidFieldError) as caught:
        workload_of(types_pb2.Workload(**{"input_tokens": 8, name: value}))
    assert caught.value.field == name


@pytest.mark.parametrize("value", [0.49, 0.9991, 1.0, -0.9, float("nan"), float("inf")])
def test_a_confidence_out_of_range_is_refused(value):
    with pytest.raises(InvalidFieldError) as caught:
        confidence_of(value, "confidence")
    assert caught.value.field == "confidence"


def test_confidence_zero_is_90_percent():
    assert [confidence_of(v, "") for v in (0.0, 0.5, 0.999)] == [0.9, 0.5, 0.999]


def test_an_unknown_engine_names_those_known():
    assert engine_name("", "vllm", "engine") == "vllm"
    with pytest.raises(InvalidFieldError, match="known: transformers, torch") as caught:
        engine_name("x" * 1000, "vllm", "engine")
    assert len(caught.value.message) < 250


def test_violations_are_collected_with_their_paths():
    violations = Violations()
    with violations.within("workload"):
        workload_of(types_pb2.Workload())
    with violations.within("parallelism"):
        parallelism_of(types_pb2.Parallelism(data=-1))
    violations.add("x", "is wrong")
    with pytest.raises(ServiceError) as caught:
        violations.check()
    fields = [violation.field for violation in caught.value.details[1].field_violations]
    assert fields == ["workload.input_tokens", "parallelism.data", "x"]


def test_no_violation_no_error():
    Violations().check()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        "model_type",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "sliding_window",
        "layer_types",
        "quantization_config",
        "text_config",
        "torch_dtype",
    ]
)


def _fill(value, message):
    """ParseDict refuses what is not finite; clients can send it all the same."""
    if value is None:
        message.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, float):
        message.number_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, list):
        message.list_value.SetInParent()
        for item in value:
            _fill(item, message.list_value.values.add())
    else:
        message.struct_value.SetInParent()
        for key, item in value.items():
            _fill(item, message.struct_value.fields[key])


@given(
    st.dictionaries(KEYS, JSON, max_size=5),
    st.sampled_from(["llama", "gemma3", "gpt2", "qwen2", None]),
)
@settings(max_examples=200, deadline=None)
def test_any_configuration_is_read_or_refused_with_its_path(keys, model_type):
    spec = types_pb2.ModelSpec()
    spec.huggingface_config.SetInParent()
    values = keys if model_type is None else keys | {"model_type": model_type}
    for key, value in values.items():
        _fill(value, spec.huggingface_config.fields[key])
    try:
        assert architecture_of(spec).parameter_count() > 0
    except InvalidFieldError as error:
        assert error.field.startswith("model.huggingface_config")
