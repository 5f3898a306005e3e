"""The sizes that a measurement carries, by kind, and the way back to what was run.

- ``linear``, ``linear_transposed``, ``linear_per_tensor``: m, n, k.
- ``attention``, ``static_attention``, ``paged_attention``: sequences, query_tokens, kv_tokens,
  query_heads, kv_heads, head_dim, and window where a query sees no more keys than that.
- ``sparse_mla``: sequences, query_tokens, kv_tokens, query_heads, kv_rank, rope_dim, top_k.
- ``indexer``: sequences, query_tokens, kv_tokens, heads, head_dim.
- ``top_k``: sequences, query_tokens, kv_tokens, top_k.
- ``linear_attention``: sequences, query_tokens, key_heads, value_heads, key_dim, value_dim.
- ``convolution``: sequences, query_tokens, channels, width.
- ``layer``, ``prefill``, ``decode``: fused and linear_fused (0 or 1), sequences,
  query_tokens, kv_tokens and the dimensions of the architecture that ran
  (``model.dimensions``), enums as their index; decode_sequences and decode_kv_tokens
  where those decoded a token each in the same pass.
- ``experts``: tokens, hidden_size, intermediate_size and local_experts of the rank, experts,
  top_k, imbalance where it is not 1 (the rank's share of the choices over the mean), and
  touched where it is known how many experts of the rank were met.
- ``mla``: sequences, query_tokens, kv_tokens, query_heads, kv_rank, rope_dim, head_dim,
  value_dim.
- ``batched_linear``: m, n, k, batch.
- ``all_reduce``, ``all_gather``, ``all_to_all``: message_bytes of one rank, ranks.
- ``point_to_point``: message_bytes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from model.architecture import Norm
from model.blocks import (
    Activation,
    Attention,
    Experts,
    FeedForward,
    Indexer,
    LatentAttention,
    LinearAttention,
)
from model.dimensions import Dimensions, architecture_of_dimensions, dimensions_of
from model.errors import InvalidFieldError
from model.execution import (
    FAMILY_PROJECTIONS,
    FUSED,
    SEPARATE,
    layer_operations,
    projections_of,
    step_operations,
)
from model.laws import KERNELS
from model.measurement import WHOLES
from model.operations import (
    COLLECTIVES,
    LINEARS,
    PLAIN_ATTENTIONS,
    SHAPE_FIELDS,
    Operation,
    OperationKind,
    all_gather,
    all_reduce,
    all_to_all,
    attention,
    batched_linear,
    convolution,
    experts,
    indexer,
    linear,
    linear_attention,
    mla,
    point_to_point,
    sparse_mla,
    top_k,
)
from model.workload import Parallelism, Sequences, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model.architecture import Architecture
    from model.measurement import Measurement
    from model.precision import Precision


_ACTIVATIONS = tuple(Activation)
_NORMS = tuple(Norm)
_DIMENSIONS = tuple(name for name in Dimensions.__annotations__ if name != "name")
_FUSED_FAMILY = next(f for f, stored in FAMILY_PROJECTIONS.items() if stored is FUSED)
_LINEAR_FUSED_FAMILY = next(
    f for f, stored in FAMILY_PROJECTIONS.items() if stored.qkvz and stored is not FUSED
)
_LATER = frozenset(
    {
        "experts",
        "experts_per_token",
        "expert_intermediate_size",
        "shared_intermediate_size",
        "leading_dense_layers",
        "expert_interval",
        "expert_bias",
        "kv_rank",
        "query_rank",
        "rope_dim",
        "value_dim",
        "attention_output_gate",
        "linear_key_heads",
        "linear_value_heads",
        "linear_key_dim",
        "linear_value_dim",
        "linear_conv_width",
        "linear_fused",
        "index_top_k",
        "index_heads",
        "index_head_dim",
    }
)
"""Sizes that rows stored before there were such blocks lack; zero where missing."""
_PASS = (
    "sequences",
    "query_tokens",
    "kv_tokens",
    "decode_sequences",
    "decode_kv_tokens",
    "fused",
    "linear_fused",
    *_DIMENSIONS,
)
SIZES: dict[str, tuple[str, ...]] = {
    **{
        kind.value: names
        for kind, names in SHAPE_FIELDS.items()
        if kind in KERNELS or kind in COLLECTIVES
    },
    **{kind.value: (*SHAPE_FIELDS[kind], "window") for kind in PLAIN_ATTENTIONS},
    "experts": (
        "tokens",
        "hidden_size",
        "intermediate_size",
        "local_experts",
        "experts",
        "top_k",
        "imbalance",
        "balanced",
        "touched",
    ),
    "point_to_point": ("message_bytes",),
    **dict.fromkeys(WHOLES, _PASS),
}
"""All sizes that a kind may have; some may be left out."""
_LARGEST = 1 << 53
"""Whole numbers up to here are exact as floats."""


def architecture_shape(architecture: Architecture, step: Step) -> dict[str, float]:
    """Returns the sizes of a pass through an architecture.

    Args:
        architecture: that runs.
        step: equal sequences, and behind them none or some that decode a token each.
    """
    first, *decoding = step
    sizes: dict[str, Any] = dict(dimensions_of(architecture))
    del sizes["name"]
    sizes["activation"] = _ACTIVATIONS.index(sizes["activation"])
    sizes["norm"] = _NORMS.index(sizes["norm"])
    stored = FAMILY_PROJECTIONS.get(architecture.model_type, SEPARATE)
    sizes["fused"] = stored is FUSED
    sizes["linear_fused"] = stored.qkvz and stored is not FUSED
    sizes |= {
        "sequences": first.count,
        "query_tokens": first.query_tokens,
        "kv_tokens": first.kv_tokens,
    }
    for alike in decoding:
        sizes |= {"decode_sequences": alike.count, "decode_kv_tokens": alike.kv_tokens}
    return {name: float(size) for name, size in sizes.items() if size or name not in _LATER}


def architecture_of_shape(shape: Mapping[str, float]) -> Architecture:
    """Returns the architecture that :func:`architecture_shape` was given.

    Less what costs nothing: its name, its source, and its family among those that store
    projections alike.

    Raises:
        KeyError: a size is missing.
        InvalidFieldError: the sizes do not make an architecture; names one.
    """
    sizes: dict[str, Any] = {
        name: _size(shape, name, low=0)
        for name in _DIMENSIONS
        if name in shape or name not in _LATER
    }
    for name, members in (("activation", _ACTIVATIONS), ("norm", _NORMS)):
        if sizes[name] >= len(members):
            raise InvalidFieldError(name, f"{sizes[name]} is not in 0 to {len(members) - 1}")
        sizes[name] = members[sizes[name]]
    family = _FUSED_FAMILY if _size(shape, "fused", low=0) else ""
    if "linear_fused" in shape and _size(shape, "linear_fused", low=0):
        family = _LINEAR_FUSED_FAMILY
    return architecture_of_dimensions(**sizes, model_type=family)


def step_of_shape(shape: Mapping[str, float]) -> Step:
    """Returns the step of a layer or a whole pass.

    Raises:
        KeyError: a size is missing.
        InvalidFieldError: a size is none, or there are more queries than keys; names it.
    """
    first = sequences_of_shape(shape)
    if "decode_sequences" not in shape:
        return (first,)
    count, kv_tokens = (_size(shape, f"decode_{name}") for name in ("sequences", "kv_tokens"))
    return (first, Sequences(count=count, query_tokens=1, kv_tokens=kv_tokens))


def sequences_of_shape(shape: Mapping[str, float]) -> Sequences:
    """Returns the equal sequences that the sizes stand for.

    Raises:
        KeyError: a size is missing.
        InvalidFieldError: a size is none, or there are more queries than keys; names it.
    """
    query_tokens, kv_tokens = _size(shape, "query_tokens"), _size(shape, "kv_tokens")
    if query_tokens > kv_tokens:
        raise InvalidFieldError(
            "query_tokens", f"{query_tokens} exceeds the {kv_tokens} tokens attended to"
        )
    count = _size(shape, "sequences")
    return Sequences(count=count, query_tokens=query_tokens, kv_tokens=kv_tokens)


def operations_of(measurement: Measurement) -> list[Operation]:
    """Returns what ran in a measured point.

    A ``layer`` is the mean over the architecture's layers: its operations are those of
    the first kind of layer, once.

    Raises:
        KeyError: the kind is unknown or a size is missing.
        InvalidFieldError: a size is damaged; names it.
    """
    shape, precision = measurement.shape, measurement.precision
    kv_precision = precision.activation
    if measurement.kind in LINEARS:
        m, n, k = (_size(shape, name) for name in ("m", "n", "k"))
        return [linear("linear", m, n, k, precision, kind=OperationKind(measurement.kind))]
    if measurement.kind in PLAIN_ATTENTIONS:
        heads = Attention(
            query_heads=_size(shape, "query_heads"),
            kv_heads=_size(shape, "kv_heads"),
            head_dim=_size(shape, "head_dim"),
            window=_size(shape, "window") if "window" in shape else None,
        )
        alike = sequences_of_shape(shape)
        sizes = (alike.count, alike.query_tokens, alike.kv_tokens)
        return [attention(*sizes, heads, precision, kind=OperationKind(measurement.kind))]
    if measurement.kind in _ALONE:
        return [_ALONE[measurement.kind](shape, precision)]
    architecture, step = architecture_of_shape(shape), step_of_shape(shape)
    if measurement.kind == "layer":
        layer = architecture.layers[0].layer
        return layer_operations(
            architecture.hidden_size,
            layer,
            step,
            precision,
            kv_precision,
            projections_of(architecture, measurement.engine),
        )
    if measurement.kind not in {"prefill", "decode"}:
        raise KeyError(measurement.kind)
    return step_operations(
        architecture,
        step,
        Parallelism(),
        precision,
        kv_precision,
        measurement.engine,
        first=measurement.kind == "prefill",
    )


def _experts(shape: Mapping[str, float], precision: Precision) -> Operation:
    local, count, top_k = (_size(shape, name) for name in ("local_experts", "experts", "top_k"))
    if local > count or top_k > count:
        raise InvalidFieldError("experts", f"{count} is less than are held or chosen")
    block = Experts(
        expert=FeedForward(intermediate_size=_size(shape, "intermediate_size")),
        count=count,
        top_k=top_k,
        local=local,
    )
    tokens, hidden_size = _size(shape, "tokens"), _size(shape, "hidden_size")
    imbalance = shape.get("imbalance", 1.0)
    touched = float(_size(shape, "touched")) if "touched" in shape else None
    return experts(tokens, hidden_size, block, precision, imbalance=imbalance, touched=touched)


def _mla(shape: Mapping[str, float], precision: Precision) -> Operation:
    heads = LatentAttention(
        query_heads=_size(shape, "query_heads"),
        kv_rank=_size(shape, "kv_rank"),
        query_rank=0,
        head_dim=_size(shape, "head_dim"),
        rope_dim=_size(shape, "rope_dim", low=0),
        value_dim=_size(shape, "value_dim"),
    )
    alike = sequences_of_shape(shape)
    return mla(alike.count, alike.query_tokens, alike.kv_tokens, heads, precision)


def _batched_linear(shape: Mapping[str, float], precision: Precision) -> Operation:
    m, n, k, batch = (_size(shape, name) for name in ("m", "n", "k", "batch"))
    return batched_linear("batched_linear", m, n, k, batch, precision)


def _collective(
    make: Callable[[float, int, Precision], Operation],
    shape: Mapping[str, float],
    precision: Precision,
) -> Operation:
    values = _size(shape, "message_bytes") / precision.activation_bytes
    return make(values, _size(shape, "ranks", low=2), precision)


def _point_to_point(shape: Mapping[str, float], precision: Precision) -> Operation:
    return point_to_point(_size(shape, "message_bytes") / precision.activation_bytes, precision)


def _sparse_mla(shape: Mapping[str, float], precision: Precision) -> Operation:
    heads = LatentAttention(
        query_heads=_size(shape, "query_heads"),
        kv_rank=_size(shape, "kv_rank"),
        query_rank=0,
        head_dim=0,
        rope_dim=_size(shape, "rope_dim", low=0),
        value_dim=0,
    )
    alike = sequences_of_shape(shape)
    return sparse_mla(
        alike.count, alike.query_tokens, alike.kv_tokens, heads, _size(shape, "top_k"), precision
    )


def _indexer(shape: Mapping[str, float], precision: Precision) -> Operation:
    del precision  # that of its own
    block = Indexer(heads=_size(shape, "heads"), head_dim=_size(shape, "head_dim"), top_k=0)
    alike = sequences_of_shape(shape)
    return indexer(alike.count, alike.query_tokens, alike.kv_tokens, block)


def _top_k(shape: Mapping[str, float], precision: Precision) -> Operation:
    del precision  # that of its own
    alike = sequences_of_shape(shape)
    return top_k(alike.count, alike.query_tokens, alike.kv_tokens, _size(shape, "top_k"))


def _linear_attention(shape: Mapping[str, float], precision: Precision) -> Operation:
    names = ("key_heads", "value_heads", "key_dim", "value_dim")
    heads = LinearAttention(**{name: _size(shape, name) for name in names}, conv_width=1)
    sequences, query_tokens = _size(shape, "sequences"), _size(shape, "query_tokens")
    return linear_attention(sequences, query_tokens, heads, precision)


def _convolution(shape: Mapping[str, float], precision: Precision) -> Operation:
    names = ("sequences", "query_tokens", "channels", "width")
    sequences, query_tokens, channels, width = (_size(shape, name) for name in names)
    return convolution(sequences, query_tokens, channels, width, precision)


_ALONE: dict[str, Callable[[Mapping[str, float], Precision], Operation]] = {
    "experts": _experts,
    "mla": _mla,
    "batched_linear": _batched_linear,
    "all_reduce": partial(_collective, all_reduce),
    "all_gather": partial(_collective, all_gather),
    "all_to_all": partial(_collective, all_to_all),
    "point_to_point": _point_to_point,
    "sparse_mla": _sparse_mla,
    "indexer": _indexer,
    "top_k": _top_k,
    "linear_attention": _linear_attention,
    "convolution": _convolution,
}


def _size(shape: Mapping[str, float], name: str, low: int = 1) -> int:
    """Returns a size, which a damaged row may not have.

    Raises:
        KeyError: it is missing.
        InvalidFieldError: it is no whole number from ``low`` on; names it.
    """
    value = shape[name]
    if not (low <= value <= _LARGEST and value == int(value)):
        raise InvalidFieldError(name, f"{value} is no whole number from {low} on")
    return int(value)
