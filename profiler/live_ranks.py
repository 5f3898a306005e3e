"""One request measured live on several ranks, each a process with a share of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.errors import InvalidFieldError
from model.loading import no_collection
from profiler.interface import LiveResult, Progressed
from profiler.ranks import run_on_ranks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiler.interface import LiveRequest
    from profiler.ranks import Rank


def measure_on_ranks(
    request: LiveRequest, threads: int, begin: float
) -> Iterator[Progressed | LiveResult]:
    """Yields progress, and the result last.

    Args:
        request: its ``rank_devices`` are where the ranks run.
        threads: that each computes with on the CPU.
        begin: monotonic seconds at which the budget began.

    Raises:
        InvalidFieldError, TimeoutError: as :func:`profiler.live.measure_live` has it.
        RankError: a rank failed; all have ended.
    """
    devices = request.rank_devices
    yield Progressed(fraction=0.05, text=f"{len(devices)} ranks measure together")
    found = run_on_ranks(devices, threads, _measured, request, begin)
    if isinstance(found, Exception):
        raise found
    yield found


def _measured(rank: Rank, request: LiveRequest, begin: float) -> LiveResult | Exception:
    """Returns the result, or what all ranks alike found wrong with the request."""
    with no_collection():
        from profiler.live import measure_live  # noqa: PLC0415 - a rank alone needs transformers

    try:
        for event in measure_live(request, rank.device, begin, rank):
            if isinstance(event, LiveResult):
                return event
    except (InvalidFieldError, TimeoutError) as error:
        return error
    raise AssertionError("a measurement ends with its result")
