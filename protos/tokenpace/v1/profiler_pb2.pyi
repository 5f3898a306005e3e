import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tokenpace.v1 import catalog_pb2 as _catalog_pb2
from tokenpace.v1 import latency_pb2 as _latency_pb2
from tokenpace.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MeasureScope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEASURE_SCOPE_UNSPECIFIED: _ClassVar[MeasureScope]
    MEASURE_SCOPE_LAYER: _ClassVar[MeasureScope]
    MEASURE_SCOPE_MODEL: _ClassVar[MeasureScope]

class ScheduleOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCHEDULE_OUTCOME_UNSPECIFIED: _ClassVar[ScheduleOutcome]
    SCHEDULE_OUTCOME_STARTED: _ClassVar[ScheduleOutcome]
    SCHEDULE_OUTCOME_SUCCEEDED: _ClassVar[ScheduleOutcome]
    SCHEDULE_OUTCOME_FAILED: _ClassVar[ScheduleOutcome]
    SCHEDULE_OUTCOME_SKIPPED: _ClassVar[ScheduleOutcome]
MEASURE_SCOPE_UNSPECIFIED: MeasureScope
MEASURE_SCOPE_LAYER: MeasureScope
MEASURE_SCOPE_MODEL: MeasureScope
SCHEDULE_OUTCOME_UNSPECIFIED: ScheduleOutcome
SCHEDULE_OUTCOME_STARTED: ScheduleOutcome
SCHEDULE_OUTCOME_SUCCEEDED: ScheduleOutcome
SCHEDULE_OUTCOME_FAILED: ScheduleOutcome
SCHEDULE_OUTCOME_SKIPPED: ScheduleOutcome

