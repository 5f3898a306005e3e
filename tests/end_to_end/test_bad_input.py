"""What a wrong request gets: a status, the field's path, and a small trailer."""

import pytest
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from tokenpace.v1 import catalog_pb2, latency_pb2, profiler_pb2, types_pb2

LLAMA = {"model_type": "llama", "hidden_size": 256, "num_hidden_layers": 2}
# A configuration as google-bert/bert-base-uncased has it.
ENCODER = {
    "architectures": ["BertForMaskedLM"],
    "hidden_act": "gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}


def spec(config=None, **ways):
    message = types_pb2.ModelSpec(**ways)
    if config is not None:
        json_format.ParseDict(config, message.huggingface_config)
    return message


def fields_of(model=None, workload=None, parallelism=None, **others):
    return {
        "model": model if model is not None else types_pb2.ModelSpec(preset="smollm2-135m"),
        "workload": types_pb2.Workload(
            **({"input_tokens": 16, "output_tokens": 4} | (workload or {}))
        ),
        "parallelism": types_pb2.Parallelism(**(parallelism or {})),
    } | others


WRONG = {
    "negative input": ({"workload": {"input_tokens": -1}}, "workload.input_tokens"),
    "negative output": ({"workload": {"output_tokens": -7}}, "workload.output_tokens"),
    "no input": ({"workload": {"input_tokens": 0}}, "workload.input_tokens"),
    "huge input": ({"workload": {"input_tokens": 16_777_217}}, "workload.input_tokens"),
    "huge batch": ({"workload": {"batch_size": 2**31 - 1}}, "workload.batch_size"),
    "huge concurrency": ({"workload": {"concurrency": 2**31 - 1}}, "workload.concurrency"),
    "prefix as long as the prompt": (
        {"workload": {"cached_prefix_tokens": 16}},
        "workload.cached_prefix_tokens",
    ),
    "tp that does not fit the heads": ({"parallelism": {"tensor": 2}}, "parallelism.tensor"),
    "negative degree": ({"parallelism": {"data": -1}}, "parallelism.data"),
    "huge degree": ({"parallelism": {"pipeline": 4_097}}, "parallelism.pipeline"),
    "more stages than layers": ({"parallelism": {"pipeline": 31}}, "parallelism.pipeline"),
    "experts of a dense model": (
        {"parallelism": {"tensor": 3, "expert": 3}},
        "parallelism.expert",
    ),
    "no model": ({"model": spec()}, "model"),
    "count that is no number": (
        {"model": spec(parameter_count=float("nan"))},
        "model.parameter_count",
    ),
    "endless count": ({"model": spec(parameter_count=float("inf"))}, "model.parameter_count"),
    "tiny count": ({"model": spec(parameter_count=12)}, "model.parameter_count"),
    "encoder": ({"model": spec(ENCODER)}, "model.huggingface_config.model_type"),
    "no model type": (
        {"model": spec({"hidden_size": 64})},
        "model.huggingface_config.model_type",
    ),
    "text for a number": (
        {"model": spec(LLAMA | {"hidden_size": "wide"})},
        "model.huggingface_config.hidden_size",
    ),
    "list for a number": (
        {"model": spec(LLAMA | {"num_attention_heads": [1, 2]})},
        "model.huggingface_config.num_attention_heads",
    ),
    "half a layer": (
        {"model": spec(LLAMA | {"num_hidden_layers": 2.5})},
        "model.huggingface_config.num_hidden_layers",
    ),
    "configuration of 2 MB": (
        {"model": spec(LLAMA | {"note": "x" * 2_000_000})},
        "model.huggingface_config",
    ),
    "heads that do not divide": (
        {
            "model": spec(
                architecture=types_pb2.Architecture(
                    hidden_size=64,
                    layer_count=1,
                    query_heads=4,
                    kv_heads=3,
                    intermediate_size=64,
                    vocab_size=64,
                )
            )
        },
        "model.architecture.kv_heads",
    ),
    "unknown precision": ({"precision": 77}, "precision"),
    "unknown cache precision": ({"kv_cache_precision": 77}, "kv_cache_precision"),
    "confidence that is no number": ({"confidence": float("nan")}, "confidence"),
    "certainty": ({"confidence": 1.0}, "confidence"),
    "negative confidence": ({"confidence": -0.9}, "confidence"),
    "unknown engine": ({"engine": "no-such-engine"}, "engine"),
}


@pytest.mark.parametrize(("fields", "path"), WRONG.values(), ids=WRONG.keys())
def test_predict_names_the_field(daemon, failure, fields, path):
    found = failure(daemon.latency.Predict, latency_pb2.PredictRequest(**fields_of(**fields)))
    assert (found.code, found.fields) == ("INVALID_ARGUMENT", [path])
    assert path in found.message


@pytest.mark.parametrize(("fields", "path"), WRONG.values(), ids=WRONG.keys())
def test_measure_names_the_field(daemon, failure, fields, path):
    request = profiler_pb2.MeasureRequest(budget=Duration(seconds=1), **fields_of(**fields))
    found = failure(daemon.profiler.Measure, request)
    assert (found.code, found.fields) == ("INVALID_ARGUMENT", [path])


@pytest.mark.parametrize(("fields", "path"), WRONG.values(), ids=WRONG.keys())
def test_a_batch_names_the_field_in_its_place(daemon, fields, path):
    wrong = latency_pb2.PredictRequest(**fields_of(**fields))
    right = latency_pb2.PredictRequest(**fields_of())
    answer = daemon.latency.BatchPredict(
        latency_pb2.BatchPredictRequest(requests=[right, wrong]), timeout=30
    )
    assert answer.results[0].HasField("response")
    assert answer.results[1].error.field == path


def test_get_architecture_names_the_field(daemon, failure):
    for fields, path in WRONG.values():
        if "model" in fields:
            request = catalog_pb2.GetArchitectureRequest(model=fields["model"])
            found = failure(daemon.catalog.GetArchitecture, request)
            assert (found.code, found.fields) == ("INVALID_ARGUMENT", [path])


@pytest.mark.parametrize(
    ("fields", "path", "name", "close"),
    [
        ({"model": spec(preset="llama-3.1-80b")}, "model.preset", "llama-3.1-80b", "llama-3.1-8b"),
        ({"device": "h100"}, "device", "h100", "h100-sxm"),
    ],
)
def test_unknown_names_are_not_found_and_the_closest_is_told(
    daemon, failure, fields, path, name, close
):
    found = failure(daemon.latency.Predict, latency_pb2.PredictRequest(**fields_of(**fields)))
    assert found.code == "NOT_FOUND"
    assert path in found.fields
    assert close in found.message
    resources = [d for d in found.details if isinstance(d, error_details_pb2.ResourceInfo)]
    assert [resource.resource_name for resource in resources] == [name]


def test_several_faults_are_told_at_once(daemon, failure):
    request = latency_pb2.PredictRequest(
        **fields_of(
            model=spec(parameter_count=1),
            workload={"input_tokens": -1},
            parallelism={"tensor": -1},
            confidence=2,
        )
    )
    found = failure(daemon.latency.Predict, request)
    assert found.fields == [
        "confidence",
        "model.parameter_count",
        "workload.input_tokens",
        "parallelism.tensor",
    ]


def test_long_and_odd_values_do_not_fill_the_trailer(daemon, failure):
    for text in ("x" * 100_000, "\x00\n\u202e" * 10_000, "é漢😀" * 10_000):
        for request in (
            latency_pb2.PredictRequest(**fields_of(model=spec(preset=text))),
            latency_pb2.PredictRequest(**fields_of(device=text)),
            latency_pb2.PredictRequest(**fields_of(engine=text)),
            latency_pb2.PredictRequest(**fields_of(calibration=text)),
            latency_pb2.PredictRequest(**fields_of(model=spec({"model_type": text}))),
            latency_pb2.PredictRequest(**fields_of(model=spec(LLAMA | {"hidden_size": text}))),
        ):
            found = failure(daemon.latency.Predict, request)
            assert found.code in {"INVALID_ARGUMENT", "NOT_FOUND"}
            assert found.trailer_bytes < 8_000


def test_a_message_beyond_the_receive_limit_is_refused(daemon, failure):
    request = latency_pb2.PredictRequest(device="x" * (17 << 20))
    assert failure(daemon.latency.Predict, request).code == "RESOURCE_EXHAUSTED"


def test_the_daemon_answers_on(daemon):
    answer = daemon.latency.Predict(latency_pb2.PredictRequest(**fields_of()), timeout=30)
    assert answer.tpot_ms.value > 0
    assert "Traceback" not in daemon.log.read_text()
