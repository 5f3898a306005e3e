"""What the residual of each kind of operation is learned on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.operations import SHAPE_FIELDS, OperationKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.laws import Array, Sizes

_ROW_CEILING = 17.0
_TILE_ROWS = np.array([128, 64, 128, 256, 64])
_TILE_COLUMNS = np.array([128, 64, 256, 128, 256])
"""Sizes of the blocks that matrix kernels cut their result into."""
_BLOCKS = np.array([16, 64, 128, 256])
"""Rows that kernels round up to."""
_EXPERT_BLOCKS = np.array([16, 64, 128])
USUAL_PROCESSORS = 120
"""About as many as GPUs of data centres have (A100 108, H100 132): blocks run in waves of them."""
_SPLITS = np.array([1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128])
"""Parts that kernels cut a sequence's keys into where items alone would leave processors idle."""

_UNUSED = {
    OperationKind.ATTENTION: "query_heads",
    OperationKind.STATIC_ATTENTION: "query_heads",
    OperationKind.PAGED_ATTENTION: "query_heads",
    OperationKind.MLA: "query_heads",
    OperationKind.EXPERTS: "intermediate_size",
}
"""Sizes that tell the measured models apart, and so say little of one never measured: trees
that see the heads err by 3.0% on other numbers of them, without it by 2.6% (prefill, H100)."""

_USED: dict[OperationKind, slice | list[int]] = {
    kind: [index for index, name in enumerate(names) if name != _UNUSED[kind]]
    if kind in _UNUSED
    else slice(None)
    for kind, names in SHAPE_FIELDS.items()
}
"""Columns of a shape that are features."""


def features(kind: OperationKind, sizes: Sizes, law_ms: Array, processors: int) -> Array:
    """Returns what the residual is learned on, (operations, features).

    Logs of most sizes, of the law and the intensity, and of what the kernels of the kind
    depend on.

    Args:
        kind: one of ``KERNELS``.
        sizes: of the operations.
        law_ms: milliseconds by their laws, (operations,).
        processors: that the device has.
    """
    shape = sizes.shape
    columns = [shape[:, _USED[kind]], law_ms, sizes.flops / sizes.bytes]
    columns += _FEATURES[kind](shape, sizes, processors)
    # What column_stack() does, but for a third of a Predict's time.
    result: Array = np.log(np.concatenate([_as_columns(each) for each in columns], axis=1))
    return result


def _as_columns(values: Array) -> Array:
    return values if values.ndim == 2 else values[:, None]


def _linear_features(shape: Array, sizes: Sizes, processors: int) -> list[Array]:
    """Returns the rows while they are few, their parity, and what usual kernels round up."""
    m, n = shape[:, 0], shape[:, 1]
    outputs = m * n
    tiles = np.ceil(m[:, None] / _TILE_ROWS) * np.ceil(n[:, None] / _TILE_COLUMNS)
    waves = _rounded_up(tiles, processors)
    # What the best choice of tiles makes of the result, whole waves of whole tiles.
    areas = waves * tiles * _TILE_ROWS * _TILE_COLUMNS / outputs[:, None]
    padded = _rounded_up(m[:, None], _BLOCKS)
    return [
        np.minimum(m, _ROW_CEILING),
        1 + m % 2,
        outputs,
        tiles,
        waves,
        areas.min(axis=1),
        padded,
    ]


def _attention_features(shape: Array, sizes: Sizes, processors: int) -> list[Array]:
    """Returns the work items as kernels cut them: heads, KV heads, blocks of keys and queries."""
    sequences, query, kv, heads, kv_heads, _ = shape.T
    group, items = heads / kv_heads, sequences * kv_heads
    kv_blocks = np.ceil(kv / 128)
    blocks = [items * kv_blocks, items * np.ceil(query * group / 64)]
    tiles = [sequences * heads * np.ceil(query / 128), items * np.ceil(query * group / 128)]
    waves = [_rounded_up(count, processors) for count in (*tiles, blocks[1])]
    padded = [_rounded_up(kv, 128), _rounded_up(query * group, 128)]
    tokens = [sequences * kv, sequences * query, items * kv]
    busiest = _busiest(tiles[1], kv_blocks, processors)
    return [
        sequences * heads,
        group,
        kv / query,
        items,
        *blocks,
        *waves,
        *padded,
        *tokens,
        busiest,
        busiest * processors / blocks[0],
        sizes.bytes,
        sizes.flops,
    ]


def _mla_features(shape: Array, sizes: Sizes, _processors: int) -> list[Array]:
    sequences, query, kv, heads = shape[:, :4].T
    return [sequences * heads, sequences * kv, sequences * query, sizes.bytes, sizes.flops]


def _expert_features(shape: Array, sizes: Sizes, _processors: int) -> list[Array]:
    """Returns rows an expert, the weights touched, and the tiles of usual kernels."""
    tokens, hidden, inner, held, assignments, touched, count = shape.T
    each = assignments / touched
    tiles = touched[:, None] * np.ceil(each[:, None] / _EXPERT_BLOCKS)
    wide = touched * np.ceil(each / 64) * np.ceil(inner / 64)
    return [
        each,
        touched * hidden * inner,
        touched / held,
        assignments / tokens,
        count / held,
        wide,
        tiles,
    ]


def _sparse_features(shape: Array, sizes: Sizes, _processors: int) -> list[Array]:
    sequences, query, kv = shape[:, :3].T
    return [sequences * query, sequences * kv, query / kv, sizes.bytes]


def _recurrent_features(shape: Array, sizes: Sizes, _processors: int) -> list[Array]:
    """Returns the tokens, the chunks that they are taken in, and what a sequence brings."""
    sequences, query = shape[:, :2].T
    width = shape[:, 2:].prod(axis=1)
    return [sequences * query, sequences * np.ceil(query / 64), sequences * width, sizes.bytes]


def _busiest(tiles: Array, blocks: Array, processors: int) -> Array:
    """Returns how many blocks of keys the busiest processor reads, keys split for the best."""
    parts = np.minimum(_SPLITS, blocks[:, None])
    each = np.ceil(tiles[:, None] * parts / processors) * np.ceil(blocks[:, None] / parts)
    fewest: Array = each.min(axis=1)
    return fewest


def _rounded_up(count: Array, unit: int | NDArray[np.int64]) -> Array:
    """Returns how much larger a count is in whole units."""
    rounded: Array = np.ceil(count / unit) * unit / count
    return rounded


_FEATURES = {
    OperationKind.LINEAR: _linear_features,
    OperationKind.LINEAR_TRANSPOSED: _linear_features,
    OperationKind.LINEAR_PER_TENSOR: _linear_features,
    OperationKind.BATCHED_LINEAR: _linear_features,
    OperationKind.ATTENTION: _attention_features,
    OperationKind.STATIC_ATTENTION: _attention_features,
    OperationKind.PAGED_ATTENTION: _attention_features,
    OperationKind.MLA: _mla_features,
    OperationKind.SPARSE_MLA: _sparse_features,
    OperationKind.INDEXER: _sparse_features,
    OperationKind.TOP_K: _sparse_features,
    OperationKind.LINEAR_ATTENTION: _recurrent_features,
    OperationKind.CONVOLUTION: _recurrent_features,
    OperationKind.EXPERTS: _expert_features,
}
