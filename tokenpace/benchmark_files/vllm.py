"""``vllm bench serve --save-result``: one object a run, one a line with ``--append-result``.

Where it runs is not recorded, unless ``--metadata`` says so: the keys of vLLM's own example
(``version``, ``tp``) and their like (``pp``, ``ep``, ``dp``) are read. ``backend`` is the
protocol that was spoken, not the engine.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

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
from tokenpace.benchmark_files.values import first, in_flight, number, positive, text, whole

if TYPE_CHECKING:
    from tokenpace.benchmark_files.values import Object

_TTFT = ("median_ttft_ms", "mean_ttft_ms")
_TPOT = ("median_tpot_ms", "mean_tpot_ms")


def recognises(found: Object) -> bool:
    """Returns whether an object is such a result."""
    return "num_prompts" in found and any(key in found for key in (*_TTFT, *_TPOT))


def row(found: Object, source: str) -> BenchmarkRow:
    """Returns the run.

    Raises:
        ArgumentError: a figure is no number.
    """
    completed = number(found, "completed", source) or 0.0
    if completed < 1:
        raise ArgumentError(source, "no request was completed; leave the run out")
    ttft = positive(first(found, _TTFT, source))
    tpot = positive(first(found, _TPOT, source))
    asked = _request_rate(found, source)
    ended = number(found, "request_throughput", source)
    prompts = number(found, "num_prompts", source) or completed
    limit = positive(number(found, "max_concurrency", source))
    unlimited = limit is None and asked == float("inf")
    suspicions = [
        *failed_requests(number(found, "failed", source) or prompts - completed, prompts),
        *(burst(prompts) if unlimited else overload(asked, ended)),
        *long_queue(ttft),
        *_lengths(found, "input_lens", "input"),
        *_lengths(found, "output_lens", "output"),
    ]
    outputs = _mean(found, "total_output_tokens", completed, source)
    return BenchmarkRow(
        source=source,
        model=text(found, "model_id"),
        engine_version=text(found, "version"),
        tensor=_degree(found, "tp", source),
        pipeline=_degree(found, "pp", source),
        expert=_degree(found, "ep", source),
        data=_degree(found, "dp", source),
        input_tokens=whole(_mean(found, "total_input_tokens", completed, source)),
        output_tokens=whole(outputs),
        concurrency=_concurrency(found, source, asked, limit, outputs),
        ttft_ms=ttft,
        tpot_ms=tpot,
        suspicions=tuple(suspicions),
    )


def _concurrency(
    found: Object, source: str, asked: float | None, limit: float | None, outputs: float | None
) -> int | None:
    """Returns the requests in flight: the limit of a closed loop, the mean of an open one."""
    if asked == float("inf"):
        observed = first(found, ("max_concurrent_requests", "num_prompts"), source)
        return whole(limit or observed)
    latency = number(found, "mean_e2el_ms", source)
    if latency is None:
        start, step = (number(found, f"mean_{name}_ms", source) for name in ("ttft", "tpot"))
        if start is not None and step is not None and outputs is not None:
            latency = start + max(0.0, outputs - 1) * step
    mean = in_flight(number(found, "request_throughput", source), latency)
    if mean is None:
        return whole(limit)
    return max(1, round(min(mean, limit or mean)))


def _request_rate(found: Object, source: str) -> float | None:
    rate = found.get("request_rate")
    # JSON has no infinity: the tool writes the text, Python's own parser reads the number.
    if rate == "inf" or rate == float("inf"):
        return float("inf")
    return number(found, "request_rate", source)


def _mean(found: Object, key: str, completed: float, source: str) -> float | None:
    total = number(found, key, source)
    return None if total is None else total / completed


def _degree(found: Object, key: str, source: str) -> int | None:
    value: Any = found.get(key)
    if value is None:
        return None
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return whole(number(found, key, source))


def _lengths(found: Object, key: str, what: str) -> list[Suspicion]:
    values = found.get(key)
    if not isinstance(values, list) or len(values) < 2:
        return []
    lengths = [
        v for v in values if isinstance(v, int | float) and not isinstance(v, bool) and v > 0
    ]
    if len(lengths) < 2:
        return []
    return heavy_tail(what, statistics.fmean(lengths), statistics.pstdev(lengths))
