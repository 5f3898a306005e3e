import json
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from tokenpace.arguments import (
    ArgumentError,
    duration,
    fill,
    model_spec,
    precision,
    provenance,
    seconds,
    spellings,
)
from tokenpace.v1 import latency_pb2, types_pb2

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


@given(st.integers(0, 100_000), st.sampled_from(sorted(UNITS)))
def test_a_duration_is_its_number_times_its_unit(number, unit):
    assert seconds(f"{number}{unit}") == pytest.approx(number * UNITS[unit])


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_parts_of_a_duration_add_up(hours, minutes, rest):
    assert seconds(f"{hours}h{minutes}m{rest}s") == hours * 3600 + minutes * 60 + rest


@given(st.floats(0, 1e6))
def test_a_duration_survives_the_message(value):
    assert duration(value).ToTimedelta().total_seconds() == pytest.approx(value, abs=2e-6)


def test_a_timedelta_is_a_duration():
    assert duration(timedelta(minutes=1, milliseconds=500)) == Duration(
        seconds=60, nanos=500_000_000
    )
    assert duration(None) is None


@given(st.text(max_size=8))
def test_text_is_a_duration_or_a_clear_error(text):
    try:
        assert seconds(text, "interval") >= 0
    except ArgumentError as error:
        assert error.field == "interval"
        assert "use 90s, 10m or 1h" in error.message


@pytest.mark.parametrize("value", ["90", "-5s", "5 s", "s", "1h30", "", float("nan"), -1, 1e300])
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(ArgumentError, match="budget"):
        duration(value)


@pytest.mark.parametrize(
    ("value", "spec"),
    [
        ("llama-3.1-8b", types_pb2.ModelSpec(preset="llama-3.1-8b")),
        ("7e9", types_pb2.ModelSpec(parameter_count=7e9)),
        (7e9, types_pb2.ModelSpec(parameter_count=7e9)),
        (135_000_000, types_pb2.ModelSpec(parameter_count=135e6)),
        (
            types_pb2.Architecture(hidden_size=64),
            types_pb2.ModelSpec(architecture=types_pb2.Architecture(hidden_size=64)),
        ),
        (types_pb2.ModelSpec(preset="a"), types_pb2.ModelSpec(preset="a")),
    ],
)
def test_a_model_is_read_from_what_is_given(value, spec):
    assert model_spec(value) == spec


def test_a_model_is_read_from_a_config_file_its_folder_or_its_content(tmp_path, monkeypatch):
    config = {"model_type": "llama", "hidden_size": 64, "rope_scaling": None, "eos": [1, 2]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    for value in (config, "config.json", tmp_path, str(tmp_path), tmp_path / "config.json"):
        assert MessageToDict(model_spec(value).huggingface_config) == config


@pytest.mark.parametrize("content", ["{", "[1, 2]", "\udcff"])
def test_a_file_that_is_no_configuration_is_refused_by_name(tmp_path, content):
    file = tmp_path / "broken.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArgumentError, match=r"model: .*broken\.json"):
        model_spec(str(file))


@pytest.mark.parametrize("value", ["", "  ", "missing.json", True, None, {"a": object()}])
def test_what_is_no_model_is_refused(value):
    with pytest.raises(ArgumentError, match=r"^model: "):
        model_spec(value)


def test_every_precision_and_provenance_is_read_as_it_is_spelt():
    for enum, prefix, read in (
        (types_pb2.Precision, "PRECISION_", precision),
        (types_pb2.Provenance, "PROVENANCE_", provenance),
    ):
        names = spellings(enum, prefix)
        assert [read(name) for name in names] == enum.values()[1:]
        assert [read(name) for name in enum.keys()[1:]] == enum.values()[1:]
        assert read(None) == 0
    assert precision("fp8-block") == types_pb2.PRECISION_FP8_BLOCK
    with pytest.raises(ArgumentError, match=r"kv_cache_precision: 'fp12' .* fp8-block"):
        precision("fp12", "kv_cache_precision")


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, "many", 1.5])
def test_a_value_that_does_not_fit_its_field_is_named(value):
    with pytest.raises(ArgumentError, match=r"^batch_size: "):
        fill(types_pb2.Workload(), {"batch_size": value})


def nested(levels):
    config = {}
    for _ in range(levels - 1):
        config = {"a": config}
    return config


def test_a_config_that_nests_too_deep_to_be_sent_is_refused(tmp_path):
    request = latency_pb2.PredictRequest(model=model_spec(nested(32)))
    assert latency_pb2.PredictRequest.FromString(request.SerializeToString()) == request
    with pytest.raises(ArgumentError, match=r"model: .* 33 objects .* no more than 32"):
        model_spec(nested(33))
    deep = tmp_path / "config.json"
    deep.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(ArgumentError, match="model: "):
        model_spec(deep)
