import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Precision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRECISION_UNSPECIFIED: _ClassVar[Precision]
    PRECISION_FP32: _ClassVar[Precision]
    PRECISION_BF16: _ClassVar[Precision]
    PRECISION_FP16: _ClassVar[Precision]
    PRECISION_FP8: _ClassVar[Precision]
    PRECISION_FP8_BLOCK: _ClassVar[Precision]
    PRECISION_INT8: _ClassVar[Precision]
    PRECISION_INT8_WEIGHT_ONLY: _ClassVar[Precision]
    PRECISION_INT4: _ClassVar[Precision]
    PRECISION_FP4: _ClassVar[Precision]

class Provenance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROVENANCE_UNSPECIFIED: _ClassVar[Provenance]
    PROVENANCE_ANALYTICAL: _ClassVar[Provenance]
    PROVENANCE_TRANSFERRED: _ClassVar[Provenance]
    PROVENANCE_REFERENCE_DATA: _ClassVar[Provenance]
    PROVENANCE_MEASURED_LOCALLY: _ClassVar[Provenance]

class Activation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVATION_UNSPECIFIED: _ClassVar[Activation]
    ACTIVATION_SILU: _ClassVar[Activation]
    ACTIVATION_GELU: _ClassVar[Activation]
    ACTIVATION_RELU: _ClassVar[Activation]

class Norm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NORM_UNSPECIFIED: _ClassVar[Norm]
    NORM_RMS: _ClassVar[Norm]
    NORM_LAYER: _ClassVar[Norm]

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_PREFILL: _ClassVar[Phase]
    PHASE_DECODE: _ClassVar[Phase]

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_SUCCEEDED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]
PRECISION_UNSPECIFIED: Precision
PRECISION_FP32: Precision
PRECISION_BF16: Precision
PRECISION_FP16: Precision
PRECISION_FP8: Precision
PRECISION_FP8_BLOCK: Precision
PRECISION_INT8: Precision
PRECISION_INT8_WEIGHT_ONLY: Precision
PRECISION_INT4: Precision
PRECISION_FP4: Precision
PROVENANCE_UNSPECIFIED: Provenance
PROVENANCE_ANALYTICAL: Provenance
PROVENANCE_TRANSFERRED: Provenance
PROVENANCE_REFERENCE_DATA: Provenance
PROVENANCE_MEASURED_LOCALLY: Provenance
ACTIVATION_UNSPECIFIED: Activation
ACTIVATION_SILU: Activation
ACTIVATION_GELU: Activation
ACTIVATION_RELU: Activation
NORM_UNSPECIFIED: Norm
NORM_RMS: Norm
NORM_LAYER: Norm
PHASE_UNSPECIFIED: Phase
PHASE_PREFILL: Phase
PHASE_DECODE: Phase
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_SUCCEEDED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState

class Experts(_message.Message):
    __slots__ = ("count", "per_token", "intermediate_size", "shared_intermediate_size", "leading_dense_layers", "interval", "bias")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INTERMEDIATE_SIZE_FIELD_NUMBER: _ClassVar[int]
    SHARED_INTERMEDIATE_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEADING_DENSE_LAYERS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    count: int
    per_token: int
    intermediate_size: int
    shared_intermediate_size: int
    leading_dense_layers: int
    interval: int
    bias: bool
    def __init__(self, count: _Optional[int] = ..., per_token: _Optional[int] = ..., intermediate_size: _Optional[int] = ..., shared_intermediate_size: _Optional[int] = ..., leading_dense_layers: _Optional[int] = ..., interval: _Optional[int] = ..., bias: _Optional[bool] = ...) -> None: ...

class LatentAttention(_message.Message):
    __slots__ = ("kv_rank", "query_rank", "rope_dim", "value_dim")
    KV_RANK_FIELD_NUMBER: _ClassVar[int]
    QUERY_RANK_FIELD_NUMBER: _ClassVar[int]
    ROPE_DIM_FIELD_NUMBER: _ClassVar[int]
    VALUE_DIM_FIELD_NUMBER: _ClassVar[int]
    kv_rank: int
    query_rank: int
    rope_dim: int
    value_dim: int
    def __init__(self, kv_rank: _Optional[int] = ..., query_rank: _Optional[int] = ..., rope_dim: _Optional[int] = ..., value_dim: _Optional[int] = ...) -> None: ...

