"""Builds the questions of Predict and Measure from keyword arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Required, TypedDict, Unpack

from tokenpace import arguments
from tokenpace.v1 import latency_pb2, profiler_pb2, types_pb2

if TYPE_CHECKING:
    from tokenpace.arguments import DurationLike, ModelLike


class Question(TypedDict, total=False):
    """What Predict and Measure both ask; what is left out takes the daemon's default.

    Attributes:
        input_tokens: prompt length of each sequence, at least 1.
        output_tokens: generated tokens of each sequence; 0 asks for the prefill alone.
        batch_size: sequences decoded together (static batching).
        concurrency: requests in flight (continuous batching).
        cached_prefix_tokens: prompt tokens whose keys and values are cached already.
        prefill_chunk_tokens: prompt tokens in one step at the most.
        expert_imbalance: load of the fullest expert-parallel rank over the mean, 1 to 64.
        tensor: tensor-parallel size.
        pipeline: pipeline-parallel size.
        expert: expert-parallel size.
        data: data-parallel size.
        device: name from ``Client.devices``, such as "local" or "h100-sxm".
        precision: of weights and activations, such as "bf16" or "fp8-block".
        kv_cache_precision: of the KV cache.
        engine: whose overheads count, such as "transformers" or "vllm".
        confidence: probability that the interval holds, 0.5 to 0.999.
    """

    input_tokens: Required[int]
    output_tokens: int
    batch_size: int
    concurrency: int
    cached_prefix_tokens: int
    prefill_chunk_tokens: int
    expert_imbalance: float
    tensor: int
    pipeline: int
    expert: int
    data: int
    device: str
    precision: str | types_pb2.Precision | None
    kv_cache_precision: str | types_pb2.Precision | None
    engine: str
    confidence: float


_WORKLOAD = frozenset(types_pb2.Workload.DESCRIPTOR.fields_by_name)
_PARALLELISM = frozenset(types_pb2.Parallelism.DESCRIPTOR.fields_by_name)
_TEXT = frozenset({"device", "engine", "confidence"})
_PRECISIONS = ("precision", "kv_cache_precision")


def predict_request(
    model: ModelLike,
    *,
    breakdown: bool = False,
    require_provenance: str | types_pb2.Provenance | None = None,
    calibration: str = "",
    **question: Unpack[Question],
) -> latency_pb2.PredictRequest:
    """Returns a question of Predict; ``Client.batch_predict`` takes many of them.

    Args:
        model: a preset's name, a parameter count, a config.json's path or
            content, or the message itself.
        breakdown: whether the answer lists the cost of each operation.
        require_provenance: weakest that will do, such as "measured-locally".
        calibration: name of a calibration to apply.
        question: see ``Question``.

    Raises:
        ArgumentError: a value cannot be sent; names the argument.
        TypeError: there is no such argument.
    """
    request = latency_pb2.PredictRequest(
        include_breakdown=breakdown,
        require_provenance=arguments.provenance(require_provenance),
        calibration=calibration,
    )
    _fill(request, model, question)
    return request


def measure_request(
    model: ModelLike,
    *,
    scope: str = "layer",
    budget: DurationLike | None = None,
    trace: bool = False,
    torch_compile: bool = False,
    force: bool = False,
    **question: Unpack[Question],
) -> profiler_pb2.MeasureRequest:
    """Returns a question of Measure.

    Args:
        model: as in ``predict_request``.
        scope: "layer" runs a few real layers, "model" the whole model.
        budget: time for all of it, such as "30s".
        trace: whether one more run is traced.
        torch_compile: whether the layers of engine "torch" are compiled first.
        force: whether to measure while other processes are on the device.
        question: see ``Question``.

    Raises:
        ArgumentError: a value cannot be sent; names the argument.
        TypeError: there is no such argument.
    """
    request = profiler_pb2.MeasureRequest(
        scope=arguments.scope(scope),
        budget=arguments.duration(budget),
        trace=trace,
        torch_compile=torch_compile,
        force=force,
    )
    _fill(request, model, question)
    return request


def _fill(
    request: latency_pb2.PredictRequest | profiler_pb2.MeasureRequest,
    model: ModelLike,
    question: Question,
) -> None:
    unknown = question.keys() - _WORKLOAD - _PARALLELISM - _TEXT - set(_PRECISIONS)
    if unknown:
        raise TypeError(f"no such argument: {', '.join(sorted(unknown))}")
    if "input_tokens" not in question:
        raise TypeError("input_tokens is required")
    given = dict(question)
    request.model.CopyFrom(arguments.model_spec(model))
    arguments.fill(request.workload, {k: v for k, v in given.items() if k in _WORKLOAD})
    arguments.fill(request.parallelism, {k: v for k, v in given.items() if k in _PARALLELISM})
    arguments.fill(request, {k: v for k, v in given.items() if k in _TEXT})
    request.precision = arguments.precision(question.get("precision"))
    request.kv_cache_precision = arguments.precision(
        question.get("kv_cache_precision"), "kv_cache_precision"
    )
