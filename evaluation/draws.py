"""Few points of a table to fit on: drawn at random, or chosen as a campaign chooses its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.kernel_fitting import fit_kernel
from model.laws import sizes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.operations import OperationKind
    from model.rows import Row
    from model.validation import Predictor

    Draw = Callable[[Sequence[Row]], Sequence[Row]]
    """Of the rows that may be fitted on, those that are."""

_FIRST = 60
"""Points of a campaign's design, before the cost model has a say."""
_AT_A_TIME = 40
_CANDIDATES = 1_500


def every(rows: Sequence[Row]) -> Sequence[Row]:
    """Returns all of them."""
    return rows


def at_random(points: int) -> Draw:
    """Returns what draws so many rows, the same in every run; all where there are no more."""

    def draw(rows: Sequence[Row]) -> Sequence[Row]:
        if points >= len(rows):
            return rows
        places = np.random.default_rng(0).choice(len(rows), points, replace=False)
        return [rows[place] for place in places]

    return draw


def chosen(kind: OperationKind, points: int, processors: int, seed: int = 0) -> Draw:
    """Returns what takes some rows at random, and then those that tell most, some at a time.

    No latency of a row that was not taken is looked at. The same rows are asked once.

    Args:
        kind: of all rows.
        points: to take; all where there are no more.
        processors: of the device.
        seed: of the order in which rows come to be candidates.
    """
    known: dict[frozenset[int], list[Row]] = {}

    def choose(rows: Sequence[Row]) -> list[Row]:
        order = np.random.default_rng(seed).permutation(len(rows))
        pool = [rows[place] for place in order]
        taken, pool = pool[:_FIRST], pool[_FIRST:]
        while pool and len(taken) < points:
            kernel = fit_kernel(kind, taken, processors)
            candidates, pool = pool[:_CANDIDATES], pool[_CANDIDATES:]
            sizes = sizes_of(kind, [row.operations[0] for row in candidates])
            count = min(_AT_A_TIME, points - len(taken))
            telling = kernel.most_telling(sizes, np.arange(len(candidates)), count)
            best = telling if telling is not None else list(range(count))
            taken += [candidates[place] for place in best]
            rest = set(range(len(candidates))).difference(best)
            pool += [candidates[place] for place in sorted(rest)]
        return taken[:points]

    def draw(rows: Sequence[Row]) -> Sequence[Row]:
        key = frozenset(map(id, rows))
        if key not in known:
            known[key] = choose(rows)
        return known[key]

    return draw


def on(draw: Draw, fit: Callable[[Sequence[Row]], Predictor]) -> Callable[[list[Row]], Predictor]:
    """Returns a fit on what is drawn of the rows it is given."""
    return lambda rows: fit(draw(rows))
