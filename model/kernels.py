"""Latency of one kind of operation in one precision: a law and a learned residual."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import asdict, astuple, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import treelite

from model.features import features
from model.laws import Law, Sizes, law_ms
from model.operations import COLLECTIVES, OperationKind
from model.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeAlias

    from model.collectives import Collective
    from model.laws import Array

    AnyKernel: TypeAlias = "Kernel | Collective"

_DOMAIN_MARGIN = 1.25
"""Sizes so much beyond the measured ones still count as inside."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A fitted kind of operation.

    Attributes:
        kind: one of ``KERNELS``.
        laws: one for each regime.
        trees: regression of log(latency / law) on :func:`features`; None leaves it out.
        low, high: (fields + 2,), smallest and largest measured sizes, FLOPs and bytes.
    """

    kind: OperationKind
    laws: tuple[Law, ...]
    trees: treelite.Model | None
    low: Array
    high: Array

    def latency_ms(self, sizes: Sizes) -> Array:
        """Returns milliseconds of one run each, (operations,)."""
        by_law = law_of(self.laws, sizes)
        if self.trees is None:
            return by_law
        columns = features(self.kind, sizes, by_law)
        residual = treelite.gtil.predict(self.trees, columns, nthread=1)
        result: Array = by_law * np.exp(np.asarray(residual, dtype=np.float64).reshape(-1))
        return result

    def spread(self, sizes: Sizes) -> Array:
        """Returns the deviation between the residual's trees, (operations,); 1 without trees."""
        if self.trees is None:
            return np.ones(len(sizes.flops))
        columns = features(self.kind, sizes, law_of(self.laws, sizes))
        each = treelite.gtil.predict_per_tree(self.trees, columns, nthread=1)
        result: Array = np.asarray(each, dtype=np.float64).reshape(len(columns), -1).std(axis=1)
        return result

    def outside(self, sizes: Sizes) -> Array:
        """Returns how far each operation is outside what was measured, (operations,).

        The log of the largest ratio of a size, FLOPs or bytes to the nearest measured
        one; 0 inside.
        """
        columns = extent(sizes)
        below = np.log(self.low / _DOMAIN_MARGIN / columns)
        above = np.log(columns / self.high / _DOMAIN_MARGIN)
        result: Array = np.maximum(0.0, np.maximum(below, above)).max(axis=1)
        return result

    def to_json(self) -> dict[str, Any]:
        """Returns what :meth:`from_json` reads."""
        trees = b64encode(self.trees.serialize_bytes()).decode() if self.trees else None
        return {
            "kind": self.kind.value,
            "laws": [asdict(law) for law in self.laws],
            "trees": trees,
            "low": self.low.tolist(),
            "high": self.high.tolist(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Kernel:
        """Returns the kernel that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: the data is none.
        """
        return cls(
            OperationKind(data["kind"]),
            tuple(Law(**law) for law in data["laws"]),
            _trees_of(data["trees"]),
            np.array(data["low"]),
            np.array(data["high"]),
        )


def has_kernel(
    kernels: Mapping[tuple[OperationKind, Precision], AnyKernel],
    kind: OperationKind,
    precision: Precision,
) -> bool:
    """Returns whether :func:`kernel_of` finds one."""
    return any(key in kernels for key in _stand_ins(kind, precision))


def kernel_of(
    kernels: Mapping[tuple[OperationKind, Precision], AnyKernel],
    kind: OperationKind,
    precision: Precision,
) -> AnyKernel:
    """Returns the kernel of a kind, or the one that stands in where it was not measured.

    The plain linear's for a transposed one; for collectives any precision's, as their
    size is in bytes; for products of activations that of the activations.

    Raises:
        KeyError: none was measured.
    """
    for key in _stand_ins(kind, precision):
        if key in kernels:
            return kernels[key]
    raise KeyError(kind, precision)


def _stand_ins(
    kind: OperationKind, precision: Precision
) -> Iterator[tuple[OperationKind, Precision]]:
    yield kind, precision
    if kind is OperationKind.LINEAR_TRANSPOSED:
        yield OperationKind.LINEAR, precision
    elif kind in COLLECTIVES:
        yield kind, Precision.BF16
    elif kind is OperationKind.BATCHED_LINEAR:
        yield kind, precision.activation


def _trees_of(text: str | None) -> treelite.Model | None:
    """Returns the trees in base64, None where there are none.

    Raises:
        ValueError: the text holds none, or trees that this treelite does not read.
    """
    if text is None:
        return None
    try:
        return treelite.Model.deserialize_bytes(b64decode(text, validate=True))
    except treelite.TreeliteError as error:
        raise ValueError(f"unreadable trees: {str(error)[:200]}") from error


def law_of(laws: tuple[Law, ...], sizes: Sizes) -> Array:
    """Returns each operation's milliseconds by the law of its regime, (operations,)."""
    start, output, flop, byte, corner = _constants(laws)[:, sizes.regime]
    return law_ms(start, output, flop, byte, corner, sizes)


@lru_cache(maxsize=64)
def _constants(laws: tuple[Law, ...]) -> Array:
    """Returns the constants as columns, (5, regimes)."""
    return np.array([astuple(law) for law in laws]).T


def extent(sizes: Sizes) -> Array:
    """Returns the columns that the measured domain bounds, (operations, fields + 2)."""
    return np.column_stack([sizes.shape, sizes.flops, sizes.bytes])