class LinearAttention(_message.Message):
    __slots__ = ("key_heads", "value_heads", "key_dim", "value_dim", "conv_width")
    KEY_HEADS_FIELD_NUMBER: _ClassVar[int]
    VALUE_HEADS_FIELD_NUMBER: _ClassVar[int]
    KEY_DIM_FIELD_NUMBER: _ClassVar[int]
    VALUE_DIM_FIELD_NUMBER: _ClassVar[int]
    CONV_WIDTH_FIELD_NUMBER: _ClassVar[int]
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_width: int
    def __init__(self, key_heads: _Optional[int] = ..., value_heads: _Optional[int] = ..., key_dim: _Optional[int] = ..., value_dim: _Optional[int] = ..., conv_width: _Optional[int] = ...) -> None: ...

class SparseAttention(_message.Message):
    __slots__ = ("top_k", "index_heads", "index_head_dim")
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    INDEX_HEADS_FIELD_NUMBER: _ClassVar[int]
    INDEX_HEAD_DIM_FIELD_NUMBER: _ClassVar[int]
    top_k: int
    index_heads: int
    index_head_dim: int
    def __init__(self, top_k: _Optional[int] = ..., index_heads: _Optional[int] = ..., index_head_dim: _Optional[int] = ...) -> None: ...

class Architecture(_message.Message):
    __slots__ = ("name", "hidden_size", "layer_count", "query_heads", "kv_heads", "head_dim", "intermediate_size", "vocab_size", "plain_mlp", "activation", "tied_embeddings", "qkv_bias", "attention_output_bias", "mlp_bias", "qk_norm", "sliding_window", "full_attention_interval", "norm", "norms_per_layer", "learned_positions", "head_bias", "parameter_count", "model_type", "source", "experts", "latent_attention", "active_parameter_count", "linear_attention", "sparse_attention", "attention_output_gate")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    LAYER_COUNT_FIELD_NUMBER: _ClassVar[int]
    QUERY_HEADS_FIELD_NUMBER: _ClassVar[int]
    KV_HEADS_FIELD_NUMBER: _ClassVar[int]
    HEAD_DIM_FIELD_NUMBER: _ClassVar[int]
    INTERMEDIATE_SIZE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    PLAIN_MLP_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    TIED_EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    QKV_BIAS_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_OUTPUT_BIAS_FIELD_NUMBER: _ClassVar[int]
    MLP_BIAS_FIELD_NUMBER: _ClassVar[int]
    QK_NORM_FIELD_NUMBER: _ClassVar[int]
    SLIDING_WINDOW_FIELD_NUMBER: _ClassVar[int]
    FULL_ATTENTION_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    NORMS_PER_LAYER_FIELD_NUMBER: _ClassVar[int]
    LEARNED_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    HEAD_BIAS_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    LATENT_ATTENTION_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    LINEAR_ATTENTION_FIELD_NUMBER: _ClassVar[int]
    SPARSE_ATTENTION_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_OUTPUT_GATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    hidden_size: int
    layer_count: int
    query_heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    plain_mlp: bool
    activation: Activation
    tied_embeddings: bool
    qkv_bias: bool
    attention_output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    sliding_window: int
    full_attention_interval: int
    norm: Norm
    norms_per_layer: int
    learned_positions: int
    head_bias: bool
    parameter_count: int
    model_type: str
    source: str
    experts: Experts
    latent_attention: LatentAttention
    active_parameter_count: int
    linear_attention: LinearAttention
    sparse_attention: SparseAttention
    attention_output_gate: bool
    def __init__(self, name: _Optional[str] = ..., hidden_size: _Optional[int] = ..., layer_count: _Optional[int] = ..., query_heads: _Optional[int] = ..., kv_heads: _Optional[int] = ..., head_dim: _Optional[int] = ..., intermediate_size: _Optional[int] = ..., vocab_size: _Optional[int] = ..., plain_mlp: _Optional[bool] = ..., activation: _Optional[_Union[Activation, str]] = ..., tied_embeddings: _Optional[bool] = ..., qkv_bias: _Optional[bool] = ..., attention_output_bias: _Optional[bool] = ..., mlp_bias: _Optional[bool] = ..., qk_norm: _Optional[bool] = ..., sliding_window: _Optional[int] = ..., full_attention_interval: _Optional[int] = ..., norm: _Optional[_Union[Norm, str]] = ..., norms_per_layer: _Optional[int] = ..., learned_positions: _Optional[int] = ..., head_bias: _Optional[bool] = ..., parameter_count: _Optional[int] = ..., model_type: _Optional[str] = ..., source: _Optional[str] = ..., experts: _Optional[_Union[Experts, _Mapping]] = ..., latent_attention: _Optional[_Union[LatentAttention, _Mapping]] = ..., active_parameter_count: _Optional[int] = ..., linear_attention: _Optional[_Union[LinearAttention, _Mapping]] = ..., sparse_attention: _Optional[_Union[SparseAttention, _Mapping]] = ..., attention_output_gate: _Optional[bool] = ...) -> None: ...

