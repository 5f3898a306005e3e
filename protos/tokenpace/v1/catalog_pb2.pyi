import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tokenpace.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PeakRate(_message.Message):
    __slots__ = ("precision", "flops_per_second")
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    FLOPS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    precision: _types_pb2.Precision
    flops_per_second: float
    def __init__(self, precision: _Optional[_Union[_types_pb2.Precision, str]] = ..., flops_per_second: _Optional[float] = ...) -> None: ...

class Telemetry(_message.Message):
    __slots__ = ("time", "utilization", "memory_used_bytes", "memory_total_bytes", "temperature_celsius", "power_watts", "clock_mhz", "throttle_reasons", "processes", "uncorrected_ecc_errors", "mig_enabled", "persistence_mode")
    TIME_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    POWER_WATTS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_MHZ_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_REASONS_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    UNCORRECTED_ECC_ERRORS_FIELD_NUMBER: _ClassVar[int]
    MIG_ENABLED_FIELD_NUMBER: _ClassVar[int]
    PERSISTENCE_MODE_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    utilization: float
    memory_used_bytes: int
    memory_total_bytes: int
    temperature_celsius: float
    power_watts: float
    clock_mhz: float
    throttle_reasons: _containers.RepeatedScalarFieldContainer[str]
    processes: _containers.RepeatedScalarFieldContainer[str]
    uncorrected_ecc_errors: int
    mig_enabled: bool
    persistence_mode: bool
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., utilization: _Optional[float] = ..., memory_used_bytes: _Optional[int] = ..., memory_total_bytes: _Optional[int] = ..., temperature_celsius: _Optional[float] = ..., power_watts: _Optional[float] = ..., clock_mhz: _Optional[float] = ..., throttle_reasons: _Optional[_Iterable[str]] = ..., processes: _Optional[_Iterable[str]] = ..., uncorrected_ecc_errors: _Optional[int] = ..., mig_enabled: _Optional[bool] = ..., persistence_mode: _Optional[bool] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("name", "display_name", "local", "kind", "memory_bytes", "bandwidth_bytes_per_second", "last_level_cache_bytes", "link_bytes_per_second", "link_name", "peaks", "source", "provenance", "cost_model", "measurement_count", "telemetry", "environment", "data_sheet")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    LAST_LEVEL_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LINK_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    LINK_NAME_FIELD_NUMBER: _ClassVar[int]
    PEAKS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    COST_MODEL_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    TELEMETRY_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    DATA_SHEET_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    local: bool
    kind: str
    memory_bytes: int
    bandwidth_bytes_per_second: float
    last_level_cache_bytes: int
    link_bytes_per_second: float
    link_name: str
    peaks: _containers.RepeatedCompositeFieldContainer[PeakRate]
    source: str
    provenance: _types_pb2.Provenance
    cost_model: str
    measurement_count: int
    telemetry: Telemetry
    environment: _types_pb2.Environment
    data_sheet: str
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., local: _Optional[bool] = ..., kind: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., bandwidth_bytes_per_second: _Optional[float] = ..., last_level_cache_bytes: _Optional[int] = ..., link_bytes_per_second: _Optional[float] = ..., link_name: _Optional[str] = ..., peaks: _Optional[_Iterable[_Union[PeakRate, _Mapping]]] = ..., source: _Optional[str] = ..., provenance: _Optional[_Union[_types_pb2.Provenance, str]] = ..., cost_model: _Optional[str] = ..., measurement_count: _Optional[int] = ..., telemetry: _Optional[_Union[Telemetry, _Mapping]] = ..., environment: _Optional[_Union[_types_pb2.Environment, _Mapping]] = ..., data_sheet: _Optional[str] = ...) -> None: ...

class ListDevicesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDevicesResponse(_message.Message):
    __slots__ = ("devices", "next_page_token", "total_size")
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    next_page_token: str
    total_size: int
    def __init__(self, devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_size: _Optional[int] = ...) -> None: ...

class GetDeviceRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetDeviceResponse(_message.Message):
    __slots__ = ("device",)
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    device: Device
    def __init__(self, device: _Optional[_Union[Device, _Mapping]] = ...) -> None: ...

class ListArchitecturesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListArchitecturesResponse(_message.Message):
    __slots__ = ("architectures", "next_page_token", "total_size")
    ARCHITECTURES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    architectures: _containers.RepeatedCompositeFieldContainer[_types_pb2.Architecture]
    next_page_token: str
    total_size: int
    def __init__(self, architectures: _Optional[_Iterable[_Union[_types_pb2.Architecture, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_size: _Optional[int] = ...) -> None: ...

class GetArchitectureRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _types_pb2.ModelSpec
    def __init__(self, model: _Optional[_Union[_types_pb2.ModelSpec, _Mapping]] = ...) -> None: ...

class GetArchitectureResponse(_message.Message):
    __slots__ = ("architecture",)
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    architecture: _types_pb2.Architecture
    def __init__(self, architecture: _Optional[_Union[_types_pb2.Architecture, _Mapping]] = ...) -> None: ...

class ValidationScore(_message.Message):
    __slots__ = ("kind", "precision", "rows", "groups", "mean_error", "median_error", "p90_error", "coverage", "engine")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    MEAN_ERROR_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_ERROR_FIELD_NUMBER: _ClassVar[int]
    P90_ERROR_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    precision: _types_pb2.Precision
    rows: int
    groups: int
    mean_error: float
    median_error: float
    p90_error: float
    coverage: float
    engine: str
    def __init__(self, kind: _Optional[str] = ..., precision: _Optional[_Union[_types_pb2.Precision, str]] = ..., rows: _Optional[int] = ..., groups: _Optional[int] = ..., mean_error: _Optional[float] = ..., median_error: _Optional[float] = ..., p90_error: _Optional[float] = ..., coverage: _Optional[float] = ..., engine: _Optional[str] = ...) -> None: ...

class CostModel(_message.Message):
    __slots__ = ("id", "device", "fingerprint", "create_time", "measurement_count", "current", "scores", "precisions", "engines", "provenance")
    ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PRECISIONS_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    device: str
    fingerprint: str
    create_time: _timestamp_pb2.Timestamp
    measurement_count: int
    current: bool
    scores: _containers.RepeatedCompositeFieldContainer[ValidationScore]
    precisions: _containers.RepeatedScalarFieldContainer[_types_pb2.Precision]
    engines: _containers.RepeatedScalarFieldContainer[str]
    provenance: _types_pb2.Provenance
    def __init__(self, id: _Optional[str] = ..., device: _Optional[str] = ..., fingerprint: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., measurement_count: _Optional[int] = ..., current: _Optional[bool] = ..., scores: _Optional[_Iterable[_Union[ValidationScore, _Mapping]]] = ..., precisions: _Optional[_Iterable[_Union[_types_pb2.Precision, str]]] = ..., engines: _Optional[_Iterable[str]] = ..., provenance: _Optional[_Union[_types_pb2.Provenance, str]] = ...) -> None: ...

class ListCostModelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "device")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    device: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., device: _Optional[str] = ...) -> None: ...

class ListCostModelsResponse(_message.Message):
    __slots__ = ("cost_models", "next_page_token", "total_size")
    COST_MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    cost_models: _containers.RepeatedCompositeFieldContainer[CostModel]
    next_page_token: str
    total_size: int
    def __init__(self, cost_models: _Optional[_Iterable[_Union[CostModel, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_size: _Optional[int] = ...) -> None: ...

class GetCostModelRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetCostModelResponse(_message.Message):
    __slots__ = ("cost_model",)
    COST_MODEL_FIELD_NUMBER: _ClassVar[int]
    cost_model: CostModel
    def __init__(self, cost_model: _Optional[_Union[CostModel, _Mapping]] = ...) -> None: ...

class FitCostModelRequest(_message.Message):
    __slots__ = ("device", "engine", "source")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    device: str
    engine: str
    source: str
    def __init__(self, device: _Optional[str] = ..., engine: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class FitCostModelResponse(_message.Message):
    __slots__ = ("cost_model",)
    COST_MODEL_FIELD_NUMBER: _ClassVar[int]
    cost_model: CostModel
    def __init__(self, cost_model: _Optional[_Union[CostModel, _Mapping]] = ...) -> None: ...

class ListMeasurementsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "device", "job_id", "kind")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    device: str
    job_id: str
    kind: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., device: _Optional[str] = ..., job_id: _Optional[str] = ..., kind: _Optional[str] = ...) -> None: ...

class ListMeasurementsResponse(_message.Message):
    __slots__ = ("measurements", "next_page_token", "total_size")
    MEASUREMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    measurements: _containers.RepeatedCompositeFieldContainer[_types_pb2.Measurement]
    next_page_token: str
    total_size: int
    def __init__(self, measurements: _Optional[_Iterable[_Union[_types_pb2.Measurement, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_size: _Optional[int] = ...) -> None: ...

class ImportMeasurementsRequest(_message.Message):
    __slots__ = ("device", "engine", "source", "first_row", "measurements")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    FIRST_ROW_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENTS_FIELD_NUMBER: _ClassVar[int]
    device: str
    engine: str
    source: str
    first_row: int
    measurements: _containers.RepeatedCompositeFieldContainer[_types_pb2.Measurement]
    def __init__(self, device: _Optional[str] = ..., engine: _Optional[str] = ..., source: _Optional[str] = ..., first_row: _Optional[int] = ..., measurements: _Optional[_Iterable[_Union[_types_pb2.Measurement, _Mapping]]] = ...) -> None: ...

class ImportMeasurementsResponse(_message.Message):
    __slots__ = ("measurement_count",)
    MEASUREMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    measurement_count: int
    def __init__(self, measurement_count: _Optional[int] = ...) -> None: ...

class CalibrationRow(_message.Message):
    __slots__ = ("model", "device", "workload", "parallelism", "precision", "kv_cache_precision", "engine", "engine_version", "ttft_ms", "tpot_ms", "source")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    PARALLELISM_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_PRECISION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    TTFT_MS_FIELD_NUMBER: _ClassVar[int]
    TPOT_MS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    model: _types_pb2.ModelSpec
    device: str
    workload: _types_pb2.Workload
    parallelism: _types_pb2.Parallelism
    precision: _types_pb2.Precision
    kv_cache_precision: _types_pb2.Precision
    engine: str
    engine_version: str
    ttft_ms: float
    tpot_ms: float
    source: str
    def __init__(self, model: _Optional[_Union[_types_pb2.ModelSpec, _Mapping]] = ..., device: _Optional[str] = ..., workload: _Optional[_Union[_types_pb2.Workload, _Mapping]] = ..., parallelism: _Optional[_Union[_types_pb2.Parallelism, _Mapping]] = ..., precision: _Optional[_Union[_types_pb2.Precision, str]] = ..., kv_cache_precision: _Optional[_Union[_types_pb2.Precision, str]] = ..., engine: _Optional[str] = ..., engine_version: _Optional[str] = ..., ttft_ms: _Optional[float] = ..., tpot_ms: _Optional[float] = ..., source: _Optional[str] = ...) -> None: ...

class ErrorSummary(_message.Message):
    __slots__ = ("mean", "median", "p90")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_FIELD_NUMBER: _ClassVar[int]
    P90_FIELD_NUMBER: _ClassVar[int]
    mean: float
    median: float
    p90: float
    def __init__(self, mean: _Optional[float] = ..., median: _Optional[float] = ..., p90: _Optional[float] = ...) -> None: ...

class CalibrationScore(_message.Message):
    __slots__ = ("figure", "rows", "before", "after", "coverage")
    FIGURE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    figure: str
    rows: int
    before: ErrorSummary
    after: ErrorSummary
    coverage: float
    def __init__(self, figure: _Optional[str] = ..., rows: _Optional[int] = ..., before: _Optional[_Union[ErrorSummary, _Mapping]] = ..., after: _Optional[_Union[ErrorSummary, _Mapping]] = ..., coverage: _Optional[float] = ...) -> None: ...

class CalibrationRemark(_message.Message):
    __slots__ = ("code", "text", "rows")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    code: str
    text: str
    rows: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, code: _Optional[str] = ..., text: _Optional[str] = ..., rows: _Optional[_Iterable[int]] = ...) -> None: ...

class Calibration(_message.Message):
    __slots__ = ("name", "create_time", "row_count", "devices", "engines", "engine_versions", "architectures", "scores", "remarks")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURES_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    REMARKS_FIELD_NUMBER: _ClassVar[int]
    name: str
    create_time: _timestamp_pb2.Timestamp
    row_count: int
    devices: _containers.RepeatedScalarFieldContainer[str]
    engines: _containers.RepeatedScalarFieldContainer[str]
    engine_versions: _containers.RepeatedScalarFieldContainer[str]
    architectures: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedCompositeFieldContainer[CalibrationScore]
    remarks: _containers.RepeatedCompositeFieldContainer[CalibrationRemark]
    def __init__(self, name: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., row_count: _Optional[int] = ..., devices: _Optional[_Iterable[str]] = ..., engines: _Optional[_Iterable[str]] = ..., engine_versions: _Optional[_Iterable[str]] = ..., architectures: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[_Union[CalibrationScore, _Mapping]]] = ..., remarks: _Optional[_Iterable[_Union[CalibrationRemark, _Mapping]]] = ...) -> None: ...

class CreateCalibrationRequest(_message.Message):
    __slots__ = ("name", "rows", "accept_suspicious", "validate_only")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_SUSPICIOUS_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    name: str
    rows: _containers.RepeatedCompositeFieldContainer[CalibrationRow]
    accept_suspicious: bool
    validate_only: bool
    def __init__(self, name: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[CalibrationRow, _Mapping]]] = ..., accept_suspicious: _Optional[bool] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class CreateCalibrationResponse(_message.Message):
    __slots__ = ("calibration",)
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    calibration: Calibration
    def __init__(self, calibration: _Optional[_Union[Calibration, _Mapping]] = ...) -> None: ...

class GetCalibrationRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetCalibrationResponse(_message.Message):
    __slots__ = ("calibration",)
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    calibration: Calibration
    def __init__(self, calibration: _Optional[_Union[Calibration, _Mapping]] = ...) -> None: ...

class ListCalibrationsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCalibrationsResponse(_message.Message):
    __slots__ = ("calibrations", "next_page_token", "total_size")
    CALIBRATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    calibrations: _containers.RepeatedCompositeFieldContainer[Calibration]
    next_page_token: str
    total_size: int
    def __init__(self, calibrations: _Optional[_Iterable[_Union[Calibration, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_size: _Optional[int] = ...) -> None: ...

class DeleteCalibrationRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteCalibrationResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
