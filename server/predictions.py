"""Predictions as the API writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from server.architectures import architecture_message
from server.messages import PHASES, precision_number
from tokenpace.v1 import latency_pb2, types_pb2

if TYPE_CHECKING:
    from model.inference import Inference, OperationCost
    from model.memory import MemoryFootprint
    from model.steps import Estimate
    from server.predictor import Resolution

_MAX_INT32, _MAX_INT64 = 2**31 - 1, 2**63 - 1


def prediction(
    resolution: Resolution, inference: Inference, cost_model: str, calibration: str = ""
) -> latency_pb2.PredictResponse:
    """Returns the answer to a request.

    Args:
        resolution: what the request came to mean.
        inference: what was predicted.
        cost_model: id of the cost model it was predicted with.
        calibration: name of what corrected it; empty: nothing did.
    """
    return latency_pb2.PredictResponse(
        ttft_ms=_estimate(inference.ttft_ms),
        tpot_ms=_estimate(inference.tpot_ms),
        request_latency_ms=_estimate(inference.request_latency_ms),
        tokens_per_second=_estimate(inference.tokens_per_second),
        tokens_per_second_per_gpu=_estimate(inference.tokens_per_second_per_gpu),
        memory=_memory(inference.memory),
        breakdown=[_operation_cost(row) for row in inference.breakdown],
        provenance=cast("types_pb2.Provenance", int(inference.provenance)),
        warnings=[
            types_pb2.Warning(code=notice.code, text=notice.text)
            for notice in (*resolution.notices, *inference.notices)
        ],
        cost_model=cost_model,
        resolved=_resolved(resolution, calibration),
    )


def _resolved(resolution: Resolution, calibration: str) -> types_pb2.Resolved:
    question = resolution.question
    experts = question.stored_experts
    return types_pb2.Resolved(
        device=resolution.device.name,
        precision=precision_number(question.precision),
        kv_cache_precision=precision_number(question.kv_precision),
        engine=question.engine,
        gpu_count=min(question.parallelism.devices, _MAX_INT32),
        architecture=architecture_message(question.architecture),
        experts_precision=precision_number(experts.precision)
        if experts is not None
        else types_pb2.PRECISION_UNSPECIFIED,
        calibration=calibration,
    )


def _estimate(estimate: Estimate | None) -> types_pb2.Estimate | None:
    if estimate is None:
        return None
    return types_pb2.Estimate(value=estimate.value, lower=estimate.lower, upper=estimate.upper)


def _memory(memory: MemoryFootprint) -> types_pb2.MemoryFootprint:
    return types_pb2.MemoryFootprint(
        fits=memory.fits,
        weights_bytes=_int64(memory.weights_bytes),
        kv_cache_bytes=_int64(memory.kv_cache_bytes),
        activations_bytes=_int64(memory.activations_bytes),
        total_bytes=_int64(memory.total_bytes),
        capacity_bytes=memory.capacity_bytes,
    )


def _operation_cost(row: OperationCost) -> types_pb2.OperationCost:
    return types_pb2.OperationCost(
        phase=PHASES[row.phase],
        name=row.name,
        kind=row.kind,
        count=min(row.count, _MAX_INT32),
        latency_ms=row.latency_ms,
        flops=row.flops,
        bytes=row.bytes,
        share=row.share,
        bound=row.bound,
    )


def _int64(value: float) -> int:
    """Returns the bytes; a load beyond all memory of the world is cut to what the field holds."""
    return min(round(value), _MAX_INT64)