class ModelSpec(_message.Message):
    __slots__ = ("preset", "huggingface_config", "parameter_count", "architecture")
    PRESET_FIELD_NUMBER: _ClassVar[int]
    HUGGINGFACE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    preset: str
    huggingface_config: _struct_pb2.Struct
    parameter_count: float
    architecture: Architecture
    def __init__(self, preset: _Optional[str] = ..., huggingface_config: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., parameter_count: _Optional[float] = ..., architecture: _Optional[_Union[Architecture, _Mapping]] = ...) -> None: ...

class Workload(_message.Message):
    __slots__ = ("input_tokens", "output_tokens", "batch_size", "concurrency", "cached_prefix_tokens", "prefill_chunk_tokens", "expert_imbalance")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    CACHED_PREFIX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_CHUNK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EXPERT_IMBALANCE_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    output_tokens: int
    batch_size: int
    concurrency: int
    cached_prefix_tokens: int
    prefill_chunk_tokens: int
    expert_imbalance: float
    def __init__(self, input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., batch_size: _Optional[int] = ..., concurrency: _Optional[int] = ..., cached_prefix_tokens: _Optional[int] = ..., prefill_chunk_tokens: _Optional[int] = ..., expert_imbalance: _Optional[float] = ...) -> None: ...

class Parallelism(_message.Message):
    __slots__ = ("tensor", "pipeline", "expert", "data")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    EXPERT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    tensor: int
    pipeline: int
    expert: int
    data: int
    def __init__(self, tensor: _Optional[int] = ..., pipeline: _Optional[int] = ..., expert: _Optional[int] = ..., data: _Optional[int] = ...) -> None: ...

class Estimate(_message.Message):
    __slots__ = ("value", "lower", "upper")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    value: float
    lower: float
    upper: float
    def __init__(self, value: _Optional[float] = ..., lower: _Optional[float] = ..., upper: _Optional[float] = ...) -> None: ...

class MemoryFootprint(_message.Message):
    __slots__ = ("fits", "weights_bytes", "kv_cache_bytes", "activations_bytes", "total_bytes", "capacity_bytes")
    FITS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACTIVATIONS_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    fits: bool
    weights_bytes: int
    kv_cache_bytes: int
    activations_bytes: int
    total_bytes: int
    capacity_bytes: int
    def __init__(self, fits: _Optional[bool] = ..., weights_bytes: _Optional[int] = ..., kv_cache_bytes: _Optional[int] = ..., activations_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., capacity_bytes: _Optional[int] = ...) -> None: ...

