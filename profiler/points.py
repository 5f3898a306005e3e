"""What a campaign asks of a point, whatever is timed, and what it has measured already.

Each kind is one class beside the code that times it; to add one, write its class and have the
design draw it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from model.precision import Precision
from profiler.timing import Effort

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from model.measurement import Measurement
    from model.operations import Operation, OperationKind
    from profiler.device import Device
    from profiler.interface import Skipped

MATRIX_EFFORT = Effort(seconds=0.05, min_samples=2)
ATTENTION_EFFORT = Effort(seconds=0.06)
MODEL_EFFORT = Effort(seconds=0.25, min_samples=2)


class Measured:
    """Which shapes and groups were measured already.

    Args:
        rows: what was measured, in any precision.
    """

    def __init__(self, rows: Iterable[Measurement]) -> None:
        self._shapes: set[tuple[str, Precision, frozenset[tuple[str, float]]]] = set()
        self._groups = Counter[tuple[str, Precision, str]]()
        for row in rows:
            self.add(row)

    def add(self, row: Measurement) -> None:
        """Counts one more measurement."""
        self._shapes.add((row.kind, row.precision, frozenset(row.shape.items())))
        self._groups[row.kind, row.precision, row.group] += 1

    def holds(self, kind: str, precision: Precision, shape: Mapping[str, float]) -> bool:
        """Returns whether that shape was measured."""
        return (kind, precision, frozenset(shape.items())) in self._shapes

    def count(self, kind: str, precision: Precision, group: str) -> int:
        """Returns how many measurements there are of a group."""
        return self._groups[kind, precision, group]


class Point(Protocol):
    """What can be timed alone, or a small model."""

    @property
    def group(self) -> str:
        """Points that are held out together have one name."""

    def operations(self, precision: Precision) -> list[Operation]:
        """Returns the kernels that a cost model prices it by."""

    def needed_bytes(self, precision: Precision, device: Device) -> float:
        """Returns an upper bound of the bytes that measuring it allocates."""

    def is_measured(self, precision: Precision, measured: Measured) -> bool:
        """Returns whether nothing of it is left to measure."""

    @property
    def sizes(self) -> str:
        """What is made smaller where memory does not hold it, for a person."""

    def halved(self, precision: Precision, measured: Measured) -> Self | None:
        """Returns what is left to measure of the point half as large; None where nothing is."""

    def measure(self, precision: Precision, device: Device) -> Iterator[Measurement | Skipped]:
        """Yields the measurements of a campaign, and what was left out of them but not the point.

        Raises:
            MemoryError, RuntimeError: the device's memory does not hold it.
        """


@dataclass(frozen=True, slots=True)
class AttendingPoint:
    """What is alike of all attentions that are timed alone: of queries over a context.

    Attributes:
        sequences: that are alike.
        query_tokens: of each.
        kv_tokens: of each, its queries' own among them.
        kind: of the operation; its measurements have the fields of the point as their shape.
    """

    sequences: int
    query_tokens: int
    kv_tokens: int
    kind: ClassVar[OperationKind]

    def is_measured(self, precision: Precision, measured: Measured) -> bool:
        """Returns whether nothing of it is left to measure."""
        return measured.holds(self.kind, precision.activation, asdict(self))

    @property
    def sizes(self) -> str:
        """What is made smaller, for a person."""
        return f"{self.sequences:,} x {self.query_tokens:,} over {self.kv_tokens:,} tokens"

    def halved(self, precision: Precision, measured: Measured) -> Self | None:
        """Returns the point half as large; None where there is none or it is measured."""
        sizes = halved_tokens(self.sequences, self.query_tokens, self.kv_tokens)
        if sizes is None:
            return None
        smaller = replace(self, sequences=sizes[0], query_tokens=sizes[1], kv_tokens=sizes[2])
        return None if smaller.is_measured(precision, measured) else smaller


class RowsPoint(ABC):
    """What is alike of all products that are timed at several numbers of rows.

    Subclasses are dataclasses, each with the fields of its own matrices before ``rows``.
    """

    __slots__ = ()
    rows: tuple[int, ...]

    @abstractmethod
    def holds(self, m: int, precision: Precision, measured: Measured) -> bool:
        """Returns whether it is measured at ``m`` rows."""

    def is_measured(self, precision: Precision, measured: Measured) -> bool:
        """Returns whether nothing of it is left to measure."""
        return all(self.holds(m, precision, measured) for m in self.rows)

    @property
    def sizes(self) -> str:
        """What is made smaller, for a person."""
        return f"up to {max(self.rows):,} rows"

    def halved(self, precision: Precision, measured: Measured) -> Self | None:
        """Returns what is left to measure up to half as many rows; None where nothing is."""
        left = [m for m in halved_rows(self.rows) if not self.holds(m, precision, measured)]
        if not left:
            return None
        return replace(self, rows=tuple(left))  # type: ignore[type-var]


def halved_tokens(sequences: int, query_tokens: int, kv_tokens: int) -> tuple[int, int, int] | None:
    """Returns half as many sequences, or of a single one half of its tokens.

    Queries and context shrink together: a whole prompt stays one, as a part of one takes a
    mask and copies of its keys.

    Returns:
        Sequences, query tokens and context; None where there is but one token.
    """
    if sequences > 1:
        return sequences // 2, query_tokens, kv_tokens
    if kv_tokens <= 1:
        return None
    return sequences, max(1, query_tokens // 2), kv_tokens // 2


def halved_rows(rows: Iterable[int]) -> tuple[int, ...]:
    """Returns the rows, none of them beyond half of the most; none where that is a single one."""
    asked = set(rows)
    most = max(asked) // 2
    return tuple(sorted({min(m, most) for m in asked})) if most else ()
