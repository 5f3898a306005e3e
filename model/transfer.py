"""A device without measurements borrows another's, scaled by what the data sheets say."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from model.analytical import AnalyticalCostModel
from model.estimate import Provenance, StepEstimate, factor_at

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
_WIDER = 0.3
"""Half-width that a 90% interval gains for each unit of distance: what H100's and H200's
measurements need where A100's and H100's stand in for them, linears, attention and experts
alike (``tokenpace evaluate --table devices``)."""


def nearest(sheet: DataSheet, candidates: Sequence[DataSheet]) -> DataSheet | None:
    """Returns the device whose matrix rate and bandwidth are closest, in logs.

    None where there is none of the same kind within a factor of six in both.
    """
    alike = [c for c in candidates if c.kind == sheet.kind and c.name != sheet.name]
    best = min(alike, key=partial(_distance, sheet), default=None)
    return best if best is not None and _distance(sheet, best) <= _FURTHEST else None


def _distance(first: DataSheet, second: DataSheet) -> float:
    """Returns the log of the largest ratio between two devices' bandwidths or rates."""
    ratios = [second.bandwidth_bytes_per_second / first.bandwidth_bytes_per_second]
    ratios += [second.peaks[p] / rate for p, rate in first.peaks.items() if p in second.peaks]
    return max(abs(math.log(ratio)) for ratio in ratios)


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
    lender = ""
    disturbed = 0.0

    def __init__(self, measured: MeasuredCostModel, source: DataSheet, target: DataSheet) -> None:
        self._measured = measured
        self._source = AnalyticalCostModel(source, _ENGINE)
        self._target = AnalyticalCostModel(target, _ENGINE)
        self._factor_90 = math.exp(_WIDER * _distance(source, target))

    def prices(self, precision: Precision) -> bool:
        """Returns whether the measured cost model does."""
        return self._measured.prices(precision)

    def supports(self, precision: Precision, engine: str) -> bool:
        """Returns that no whole steps were measured."""
        return False

    def holds(self, kind: OperationKind, precision: Precision) -> bool:
        """Returns whether operations of that kind were measured in that precision."""
        return self._measured.holds(kind, precision)

    def leans(self, kind: OperationKind, precision: Precision) -> bool:
        """Returns that no lender of its own stands beside them."""
        return False

    def engines_of(self, kind: OperationKind, precision: Precision) -> tuple[str, ...]:
        """Returns whose code ran on the device that was measured."""
        return self._measured.engines_of(kind, precision)

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
        wider = factor_at(confidence, self._factor_90)
        pairs = zip(parts, found, strict=True)
        return [self._scaled(rows, step, wider) for (rows, _), step in pairs]

    def _scaled(
        self, operations: Sequence[Operation], step: StepEstimate, wider: float
    ) -> StepEstimate:
        pairs = zip(operations, step.operations_ms, strict=True)
        each = [ms * self._target.seconds(o) / self._source.seconds(o) for o, ms in pairs]
        value = sum(each)
        ratio = value / max(step.value_ms, 1e-12)
        return StepEstimate(
            value_ms=value,
            lower_ms=step.lower_ms * ratio / wider,
            upper_ms=step.upper_ms * ratio * wider,
            operations_ms=tuple(each),
            outside=step.outside,
        )
