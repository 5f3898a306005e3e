"""Measurements as the fit reads them: each with the operations that ran in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from model.engines import gathers_pages
from model.errors import InvalidFieldError
from model.estimate import Phase
from model.measurement import LONGEST_MS
from model.operations import OperationKind
from model.shapes import operations_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model.measurement import Measurement
    from model.operations import Operation
    from model.precision import Precision

_T = TypeVar("_T")
_FEWEST_PAGED = 24
"""Eight for each of the three laws. A campaign that ends sooner leaves it to attention over a
static cache, which was measured before in many points."""
_FEWEST_PER_TENSOR = 40
"""Eight for each of the five laws. For fewer stand those with a scale a row, if these are more."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A measurement with what ran in it."""

    measurement: Measurement
    operations: Sequence[Operation]

    @property
    def latency_ms(self) -> float:
        """Median of its samples."""
        return self.measurement.latency_ms.median

    @property
    def phase(self) -> Phase:
        """Phase of a layer's or a step's pass.

        Raises:
            KeyError: an operation measured alone belongs to none.
        """
        return Phase.DECODE if self.measurement.shape["query_tokens"] == 1 else Phase.PREFILL

    def is_a(self, kind: str, precision: Precision) -> bool:
        """Returns whether it is a point of that kind, measured in that precision."""
        return self.measurement.kind == kind and self.measurement.precision is precision


def usable_rows(measurements: Iterable[Measurement]) -> list[Row]:
    """Returns what can be fitted on.

    Left out: rows of unknown kind, damaged sizes or times that cannot be, attention over pages
    that is no engine's own (:func:`is_engines_own`), by other code than most of it, or too little,
    too few linears scaled per tensor, and of each kind and precision those with remarks, unless
    these are most of it.
    """
    rows = _per_tensor_enough(_of_one_code(list(_readable(measurements))))
    kept = []
    for kind, precision in in_order((r.measurement.kind, r.measurement.precision) for r in rows):
        same = [r for r in rows if r.is_a(kind, precision)]
        clean = [r for r in same if not r.measurement.flags]
        kept += clean if 2 * len(clean) >= len(same) else same
    return kept


def is_engines_own(measurement: Measurement) -> bool:
    """Returns whether an engine may run what was measured.

    All but attention over pages that were copied together first: it is kept to be looked at, and
    prices nothing.
    """
    gathered = measurement.kind == OperationKind.PAGED_ATTENTION
    return not (gathered and gathers_pages(measurement.engine))


def _of_one_code(rows: list[Row]) -> list[Row]:
    """Returns the rows, of attention over pages those by one engine's or library's code alone.

    Which one runs depends on what is installed, and no law is that of several. Too few of it are
    left out as well.
    """
    paged = OperationKind.PAGED_ATTENTION
    own = [row for row in rows if is_engines_own(row.measurement)]
    counts: dict[Precision, Counter[str]] = defaultdict(Counter)
    for measurement in (row.measurement for row in own):
        if measurement.kind == paged:
            counts[measurement.precision][measurement.engine] += 1
    kept = set()
    for precision, found in counts.items():
        ((engine, count),) = found.most_common(1)
        if count >= _FEWEST_PAGED:
            kept.add((precision, engine))
    return [
        row
        for row in own
        if row.measurement.kind != paged
        or (row.measurement.precision, row.measurement.engine) in kept
    ]


def _per_tensor_enough(rows: list[Row]) -> list[Row]:
    """Returns the rows, without linears scaled per tensor that are few beside those per row."""
    counts = Counter((row.measurement.kind, row.measurement.precision) for row in rows)
    few = {
        precision
        for (kind, precision), count in counts.items()
        if kind == OperationKind.LINEAR_PER_TENSOR
        and count < min(_FEWEST_PER_TENSOR, counts[OperationKind.LINEAR, precision])
    }
    return [
        row
        for row in rows
        if row.measurement.kind != OperationKind.LINEAR_PER_TENSOR
        or row.measurement.precision not in few
    ]


def in_order(items: Iterable[_T]) -> list[_T]:
    """Returns the distinct items, each where it came first."""
    return list(dict.fromkeys(items))


def _readable(measurements: Iterable[Measurement]) -> Iterable[Row]:
    for measurement in measurements:
        try:
            operations = operations_of(measurement)
        except (KeyError, InvalidFieldError):
            continue
        if 0 < measurement.latency_ms.median <= LONGEST_MS:
            yield Row(measurement, operations)
