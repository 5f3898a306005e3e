"""A fitted cost model where it holds measurements, physics for the rest."""

from __future__ import annotations

from functools import cache
from itertools import compress
from typing import TYPE_CHECKING

from model.analytical import NODE_RANKS
from model.engines import shares_kernels
from model.estimate import Provenance, StepEstimate, factor_at
from model.operations import COLLECTIVES, OperationKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.analytical import AnalyticalCostModel
    from model.estimate import MeasuredCostModel, Phase
    from model.operations import Operation
    from model.precision import Precision

OVERHEADS = frozenset(
    {
        OperationKind.LAYER_OVERHEAD,
        OperationKind.STEP_OVERHEAD,
        OperationKind.REQUEST_OVERHEAD,
    }
)


_AMONG_RANKS = COLLECTIVES - {OperationKind.POINT_TO_POINT}
"""Kinds whose shape is the bytes of a message and the ranks that exchange it."""
_COEFFICIENTS = OVERHEADS | {OperationKind.EMBEDDING, OperationKind.POINT_TO_POINT}
"""Kinds that an engine's coefficients price beside published kernels."""
_IN_ANY_PRECISION = COLLECTIVES | {
    OperationKind.EXPERTS,
    OperationKind.INDEXER,
    OperationKind.TOP_K,
}


class CompositeCostModel:
    """Prices each operation with the fitted cost model where that has seen its like.

    Kernels (linear, attention, embedding) carry over from one engine to another, so they
    need to be measured in their precision alone; overheads are the engine's own. Where
    measurements are of kernels alone, as published ones are, overheads are the engine's
    fitted coefficients.

    Args:
        fitted: of the device; None prices everything by physics.
        analytical: of the same device and engine.
        precision: of weights and activations.
        kv_precision: of the KV cache.
        engine: whose overheads count.
    """

    def __init__(
        self,
        fitted: MeasuredCostModel | None,
        analytical: AnalyticalCostModel,
        precision: Precision,
        kv_precision: Precision,
        engine: str,
    ) -> None:
        self._fitted = fitted
        self._precision = precision
        self._engine = engine
        held = {
            candidate
            for candidate in {precision, kv_precision, precision.activation}
            if fitted is not None and fitted.prices(candidate)
        }
        self.holds_precision = held >= {precision, kv_precision}
        self.holds_engine = fitted is not None and fitted.supports(precision, engine)
        self._held = frozenset(held)
        # Kernels that others measured, in steps that an engine's coefficients make up.
        self._by_coefficients = (
            fitted is not None
            and not self.holds_engine
            and fitted.provenance <= Provenance.REFERENCE_DATA
        )
        self._analytical = (
            analytical.beside_measured_kernels() if self._by_coefficients else analytical
        )
        self._engines_own = _COEFFICIENTS if self._by_coefficients else OVERHEADS
        self._is_fitted = cache(self._holds)

    @property
    def fitted(self) -> MeasuredCostModel | None:
        """The fitted cost model, None where nothing was measured."""
        return self._fitted

    @property
    def analytical(self) -> AnalyticalCostModel:
        """The analytical one."""
        return self._analytical

    @property
    def provenance(self) -> Provenance:
        """That of the fitted cost model where it prices all that one device does."""
        fitted = self._fitted
        whole = self.holds_engine or self._by_coefficients
        if fitted is not None and self.holds_precision and whole:
            return fitted.provenance
        return Provenance.ANALYTICAL

    def provenance_of(self, operations: Sequence[Operation]) -> Provenance:
        """Returns the weakest source among the figures of these operations."""
        allowed = self._engines_own if self._by_coefficients else frozenset()
        if all(o.kind in allowed or self._is_priced(o) for o in operations):
            return self.provenance
        return Provenance.ANALYTICAL

    def are_priced(self, operations: Sequence[Operation]) -> bool:
        """Returns whether the fitted cost model prices all of these."""
        return all(self._is_priced(operation) for operation in operations)

    def unmeasured(self, operations: Sequence[Operation]) -> frozenset[str]:
        """Returns the names of kernels that physics prices beside measured ones."""
        if not self.holds_precision:
            return frozenset()
        others = COLLECTIVES | self._engines_own
        missing = {
            kind
            for kind in _kinds(operations)
            if kind[0] not in others and not self._is_fitted(*kind)
        }
        if not missing:
            return frozenset()
        return frozenset(o.name for o in operations if (o.kind, o.precision) in missing)

    def leaning(self, operations: Sequence[Operation]) -> frozenset[str]:
        """Returns the names of operations whose kernels lean on another device's."""
        fitted = self._fitted
        if fitted is None or not fitted.lender:
            return frozenset()
        return frozenset(
            operation.name
            for operation in operations
            if self._is_priced(operation) and fitted.leans(operation.kind, operation.precision)
        )

    def foreign(
        self, operations: Sequence[Operation]
    ) -> list[tuple[OperationKind, Precision, tuple[str, ...]]]:
        """Returns the kinds whose kernels are other engines', with the names of these."""
        fitted = self._fitted
        if fitted is None:
            return []
        found = []
        for kind, precision in sorted(_kinds(operations)):
            if self._is_fitted(kind, precision):
                ran = fitted.engines_of(kind, precision)
                others = tuple(name for name in ran if not shares_kernels(self._engine, name))
                found += [(kind, precision, others)] if others else []
        return found

    @property
    def holds_communication(self) -> bool:
        """Whether what tensor-parallel ranks send each other was measured."""
        return self._holds(OperationKind.ALL_REDUCE, self._precision)

    def supports(self, precision: Precision, engine: str) -> bool:
        """Returns whether the fitted cost model holds that precision and engine."""
        return self._fitted is not None and self._fitted.supports(precision, engine)

    def estimate(
        self, operations: Sequence[Operation], phase: Phase, confidence: float
    ) -> StepEstimate:
        """Returns the latency of the operations run one after the other.

        Args:
            operations: of one step.
            phase: picks the residuals that the fitted interval is calibrated on.
            confidence: probability that the interval holds, 0.5 to 0.999.
        """
        return self.estimate_phases([(operations, phase)], confidence)[0]

    def estimate_phases(
        self, parts: Sequence[tuple[Sequence[Operation], Phase]], confidence: float
    ) -> list[StepEstimate]:
        """Returns what :meth:`estimate` does for several steps at once.

        The ends of the fitted and the analytical interval are added: errors are taken as
        fully correlated. Where an engine's coefficients make up steps of published kernels,
        the interval is at least that of end-to-end rows of other architectures.

        Of an engine whose launches overlap kernels, measured kernels alone hide launches: those
        that physics guesses are added whole, so that a step that holds any is an upper bound, too
        long by no more than the launches that they would hide.

        Args:
            parts: operations and phase of each step.
            confidence: probability that the interval holds, 0.5 to 0.999.
        """
        if self._fitted is None:
            return [self._analytical.estimate(*part, confidence) for part in parts]
        masks = [[self._is_priced(operation) for operation in rows] for rows, _ in parts]
        known = [
            (list(compress(rows, mask)), phase)
            for (rows, phase), mask in zip(parts, masks, strict=True)
            if any(mask)
        ]
        if not known:
            return [self._analytical.estimate(*part, confidence) for part in parts]
        steps = self._fitted.estimate_phases(known, confidence, self._engine)
        learnt = iter([self._floored(*pair) for pair in zip(known, steps, strict=True)])
        found = []
        for (rows, phase), mask in zip(parts, masks, strict=True):
            if all(mask):
                found.append(next(learnt))
                continue
            rest = [operation for operation, held in zip(rows, mask, strict=True) if not held]
            guessed = self._analytical.estimate(rest, phase, confidence)
            found.append(_joined(next(learnt), guessed, mask) if any(mask) else guessed)
        if self._by_coefficients:
            factor = factor_at(confidence, self._analytical.engine.spread)
            return [_at_least(step, factor) for step in found]
        return found

    def _floored(self, part: tuple[Sequence[Operation], Phase], step: StepEstimate) -> StepEstimate:
        """Returns the step with no operation faster than the device can be."""
        floors = self._analytical.floors_ms(part[0])
        each = tuple(map(max, step.operations_ms, floors))
        added = sum(each) - sum(step.operations_ms)
        if added <= 0.0:
            return step
        ratio = 1.0 + added / max(step.value_ms, 1e-12)
        cases = zip(part[0], step.operations_ms, floors, strict=True)
        return step._replace(
            value_ms=step.value_ms * ratio,
            lower_ms=step.lower_ms * ratio,
            upper_ms=step.upper_ms * ratio,
            operations_ms=each,
            bounded=tuple(sorted({o.name for o, ms, floor in cases if ms < floor})),
        )

    def _is_priced(self, operation: Operation) -> bool:
        """Returns whether the fitted cost model prices it: of one machine's ranks it alone can."""
        fitted = self._is_fitted(operation.kind, operation.precision)
        return fitted and not _meets_over_network(operation)

    def _holds(self, kind: OperationKind, precision: Precision) -> bool:
        if kind in self._engines_own and kind not in COLLECTIVES:
            return self.holds_engine
        # Collectives send any format; experts, indexers and choices have one of their own.
        held = precision in self._held or kind in _IN_ANY_PRECISION
        return self._fitted is not None and held and self._fitted.holds(kind, precision)


