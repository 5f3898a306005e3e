from tokenpace.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PredictRequest(_message.Message):
    __slots__ = ("model", "device", "workload", "parallelism", "precision", "kv_cache_precision", "engine", "confidence", "include_breakdown", "require_provenance", "calibration")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    PARALLELISM_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_PRECISION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_BREAKDOWN_FIELD_NUMBER: _ClassVar[int]
    REQUIRE_PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    model: _types_pb2.ModelSpec
    device: str
    workload: _types_pb2.Workload
    parallelism: _types_pb2.Parallelism
    precision: _types_pb2.Precision
    kv_cache_precision: _types_pb2.Precision
    engine: str
    confidence: float
    include_breakdown: bool
    require_provenance: _types_pb2.Provenance
    calibration: str
    def __init__(self, model: _Optional[_Union[_types_pb2.ModelSpec, _Mapping]] = ..., device: _Optional[str] = ..., workload: _Optional[_Union[_types_pb2.Workload, _Mapping]] = ..., parallelism: _Optional[_Union[_types_pb2.Parallelism, _Mapping]] = ..., precision: _Optional[_Union[_types_pb2.Precision, str]] = ..., kv_cache_precision: _Optional[_Union[_types_pb2.Precision, str]] = ..., engine: _Optional[str] = ..., confidence: _Optional[float] = ..., include_breakdown: _Optional[bool] = ..., require_provenance: _Optional[_Union[_types_pb2.Provenance, str]] = ..., calibration: _Optional[str] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("ttft_ms", "tpot_ms", "request_latency_ms", "tokens_per_second", "tokens_per_second_per_gpu", "memory", "breakdown", "provenance", "warnings", "cost_model", "resolved")
    TTFT_MS_FIELD_NUMBER: _ClassVar[int]
    TPOT_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_PER_GPU_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    BREAKDOWN_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    COST_MODEL_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_FIELD_NUMBER: _ClassVar[int]
    ttft_ms: _types_pb2.Estimate
    tpot_ms: _types_pb2.Estimate
    request_latency_ms: _types_pb2.Estimate
    tokens_per_second: _types_pb2.Estimate
    tokens_per_second_per_gpu: _types_pb2.Estimate
    memory: _types_pb2.MemoryFootprint
    breakdown: _containers.RepeatedCompositeFieldContainer[_types_pb2.OperationCost]
    provenance: _types_pb2.Provenance
    warnings: _containers.RepeatedCompositeFieldContainer[_types_pb2.Warning]
    cost_model: str
    resolved: _types_pb2.Resolved
    def __init__(self, ttft_ms: _Optional[_Union[_types_pb2.Estimate, _Mapping]] = ..., tpot_ms: _Optional[_Union[_types_pb2.Estimate, _Mapping]] = ..., request_latency_ms: _Optional[_Union[_types_pb2.Estimate, _Mapping]] = ..., tokens_per_second: _Optional[_Union[_types_pb2.Estimate, _Mapping]] = ..., tokens_per_second_per_gpu: _Optional[_Union[_types_pb2.Estimate, _Mapping]] = ..., memory: _Optional[_Union[_types_pb2.MemoryFootprint, _Mapping]] = ..., breakdown: _Optional[_Iterable[_Union[_types_pb2.OperationCost, _Mapping]]] = ..., provenance: _Optional[_Union[_types_pb2.Provenance, str]] = ..., warnings: _Optional[_Iterable[_Union[_types_pb2.Warning, _Mapping]]] = ..., cost_model: _Optional[str] = ..., resolved: _Optional[_Union[_types_pb2.Resolved, _Mapping]] = ...) -> None: ...

class BatchPredictRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[PredictRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[PredictRequest, _Mapping]]] = ...) -> None: ...

class BatchPredictError(_message.Message):
    __slots__ = ("code", "message", "field")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    field: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...

class BatchPredictResult(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: PredictResponse
    error: BatchPredictError
    def __init__(self, response: _Optional[_Union[PredictResponse, _Mapping]] = ..., error: _Optional[_Union[BatchPredictError, _Mapping]] = ...) -> None: ...

class BatchPredictResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchPredictResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchPredictResult, _Mapping]]] = ...) -> None: ...

class SweepRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SweepResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PlanResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