class MeasureRequest(_message.Message):
    __slots__ = ("model", "device", "workload", "parallelism", "precision", "kv_cache_precision", "engine", "confidence", "scope", "budget", "trace", "torch_compile", "force")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    PARALLELISM_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_PRECISION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    TORCH_COMPILE_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    model: _types_pb2.ModelSpec
    device: str
    workload: _types_pb2.Workload
    parallelism: _types_pb2.Parallelism
    precision: _types_pb2.Precision
    kv_cache_precision: _types_pb2.Precision
    engine: str
    confidence: float
    scope: MeasureScope
    budget: _duration_pb2.Duration
    trace: bool
    torch_compile: bool
    force: bool
    def __init__(self, model: _Optional[_Union[_types_pb2.ModelSpec, _Mapping]] = ..., device: _Optional[str] = ..., workload: _Optional[_Union[_types_pb2.Workload, _Mapping]] = ..., parallelism: _Optional[_Union[_types_pb2.Parallelism, _Mapping]] = ..., precision: _Optional[_Union[_types_pb2.Precision, str]] = ..., kv_cache_precision: _Optional[_Union[_types_pb2.Precision, str]] = ..., engine: _Optional[str] = ..., confidence: _Optional[float] = ..., scope: _Optional[_Union[MeasureScope, str]] = ..., budget: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., trace: _Optional[bool] = ..., torch_compile: _Optional[bool] = ..., force: _Optional[bool] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("fraction", "text")
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    fraction: float
    text: str
    def __init__(self, fraction: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class TracedKernel(_message.Message):
    __slots__ = ("name", "calls", "latency_ms", "share")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    name: str
    calls: int
    latency_ms: float
    share: float
    def __init__(self, name: _Optional[str] = ..., calls: _Optional[int] = ..., latency_ms: _Optional[float] = ..., share: _Optional[float] = ...) -> None: ...

class TracedPhase(_message.Message):
    __slots__ = ("phase", "measured_ms", "bound", "bandwidth_ms", "compute_ms", "overhead_ms", "roofline_share", "traced_ms", "kernels", "communication_ms")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    MEASURED_MS_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_MS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_MS_FIELD_NUMBER: _ClassVar[int]
    OVERHEAD_MS_FIELD_NUMBER: _ClassVar[int]
    ROOFLINE_SHARE_FIELD_NUMBER: _ClassVar[int]
    TRACED_MS_FIELD_NUMBER: _ClassVar[int]
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    COMMUNICATION_MS_FIELD_NUMBER: _ClassVar[int]
    phase: _types_pb2.Phase
    measured_ms: float
    bound: str
    bandwidth_ms: float
    compute_ms: float
    overhead_ms: float
    roofline_share: float
    traced_ms: float
    kernels: _containers.RepeatedCompositeFieldContainer[TracedKernel]
    communication_ms: float
    def __init__(self, phase: _Optional[_Union[_types_pb2.Phase, str]] = ..., measured_ms: _Optional[float] = ..., bound: _Optional[str] = ..., bandwidth_ms: _Optional[float] = ..., compute_ms: _Optional[float] = ..., overhead_ms: _Optional[float] = ..., roofline_share: _Optional[float] = ..., traced_ms: _Optional[float] = ..., kernels: _Optional[_Iterable[_Union[TracedKernel, _Mapping]]] = ..., communication_ms: _Optional[float] = ...) -> None: ...

class Trace(_message.Message):
    __slots__ = ("path", "phases")
    PATH_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    path: str
    phases: _containers.RepeatedCompositeFieldContainer[TracedPhase]
    def __init__(self, path: _Optional[str] = ..., phases: _Optional[_Iterable[_Union[TracedPhase, _Mapping]]] = ...) -> None: ...

class LiveMeasurement(_message.Message):
    __slots__ = ("ttft_ms", "tpot_ms", "prediction", "ttft_residual", "tpot_residual", "environment", "warnings", "trace", "energy_per_token_joules")
    TTFT_MS_FIELD_NUMBER: _ClassVar[int]
    TPOT_MS_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    TTFT_RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    TPOT_RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    ENERGY_PER_TOKEN_JOULES_FIELD_NUMBER: _ClassVar[int]
    ttft_ms: _types_pb2.Distribution
    tpot_ms: _types_pb2.Distribution
    prediction: _latency_pb2.PredictResponse
    ttft_residual: float
    tpot_residual: float
    environment: _types_pb2.Environment
    warnings: _containers.RepeatedCompositeFieldContainer[_types_pb2.Warning]
    trace: Trace
    energy_per_token_joules: float
    def __init__(self, ttft_ms: _Optional[_Union[_types_pb2.Distribution, _Mapping]] = ..., tpot_ms: _Optional[_Union[_types_pb2.Distribution, _Mapping]] = ..., prediction: _Optional[_Union[_latency_pb2.PredictResponse, _Mapping]] = ..., ttft_residual: _Optional[float] = ..., tpot_residual: _Optional[float] = ..., environment: _Optional[_Union[_types_pb2.Environment, _Mapping]] = ..., warnings: _Optional[_Iterable[_Union[_types_pb2.Warning, _Mapping]]] = ..., trace: _Optional[_Union[Trace, _Mapping]] = ..., energy_per_token_joules: _Optional[float] = ...) -> None: ...

class MeasureResponse(_message.Message):
    __slots__ = ("progress", "result")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    result: LiveMeasurement
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., result: _Optional[_Union[LiveMeasurement, _Mapping]] = ...) -> None: ...

class ProfileJob(_message.Message):
    __slots__ = ("id", "state", "device", "budget", "measurement_count", "progress", "error_message", "create_time", "start_time", "end_time", "status", "cost_model", "schedule_id", "skipped", "spent")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    COST_MODEL_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_ID_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: _types_pb2.JobState
    device: str
    budget: _duration_pb2.Duration
    measurement_count: int
    progress: float
    error_message: str
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    status: str
    cost_model: str
    schedule_id: str
    skipped: _containers.RepeatedScalarFieldContainer[str]
    spent: _duration_pb2.Duration
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[_types_pb2.JobState, str]] = ..., device: _Optional[str] = ..., budget: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., measurement_count: _Optional[int] = ..., progress: _Optional[float] = ..., error_message: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., status: _Optional[str] = ..., cost_model: _Optional[str] = ..., schedule_id: _Optional[str] = ..., skipped: _Optional[_Iterable[str]] = ..., spent: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class CreateProfileJobRequest(_message.Message):
    __slots__ = ("device", "budget", "target_error", "precisions", "force", "ranks")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    TARGET_ERROR_FIELD_NUMBER: _ClassVar[int]
    PRECISIONS_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    device: str
    budget: _duration_pb2.Duration
    target_error: float
    precisions: _containers.RepeatedScalarFieldContainer[_types_pb2.Precision]
    force: bool
    ranks: int
    def __init__(self, device: _Optional[str] = ..., budget: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., target_error: _Optional[float] = ..., precisions: _Optional[_Iterable[_Union[_types_pb2.Precision, str]]] = ..., force: _Optional[bool] = ..., ranks: _Optional[int] = ...) -> None: ...

class CreateProfileJobResponse(_message.Message):
    __slots__ = ("profile_job",)
    PROFILE_JOB_FIELD_NUMBER: _ClassVar[int]
    profile_job: ProfileJob
    def __init__(self, profile_job: _Optional[_Union[ProfileJob, _Mapping]] = ...) -> None: ...

class GetProfileJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetProfileJobResponse(_message.Message):
    __slots__ = ("profile_job",)
    PROFILE_JOB_FIELD_NUMBER: _ClassVar[int]
    profile_job: ProfileJob
    def __init__(self, profile_job: _Optional[_Union[ProfileJob, _Mapping]] = ...) -> None: ...

class ListProfileJobsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListProfileJobsResponse(_message.Message):
    __slots__ = ("profile_jobs", "next_page_token", "total_size")
    PROFILE_JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    profile_jobs: _containers.RepeatedCompositeFieldContainer[ProfileJob]
    next_page_token: str
    total_size: int
    def __init__(self, profile_jobs: _Optional[_Iterable[_Union[ProfileJob, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_size: _Optional[int] = ...) -> None: ...

class CancelProfileJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CancelProfileJobResponse(_message.Message):
    __slots__ = ("profile_job",)
    PROFILE_JOB_FIELD_NUMBER: _ClassVar[int]
    profile_job: ProfileJob
    def __init__(self, profile_job: _Optional[_Union[ProfileJob, _Mapping]] = ...) -> None: ...

class WatchProfileJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class WatchProfileJobResponse(_message.Message):
    __slots__ = ("profile_job",)
    PROFILE_JOB_FIELD_NUMBER: _ClassVar[int]
    profile_job: ProfileJob
    def __init__(self, profile_job: _Optional[_Union[ProfileJob, _Mapping]] = ...) -> None: ...

class ExportProfileJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ProfileJobOrigin(_message.Message):
    __slots__ = ("profile_job", "environment", "data_sheet", "memory_bytes")
    PROFILE_JOB_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    DATA_SHEET_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    profile_job: ProfileJob
    environment: _types_pb2.Environment
    data_sheet: str
    memory_bytes: int
    def __init__(self, profile_job: _Optional[_Union[ProfileJob, _Mapping]] = ..., environment: _Optional[_Union[_types_pb2.Environment, _Mapping]] = ..., data_sheet: _Optional[str] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class ExportProfileJobResponse(_message.Message):
    __slots__ = ("origin", "measurement", "state")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    origin: ProfileJobOrigin
    measurement: _types_pb2.Measurement
    state: _catalog_pb2.Telemetry
    def __init__(self, origin: _Optional[_Union[ProfileJobOrigin, _Mapping]] = ..., measurement: _Optional[_Union[_types_pb2.Measurement, _Mapping]] = ..., state: _Optional[_Union[_catalog_pb2.Telemetry, _Mapping]] = ...) -> None: ...

class ScheduleRun(_message.Message):
    __slots__ = ("time", "outcome", "reason", "job_id", "drift")
    TIME_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    outcome: ScheduleOutcome
    reason: str
    job_id: str
    drift: float
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., outcome: _Optional[_Union[ScheduleOutcome, str]] = ..., reason: _Optional[str] = ..., job_id: _Optional[str] = ..., drift: _Optional[float] = ...) -> None: ...

class Schedule(_message.Message):
    __slots__ = ("id", "cron", "interval", "device", "budget", "create_time", "next_run_time", "runs")
    ID_FIELD_NUMBER: _ClassVar[int]
    CRON_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    NEXT_RUN_TIME_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    id: str
    cron: str
    interval: _duration_pb2.Duration
    device: str
    budget: _duration_pb2.Duration
    create_time: _timestamp_pb2.Timestamp
    next_run_time: _timestamp_pb2.Timestamp
    runs: _containers.RepeatedCompositeFieldContainer[ScheduleRun]
    def __init__(self, id: _Optional[str] = ..., cron: _Optional[str] = ..., interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., device: _Optional[str] = ..., budget: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., next_run_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., runs: _Optional[_Iterable[_Union[ScheduleRun, _Mapping]]] = ...) -> None: ...

class CreateScheduleRequest(_message.Message):
    __slots__ = ("cron", "interval", "device", "budget")
    CRON_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    cron: str
    interval: _duration_pb2.Duration
    device: str
    budget: _duration_pb2.Duration
    def __init__(self, cron: _Optional[str] = ..., interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., device: _Optional[str] = ..., budget: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class CreateScheduleResponse(_message.Message):
    __slots__ = ("schedule",)
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    schedule: Schedule
    def __init__(self, schedule: _Optional[_Union[Schedule, _Mapping]] = ...) -> None: ...

class ListSchedulesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSchedulesResponse(_message.Message):
    __slots__ = ("schedules", "next_page_token", "total_size")
    SCHEDULES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    schedules: _containers.RepeatedCompositeFieldContainer[Schedule]
    next_page_token: str
    total_size: int
    def __init__(self, schedules: _Optional[_Iterable[_Union[Schedule, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_size: _Optional[int] = ...) -> None: ...

class DeleteScheduleRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeleteScheduleResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
