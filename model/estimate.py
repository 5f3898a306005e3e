"""What a cost model answers, whichever way it came to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.operations import Operation, OperationKind
    from model.precision import Precision


class Provenance(IntEnum):
    """Where figures come from, weakest first; numbers as in the API."""

    ANALYTICAL = 1
    TRANSFERRED = 2
    REFERENCE_DATA = 3
    MEASURED_LOCALLY = 4


class Phase(StrEnum):
    """Part of a request that a step belongs to."""

    PREFILL = "prefill"
    DECODE = "decode"


class StepEstimate(NamedTuple):
    """Latency of a list of operations.

    Attributes:
        value_ms: their sum.
        lower_ms, upper_ms: interval at the asked confidence.
        operations_ms: time of each operation (its ``count`` runs together), in order.
        outside: names of operations outside the measured domain.
        bounded: names of those whose measurements tell of less than the device allows.
    """

    value_ms: float
    lower_ms: float
    upper_ms: float
    operations_ms: tuple[float, ...]
    outside: tuple[str, ...] = ()
    bounded: tuple[str, ...] = ()


_USUAL = ("", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationScore:
    """Cross-validated error on groups left out; fields as in the API's message."""

    kind: str
    precision: Precision
    rows: int
    groups: int
    mean_error: float
    median_error: float
    p90_error: float
    coverage: float
    engine: str = ""

    @property
    def name(self) -> str:
        """Kind for a person, and the engine of layers and steps if it is not the usual one."""
        return self.kind if self.engine in _USUAL else f"{self.kind} ({self.engine})"


def factor_at(confidence: float, factor_90: float) -> float:
    """Returns by what factor the ends of a log-normal interval lie off its middle.

    Args:
        confidence: 0.5 to 0.999.
        factor_90: the same at 90%.
    """
    normal = NormalDist()
    quantiles = normal.inv_cdf(0.5 + confidence / 2) / normal.inv_cdf(0.95)
    return float(factor_90**quantiles)


class CostModel(Protocol):
    """Prices operations of one device. Both fitted and analytical ones do."""

    @property
    def provenance(self) -> Provenance:
        """Where its figures come from."""

    def supports(self, precision: Precision, engine: str) -> bool:
        """Returns whether it holds measurements of that precision and engine."""

    def estimate(
        self, operations: Sequence[Operation], phase: Phase, confidence: float
    ) -> StepEstimate:
        """Returns the latency of the operations run one after the other.

        Args:
            operations: of one step, as ``model.execution.step_operations`` lists them.
            phase: picks the residuals that the interval is calibrated on.
            confidence: probability that the interval holds, 0.5 to 0.999.
        """


class MeasuredCostModel(CostModel, Protocol):
    """A cost model that was fitted on measurements, of one engine or several."""

    @property
    def lender(self) -> str:
        """Name of the device that lends what was learned of kernels; empty: none does."""

    @property
    def disturbed(self) -> float:
        """Share of the measurements that others slowed down, of those that it was fitted on."""

    def prices(self, precision: Precision) -> bool:
        """Returns whether it predicts kernels of that precision with an interval that holds."""

    def holds(self, kind: OperationKind, precision: Precision) -> bool:
        """Returns whether operations of that kind were measured in that precision."""

    def leans(self, kind: OperationKind, precision: Precision) -> bool:
        """Returns whether the lender stands beside operations of that kind, which it holds."""

    def engines_of(self, kind: OperationKind, precision: Precision) -> tuple[str, ...]:
        """Returns whose code ran where operations of that kind, which it holds, were measured.

        Empty where that was on the device itself, or is not known.
        """

    def estimate(
        self, operations: Sequence[Operation], phase: Phase, confidence: float, engine: str = ""
    ) -> StepEstimate:
        """Returns the latency of the operations run one after the other.

        Args:
            operations: as in :class:`CostModel`.
            phase: as there.
            confidence: as there.
            engine: whose overheads and residuals count; one that was not measured
                gets those of another, as kernels carry over.
        """

    def estimate_phases(
        self,
        parts: Sequence[tuple[Sequence[Operation], Phase]],
        confidence: float,
        engine: str = "",
    ) -> list[StepEstimate]:
        """Returns what :meth:`estimate` does for several steps at once, for less time.

        Args:
            parts: operations and phase of each step.
            confidence: as there.
            engine: as there.
        """
