"""The fitted cost model of one device in one environment: prices operations, fast.

Made by ``model.training``; read from bytes here, so that a process which only
predicts loads no regression library.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from model.blobs import pack, unpack
from model.collectives import Collective
from model.conformal import half_width
from model.errors import InvalidFieldError
from model.estimate import Phase, Provenance, StepEstimate, ValidationScore
from model.kernels import Kernel, Lender, has_kernel, kernel_of, key_of
from model.laws import KERNELS, sizes_of
from model.operations import PLAIN_ATTENTIONS, Operation, OperationKind
from model.overheads import TERMS, Overheads
from model.precision import Precision
from model.rows import is_engines_own
from model.shapes import operations_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from model.kernels import AnyKernel
    from model.laws import Array
    from model.measurement import Measurement

FORMAT = 9
NO_ENGINE = ""
"""Stands for the engine of a precision whose kernels alone were measured."""
_OUTSIDE_SLOPE = 0.35
"""Half-width added by each factor of e beyond the measured sizes."""
_MAX_PRICES = 20_000
"""Kernels whose prices are kept; about 10 MB."""

_Key = tuple[OperationKind, Precision, tuple[float, ...], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTerms:
    """What an engine adds in one precision.

    Attributes:
        overheads: its terms.
        correction: log of measured over predicted that all steps of a phase share.
        scores: absolute log residuals of whole architectures held out, ascending.
    """

    overheads: Overheads
    correction: dict[Phase, float]
    scores: dict[Phase, tuple[float, ...]]


class FittedCostModel:
    """Kernels by kind and precision, and terms by engine and precision.

    Args:
        kernels: law and residual of each kind that was measured alone.
        engines: terms of each engine whose layers and steps were measured.
        scores: cross-validated errors.
        measurement_count: rows it was fitted on.
        provenance: whose measurements they are.
        lender: name of the device that lends what was learned of kernels; empty: none does.
        disturbed: share of the rows that carry remarks: other processes, or heat.
        kernel_engines: whose code ran, of kernels that were measured elsewhere, or here by
            code that may be installed or not.
    """

    def __init__(
        self,
        kernels: Mapping[tuple[OperationKind, Precision], AnyKernel],
        engines: dict[tuple[str, Precision], EngineTerms],
        scores: tuple[ValidationScore, ...],
        measurement_count: int,
        provenance: Provenance = Provenance.MEASURED_LOCALLY,
        lender: str = "",
        disturbed: float = 0.0,
        kernel_engines: Mapping[tuple[OperationKind, Precision], tuple[str, ...]] | None = None,
    ) -> None:
        self._kernels = kernels
        self._terms = engines
        self.scores = scores
        self.measurement_count = measurement_count
        self.provenance = provenance
        self.lender = lender
        self.disturbed = disturbed
        self._kernel_engines = kernel_engines or {}
        self._prices: dict[_Key, tuple[float, float]] = {}

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that steps can be predicted in, in the order of the enum."""
        held = {precision for _, precision in self._terms}
        return tuple(p for p in Precision if p in held)

    @property
    def engines(self) -> tuple[str, ...]:
        """Engines whose overheads it holds."""
        return tuple(sorted({engine for engine, _ in self._terms if engine != NO_ENGINE}))

    def prices(self, precision: Precision) -> bool:
        """Returns whether it predicts kernels of that precision with an interval that holds."""
        return any(held is precision for _, held in self._terms)

    def supports(self, precision: Precision, engine: str) -> bool:
        """Returns whether steps of that precision and engine were measured."""
        return (engine, precision) in self._terms

    def holds(self, kind: OperationKind, precision: Precision) -> bool:
        """Returns whether operations of that kind were measured in that precision.

        Overheads are terms of an engine, which :meth:`supports` tells of.
        """
        if kind in TERMS:
            return any(e != NO_ENGINE and held is precision for e, held in self._terms)
        return has_kernel(self._kernels, kind, precision)

    def leans(self, kind: OperationKind, precision: Precision) -> bool:
        """Returns whether the lender stands beside operations of that kind, which it holds."""
        if kind in TERMS:
            return False
        kernel = kernel_of(self._kernels, kind, precision)
        return isinstance(kernel, Kernel) and kernel.lender is not None

    def engines_of(self, kind: OperationKind, precision: Precision) -> tuple[str, ...]:
        """Returns whose code ran where operations of that kind, which it holds, were measured.

        Empty where it was here, unless which code ran depends on what was installed, and where
        the cost model was stored before it was kept.
        """
        if kind in TERMS:
            return ()
        return self._kernel_engines.get(key_of(self._kernels, kind, precision), ())

    def estimate(
        self, operations: Sequence[Operation], phase: Phase, confidence: float, engine: str = ""
    ) -> StepEstimate:
        """Returns the latency of the operations run one after the other.

        Errors of the operations are taken as fully correlated: the step's relative
        half-width is that of whole steps held out, wider outside the measured sizes.

        Args:
            operations: of kinds and precisions that it holds.
            phase: picks the residuals that the interval is calibrated on.
            confidence: 0.5 to 0.999.
            engine: whose terms count; those of any other where it was not measured.

        Raises:
            KeyError: an operation's kind or precision was never measured.
        """
        return self.estimate_phases([(operations, phase)], confidence, engine)[0]

    def estimate_phases(
        self,
        parts: Sequence[tuple[Sequence[Operation], Phase]],
        confidence: float,
        engine: str = "",
    ) -> list[StepEstimate]:
        """Returns what :meth:`estimate` does for several steps of one precision at once.

        The trees are asked once for all: a call of them costs as much as ten operations.

        Args:
            parts: operations and phase of each step.
            confidence: 0.5 to 0.999.
            engine: as in :meth:`estimate`.

        Raises:
            KeyError: an operation's kind or precision was never measured.
        """
        every = [operation for operations, _ in parts for operation in operations]
        terms = self._terms_for(every, engine)
        prices = iter(self._price(every, terms))
        return [
            _step(operations, list(islice(prices, len(operations))), terms, phase, confidence)
            for operations, phase in parts
        ]

    def lends(self, name: str) -> Lender:
        """Returns what it can lend to a device that was measured in few points.

        Args:
            name: of its own device.
        """
        learned = {
            key: kernel
            for key, kernel in self._kernels.items()
            if isinstance(kernel, Kernel) and kernel.residual is not None and kernel.lender is None
        }
        return Lender(name, learned)

    def errors_on(self, measurements: Sequence[Measurement]) -> Array:
        """Returns |measured / predicted - 1| of each point that it can predict, (points,).

        What :func:`model.rows.is_engines_own` tells to price nothing is left out.
        """
        errors = []
        for measurement in filter(is_engines_own, measurements):
            try:
                operations = operations_of(measurement)
                terms = self._terms[measurement.engine, measurement.precision]
                prices = [ms for ms, _ in self._price(operations, terms)]
                predicted = math.fsum(terms.overheads.run_ms(operations, prices))
            except (KeyError, InvalidFieldError):
                continue
            correction = step_correction(terms, measurement)
            errors.append(abs(measurement.latency_ms.median / (predicted * np.exp(correction)) - 1))
        return np.array(errors)

    def doubt(self, operations: Sequence[Operation]) -> Array:
        """Returns how unsure each kernel's latency is, relative, (operations,).

        The spread of the residual's trees, plus the distance outside the measured sizes;
        1 for a kind or precision that was never measured.
        """
        result = np.ones(len(operations))
        for (kind, precision), rows in _by_kernel(enumerate(operations)).items():
            kernel = self._kernels.get((kind, precision))
            if kernel is not None:
                sizes = sizes_of(kind, [operations[i] for i in rows])
                result[rows] = kernel.spread(sizes) + _OUTSIDE_SLOPE * kernel.outside(sizes)
        return result

    def most_telling(self, candidates: Sequence[Sequence[Operation]], count: int) -> list[int]:
        """Returns which candidates to measure, the one that tells most first.

        Those of a single kind are chosen together, each for what it tells beyond those before
        it; else, and where much was measured, by how much each is doubted.

        Args:
            candidates: operations of each, at least one.
            count: of candidates to return; fewer where there are no more.
        """
        rows = [operation for candidate in candidates for operation in candidate]
        owners = np.repeat(np.arange(len(candidates)), [len(each) for each in candidates])
        keys = {(operation.kind, operation.precision) for operation in rows}
        kernel = self._kernels.get(keys.pop()) if len(keys) == 1 else None
        if isinstance(kernel, Kernel):
            found = kernel.most_telling(sizes_of(kernel.kind, rows), owners, count)
            if found is not None:
                return found
        doubts = np.bincount(owners, weights=self.doubt(rows)) / np.bincount(owners)
        return [int(index) for index in np.argsort(-doubts, kind="stable")[:count]]

    def to_bytes(self) -> bytes:
        """Returns what :meth:`from_bytes` reads."""
        data = {
            "format": FORMAT,
            "measurement_count": self.measurement_count,
            "provenance": self.provenance.name,
            "lender": self.lender,
            "disturbed": self.disturbed,
            "scores": [asdict(score) for score in self.scores],
            "kernels": [
                {
                    "precision": key[1].value,
                    "engines": list(self._kernel_engines.get(key, ())),
                    **kernel.to_json(),
                }
                for key, kernel in self._kernels.items()
            ],
            "engines": [
                {
                    "engine": engine,
                    "precision": precision.value,
                    "overheads": terms.overheads.terms,
                    "power": terms.overheads.power,
                    "correction": {p.value: v for p, v in terms.correction.items()},
                    "scores": {p.value: v for p, v in terms.scores.items()},
                }
                for (engine, precision), terms in self._terms.items()
            ],
        }
        return pack(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> FittedCostModel:
        """Returns the cost model that :meth:`to_bytes` wrote.

        Raises:
            ValueError: the bytes are none, or of another format.
        """
        try:
            read: dict[str, Any] = unpack(data)
            if read["format"] != FORMAT:
                raise ValueError(f"format {read['format']} is not {FORMAT}; fit it again")
            kernels: dict[tuple[OperationKind, Precision], AnyKernel] = {}
            kernel_engines: dict[tuple[OperationKind, Precision], tuple[str, ...]] = {}
            for row in read["kernels"]:
                kernel = _kernel_of_json(row)
                key = kernel.kind, Precision(row["precision"])
                kernels[key] = kernel
                # Models stored before this was kept do not tell.
                kernel_engines[key] = tuple(row.get("engines", ()))
            engines = {
                (row["engine"], Precision(row["precision"])): EngineTerms(
                    # Models stored before launches could overlap add them.
                    overheads=Overheads(row["overheads"], float(row.get("power", 1.0))),
                    correction={Phase(p): v for p, v in row["correction"].items()},
                    scores={Phase(p): tuple(v) for p, v in row["scores"].items()},
                )
                for row in read["engines"]
            }
            scores = tuple(
                ValidationScore(**{**row, "precision": Precision(row["precision"])})
                for row in read["scores"]
            )
            # Models stored before there were others are of local measurements.
            provenance = Provenance[read.get("provenance", Provenance.MEASURED_LOCALLY.name)]
            return cls(
                kernels,
                engines,
                scores,
                int(read["measurement_count"]),
                provenance,
                str(read["lender"]),
                float(read.get("disturbed", 0.0)),
                kernel_engines,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no cost model in these bytes: {error!r}") from error

    def _terms_for(self, operations: Sequence[Operation], engine: str) -> EngineTerms:
        """Returns the terms of the engine in the precision of the operations' weights.

        Kernels alone may be held in formats that no steps are: their interval is that of others.

        Raises:
            KeyError: there are overheads among them, and none of that precision were measured.
        """
        precision = next(
            (o.precision for o in operations if o.kind not in PLAIN_ATTENTIONS),
            operations[0].precision,
        )
        if (engine, precision) in self._terms:
            return self._terms[engine, precision]
        alike = next((it for (_, held), it in self._terms.items() if held is precision), None)
        if alike is None:
            if any(operation.kind in TERMS for operation in operations):
                raise KeyError(precision)
            alike = next(iter(self._terms.values()))
        return alike

    def _price(
        self, operations: Sequence[Operation], terms: EngineTerms
    ) -> list[tuple[float, float]]:
        """Returns milliseconds of one run and the distance outside the domain of each operation.

        A request repeats most of its kernels, and those of the one before: gate and up of
        a layer, all projections of a decode step at another context.
        """
        prices = [(0.0, 0.0)] * len(operations)
        fresh: dict[tuple[OperationKind, Precision], dict[_Key, list[int]]] = {}
        for index, operation in enumerate(operations):
            if operation.kind in TERMS:
                prices[index] = terms.overheads.latency_ms(operation), 0.0
                continue
            key = operation.kind, operation.precision, operation.shape, operation.flops
            known = self._prices.get(key)
            if known is None:
                fresh.setdefault(key[:2], {}).setdefault(key, []).append(index)
            else:
                prices[index] = known
        if len(self._prices) > _MAX_PRICES:
            self._prices.clear()
        for (kind, precision), same in fresh.items():
            kernel = kernel_of(self._kernels, kind, precision)
            sizes = sizes_of(kind, [operations[rows[0]] for rows in same.values()])
            latency, outside = kernel.latency_ms(sizes).tolist(), kernel.outside(sizes).tolist()
            for (key, rows), ms, far in zip(same.items(), latency, outside, strict=True):
                self._prices[key] = price = (ms, far)
                for index in rows:
                    prices[index] = price
        return prices


def _kernel_of_json(row: dict[str, Any]) -> AnyKernel:
    return Collective.from_json(row) if "curves" in row else Kernel.from_json(row)


def _by_kernel(
    operations: Iterable[tuple[int, Operation]],
) -> dict[tuple[OperationKind, Precision], list[int]]:
    groups: dict[tuple[OperationKind, Precision], list[int]] = {}
    for index, operation in operations:
        groups.setdefault((operation.kind, operation.precision), []).append(index)
    return groups


def _step(
    operations: Sequence[Operation],
    prices: Sequence[tuple[float, float]],
    terms: EngineTerms,
    phase: Phase,
    confidence: float,
) -> StepEstimate:
    # In plain Python: for the two dozen operations of a step arrays take longer.
    correction = math.exp(terms.correction[phase])
    each = terms.overheads.run_ms(operations, [ms for ms, _ in prices])
    latency = [ms * correction for ms in each]
    value = math.fsum(latency)
    width = half_width(terms.scores[phase], confidence)
    far = [
        (o.name, ms * beyond)
        for o, ms, (_, beyond) in zip(operations, latency, prices, strict=True)
        if beyond
    ]
    if far:
        width += _OUTSIDE_SLOPE * math.fsum(part for _, part in far) / max(value, 1e-12)
    return StepEstimate(
        value_ms=value,
        lower_ms=value * math.exp(-width),
        upper_ms=value * math.exp(width),
        operations_ms=tuple(latency),
        outside=tuple(sorted({name for name, _ in far})),
    )


def step_correction(terms: EngineTerms, measurement: Measurement) -> float:
    """Returns the correction that applies to a measured point: none to kernels alone."""
    if measurement.kind in {kind.value for kind in KERNELS}:
        return 0.0
    query = measurement.shape["query_tokens"]
    return terms.correction[Phase.DECODE if query == 1 else Phase.PREFILL]
