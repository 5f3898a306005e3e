"""Under which load a deployment was measured: what its TTFT is made of."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from model.estimate import Phase

if TYPE_CHECKING:
    from evaluation.rows import Answered

MOST_RUNNING = 4
"""Requests in flight on a rank up to which a new one hardly ever waits."""
MOST_WAITING = 0.25
"""Share of the predicted TTFT that is not the request's own prefill, up to which it does not."""


class Regime(StrEnum):
    """What a new request meets."""

    UNQUEUED = "unqueued"
    """Few others: TTFT is its own prefill."""
    LOADED = "loaded"
    """Prefills and decode steps of others, all of which run."""
    SATURATED = "saturated"
    """More requests in flight than fit: TTFT is a queue."""


def regime_of(answer: Answered) -> Regime:
    """Returns the regime, as far as the question and its prediction tell it."""
    codes = {notice.code for notice in answer.inference.notices}
    if codes & {"SATURATED", "DOES_NOT_FIT"}:
        return Regime.SATURATED
    question = answer.row.question
    running = -(-question.workload.concurrency // question.parallelism.data)
    if running <= MOST_RUNNING and waiting_share(answer) <= MOST_WAITING:
        return Regime.UNQUEUED
    return Regime.LOADED


def waiting_share(answer: Answered) -> float:
    """Returns the share of the predicted TTFT that is not the request's own prefill."""
    own = sum(row.latency_ms for row in answer.inference.breakdown if row.phase is Phase.PREFILL)
    return max(0.0, 1.0 - own / answer.inference.ttft_ms.value)
