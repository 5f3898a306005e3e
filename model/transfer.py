"""A device without measurements borrows another's, scaled by what the data sheets say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from model.analytical import AnalyticalCostModel
from model.estimate import Provenance, StepEstimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.estimate import MeasuredCostModel, Phase
    from model.hardware import DataSheet
    from model.operations import Operation, OperationKind
    from model.precision import Precision

_ENGINE = "vllm"
"""Any will do: its shares of the peaks are the same on both sides of the ratio."""
_FURTHEST = math.log(6.0)
"""A device that differs by more in rate or bandwidth is another kind of machine."""
_WIDER = 0.25
"""Half-width added: assumed, as no device was left out yet to measure it."""


def nearest(sheet: DataSheet, candidates: Sequence[DataSheet]) -> DataSheet | None:
    """Returns the device whose matrix rate and bandwidth are closest, in logs.

    None where there is none of the same kind within a factor of six in both.
    """

    def distance(other: DataSheet) -> float:
        ratios = [other.bandwidth_bytes_per_second / sheet.bandwidth_bytes_per_second]
        ratios += [other.peaks[p] / rate for p, rate in sheet.peaks.items() if p in other.peaks]
        return max(abs(math.log(ratio)) for ratio in ratios)

    alike = [c for c in candidates if c.kind == sheet.kind and c.name != sheet.name]
    best = min(alike, key=distance, default=None)
    return best if best is not None and distance(best) <= _FURTHEST else None


class TransferredCostModel:
    """The kernels of one device as another would run them.

    Each operation takes the measured time, times the ratio of the two devices'
    analytical times for it.

    Args:
        measured: cost model of the device that was measured.
        source: its data sheet.
        target: data sheet of the device that is answered for.
    """

    provenance = Provenance.TRANSFERRED

    def __init__(self, measured: MeasuredCostModel, source: DataSheet, target: DataSheet) -> None:
        self._measured = measured
        self._source = AnalyticalCostModel(source, _ENGINE)
        self._target = AnalyticalCostModel(target, _ENGINE)

    def prices(self, precision: Precision) -> bool:
        """Returns whether the measured cost model does."""
        return self._measured.prices(precision)

    def supports(self, precision: Precision, engine: str) -> bool:
        """Returns that no whole steps were measured."""
        return False

    def holds(self, kind: OperationKind, precision: Precision) -> bool:
        """Returns whether operations of that kind were measured in that precision."""
        return self._measured.holds(kind, precision)

    def estimate(
        self, operations: Sequence[Operation], phase: Phase, confidence: float, engine: str = ""
    ) -> StepEstimate:
        """Returns the scaled latency; arguments as in ``MeasuredCostModel``."""
        return self.estimate_phases([(operations, phase)], confidence, engine)[0]

    def estimate_phases(
        self,
        parts: Sequence[tuple[Sequence[Operation], Phase]],
        confidence: float,
        engine: str = "",
    ) -> list[StepEstimate]:
        """Returns the scaled latency of several steps; arguments as in ``MeasuredCostModel``.

        Of kernels alone: what an engine adds on the one device is no measure of the other.
        """
        found = self._measured.estimate_phases(parts, confidence)
        return [self._scaled(rows, step) for (rows, _), step in zip(parts, found, strict=True)]

    def _scaled(self, operations: Sequence[Operation], step: StepEstimate) -> StepEstimate:
        pairs = zip(operations, step.operations_ms, strict=True)
        each = [ms * self._target.seconds(o) / self._source.seconds(o) for o, ms in pairs]
        value = sum(each)
        ratio = value / max(step.value_ms, 1e-12)
        return StepEstimate(
            value_ms=value,
            lower_ms=step.lower_ms * ratio * math.exp(-_WIDER),
            upper_ms=step.upper_ms * ratio * math.exp(_WIDER),
            operations_ms=tuple(each),
            outside=step.outside,
        )
