"""The smooth physics of an operation.

    t = a + c0 x outputs + c3 x items + ((c1 x flops)^p + (c2 x bytes)^p)^(1/p)

in milliseconds: a start-up time, a cost for each value written and for each item of work,
and the larger of computing and moving with a soft corner. Items are what a kernel walks
one after the other whatever their size: a matrix product's inner dimension, an
attention's KV heads of all sequences, the experts met. Libraries switch kernels with the number of
rows, so each regime has constants of its own where it has been measured often enough
(``SHARED`` tells which have them in common).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.operations import COLLECTIVES, LINEARS, SHAPE_FIELDS, Operation, OperationKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

KERNELS = (
    OperationKind.LINEAR,
    OperationKind.LINEAR_TRANSPOSED,
    OperationKind.LINEAR_PER_TENSOR,
    OperationKind.BATCHED_LINEAR,
    OperationKind.ATTENTION,
    OperationKind.STATIC_ATTENTION,
    OperationKind.PAGED_ATTENTION,
    OperationKind.MLA,
    OperationKind.SPARSE_MLA,
    OperationKind.INDEXER,
    OperationKind.TOP_K,
    OperationKind.LINEAR_ATTENTION,
    OperationKind.CONVOLUTION,
    OperationKind.EXPERTS,
)
"""Kinds with a law and a learned residual; the others are collectives or terms."""

REGIMES = {
    OperationKind.LINEAR: 5,
    OperationKind.LINEAR_TRANSPOSED: 5,
    OperationKind.LINEAR_PER_TENSOR: 5,
    OperationKind.BATCHED_LINEAR: 5,
    OperationKind.ATTENTION: 3,
    OperationKind.STATIC_ATTENTION: 3,
    OperationKind.PAGED_ATTENTION: 3,
    OperationKind.MLA: 3,
    OperationKind.SPARSE_MLA: 2,
    OperationKind.INDEXER: 2,
    OperationKind.TOP_K: 2,
    OperationKind.LINEAR_ATTENTION: 2,
    OperationKind.CONVOLUTION: 2,
    OperationKind.EXPERTS: 6,
}
"""Number of regimes of each kind; those of attention: decode, whole prompt, chunk; of what
linear and sparse attention add: one query, more."""

SHARED = {OperationKind.EXPERTS: 3}
"""How many regimes in a row have one law, where laws of their own do harm.

Laws of experts jumped where a regime of rows ends, and trees, which split halfway between two
measured rows, did not jump there: between the two the latency fell by up to a half. These
regimes are still told apart, as stored cost models have a law for each.
"""

_ROW_REGIMES = np.array([2, 3, 4, 16])
"""First rows of a linear's further regimes: libraries treat one, two and three rows apart."""

_EXPERT_REGIMES = np.array([8.0, 128.0])
"""First rows an expert of further regimes: weights read, tiles half empty, tiles full.

A rank that holds a part of the experts has as many of its own: engines pick other kernels.
"""


_BY_QUERY: dict[OperationKind, Callable[[Mapping[str, Array]], Array]] = {
    OperationKind.SPARSE_MLA: lambda size: size["query_heads"] * size["kv_rank"],
    OperationKind.INDEXER: lambda size: size["kv_tokens"],
    OperationKind.TOP_K: lambda size: size["top_k"],
    OperationKind.LINEAR_ATTENTION: lambda size: size["value_heads"] * size["value_dim"],
    OperationKind.CONVOLUTION: lambda size: size["channels"],
}
"""Kinds whose items are queries, with the values that each of them writes."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Operations of one kind as columns.

    Attributes:
        extent: (operations, fields + 2): the sizes in the order of ``SHAPE_FIELDS``, FLOPs and
            bytes.
        outputs, items: (operations,).
        regime: (operations,), index of the regime.
    """

    extent: Array
    outputs: Array
    items: Array
    regime: NDArray[np.intp]

    @property
    def shape(self) -> Array:
        """The sizes, (operations, fields)."""
        return self.extent[:, :-2]

    @property
    def flops(self) -> Array:
        """Floating-point operations of one run, (operations,)."""
        return self.extent[:, -2]

    @property
    def bytes(self) -> Array:
        """Bytes moved by one run, (operations,)."""
        return self.extent[:, -1]

    def take(self, rows: NDArray[np.bool_]) -> Sizes:
        """Returns the chosen operations."""
        return Sizes(self.extent[rows], self.outputs[rows], self.items[rows], self.regime[rows])


