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
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from torch.autograd.profiler_util import FunctionEvent

    from profiler.device import Device

_SPANS = {Phase.PREFILL: "tokenpace prefill", Phase.DECODE: "tokenpace decode step"}
_LAYER_SPANS = {
    Phase.PREFILL: "tokenpace layers of prefill",
    Phase.DECODE: "tokenpace layers of decode step",
}
_OWN = frozenset([*_SPANS.values(), *_LAYER_SPANS.values()])
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
    run: Callable[[Callable[[], None]], None],
    device: Device,
    path: Path | None,
    layers: Mapping[Phase, Callable[[], object]],
    missing: float,
) -> tuple[TracedPhase, ...]:
    """Runs a request once under torch's profiler and returns what each phase consists of.

    Ranks that run together all call it.

    Args:
        run: of a model that was warmed up; calls what it is given behind the prompt's pass and
            behind each later step, of which the last one is told of.
        device: that the model is on.
        path: of the trace that is written, gzipped JSON that Perfetto opens; None: none is.
        layers: of each phase, a pass through the layers without the head; that of transformers
            runs the embedding and the final norm as well. None where no layers are missing.
        missing: layers that were not built, as a multiple of those that were.

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
        spans.open(_SPANS[Phase.PREFILL])
        run(spans.next_step)
        spans.close()
        for phase, run_layers in layers.items():
            spans.open(_LAYER_SPANS[phase])
            run_layers()
            spans.close()
    if path is not None:
        profiler.export_chrome_trace(str(path))
    return phases_of(list(profiler.events() or ()), missing)


class _Spans:
    """Puts the prompt's pass and every later step into a span of its own."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def next_step(self) -> None:
        """Ends the span of a pass and begins that of a decode step."""
        self.close()
        self.open(_SPANS[Phase.DECODE])

    def close(self) -> None:
        """Ends the span once the device has done what was launched in it."""
        self._device.synchronize()
        self._span.__exit__(None, None, None)

    def open(self, name: str) -> None:
        """Begins a span."""
        self._span = record_function(name)
        self._span.__enter__()  # type: ignore[no-untyped-call]


def phases_of(events: list[FunctionEvent], missing: float = 0.0) -> tuple[TracedPhase, ...]:
    """Returns what the spans in a trace consist of.

    Of a GPU its own events count, wherever on the host they were launched: a graph's kernels
    belong to no operator. The device is waited for at a span's ends, so none runs across them.

    Args:
        events: of a trace.
        missing: layers that were not built, as a multiple of those that were; above 0 each
            phase has a span of the layers without the head.
    """
    host = [event for event in events if event.device_type.name == "CPU"]
    found = []
    for phase, name in _SPANS.items():
        spans = [event for event in host if event.name == name]
        # What follows the last token is in a span, too, which holds no pass.
        spans = spans[:-1] if phase is Phase.DECODE else spans
        if spans:
            layers = [event for event in host if event.name == _LAYER_SPANS[phase]]
            alone = [_ran_in(span, events) for span in layers] if missing else []
            found.append(_phase(phase, _ran_in(spans[-1], events), alone, missing))
    return tuple(found)


def _phase(phase: Phase, ran: _Ran, layers: Sequence[_Ran], missing: float) -> TracedPhase:
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
    whole = ran.lasted + missing * sum(each.lasted for each in layers)
    busy = ran.busy + missing * sum(each.busy for each in layers)
    exchanged = ran.communication + missing * sum(each.communication for each in layers)
    return TracedPhase(
        phase=phase,
        milliseconds=ran.lasted / 1e3,
        idle_share=max(0.0, 1 - busy / whole),
        communication_share=exchanged / whole,
        kernels=tuple(kernels[:_MAX_KERNELS]),
    )


class _Ran(NamedTuple):
    """What ran in a span, in microseconds.

    Attributes:
        spent: names of kernels, and what each run took.
        lasted: the span.
        busy: in which any ran.
        communication: of it, in which collectives alone ran.
    """

    spent: list[tuple[str, float]]
    lasted: float
    busy: float
    communication: float


def _ran_in(span: FunctionEvent, events: list[FunctionEvent]) -> _Ran:
    begin, end = _range(span)
    inside = [
        event
        for event in events
        # A span shows on the device, too.
        if event.name not in _OWN and begin <= event.time_range.start < end
    ]
    on_device = [event for event in inside if event.device_type.name != "CPU"]
    return _on_gpu(on_device, end - begin) if on_device else _on_host(inside, begin, end)


def _on_gpu(events: list[FunctionEvent], lasted: float) -> _Ran:
    """Returns what ran on a GPU, whose streams run side by side."""
    # What the host calls a collective shows on the device beside its kernel.
    kernels = [event for event in events if not event.is_user_annotation]
    others = [event for event in kernels if not event.name.startswith(_GPU_COLLECTIVES)]
    busy = _covered(map(_range, kernels))
    spent = [(event.name, end - start) for event in kernels for start, end in [_range(event)]]
    return _Ran(spent, lasted, busy, busy - _covered(map(_range, others)))


def _on_host(events: list[FunctionEvent], begin: float, end: float) -> _Ran:
    """Returns which operators ran in a span; they nest, and wait in their collectives.

    Of a collective gloo's span is listed, not the operators that carry it. It may be noted to
    end after the operator that waited for it, and after the span.
    """
    ranges = [(start, min(last, end)) for start, last in map(_range, events)]
    both = list(zip(events, ranges, strict=True))
    exchanges = [each for event, each in both if event.name.startswith(_HOST_COLLECTIVES)]
    spent = []
    for event, (start, last) in both:
        if event.name.startswith(_GLOO):
            spent.append((event.name, last - start))
        elif not any(first <= start and last <= latest for first, latest in exchanges):
            spent.append((event.name, event.self_cpu_time_total))
    return _Ran(spent, end - begin, _covered(ranges), _covered(exchanges))


def _range(event: FunctionEvent) -> tuple[float, float]:
    return event.time_range.start, event.time_range.end


def _covered(ranges: Iterable[tuple[float, float]]) -> float:
    """Returns how long at least one of the ranges (start, end) lasts."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(ranges):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
