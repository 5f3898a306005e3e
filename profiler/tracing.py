"""One request traced with torch's profiler: which kernels ran, and when none did."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from model.estimate import Phase
from profiler.interface import TracedKernel, TracedPhase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch.autograd.profiler_util import FunctionEvent

    from profiler.device import Device

_SPANS = {Phase.PREFILL: "tokenpace prefill", Phase.DECODE: "tokenpace decode step"}
_MAX_KERNELS = 50
_NAME_CHARACTERS = 200
"""Of a kernel's name: templates fill pages."""


@torch.inference_mode()
def trace_run(
    run: Callable[[Callable[[], None]], None], device: Device, path: Path
) -> tuple[TracedPhase, ...]:
    """Runs a request once under torch's profiler and returns what each phase consists of.

    Args:
        run: of a model that was warmed up; calls what it is given behind the prompt's pass and
            behind each later step, of which the last one is told of.
        device: that the model is on.
        path: of the trace that is written, gzipped JSON that Perfetto opens.

    Raises:
        OSError, RuntimeError: the trace cannot be written.
    """
    spans = _Spans(device)
    activities = [ProfilerActivity.CPU]
    if device.is_cuda:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        spans.open(Phase.PREFILL)
        run(spans.next_step)
        spans.close()
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
    calls: dict[str, int] = defaultdict(int)
    microseconds: dict[str, float] = defaultdict(float)
    inside = [
        event
        for event in events
        # A span shows on the device, too.
        if event.name not in _SPANS.values()
        and span.time_range.start <= event.time_range.start < span.time_range.end
    ]
    kernels_run = [event for event in inside if event.device_type.name != "CPU"]
    for event in kernels_run or inside:
        ran = event.time_range
        spent = ran.end - ran.start if kernels_run else event.self_cpu_time_total
        if spent > 0:
            calls[event.name] += 1
            microseconds[event.name] += spent
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
        busy_ms=sum(microseconds.values()) / 1e3,
        kernels=tuple(kernels[:_MAX_KERNELS]),
    )
