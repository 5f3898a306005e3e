"""``benchmarks.json`` of GuideLLM: a run for each load.

Its ``time_per_output_token_ms`` counts the first token in; TPOT is its
``inter_token_latency_ms``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tokenpace.arguments import ArgumentError
from tokenpace.benchmark_files.rows import (
    BenchmarkRow,
    Suspicion,
    burst,
    failed_requests,
    heavy_tail,
    long_queue,
    overload,
)
from tokenpace.benchmark_files.values import first, inner, number, positive, text, whole

if TYPE_CHECKING:
    from tokenpace.benchmark_files.values import Object

_CLOSED = {"synchronous", "concurrent"}


def recognises(found: Object) -> bool:
    """Returns whether an object is such a file."""
    runs = found.get("benchmarks")
    return isinstance(runs, list) and any(
        isinstance(run, Mapping) and inner(run, "metrics") for run in runs
    )


def rows(found: Object, source: str) -> list[BenchmarkRow]:
    """Returns the runs.

    Raises:
        ArgumentError: a run is no object, or a figure no number.
    """
    return [
        _row(run, f"{source}:benchmarks[{index}]") for index, run in enumerate(found["benchmarks"])
    ]


def _row(run: object, source: str) -> BenchmarkRow:
    if not isinstance(run, Mapping):
        raise ArgumentError(source, "is no object")
    strategy = inner(run, "config", "strategy")
    kind = text(strategy, "type_")
    rate = positive(number(strategy, "rate", source))
    ended = _statistic(run, "requests_per_second", ("mean",), source)
    requests = inner(run, "metrics", "request_totals") or inner(run, "request_totals")
    done = number(requests, "successful", source) or 0.0
    failed = number(requests, "errored", source) or 0.0
    ttft = _statistic(run, "time_to_first_token_ms", ("median", "mean"), source)
    outputs = _statistic(run, "output_token_count", ("mean",), source)
    tpot = _statistic(run, "inter_token_latency_ms", ("median", "mean"), source)
    suspicions = [*failed_requests(failed, done + failed), *long_queue(ttft)]
    if tpot is None:
        tpot, remark = _without_first(run, ttft, outputs, source)
        suspicions += remark
    if kind == "throughput":
        suspicions += burst(done or 2)
    else:
        suspicions += overload(rate, ended)
    for side, name in (("input", "prompt_token_count"), ("output", "output_token_count")):
        deviation = _statistic(run, name, ("std_dev",), source)
        suspicions += heavy_tail(side, _statistic(run, name, ("mean",), source), deviation)
    return BenchmarkRow(
        source=source,
        input_tokens=whole(_statistic(run, "prompt_token_count", ("mean",), source)),
        output_tokens=whole(outputs),
        concurrency=_concurrency(run, strategy, kind, source),
        ttft_ms=ttft,
        tpot_ms=tpot,
        suspicions=tuple(suspicions),
    )


def _concurrency(run: Object, strategy: Object, kind: str, source: str) -> int | None:
    if kind == "synchronous":
        return 1
    if kind in _CLOSED:
        return whole(positive(first(strategy, ("streams", "max_concurrency"), source)))
    mean = _statistic(run, "request_concurrency", ("mean",), source)
    return None if mean is None else max(1, round(mean))


def _without_first(
    run: Object, ttft: float | None, outputs: float | None, source: str
) -> tuple[float | None, list[Suspicion]]:
    """Returns TPOT from the time per token that counts the first one in."""
    counted = _statistic(run, "time_per_output_token_ms", ("median", "mean"), source)
    if counted is None or ttft is None or outputs is None or outputs <= 1:
        return None, []
    text_ = (
        "there is no inter_token_latency_ms; TPOT comes from time_per_output_token_ms, which"
        " counts the first token in"
    )
    left = (counted * outputs - ttft) / (outputs - 1)
    return positive(max(0.0, left)), [Suspicion("TPOT_COUNTS_FIRST_TOKEN", text_)]


def _statistic(run: Object, name: str, keys: tuple[str, ...], source: str) -> float | None:
    return positive(first(inner(run, "metrics", name, "successful"), keys, f"{source}.{name}"))
