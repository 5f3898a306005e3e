"""One request traced with torch's profiler: which kernels ran, and when none did."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, record_function

from model.estimate import Phase
from profiler.interface import TracedKernel, TracedPhase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from torch.autograd.profiler_util import FunctionEvent

    from profiler.device import Device

_SPANS = {Phase.PREFILL: "tokenpace prefill", Phase.DECODE: "tokenpace decode step"}
_GPU_COLLECTIVES = "nccl"
"""How the names of NCCL's kernels begin."""
_GLOO = "gloo:"
"""How the spans are called in which gloo's threads carry a message, from when it was queued on."""
_HOST_COLLECTIVES = (_GLOO, "c10d::", "_c10d_functional::")
"""Those spans, and the operators that queue a message or wait for it, compiled layers' last."""
_MAX_KERNELS = 50
_NAME_CHARACTERS = 200
"""Of a kernel's name: templates fill pages."""


@torch.inference_mode()
def trace_run(
    run: Callable[[Callable[[], None]], None], device: Device, path: Path | None
) -> tuple[TracedPhase, ...]:
    """Runs a request once under torch's profiler and returns what each phase consists of.

    Ranks that run together all call it.

    Args:
        run: of a model that was warmed up; calls what it is given behind the prompt's pass and
            behind each later step, of which the last one is told of.
        device: that the model is on.
        path: of the trace that is written, gzipped JSON that Perfetto opens; None: none is.

    Raises:
        OSError, RuntimeError: the trace cannot be written.
    """
    spans = _Spans(device)
    activities = [ProfilerActivity.CPU]
    if device.is_cuda:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        if dist.is_available() and dist.is_initialized():
            dist.barrier()  # else the prompt's pass waits for a rank whose profiler starts
        spans.open(Phase.PREFILL)
        run(spans.next_step)
        spans.close()
    if path is not None:
        profiler.export_chrome_trace(str(path))
    return phases_of(list(profiler.events() or ()))


class _Spans:
    """Puts the prompt's pass and every later step into a span of its own."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def next_step(self) -> None:
        """Ends the span of a pass and begins that of a decode step."""
        self.close()
        self.open(Phase.DECODE)

    def close(self) -> None:
        """Ends the span once the device has done what was launched in it."""
        self._device.synchronize()
        self._span.__exit__(None, None, None)

    def open(self, phase: Phase) -> None:
        """Begins a span."""
        self._span = record_function(_SPANS[phase])
        self._span.__enter__()  # type: ignore[no-untyped-call]


def phases_of(events: list[FunctionEvent]) -> tuple[TracedPhase, ...]:
    """Returns what the spans in a trace consist of.

    Of a GPU its own events count, wherever on the host they were launched: a graph's kernels
    belong to no operator. The device is waited for at a span's ends, so none runs across them.
    """
    host = [event for event in events if event.device_type.name == "CPU"]
    found = []
    for phase, name in _SPANS.items():
        spans = [event for event in host if event.name == name]
        # What follows the last token is in a span, too, which holds no pass.
        spans = spans[:-1] if phase is Phase.DECODE else spans
        if spans:
            found.append(_phase(phase, spans[-1], events))
    return tuple(found)


def _phase(phase: Phase, span: FunctionEvent, events: list[FunctionEvent]) -> TracedPhase:
    inside = [
        event
        for event in events
        # A span shows on the device, too.
        if event.name not in _SPANS.values()
        and span.time_range.start <= event.time_range.start < span.time_range.end
    ]
    on_device = [event for event in inside if event.device_type.name != "CPU"]
    ran = _on_gpu(on_device) if on_device else _on_host(inside, span.time_range.end)
    calls: dict[str, int] = defaultdict(int)
    microseconds: dict[str, float] = defaultdict(float)
    for name, spent in ran.spent:
        if spent > 0:
            calls[name] += 1
            microseconds[name] += spent
    kernels = sorted(
        (
            TracedKernel(name=name[:_NAME_CHARACTERS], calls=calls[name], milliseconds=spent / 1e3)
            for name, spent in microseconds.items()
        ),
        key=lambda kernel: -kernel.milliseconds,
    )
    return TracedPhase(
        phase=phase,
        milliseconds=(span.time_range.end - span.time_range.start) / 1e3,
        busy_ms=ran.busy / 1e3,
        communication_ms=ran.communication / 1e3,
        kernels=tuple(kernels[:_MAX_KERNELS]),
    )


class _Ran(NamedTuple):
    """What ran in a span, in microseconds.

    Attributes:
        spent: names of kernels, and what each run took.
        busy: in which any ran.
        communication: of it, in which collectives alone ran.
    """

    spent: list[tuple[str, float]]
    busy: float
    communication: float


def _on_gpu(events: list[FunctionEvent]) -> _Ran:
    """Returns what ran on a GPU, whose streams run side by side."""
    # What the host calls a collective shows on the device beside its kernel.
    kernels = [event for event in events if not event.is_user_annotation]
    others = [event for event in kernels if not event.name.startswith(_GPU_COLLECTIVES)]
    busy = _covered(map(_range, kernels))
    spent = [(event.name, end - start) for event in kernels for start, end in [_range(event)]]
    return _Ran(spent, busy, busy - _covered(map(_range, others)))


def _on_host(events: list[FunctionEvent], latest: float) -> _Ran:
    """Returns which operators ran until then; they nest, and wait in their collectives.

    Of a collective gloo's span is listed, not the operators that carry it.
    """
    exchanges = [
        (start, min(end, latest))
        for event in events
        if event.name.startswith(_HOST_COLLECTIVES)
        for start, end in [_range(event)]
    ]
    spent = []
    for event in events:
        start, end = _range(event)
        if event.name.startswith(_GLOO):
            spent.append((event.name, min(end, latest) - start))
        elif not any(begin <= start and end <= last for begin, last in exchanges):
            spent.append((event.name, event.self_cpu_time_total))
    every = [(start, min(end, latest)) for start, end in map(_range, events)]
    return _Ran(spent, _covered(every), _covered(exchanges))


def _range(event: FunctionEvent) -> tuple[float, float]:
    return event.time_range.start, event.time_range.end


def _covered(ranges: Iterable[tuple[float, float]]) -> float:
    """Returns how long at least one of the ranges (start, end) lasts."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(ranges):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
