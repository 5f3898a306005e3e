"""Latency of one kind of operation in one precision: a law and a learned residual."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from model.features import USUAL_PROCESSORS, features
from model.laws import Law, Sizes, law_ms
from model.operations import COLLECTIVES, OperationKind
from model.precision import Precision
from model.residual import Residual

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
        residual: regression of log(latency / law) on :func:`features`; None leaves it out.
        low, high: (fields + 2,), smallest and largest measured sizes, FLOPs and bytes.
        processors: of the device, as :func:`features` takes them.
    """

    kind: OperationKind
    laws: tuple[Law, ...]
    residual: Residual | None
    low: Array
    high: Array
    processors: int = USUAL_PROCESSORS
    _constants: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_constants", _constants(self.laws))

    def latency_ms(self, sizes: Sizes) -> Array:
        """Returns milliseconds of one run each, (operations,)."""
        by_law = self._by_law(sizes)
        if self.residual is None:
            return by_law
        columns = features(self.kind, sizes, by_law, self.processors)
        result: Array = by_law * np.exp(self.residual.predict(columns))
        return result

    def spread(self, sizes: Sizes) -> Array:
        """Returns the deviation between the residual's trees, (operations,); 1 without them."""
        if self.residual is None:
            return np.ones(len(sizes.flops))
        columns = features(self.kind, sizes, self._by_law(sizes), self.processors)
        return self.residual.spread(columns)

    def outside(self, sizes: Sizes) -> Array:
        """Returns how far each operation is outside what was measured, (operations,).

        The log of the largest ratio of a size, FLOPs or bytes to the nearest measured
        one; 0 inside.
        """
        beyond = np.maximum(self.low / sizes.extent, sizes.extent / self.high).max(axis=1)
        result: Array = np.log(np.maximum(1.0, beyond / _DOMAIN_MARGIN))
        return result

    def _by_law(self, sizes: Sizes) -> Array:
        return law_ms(sizes, *self._constants[:, sizes.regime])

    def to_json(self) -> dict[str, Any]:
        """Returns what :meth:`from_json` reads: JSON, but for bytes.

        Raises:
            ModuleNotFoundError: there is a residual, and ONNX is not installed.
        """
        return {
            "kind": self.kind.value,
            "laws": [asdict(law) for law in self.laws],
            "residual": self.residual.to_json() if self.residual is not None else None,
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "processors": self.processors,
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
            Residual.from_json(data["residual"]) if data["residual"] is not None else None,
            np.array(data["low"]),
            np.array(data["high"]),
            int(data["processors"]),
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


def law_of(laws: tuple[Law, ...], sizes: Sizes) -> Array:
    """Returns each operation's milliseconds by the law of its regime, (operations,)."""
    return law_ms(sizes, *_constants(laws)[:, sizes.regime])


def _constants(laws: tuple[Law, ...]) -> Array:
    """Returns the constants as columns, (6, regimes)."""
    return np.array([astuple(law) for law in laws]).T
