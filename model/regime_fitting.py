"""Fits the laws of one kind of operation, a regime at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.law_fitting import fit_block_law, fit_law
from model.laws import REGIMES, SHARED, Law, Sizes
from model.operations import LINEARS, OperationKind
from model.regimes import RegimeLaws

if TYPE_CHECKING:
    from model.laws import Array

FEWEST_FOR_A_LAW = 8
"""Measurements that its constants can be told from."""
_FEWEST_FOR_A_SCALE = 3
_FEWEST_FOR_BLOCKS = 40
_ENOUGH = 3_000
"""Of more rows the laws are fitted to so many, drawn at random."""


def fit_laws(
    kind: OperationKind, sizes: Sizes, latency_ms: Array, processors: int = 0
) -> RegimeLaws:
    """Fits a law for each regime; one seldom measured is all regimes' law, scaled to it.

    Regimes that share a law (``SHARED``) are fitted as one.

    Linears of many rows go by whole waves of blocks where that explains them better.

    Args:
        kind: one of ``KERNELS``.
        sizes: of at least one operation.
        latency_ms: (operations,), positive.
        processors: that the device has; 0: none that blocks run in waves of.
    """
    if len(latency_ms) > _ENOUGH:
        # Enough for each regime, rare or not.
        order = np.random.default_rng(0).permutation(len(latency_ms))
        ranks = np.empty(len(latency_ms), dtype=np.intp)
        for regime in range(REGIMES[kind]):
            same = order[sizes.regime[order] == regime]
            ranks[same] = np.arange(len(same))
        drawn = ranks < _ENOUGH // REGIMES[kind]
        sizes, latency_ms = sizes.take(drawn), latency_ms[drawn]
    pooled = fit_law(sizes, latency_ms)
    laws: list[Law] = []
    shared = SHARED.get(kind, 1)
    for regime in range(REGIMES[kind] // shared):
        rows = sizes.regime // shared == regime
        here, measured = sizes.take(rows), latency_ms[rows]
        law = pooled
        if len(measured) >= FEWEST_FOR_A_LAW:
            law = fit_law(here, measured)
        elif len(measured) >= _FEWEST_FOR_A_SCALE:
            law = pooled.scaled(float(np.exp(np.median(np.log(measured / pooled(here))))))
        laws += [law] * shared
    if kind in LINEARS and processors and len(measured) >= _FEWEST_FOR_BLOCKS:
        blocks = fit_block_law(here, measured, processors)
        if misfit(measured, blocks(here)) < misfit(measured, laws[-1](here)):
            return RegimeLaws(tuple(laws), blocks)
    return RegimeLaws(tuple(laws))


def misfit(measured_ms: Array, predicted_ms: Array) -> float:
    """Returns the mean of |log(measured / predicted)|."""
    return float(np.abs(np.log(measured_ms / predicted_ms)).mean())
