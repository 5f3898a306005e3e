"""Which of several candidates tell most of what the cost model does not know."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.cost_model import FittedCostModel
    from model.operations import OperationKind
    from model.precision import Precision
    from profiler.points import Point


def most_telling(
    cost_model: FittedCostModel, candidates: Sequence[Point], precision: Precision, count: int
) -> list[int]:
    """Returns which candidates to measure, the first one first.

    Candidates of the same kinds of kernels are chosen among themselves, and keep their share:
    what one kind does not know is no measure of another.

    Args:
        cost_model: of what was measured so far.
        candidates: any points.
        precision: that they are measured in.
        count: of candidates to return; fewer where there are no more.
    """
    operations = [point.operations(precision) for point in candidates]
    parts: dict[frozenset[OperationKind], list[int]] = defaultdict(list)
    for index, each in enumerate(operations):
        parts[frozenset(operation.kind for operation in each)].append(index)
    ranked = []
    for part in parts.values():
        order = cost_model.most_telling([operations[index] for index in part], count)
        ranked += [((place + 0.5) / len(part), part[at]) for place, at in enumerate(order)]
    return [index for _, index in sorted(ranked)[:count]]
