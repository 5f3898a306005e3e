"""Which of several candidates the cost model is least sure of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.cost_model import FittedCostModel
    from model.precision import Precision
    from profiler.points import Point


def least_sure(
    cost_model: FittedCostModel, candidates: Sequence[Point], precision: Precision
) -> int:
    """Returns the index of the candidate whose kernels the cost model doubts most."""
    doubts = [float(np.mean(cost_model.doubt(point.operations(precision)))) for point in candidates]
    return int(np.argmax(doubts))