class OperationCost(_message.Message):
    __slots__ = ("phase", "name", "kind", "count", "latency_ms", "flops", "bytes", "share", "bound")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    FLOPS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    phase: Phase
    name: str
    kind: str
    count: int
    latency_ms: float
    flops: float
    bytes: float
    share: float
    bound: str
    def __init__(self, phase: _Optional[_Union[Phase, str]] = ..., name: _Optional[str] = ..., kind: _Optional[str] = ..., count: _Optional[int] = ..., latency_ms: _Optional[float] = ..., flops: _Optional[float] = ..., bytes: _Optional[float] = ..., share: _Optional[float] = ..., bound: _Optional[str] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("code", "text")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: str
    text: str
    def __init__(self, code: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Resolved(_message.Message):
    __slots__ = ("device", "precision", "kv_cache_precision", "engine", "gpu_count", "architecture", "experts_precision", "calibration")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_PRECISION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    GPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_PRECISION_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    device: str
    precision: Precision
    kv_cache_precision: Precision
    engine: str
    gpu_count: int
    architecture: Architecture
    experts_precision: Precision
    calibration: str
    def __init__(self, device: _Optional[str] = ..., precision: _Optional[_Union[Precision, str]] = ..., kv_cache_precision: _Optional[_Union[Precision, str]] = ..., engine: _Optional[str] = ..., gpu_count: _Optional[int] = ..., architecture: _Optional[_Union[Architecture, _Mapping]] = ..., experts_precision: _Optional[_Union[Precision, str]] = ..., calibration: _Optional[str] = ...) -> None: ...

class Environment(_message.Message):
    __slots__ = ("fingerprint", "device_name", "device_kind", "device_uuid", "driver_version", "cuda_version", "torch_version", "transformers_version", "threads", "platform", "python_version", "source", "engine")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    DEVICE_KIND_FIELD_NUMBER: _ClassVar[int]
    DEVICE_UUID_FIELD_NUMBER: _ClassVar[int]
    DRIVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    CUDA_VERSION_FIELD_NUMBER: _ClassVar[int]
    TORCH_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRANSFORMERS_VERSION_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    PYTHON_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    device_name: str
    device_kind: str
    device_uuid: str
    driver_version: str
    cuda_version: str
    torch_version: str
    transformers_version: str
    threads: int
    platform: str
    python_version: str
    source: str
    engine: str
    def __init__(self, fingerprint: _Optional[str] = ..., device_name: _Optional[str] = ..., device_kind: _Optional[str] = ..., device_uuid: _Optional[str] = ..., driver_version: _Optional[str] = ..., cuda_version: _Optional[str] = ..., torch_version: _Optional[str] = ..., transformers_version: _Optional[str] = ..., threads: _Optional[int] = ..., platform: _Optional[str] = ..., python_version: _Optional[str] = ..., source: _Optional[str] = ..., engine: _Optional[str] = ...) -> None: ...

class Distribution(_message.Message):
    __slots__ = ("median", "p10", "p90", "samples")
    MEDIAN_FIELD_NUMBER: _ClassVar[int]
    P10_FIELD_NUMBER: _ClassVar[int]
    P90_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    median: float
    p10: float
    p90: float
    samples: int
    def __init__(self, median: _Optional[float] = ..., p10: _Optional[float] = ..., p90: _Optional[float] = ..., samples: _Optional[int] = ...) -> None: ...

class Measurement(_message.Message):
    __slots__ = ("id", "job_id", "device", "fingerprint", "kind", "precision", "engine", "shape", "latency_ms", "create_time", "flags", "group", "seconds")
    class ShapeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class SecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: int
    job_id: str
    device: str
    fingerprint: str
    kind: str
    precision: Precision
    engine: str
    shape: _containers.ScalarMap[str, float]
    latency_ms: Distribution
    create_time: _timestamp_pb2.Timestamp
    flags: _containers.RepeatedScalarFieldContainer[str]
    group: str
    seconds: _containers.ScalarMap[str, float]
    def __init__(self, id: _Optional[int] = ..., job_id: _Optional[str] = ..., device: _Optional[str] = ..., fingerprint: _Optional[str] = ..., kind: _Optional[str] = ..., precision: _Optional[_Union[Precision, str]] = ..., engine: _Optional[str] = ..., shape: _Optional[_Mapping[str, float]] = ..., latency_ms: _Optional[_Union[Distribution, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., flags: _Optional[_Iterable[str]] = ..., group: _Optional[str] = ..., seconds: _Optional[_Mapping[str, float]] = ...) -> None: ...
