"""One request measured live: a whole model, or a few of its layers scaled to its depth."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.interface import ENGINE, LiveResult, Progressed, Scope
from profiler.live_models import live_model
from profiler.modules import shard, with_depth
from profiler.spread import with_layers_cut
from profiler.telemetry import EnergyMeter, held_down_by
from profiler.timing import DISTURBED_FLAG, THROTTLED_FLAG, distribution
from profiler.warm_up import warm_up
from profiler.wholes import GeneratePoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.architecture import Architecture
    from model.measurement import Distribution
    from model.precision import Precision
    from profiler.device import Device
    from profiler.interface import LiveRequest, TracedPhase
    from profiler.live_models import LiveModel
    from profiler.ranks import Rank
    from profiler.wholes import Once

_MIN_REPEATS = 5
_MAX_REPEATS = 30
_STABLE = 0.02
"""Relative standard error of the median at which repeating ends."""
_BUDGET_SHARE = 0.9
_TRACED_STEPS = 3
"""Decode steps; the first ones after a prompt still fill caches."""
_TRACE_S = 3.0
"""What writing and reading a trace takes beside the run."""


def measure_live(
    request: LiveRequest, device: Device, begin: float, rank: Rank | None = None
) -> Iterator[Progressed | LiveResult]:
    """Yields progress, and the result last.

    Args:
        request: static batching.
        device: where to run.
        begin: monotonic seconds at which the budget began.
        rank: one of those that run together, all of which call this alike; what the slowest
            of them takes counts. None: a tensor-parallel rank's share runs alone.

    Raises:
        InvalidFieldError: the device does not run the precision, or the modules cannot be cut so
            or lack a block of the architecture, or torch cannot compile them.
        TimeoutError: not one repeat fits the budget.
    """
    device.check(request.precision)
    # Ranks that went by clocks of their own would part where one of them ends.
    clock = time.monotonic if rank is None else partial(_agreed, rank)
    end = begin + _BUDGET_SHARE * request.budget_s
    whole = shard(request.architecture, request.tensor) if rank is None else request.architecture
    built = _built(whole, request, device, rank)
    notes = _notes_on(request, built.layer_count, rank)
    yield Progressed(fraction=0.05, text=f"building {built.layer_count} layers")
    model = live_model(request, built, whole, device, rank)
    workload = request.workload
    run = GeneratePoint(
        max(1, workload.batch_size), workload.input_tokens, max(1, workload.output_tokens)
    )
    yield Progressed(fraction=0.15, text="warming up")
    warm_up(device)
    started = clock()
    first, steps, _ = model.warm_up(run)
    first_s = first / 1e3
    step_s = (clock() - started) if not steps else steps[0] / 1e3
    left = end - clock()
    if left < first_s:
        raise TimeoutError(f"one run takes {first_s:.1f} s and {left:.1f} s are left")
    is_cut = built.layer_count < whole.layer_count
    trace_s = _trace_s(first_s, step_s, is_cut=is_cut) if request.trace_path else 0.0
    left = max(first_s, left - trace_s)
    run, shortened = _that_fits(run, first_s, step_s, left)
    notes += shortened
    repeats = _Repeats()
    repeats_begin, time_left = clock(), max(left, 1e-9)
    once = model.runs(run)
    meter = EnergyMeter(device.name)
    while not repeats.are_enough:
        repeats.add(once())
        spent = clock() - repeats_begin
        yield Progressed(
            fraction=min(0.99, 0.2 + 0.8 * spent / time_left), text=f"{repeats.count} repeats"
        )
        if spent + spent / repeats.count > time_left:
            break
    joules = meter.spent_joules()
    notes += repeats.notes
    if reasons := held_down_by(device.name):
        notes.append(f"{THROTTLED_FLAG}: the clocks were held down by {', '.join(reasons)}")
    phases: tuple[TracedPhase, ...] = ()
    if request.trace_path:
        yield Progressed(fraction=0.99, text="tracing")
        if clock() > end - trace_s:
            untraced = ["no time was left for a trace; give more budget"]
        else:
            phases, untraced = _traced(request.trace_path, model, run)
        notes += untraced
    is_whole = not is_cut and workload.output_tokens > 0
    # The meter is of one device, and of fewer tokens the prompt would have a larger share.
    is_all = rank is None and run.output_tokens == workload.output_tokens
    yield LiveResult(
        ttft_ms=distribution(repeats.ttft_ms),
        tpot_ms=repeats.tpot if workload.output_tokens > 1 else None,
        notes=tuple(notes),
        phases=phases,
        energy_per_token_joules=joules / (run.sequences * repeats.tokens)
        if joules is not None and is_whole and is_all
        else None,
    )


class _Repeats:
    """What equal requests took so far.

    Attributes:
        ttft_ms: to the first token.
        tpot_ms: of the mean later step.
        tokens: that each sequence generated, those of all repeats together.
    """

    def __init__(self) -> None:
        self.ttft_ms: list[float] = []
        self.tpot_ms: list[float] = []
        self.tokens = 0
        self._disturbed = 0

    def add(self, once: Once) -> None:
        """Counts one more."""
        self.ttft_ms.append(once.first_ms)
        if once.steps_ms:
            self.tpot_ms.append(sum(once.steps_ms) / len(once.steps_ms))
        self.tokens += 1 + len(once.steps_ms)
        self._disturbed += once.disturbed

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.ttft_ms)

    @property
    def are_enough(self) -> bool:
        """Whether the medians are known well, or will not get better."""
        if not _MIN_REPEATS <= self.count < _MAX_REPEATS:
            return self.count >= _MAX_REPEATS
        return _is_stable(self.ttft_ms) and (not self.tpot_ms or _is_stable(self.tpot_ms))

    @property
    def tpot(self) -> Distribution | None:
        """Spread of the later steps; None where there are none."""
        return distribution(self.tpot_ms) if self.tpot_ms else None

    @property
    def notes(self) -> list[str]:
        """What the reader should know."""
        if self._disturbed <= self.count / 2:
            return []
        taken = f"other processes took the processor in {self._disturbed} repeats"
        return [f"{DISTURBED_FLAG}: {taken}"]


def _built(
    whole: Architecture, request: LiveRequest, device: Device, rank: Rank | None
) -> Architecture:
    """Returns what runs of the whole: all, or so many layers that they overflow the cache.

    Those of a rank are cut when they are built; without one they were cut before.
    """
    if request.scope is not Scope.LAYER:
        return whole
    if rank is None:
        return with_depth(whole, cold_depth(whole, request.precision, device))
    cut = with_layers_cut(whole, rank.count)
    depths = rank.slowest([cold_depth(cut, request.precision, device)])
    return with_depth(whole, int(depths[0]))


def _agreed(rank: Rank) -> float:
    """Returns the monotonic clock of the rank that is asked last; it is one in a machine."""
    return rank.slowest([time.monotonic()])[0]


def _notes_on(request: LiveRequest, layer_count: int, rank: Rank | None) -> list[str]:
    """Returns how what runs differs from what was asked for."""
    notes: list[str] = []
    if request.architecture.model_type == "llama4_text" and request.engine == ENGINE:
        notes.append("its modules send every token through every expert; engines that route do not")
    if request.torch_compile:
        notes.append("torch compiled the layers; the prediction is of layers that are not")
    if rank is not None:
        over = "NCCL" if rank.device.is_cuda else "gloo"
        notes.append(f"{rank.count} tensor-parallel ranks were run, which exchanged over {over}")
    elif request.tensor > 1:
        why = f" ({request.alone})" if request.alone else ""
        one = f"one of {request.tensor} tensor-parallel ranks was run"
        notes.append(f"{one}{why}, without what they exchange")
    depth = request.architecture.layer_count
    if layer_count < depth:
        notes.append(f"{layer_count} of {depth} layers were run and scaled")
    return notes


def _trace_s(first_s: float, step_s: float, *, is_cut: bool) -> float:
    """Returns how long a trace takes at most, by what a first token and a later one take."""
    # Of a few layers, these run alone, too, and a prompt fills a cache for them.
    return _TRACE_S + (4 if is_cut else 2) * (first_s + _TRACED_STEPS * step_s)


def _traced(
    path: str, model: LiveModel, run: GeneratePoint
) -> tuple[tuple[TracedPhase, ...], list[str]]:
    """Returns the phases of a traced run, or why there are none."""
    shorter = replace(run, output_tokens=min(run.output_tokens, 1 + _TRACED_STEPS))
    try:
        return model.trace(shorter, Path(path)), []
    except (OSError, RuntimeError) as error:
        # What was measured before must not be lost with it.
        return (), [f"the trace could not be written: {error}"]


def cold_depth(architecture: Architecture, precision: Precision, device: Device) -> int:
    """Returns how many layers are as cold as the whole model's: those that overflow the cache.

    Of experts all count, though a token meets few: the next one meets others.
    """
    hidden, depth = architecture.hidden_size, architecture.layer_count
    weights = sum(
        group.count * group.layer.parameter_count(hidden) for group in architecture.layers
    )
    layer_bytes = weights * precision.weight_bytes / depth
    return max(2, min(depth, math.ceil(device.cold_bytes / layer_bytes)))


def _that_fits(
    run: GeneratePoint, first_s: float, step_s: float, left_s: float
) -> tuple[GeneratePoint, list[str]]:
    """Returns the run with as many tokens as fit three repeats in the time left."""
    steps = int((left_s / 3 - first_s) / max(step_s, 1e-6))
    tokens = max(min(2, run.output_tokens), min(run.output_tokens, 1 + max(0, steps)))
    if tokens == run.output_tokens:
        return run, []
    note = f"{tokens} of {run.output_tokens} tokens were generated a repeat, to fit the budget"
    return GeneratePoint(run.sequences, run.input_tokens, tokens), [note]


def _is_stable(samples: list[float]) -> bool:
    spread: Distribution = distribution(samples)
    # Of a normal distribution p10 to p90 is 2.56 deviations; a median errs 1.25 times a mean.
    error = 1.25 * (spread.p90 - spread.p10) / 2.56 / len(samples) ** 0.5
    return bool(error <= _STABLE * spread.median)