@dataclass(frozen=True, slots=True)
class Law:
    """Constants of one regime: a, c0, c1, c2 (all positive), p (at least 1) and c3."""

    start_ms: float
    output_ms: float
    flop_ms: float
    byte_ms: float
    corner: float
    item_ms: float = 0.0

    def scaled(self, factor: float) -> Law:
        """Returns the law of a device that takes ``factor`` times as long for everything."""
        return Law(
            self.start_ms * factor,
            self.output_ms * factor,
            self.flop_ms * factor,
            self.byte_ms * factor,
            self.corner,
            self.item_ms * factor,
        )

    def __call__(self, sizes: Sizes) -> Array:
        """Returns milliseconds, (operations,)."""
        return law_ms(sizes, *astuple(self))


def sizes_of(kind: OperationKind, operations: Sequence[Operation]) -> Sizes:
    """Returns the columns of at least one operation of a kind in ``KERNELS`` or a collective."""
    extent = np.array([(*o.shape, o.flops, o.bytes) for o in operations], dtype=np.float64)
    return Sizes(extent, *_work(kind, extent[:, :-2]))


def _work(kind: OperationKind, shape: Array) -> tuple[Array, Array, NDArray[np.intp]]:
    """Returns the values written, the items and the regime of each operation."""
    columns = shape.T
    if kind in COLLECTIVES:
        return columns[0], columns[1], np.zeros(len(shape), dtype=np.intp)
    if kind in LINEARS or kind is OperationKind.BATCHED_LINEAR:
        m, n, k, *batch = columns
        outputs = m * n * batch[0] if batch else m * n
        return outputs, k, _ROW_REGIMES.searchsorted(m, side="right")
    size = dict(zip(SHAPE_FIELDS[kind], columns, strict=True))
    if kind is OperationKind.EXPERTS:
        each = size["assignments"] / size["touched"]
        outputs = size["assignments"] * size["hidden_size"]
        regime = _EXPERT_REGIMES.searchsorted(each, side="right")
        partial = size["local_experts"] < size["experts"]
        return outputs, size["touched"], regime + partial * (1 + len(_EXPERT_REGIMES))
    query = size["query_tokens"]
    if kind in _BY_QUERY:
        rows = size["sequences"] * query
        return rows * _BY_QUERY[kind](size), rows, (query > 1).astype(np.intp)
    latent, kv = kind is OperationKind.MLA, size["kv_tokens"]
    width = size["value_dim"] if latent else size["head_dim"]
    outputs = size["sequences"] * query * size["query_heads"] * width
    items = size["sequences"] * (1.0 if latent else size["kv_heads"])
    return outputs, items, np.where(query == 1, 0, np.where(query == kv, 1, 2))


def law_ms(
    sizes: Sizes,
    start: float | Array,
    output: float | Array,
    flop: float | Array,
    byte: float | Array,
    corner: float | Array,
    item: float | Array,
) -> Array:
    """Returns milliseconds for the constants of :class:`Law`, one or (operations,) each."""
    written = output * sizes.outputs + item * sizes.items
    result: Array = start + written + soft_maximum(flop * sizes.flops, byte * sizes.bytes, corner)
    return result


def soft_maximum(compute: Array, move: Array, corner: float | Array) -> Array:
    """Returns the p-norm of two times, (operations,); scaled by the larger: none overflows."""
    larger = np.maximum(compute, move)
    ratio = np.minimum(compute, move) / larger
    result: Array = larger * (1 + ratio**corner) ** (1 / corner)
    return result
