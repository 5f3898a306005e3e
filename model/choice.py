"""Which further points tell most of a smooth function, before any of them is observed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.laws import Array
    from model.matern import MaternProcess


def most_telling(
    process: MaternProcess, columns: Array, owners: NDArray[np.int64], count: int
) -> list[int]:
    """Returns which candidates to observe, the one that tells most first.

    Each is that which lowers the variance most, summed over all candidates' rows, once those
    before it are observed, too (Cohn, Neural Networks 9, 1996; of a candidate's rows the mean
    counts). So what lies among many others comes before what lies alone.

    Args:
        process: known at some points.
        columns: features of all candidates' rows, (rows, features).
        owners: whose rows they are, (rows,); candidates are numbered from 0 on without a gap.
        count: of candidates to return; fewer where there are no more.
    """
    covariance = process.covariance(columns)
    noise = float(process.noise.min())
    rows = np.bincount(owners)
    free = np.ones(len(rows), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(count, len(rows)):
        variance = covariance.diagonal()
        lowered = np.einsum("ij,ij->j", covariance, covariance) / (variance + noise)
        gain = np.bincount(owners, weights=lowered) / rows
        best = int(np.argmax(np.where(free, gain, -np.inf)))
        free[best] = False
        chosen.append(best)
        own = np.flatnonzero(owners == best)
        observed = covariance[np.ix_(own, own)] + noise * np.eye(len(own))
        covariance -= covariance[:, own] @ np.linalg.solve(observed, covariance[own])
    return chosen
