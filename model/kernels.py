"""Latency of one kind of operation in one precision: a law and a learned residual."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from model.choice import most_telling
from model.features import USUAL_PROCESSORS, features
from model.operations import COLLECTIVES, LINEARS, SHAPE_FIELDS, OperationKind
from model.precision import Precision
from model.regimes import RegimeLaws
from model.residual import Residual

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeAlias

    from numpy.typing import NDArray

    from model.collectives import Collective
    from model.laws import Array, Sizes

    AnyKernel: TypeAlias = "Kernel | Collective"

_DOMAIN_MARGIN = 1.25
"""Sizes so much beyond the measured ones still count as inside."""
_HELD, _COUNT = map(SHAPE_FIELDS[OperationKind.EXPERTS].index, ("local_experts", "experts"))
"""Columns of the shapes of experts."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A fitted kind of operation.

    Attributes:
        kind: one of ``KERNELS``.
        laws: of its regimes.
        residual: regression of log(latency / what comes before it) on :func:`features`; None
            leaves it out.
        low, high: (fields + 2,), smallest and largest measured sizes, FLOPs and bytes.
        processors: of the device, as :func:`features` takes them.
        lender: kernel of a device that runs the same machine code, whose residual comes
            before the own one; None where the own measurements alone explain more.
        most_ranks: that experts were measured spread over; 0 of other kinds, and where that
            was not kept.
    """

    kind: OperationKind
    laws: RegimeLaws
    residual: Residual | None
    low: Array
    high: Array
    processors: int = USUAL_PROCESSORS
    lender: Kernel | None = None
    most_ranks: float = 0.0
    _lowest: Array = field(init=False, repr=False, compare=False)
    _highest: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_lowest", self.low / _DOMAIN_MARGIN)
        object.__setattr__(self, "_highest", self.high * _DOMAIN_MARGIN)

    def latency_ms(self, sizes: Sizes) -> Array:
        """Returns milliseconds of one run each, (operations,)."""
        before = self._before_residual(sizes)
        if self.residual is None:
            return before
        columns = features(self.kind, sizes, before, self.processors)
        result: Array = before * np.exp(self.residual.predict(columns))
        return result

    def factor(self, sizes: Sizes) -> Array:
        """Returns what was learned of operations beyond their laws, (operations,)."""
        result: Array = self.latency_ms(sizes) / self.laws(sizes)
        return result

    def spread(self, sizes: Sizes) -> Array:
        """Returns the deviation between the residual's trees, (operations,); 1 without them."""
        if self.residual is None:
            return np.ones(len(sizes.flops))
        columns = features(self.kind, sizes, self._before_residual(sizes), self.processors)
        return self.residual.spread(columns)

    def most_telling(self, sizes: Sizes, owners: NDArray[np.int64], count: int) -> list[int] | None:
        """Returns which candidates to measure, the one that tells most first.

        None is returned where so much was measured that only trees were fitted to it.

        Args:
            sizes: of all candidates' operations.
            owners: whose they are, as :func:`model.choice.most_telling` takes them.
            count: of candidates to return.
        """
        if self.residual is None or self.residual.smooth is None:
            return None
        columns = features(self.kind, sizes, self._before_residual(sizes), self.processors)
        return most_telling(self.residual.smooth.process, columns, owners, count)

    def outside(self, sizes: Sizes) -> Array:
        """Returns how far each operation is outside what was measured, (operations,).

        The log of the largest ratio of a size, FLOPs, bytes or ranks of experts to the nearest
        measured one; 0 inside.
        """
        beyond = self._beyond(sizes.extent)
        if self.most_ranks:
            # What a rank does for the choices of others shows in no sizes of whole experts.
            beyond = np.maximum(beyond, ranks_of(sizes) / (_DOMAIN_MARGIN * self.most_ranks))
        result: Array = np.log(beyond)
        return result

    def _beyond(self, extent: Array) -> Array:
        """Returns the largest ratio of a size to the nearest measured one; 1 inside."""
        if (self._lowest <= extent).all() and (extent <= self._highest).all():
            return np.ones(len(extent))
        ratios = np.maximum(self._lowest / extent, extent / self._highest)
        result: Array = np.maximum(1.0, ratios.max(axis=1))
        return result

    def _before_residual(self, sizes: Sizes) -> Array:
        by_law = self.laws(sizes)
        return by_law if self.lender is None else by_law * self.lender.factor(sizes)

    def to_json(self) -> dict[str, Any]:
        """Returns what :meth:`from_json` reads: JSON, but for bytes.

        Raises:
            ModuleNotFoundError: there is a residual, and ONNX is not installed.
        """
        return {
            "kind": self.kind.value,
            "laws": self.laws.to_json(),
            "residual": self.residual.to_json() if self.residual is not None else None,
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "processors": self.processors,
            "lender": self.lender.to_json() if self.lender is not None else None,
            "most_ranks": self.most_ranks,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Kernel:
        """Returns the kernel that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: the data is none.
        """
        return cls(
            OperationKind(data["kind"]),
            RegimeLaws.from_json(data["laws"]),
            Residual.from_json(data["residual"]) if data["residual"] is not None else None,
            np.array(data["low"]),
            np.array(data["high"]),
            int(data["processors"]),
            cls.from_json(data["lender"]) if data["lender"] is not None else None,
            # Kernels stored before this was kept do not tell.
            float(data.get("most_ranks", 0.0)),
        )


def ranks_of(sizes: Sizes) -> Array:
    """Returns how many ranks each operation's experts are spread over, (operations,)."""
    ranks: Array = sizes.shape[:, _COUNT] / sizes.shape[:, _HELD]
    return ranks


class Lender(NamedTuple):
    """A device whose measurements help where another was measured in few points.

    Attributes:
        name: of the device.
        kernels: those that were learned on its own measurements alone.
    """

    name: str
    kernels: Mapping[tuple[OperationKind, Precision], Kernel]


def used_lender(
    kernels: Mapping[tuple[OperationKind, Precision], AnyKernel], lender: Lender | None
) -> str:
    """Returns the name of the lender that any of the kernels leans on, empty where none does."""
    leans = any(isinstance(kernel, Kernel) and kernel.lender for kernel in kernels.values())
    return lender.name if lender is not None and leans else ""


def has_kernel(
    kernels: Mapping[tuple[OperationKind, Precision], AnyKernel],
    kind: OperationKind,
    precision: Precision,
) -> bool:
    """Returns whether :func:`kernel_of` finds one."""
    return any(key in kernels for key in _stand_ins(kind, precision))


def key_of(
    kernels: Mapping[tuple[OperationKind, Precision], AnyKernel],
    kind: OperationKind,
    precision: Precision,
) -> tuple[OperationKind, Precision]:
    """Returns the kind and precision of what :func:`kernel_of` finds.

    Raises:
        KeyError: none was measured.
    """
    for key in _stand_ins(kind, precision):
        if key in kernels:
            return key
    raise KeyError(kind, precision)


def kernel_of(
    kernels: Mapping[tuple[OperationKind, Precision], AnyKernel],
    kind: OperationKind,
    precision: Precision,
) -> AnyKernel:
    """Returns the kernel of a kind, or the one that stands in where it was not measured.

    The plain linear's for a transposed one, and for one scaled per tensor, which stands in for
    both where it alone was measured: published tables of fp8 mean either; for attention over pages
    that over a static cache, and for both attention's, which is what published tables mean by it;
    for collectives any precision's, as their size is in bytes; for products of activations that of
    the activations.

    Raises:
        KeyError: none was measured.
    """
    return kernels[key_of(kernels, kind, precision)]


def _stand_ins(
    kind: OperationKind, precision: Precision
) -> Iterator[tuple[OperationKind, Precision]]:
    yield kind, precision
    if kind in LINEARS:
        yield OperationKind.LINEAR, precision
        yield OperationKind.LINEAR_PER_TENSOR, precision
    elif kind is OperationKind.PAGED_ATTENTION:
        yield OperationKind.STATIC_ATTENTION, precision
        yield OperationKind.ATTENTION, precision
    elif kind is OperationKind.STATIC_ATTENTION:
        yield OperationKind.ATTENTION, precision
    elif kind in COLLECTIVES:
        yield kind, Precision.BF16
    elif kind is OperationKind.BATCHED_LINEAR:
        yield kind, precision.activation
