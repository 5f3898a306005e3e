"""``profile_export_aiperf.json`` of aiperf: one object a run. Its TPOT is inter_token_latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenpace.arguments import ArgumentError
from tokenpace.benchmark_files.rows import (
    BenchmarkRow,
    burst,
    failed_requests,
    heavy_tail,
    long_queue,
    overload,
)
from tokenpace.benchmark_files.values import first, in_flight, inner, number, positive, text, whole

if TYPE_CHECKING:
    from tokenpace.benchmark_files.values import Object

_MILLISECONDS = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "sec": 1e3, "seconds": 1e3}


def recognises(found: Object) -> bool:
    """Returns whether an object is such a result."""
    metrics = ("time_to_first_token", "inter_token_latency", "request_latency")
    return any("avg" in inner(found, name) for name in metrics)


def row(found: Object, source: str) -> BenchmarkRow:
    """Returns the run.

    Raises:
        ArgumentError: a figure is no number, or in a unit that is no time.
    """
    load = inner(found, "input_config", "loadgen")
    ended = number(inner(found, "request_throughput"), "avg", source)
    rate = positive(number(load, "request_rate", source))
    limit = positive(number(load, "concurrency", source))
    done = number(inner(found, "request_count"), "avg", source) or 0.0
    failed = number(inner(found, "error_request_count"), "avg", source) or 0.0
    ttft = _milliseconds(found, "time_to_first_token", "p50", source)
    mean = in_flight(ended, _milliseconds(found, "request_latency", "avg", source))
    if rate is None:
        concurrency = limit
    else:
        concurrency = limit if mean is None else max(1.0, min(mean, limit or mean))
    inputs, outputs = (inner(found, f"{side}_sequence_length") for side in ("input", "output"))
    return BenchmarkRow(
        source=source,
        model=_model(found),
        input_tokens=whole(number(inputs, "avg", source)),
        output_tokens=whole(number(outputs, "avg", source)),
        concurrency=whole(concurrency),
        ttft_ms=ttft,
        tpot_ms=_milliseconds(found, "inter_token_latency", "p50", source),
        suspicions=(
            *failed_requests(failed, done + failed),
            *(burst(done) if rate is None and limit is None else overload(rate, ended)),
            *long_queue(ttft),
            *heavy_tail("input", *_spread(inputs, source)),
            *heavy_tail("output", *_spread(outputs, source)),
        ),
    )


def _milliseconds(found: Object, name: str, statistic: str, source: str) -> float | None:
    """Returns a latency's statistic; its mean where that is not there."""
    metric = inner(found, name)
    value = positive(first(metric, (statistic, "avg"), source))
    if value is None:
        return None
    unit = text(metric, "unit") or "ms"
    if unit not in _MILLISECONDS:
        raise ArgumentError(source, f"{name} is in {unit!r}, which is no unit of time")
    return value * _MILLISECONDS[unit]


def _spread(lengths: Object, source: str) -> tuple[float | None, float | None]:
    return number(lengths, "avg", source), number(lengths, "std", source)


def _model(found: Object) -> str:
    names = inner(found, "input_config", "endpoint").get("model_names")
    one = names[0] if isinstance(names, list) and len(names) == 1 else None
    return one if isinstance(one, str) else ""
