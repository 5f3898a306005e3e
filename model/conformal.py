"""Half-widths of prediction intervals from absolute residuals on points held out.

Split conformal prediction: of n residuals the one of rank ceil((n + 1) x confidence)
covers a further point with that probability. Where n is too small for the asked
confidence, the largest is stretched as a Student t distribution's tail would.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.laws import Array


def half_width(scores: Sequence[float] | Array, confidence: float) -> float:
    """Returns the half-width at a confidence.

    Args:
        scores: absolute residuals in ascending order, at least one.
        confidence: 0.5 to 0.999.
    """
    count = len(scores)
    rank = math.ceil((count + 1) * confidence)
    if rank <= count:
        return float(scores[rank - 1])
    return float(scores[-1]) * _tail(confidence, count) / _tail(count / (count + 1), count)


def coverage(scores_by_group: Sequence[Array], confidence: float) -> float:
    """Returns the share of scores within the half-width that all other groups give.

    Args:
        scores_by_group: absolute residuals of each group; at least two groups.
        confidence: 0.5 to 0.999.
    """
    inside = 0
    for index, scores in enumerate(scores_by_group):
        others = np.sort(np.concatenate([s for i, s in enumerate(scores_by_group) if i != index]))
        inside += int((scores <= half_width(others, confidence)).sum())
    return inside / sum(len(scores) for scores in scores_by_group)


@lru_cache(maxsize=1_024)
def _tail(confidence: float, degrees: int) -> float:
    from scipy.special import stdtrit  # noqa: PLC0415 - a daemon's start need not wait for it

    return float(stdtrit(degrees, (1 + confidence) / 2))
