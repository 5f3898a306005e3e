"""One row of a benchmark file, and what looks wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_QUEUE_MS = 60_000.0
"""A median TTFT beyond is queueing, whatever the model: no prompt is processed for a minute."""
OVERLOAD = 1.1
"""Requests that arrive over requests that end, beyond which the queue grows all the time."""
HEAVY_TAIL = 0.5
"""Standard deviation of lengths over their mean, beyond which the mean stands for no request."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A reason not to fit on a row.

    Attributes:
        code: stable name, such as "SATURATED".
        text: what is wrong, for a person.
    """

    code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRow:
    """What a file says of one run; empty and None is what it does not say.

    Attributes:
        source: file and place in it.
        model: name that the tool gives.
        device, engine, engine_version: where it ran.
        precision, kv_cache_precision: as the command spells them; "model": the checkpoint's own.
        tensor, pipeline, expert, data: parallel sizes.
        input_tokens, output_tokens: mean lengths, rounded.
        concurrency: requests in flight.
        batch_size: sequences decoded together, where the batch is static.
        ttft_ms: median time to first token (the mean where there is no median).
        tpot_ms: likewise per output token after the first.
        suspicions: what looks wrong.
    """

    source: str
    model: str = ""
    device: str = ""
    engine: str = ""
    engine_version: str = ""
    precision: str = ""
    kv_cache_precision: str = ""
    tensor: int | None = None
    pipeline: int | None = None
    expert: int | None = None
    data: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    concurrency: int | None = None
    batch_size: int | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    suspicions: tuple[Suspicion, ...] = ()


@dataclass(frozen=True, slots=True)
class BenchmarkFile:
    """All that was read.

    Attributes:
        rows: in the file's order.
        notes: what was left out, for a person.
    """

    rows: tuple[BenchmarkRow, ...]
    notes: tuple[str, ...] = ()


def failed_requests(failed: float, all_of_them: float) -> list[Suspicion]:
    """Returns the remark on requests that failed; none where none did."""
    if failed <= 0:
        return []
    text = f"{failed:g} of {all_of_them:g} requests failed, and the slow ones fail first"
    return [Suspicion("FAILED_REQUESTS", text)]


def overload(arriving: float | None, ending: float | None) -> list[Suspicion]:
    """Returns the remark on an open loop beyond capacity.

    Args:
        arriving: requests a second that were sent; None or infinite: no open loop.
        ending: requests a second that were answered.
    """
    if not arriving or not ending or arriving == float("inf") or arriving <= OVERLOAD * ending:
        return []
    text = (
        f"{arriving:g} requests a second arrive and {ending:.3g} end: the queue grows as long as"
        " the run lasts, so that TTFT measures the run's length"
    )
    return [Suspicion("SATURATED", text)]


def burst(requests: float) -> list[Suspicion]:
    """Returns the remark on a run whose requests are all sent at once."""
    if requests <= 1:
        return []
    text = (
        f"all {requests:g} requests were sent at once, without a limit on those in flight:"
        " TTFT is the time in one queue"
    )
    return [Suspicion("BURST", text)]


def long_queue(ttft_ms: float | None) -> list[Suspicion]:
    """Returns the remark on a TTFT of minutes."""
    if ttft_ms is None or ttft_ms <= LONGEST_QUEUE_MS:
        return []
    return [Suspicion("SATURATED", f"a median TTFT of {ttft_ms / 1e3:.0f} s is time in a queue")]


def heavy_tail(what: str, mean: float | None, deviation: float | None) -> list[Suspicion]:
    """Returns the remark on lengths that no mean stands for.

    Args:
        what: "input" or "output".
        mean: of the lengths in tokens; None: not known.
        deviation: likewise, their standard deviation.
    """
    if not mean or deviation is None or deviation <= HEAVY_TAIL * mean:
        return []
    text = (
        f"{what} lengths of {mean:.0f} tokens on average vary by {deviation:.0f}:"
        " no one length stands for them"
    )
    return [Suspicion("HEAVY_TAILED_LENGTHS", text)]
