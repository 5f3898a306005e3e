"""What the residual of each kind of operation is learned on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.operations import OperationKind

if TYPE_CHECKING:
    from model.laws import Array, Sizes

_ROW_CEILING = 17.0
_TILES = ((128, 128), (64, 64), (128, 256), (256, 128), (64, 256))
"""Rows and columns of the blocks that matrix kernels cut their result into."""


def features(kind: OperationKind, sizes: Sizes, law_ms: Array) -> Array:
    """Returns what the residual is learned on, (operations, features).

    Logs of the sizes, of the law and the intensity, and of what the kernels of the kind
    depend on.
    """
    shape = sizes.shape
    columns = [shape, law_ms, sizes.flops / sizes.bytes, *_FEATURES[kind](shape, sizes)]
    return np.log(np.column_stack(columns))


def _linear_features(shape: Array, sizes: Sizes) -> list[Array]:
    """Returns the rows while they are few, their parity, and the tiles of usual kernels."""
    m, n = shape[:, 0], shape[:, 1]
    tiles = [np.ceil(m / rows) * np.ceil(n / columns) for rows, columns in _TILES]
    return [np.minimum(m, _ROW_CEILING), 1 + m % 2, *tiles]


def _attention_features(shape: Array, sizes: Sizes) -> list[Array]:
    """Returns the work items as kernels cut them: heads, KV heads, blocks of keys and queries."""
    sequences, query, kv, heads, kv_heads, _ = shape.T
    group, items = heads / kv_heads, sequences * kv_heads
    blocks = [items * np.ceil(kv / 128), items * np.ceil(query * group / 64)]
    return [sequences * heads, group, kv / query, items, *blocks, sizes.bytes, sizes.flops]


def _mla_features(shape: Array, sizes: Sizes) -> list[Array]:
    sequences, query, kv, heads = shape[:, :4].T
    return [sequences * heads, sequences * kv, sequences * query, sizes.bytes, sizes.flops]


def _expert_features(shape: Array, sizes: Sizes) -> list[Array]:
    """Returns rows an expert, the weights touched, and the tiles of usual kernels."""
    tokens, hidden, inner, held, assignments, touched, count = shape.T
    each = assignments / touched
    tiles = [touched * np.ceil(each / rows) for rows in (16, 64, 128)]
    wide = touched * np.ceil(each / 64) * np.ceil(inner / 64)
    return [
        each,
        touched * hidden * inner,
        touched / held,
        assignments / tokens,
        count / held,
        wide,
        *tiles,
    ]


_FEATURES = {
    OperationKind.LINEAR: _linear_features,
    OperationKind.LINEAR_TRANSPOSED: _linear_features,
    OperationKind.BATCHED_LINEAR: _linear_features,
    OperationKind.ATTENTION: _attention_features,
    OperationKind.MLA: _mla_features,
    OperationKind.EXPERTS: _expert_features,
}
