"""The sizes that a measurement carries, by kind, and the way back to what was run.

- ``linear``: m, n, k.
- ``attention``: sequences, query_tokens, kv_tokens, query_heads, kv_heads, head_dim.
- ``layer``, ``prefill``, ``decode``: sequences, query_tokens, kv_tokens and the
  dimensions of the architecture that ran (``model.dense``), enums as their index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model.architecture import Activation, Attention, Norm
from model.dense import dense_architecture, dense_dimensions
from model.operations import Operation, attention, layer_operations, linear, step_operations
from model.workload import Parallelism, Sequences, Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.architecture import Architecture
    from model.measurement import Measurement


_ACTIVATIONS = tuple(Activation)
_NORMS = tuple(Norm)
_STEP_SIZES = frozenset({"sequences", "query_tokens", "kv_tokens"})


def architecture_shape(architecture: Architecture, step: Sequences) -> dict[str, float]:
    """Returns the sizes of a pass of equal sequences through an architecture."""
    sizes: dict[str, Any] = dict(dense_dimensions(architecture))
    del sizes["name"]
    sizes["activation"] = _ACTIVATIONS.index(sizes["activation"])
    sizes["norm"] = _NORMS.index(sizes["norm"])
    sizes |= {
        "sequences": step.count,
        "query_tokens": step.query_tokens,
        "kv_tokens": step.kv_tokens,
    }
    return {name: float(size) for name, size in sizes.items()}


def architecture_of_shape(shape: Mapping[str, float]) -> Architecture:
    """Returns the architecture that :func:`architecture_shape` was given, less its name.

    Raises:
        KeyError: a size is missing.
        InvalidFieldError: the sizes do not make an architecture.
    """
    sizes: dict[str, Any] = {
        name: int(size) for name, size in shape.items() if name not in _STEP_SIZES
    }
    sizes["activation"] = _ACTIVATIONS[sizes["activation"]]
    sizes["norm"] = _NORMS[sizes["norm"]]
    return dense_architecture(**sizes)


def step_of_shape(shape: Mapping[str, float]) -> Step:
    """Returns the step that the sizes stand for."""
    return (
        Sequences(
            count=int(shape["sequences"]),
            query_tokens=int(shape["query_tokens"]),
            kv_tokens=int(shape["kv_tokens"]),
        ),
    )


def operations_of(measurement: Measurement) -> list[Operation]:
    """Returns what ran in a measured point.

    A ``layer`` is the mean over the architecture's layers: its operations are those of
    the first kind of layer, once.

    Raises:
        KeyError: a size or the kind is unknown.
    """
    shape, precision = measurement.shape, measurement.precision
    if measurement.kind == "linear":
        m, n, k = (int(shape[name]) for name in ("m", "n", "k"))
        return [linear("linear", m, n, k, precision)]
    if measurement.kind == "attention":
        heads = Attention(
            query_heads=int(shape["query_heads"]),
            kv_heads=int(shape["kv_heads"]),
            head_dim=int(shape["head_dim"]),
        )
        sizes = (int(shape[name]) for name in ("sequences", "query_tokens", "kv_tokens"))
        sequences, query_tokens, kv_tokens = sizes
        return [attention(sequences, query_tokens, kv_tokens, heads, precision)]
    architecture, step = architecture_of_shape(shape), step_of_shape(shape)
    if measurement.kind == "layer":
        layer = architecture.layers[0].layer
        return layer_operations(
            architecture.hidden_size, layer, step, precision, precision, fused=False
        )
    if measurement.kind not in {"prefill", "decode"}:
        raise KeyError(measurement.kind)
    return step_operations(
        architecture,
        step,
        Parallelism(),
        precision,
        precision,
        measurement.engine,
        first=measurement.kind == "prefill",
    )
