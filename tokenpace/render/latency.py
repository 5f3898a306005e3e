"""A prediction, a live measurement, and the table that `make run` ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from tokenpace.render import text
from tokenpace.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType
    from rich.table import Table

    from tokenpace.v1 import latency_pb2, profiler_pb2

_MILLISECONDS = (
    ("TTFT", "ttft_ms"),
    ("TPOT", "tpot_ms"),
    ("request latency", "request_latency_ms"),
)
_RATES = (
    ("tokens/s", "tokens_per_second"),
    ("tokens/s per device", "tokens_per_second_per_gpu"),
)
_KERNELS = 8
"""Of each phase of a trace, that are shown; the answer has more."""
_KERNEL_CHARACTERS = 44


def prediction(answer: latency_pb2.PredictResponse, confidence: float) -> RenderableType:
    """Returns a prediction with its interval, memory, source and warnings."""
    figures = text.table("", "median", f"{100 * confidence:g}% interval", right=("median",))
    for unit, rows in (("ms", _MILLISECONDS), ("", _RATES)):
        for label, field in rows:
            if answer.HasField(field):
                estimate: types_pb2.Estimate = getattr(answer, field)
                median = f"{text.figure(estimate.value)} {unit}".rstrip()
                figures.add_row(label, median, text.interval(estimate))
    parts: list[RenderableType] = [_headline(answer.resolved), Text(), figures, Text()]
    source = text.enum(types_pb2.Provenance, "PROVENANCE_", answer.provenance)
    parts.append(
        text.pairs(
            [
                ("memory", _memory(answer.memory)),
                ("source", f"{source.replace('-', ' ')} (cost model {answer.cost_model})"),
                ("calibration", answer.resolved.calibration),
            ]
        )
    )
    parts.extend(_warnings(answer.warnings))
    if answer.breakdown:
        parts.extend((Text(), _breakdown(answer.breakdown)))
    return Group(*parts)


def live_measurement(result: profiler_pb2.LiveMeasurement, confidence: float) -> RenderableType:
    """Returns what was measured beside what had been predicted."""
    rows = text.table(
        "",
        "measured",
        "p10 to p90",
        "samples",
        "predicted",
        f"{100 * confidence:g}% interval",
        "off by",
        right=("measured", "samples", "predicted", "off by"),
    )
    for label, field, residual in (
        ("TTFT", "ttft_ms", result.ttft_residual),
        ("TPOT", "tpot_ms", result.tpot_residual),
    ):
        if not result.HasField(field):
            continue
        measured: types_pb2.Distribution = getattr(result, field)
        predicted: types_pb2.Estimate = getattr(result.prediction, field)
        rows.add_row(
            label,
            f"{text.figure(measured.median)} ms",
            text.spread(measured),
            f"{measured.samples}",
            f"{text.figure(predicted.value)} ms",
            text.interval(predicted),
            f"{100 * residual:+.1f}%",
        )
    environment = result.environment
    where = f"{environment.device_name}, torch {environment.torch_version}"
    below = [("measured on", where)]
    if result.HasField("energy_per_token_joules"):
        below.append(("energy", f"{text.figure(result.energy_per_token_joules)} J a token"))
    return Group(
        _headline(result.prediction.resolved),
        Text(),
        rows,
        Text(),
        text.pairs(below),
        *(_trace(result.trace) if result.HasField("trace") else ()),
        *_warnings(result.warnings),
        *_warnings(result.prediction.warnings),
    )


def _trace(trace: profiler_pb2.Trace) -> list[RenderableType]:
    labels = [text.enum(types_pb2.Phase, "PHASE_", phase.phase) for phase in trace.phases]
    bounds = text.table("", *labels, right=labels)
    bounds.add_row("bound", *(phase.bound for phase in trace.phases))
    for name in ("measured", "bandwidth", "compute", "overhead", "communication"):
        parts = (getattr(phase, f"{name}_ms") for phase in trace.phases)
        bounds.add_row(name, *(f"{text.figure(part)} ms" for part in parts))
    bounds.add_row("roofline", *(f"{phase.roofline_share:.0%}" for phase in trace.phases))
    figures = ("calls", "time", "share")
    kernels = text.table("", "kernel of the traced pass", *figures, right=figures)
    for label, phase in zip(labels, trace.phases, strict=True):
        for index, kernel in enumerate(phase.kernels[:_KERNELS]):
            kernels.add_row(
                "" if index else label,
                kernel.name[:_KERNEL_CHARACTERS],
                f"{kernel.calls}",
                f"{text.figure(kernel.latency_ms)} ms",
                f"{kernel.share:.0%}",
            )
    return [Text(), bounds, Text(), kernels, Text(), text.pairs([("trace", trace.path)])]


def _headline(resolved: types_pb2.Resolved) -> Text:
    precision = text.enum(types_pb2.Precision, "PRECISION_", resolved.precision)
    kv = text.enum(types_pb2.Precision, "PRECISION_", resolved.kv_cache_precision)
    experts = text.enum(types_pb2.Precision, "PRECISION_", resolved.experts_precision)
    devices = f"{resolved.gpu_count} x " if resolved.gpu_count > 1 else ""
    model = resolved.architecture
    return Text.assemble(
        (model.name or model.model_type, "bold"),
        f" ({text.parameters(model.parameter_count)} parameters) on {devices}{resolved.device}, "
        f"{resolved.engine}, {precision}"
        + (f", experts {experts}" if resolved.experts_precision else "")
        + (f", KV cache {kv}" if kv != precision else ""),
    )


def _memory(memory: types_pb2.MemoryFootprint) -> str:
    total = (
        f"{text.size(memory.weights_bytes)} weights + "
        f"{text.size(memory.kv_cache_bytes)} KV cache + "
        f"{text.size(memory.activations_bytes)} activations"
    )
    if not memory.HasField("fits"):
        return f"{total} = {text.size(memory.total_bytes)}; the device's memory is not known"
    verdict = "fits" if memory.fits else "DOES NOT FIT"
    of = f"{text.size(memory.total_bytes)} of {text.size(memory.capacity_bytes)}"
    return f"{verdict}: {of} ({total})"


def _warnings(warnings: Iterable[types_pb2.Warning]) -> Iterator[Text]:
    for warning in warnings:
        yield Text.assemble((f"warning {warning.code}", "yellow"), f": {warning.text}")


def _breakdown(costs: Iterable[types_pb2.OperationCost]) -> Table:
    rows = text.table(
        "phase",
        "operation",
        "runs",
        "ms",
        "share",
        "GFLOP",
        "bytes",
        "bound by",
        right=("runs", "ms", "share", "GFLOP", "bytes"),
    )
    phase = 0
    for cost in costs:
        if phase not in {0, cost.phase}:
            rows.add_section()
        phase = cost.phase
        rows.add_row(
            text.enum(types_pb2.Phase, "PHASE_", cost.phase),
            cost.name,
            f"{cost.count}",
            text.figure(cost.latency_ms),
            text.percent(cost.share),
            text.figure(cost.flops / 1e9),
            text.count(cost.bytes),
            cost.bound,
        )
    return rows