def _meets_over_network(operation: Operation) -> bool:
    """Returns whether its ranks are more than share a link, which all that was measured do."""
    return operation.kind in _AMONG_RANKS and operation.shape[1] > NODE_RANKS


def _kinds(operations: Sequence[Operation]) -> set[tuple[OperationKind, Precision]]:
    return {(operation.kind, operation.precision) for operation in operations}


def _at_least(step: StepEstimate, factor: float) -> StepEstimate:
    """Returns the estimate with ends that lie at least so far off."""
    return step._replace(
        lower_ms=min(step.lower_ms, step.value_ms / factor),
        upper_ms=max(step.upper_ms, step.value_ms * factor),
    )


def _joined(learnt: StepEstimate, guessed: StepEstimate, mask: Sequence[bool]) -> StepEstimate:
    """Returns the estimate of a step of which ``mask`` tells the operations in ``learnt``."""
    first, second = iter(learnt.operations_ms), iter(guessed.operations_ms)
    return StepEstimate(
        value_ms=learnt.value_ms + guessed.value_ms,
        lower_ms=learnt.lower_ms + guessed.lower_ms,
        upper_ms=learnt.upper_ms + guessed.upper_ms,
        operations_ms=tuple(next(first if held else second) for held in mask),
        outside=learnt.outside,
        bounded=learnt.bounded,
    )
