"""Latency of collectives by message size: straight lines between measured points, in logs.

Libraries change their algorithm with the size, so the law is piecewise. Beyond the
largest message time grows with the bytes; below the smallest it stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from model.operations import OperationKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model.laws import Array, Sizes


@dataclass(frozen=True, slots=True)
class Collective:
    """A fitted collective.

    Attributes:
        kind: which one.
        curves: message bytes and milliseconds, each ascending in bytes, by number of ranks.
    """

    kind: OperationKind
    curves: Mapping[int, tuple[tuple[float, ...], tuple[float, ...]]]
    _logs: Mapping[int, tuple[Array, Array]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        logs = {n: (np.log(moved), np.log(ms)) for n, (moved, ms) in self.curves.items()}
        object.__setattr__(self, "_logs", logs)

    def latency_ms(self, sizes: Sizes) -> Array:
        """Returns milliseconds of one run each, (operations,).

        A number of ranks that was not measured takes the nearest one's curve, at the
        message that moves as many bytes over a rank's link.
        """
        message, ranks = sizes.shape.T
        result = np.empty(len(message))
        for count in set(ranks.tolist()):
            rows = ranks == count
            nearest = min(self.curves, key=lambda known: abs(math.log(known / count)))
            known_bytes, known_ms = self._logs[nearest]
            traffic = message[rows] * ((count - 1) / count) / ((nearest - 1) / nearest)
            logs = np.log(traffic)
            beyond = np.maximum(0.0, logs - known_bytes[-1])
            result[rows] = np.exp(np.interp(logs, known_bytes, known_ms) + beyond)
        return result

    def outside(self, sizes: Sizes) -> Array:
        """Returns how far each operation is outside what was measured, (operations,).

        The log of the ratio to the nearest measured number of ranks; sizes beyond the
        measured ones follow the bandwidth.
        """
        ratios = sizes.shape[:, 1:2] / np.array(list(self.curves))
        result: Array = np.abs(np.log(ratios)).min(axis=1)
        return result

    def spread(self, sizes: Sizes) -> Array:
        """Returns the deviation of the fit, (operations,): lines have none."""
        return np.zeros(len(sizes.shape))

    def to_json(self) -> dict[str, Any]:
        """Returns what :meth:`from_json` reads."""
        return {"kind": self.kind.value, "curves": {str(r): c for r, c in self.curves.items()}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Collective:
        """Returns the collective that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: the data is none.
        """
        curves = {int(r): (tuple(b), tuple(ms)) for r, (b, ms) in data["curves"].items()}
        return cls(OperationKind(data["kind"]), curves)


def fit_collective(kind: OperationKind, sizes: Sizes, latency_ms: Array) -> Collective:
    """Fits on at least one point; the median of equal ones counts.

    Args:
        kind: which one.
        sizes: of the points.
        latency_ms: (points,), positive.
    """
    curves = {}
    for ranks in np.unique(sizes.shape[:, 1]):
        message = sizes.shape[sizes.shape[:, 1] == ranks, 0]
        latency = latency_ms[sizes.shape[:, 1] == ranks]
        distinct = np.unique(message)
        middles: Sequence[float] = [float(np.median(latency[message == b])) for b in distinct]
        curves[int(ranks)] = (tuple(distinct.tolist()), tuple(middles))
    return Collective(kind, curves)
