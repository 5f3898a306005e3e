"""Small models as points of a campaign: passes through their layers, and greedy decoding.

Which modules run is a subclass's: of transformers in ``profiler.models``, of plain layers in
``profiler.plain_models``.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, Self, TypeVar

from model.blocks import LatentAttention
from model.execution import layer_operations, projections_of
from model.laws import KERNELS
from model.measurement import Measurement
from model.shapes import architecture_shape
from model.workload import Sequences
from profiler.device import Device, dtype_of
from profiler.overhead import TIMED
from profiler.points import MODEL_EFFORT, halved_tokens
from profiler.timing import timing_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model.architecture import Architecture, Layer
    from model.operations import Operation
    from model.precision import Precision
    from model.workload import Step
    from profiler.points import Measured
    from profiler.timing import Effort, Timing

_FEWEST_RUNS = 2
"""Runs of several steps each that a median needs at the least."""


@dataclass(frozen=True, slots=True)
class ForwardPoint:
    """One forward pass through the layers of a model.

    Attributes:
        sequences: equal ones.
        query_tokens: of each, in the pass.
        kv_tokens: of each, those of the pass among them.
        decoding: sequences that decode a token each in the same pass; plain layers alone do.
        decoding_kv_tokens: of each of those.
    """

    sequences: int
    query_tokens: int
    kv_tokens: int
    decoding: int = 0
    decoding_kv_tokens: int = 0

    @property
    def step(self) -> Step:
        """What runs in the pass."""
        first = Sequences(
            count=self.sequences, query_tokens=self.query_tokens, kv_tokens=self.kv_tokens
        )
        if not self.decoding:
            return (first,)
        beside = Sequences(count=self.decoding, query_tokens=1, kv_tokens=self.decoding_kv_tokens)
        return (first, beside)

    @property
    def held_tokens(self) -> int:
        """Tokens that are in memory, of all sequences."""
        return sum(alike.count * alike.kv_tokens for alike in self.step)

    def halved(self) -> ForwardPoint | None:
        """Returns the pass half as large; None where there is none."""
        first = (self.sequences, self.query_tokens, self.kv_tokens)
        beside = (self.decoding, 1, self.decoding_kv_tokens)
        halves = halved_tokens(*first), halved_tokens(*beside)
        if halves == (None, None):
            return None
        sequences, query_tokens, kv_tokens = halves[0] or first
        decoding, _, decoding_kv_tokens = halves[1] or beside
        return ForwardPoint(sequences, query_tokens, kv_tokens, decoding, decoding_kv_tokens)


@dataclass(frozen=True, slots=True)
class GeneratePoint:
    """One real request of equal sequences, decoded greedily."""

    sequences: int
    input_tokens: int
    output_tokens: int

    @property
    def prefill(self) -> Step:
        """What runs up to the first token."""
        return (
            Sequences(
                count=self.sequences,
                query_tokens=self.input_tokens,
                kv_tokens=self.input_tokens,
            ),
        )

    @property
    def decode(self) -> Step:
        """What runs in a later step, at the mean context."""
        context = self.input_tokens + self.output_tokens // 2
        return (Sequences(count=self.sequences, query_tokens=1, kv_tokens=context),)

    @property
    def held_tokens(self) -> int:
        """Tokens that are in memory at the end, of all sequences."""
        return self.sequences * (self.input_tokens + self.output_tokens)

    def halved(self) -> GeneratePoint | None:
        """Returns the request half as large; None where there is none."""
        sizes = halved_tokens(self.sequences, self.input_tokens, self.input_tokens)
        return GeneratePoint(sizes[0], sizes[1], self.output_tokens) if sizes else None


_Run = TypeVar("_Run", ForwardPoint, GeneratePoint)


class Once(NamedTuple):
    """One run of a request.

    Attributes:
        first_ms: to the first token.
        steps_ms: of each later step.
        disturbed: whether other processes took the processor meanwhile.
    """

    first_ms: float
    steps_ms: list[float]
    disturbed: bool


class TimedModel(Protocol):
    """A model that is built and can be timed."""

    def layer(self, point: ForwardPoint, effort: Effort) -> Timing:
        """Returns the timing of one of its layers in a pass, the mean over them."""

    def runs(self, point: GeneratePoint) -> Callable[[], Once]:
        """Returns what runs a request once; it has been warmed up."""


@dataclass(frozen=True, slots=True)
class WholePoint(ABC):
    """A small model built once: passes through its layers, and greedy decoding."""

    architecture: Architecture
    forwards: tuple[ForwardPoint, ...]
    generates: tuple[GeneratePoint, ...]
    engine: ClassVar[str]

    @abstractmethod
    def build(self, precision: Precision, device: Device) -> TimedModel:
        """Returns the model with random weights; memory is taken here."""

    @property
    def held_tokens(self) -> int:
        """Tokens that its widest pass has in memory."""
        passes = [forward.held_tokens for forward in self.forwards]
        return max(passes + [request.held_tokens for request in self.generates])

    @property
    def _running_tokens(self) -> int:
        """Tokens that run at once at the most: a context is filled as one sequence's prompt."""
        steps = [forward.step for forward in self.forwards]
        steps += [request.prefill for request in self.generates]
        running = [sum(alike.tokens for alike in step) for step in steps]
        return max(running + [alike.kv_tokens for step in steps for alike in step])

    @property
    def sizes(self) -> str:
        """What is made smaller, for a person."""
        return f"up to {self.held_tokens:,} tokens in a pass"

    def halved(self, precision: Precision, measured: Measured) -> Self | None:
        """Returns what is left to measure, no pass beyond half of the widest; None: nothing."""
        most = self.held_tokens // 2
        forwards, generates = _within(self.forwards, most), _within(self.generates, most)
        if replace(self, forwards=forwards, generates=generates).held_tokens >= self.held_tokens:
            return None

        def is_left(kind: str, step: Step) -> bool:
            return not measured.holds(kind, precision, architecture_shape(self.architecture, step))

        forwards = tuple(each for each in forwards if is_left("layer", each.step))
        generates = tuple(each for each in generates if is_left("decode", each.decode))
        if not (forwards or generates):
            return None
        return replace(self, forwards=forwards, generates=generates)

    @property
    def group(self) -> str:
        """All that one architecture is measured in is held out together."""
        return self.architecture.name

    def operations(self, precision: Precision) -> list[Operation]:
        """Returns the kernels of its passes, which a cost model prices it by."""
        layer = self.architecture.layers[0].layer
        projections = projections_of(self.architecture, self.engine)
        return [
            operation
            for forward in self.forwards
            for operation in layer_operations(
                self.architecture.hidden_size,
                layer,
                forward.step,
                precision,
                precision,
                projections,
            )
            if operation.kind in KERNELS
        ]

    def needed_bytes(self, precision: Precision, device: Device) -> float:
        """Returns an upper bound of the bytes that measuring it allocates."""
        del device  # that of the modules alone
        architecture = self.architecture
        layer = architecture.layers[0].layer
        row = 8 * architecture.hidden_size + 2 * layer.feed_forward.activation_values
        held = held_values(architecture.hidden_size, layer, architecture.layer_count)
        values = 1.1 * architecture.parameter_count()
        values += self._running_tokens * row + self.held_tokens * held
        return dtype_of(precision).itemsize * values

    def is_measured(self, precision: Precision, measured: Measured) -> bool:
        """Returns whether nothing of it is left to measure."""
        return measured.count("decode", precision, self.group) >= len(self.generates)

    def measure(self, precision: Precision, device: Device) -> Iterator[Measurement]:
        """Yields the measurements of a campaign."""
        return measure_whole(self, precision, device, MODEL_EFFORT)


def held_values(hidden_size: int, layer: Layer, layer_count: int) -> float:
    """Returns an upper bound of the values that a pass holds of a token of its contexts.

    A cache and its copy; keys and values of the layer that runs, joined and for each query head.
    """
    cached = layer.attention.cached_values
    values = 2 * (layer_count + 1) * cached + 4 * hidden_size
    if isinstance(layer.attention, LatentAttention):
        values += layer.attention.activation_values  # keys and values are wider than their cache
    return values


def measure_whole(
    point: WholePoint, precision: Precision, device: Device, effort: Effort
) -> Iterator[Measurement]:
    """Builds the point's model and times all that is asked of it.

    Kinds: "layer" (one layer of a pass), "prefill" (a request up to its first token) and
    "decode" (one later step, at the mean context of the run).
    """
    model = point.build(precision, device)
    make = partial(_measurement, point, precision)
    for forward in point.forwards:
        yield make("layer", forward.step, model.layer(forward, effort))
    for run in point.generates:
        firsts, steps = repeated(model.runs(run), effort)
        yield make("prefill", run.prefill, firsts)
        if steps is not None:
            yield make("decode", run.decode, steps)


def repeated(run: Callable[[], Once], effort: Effort) -> tuple[Timing, Timing | None]:
    """Repeats a request until the effort is spent.

    Returns:
        Timings of the first token and of the mean later step; None where there is none.
    """
    rows: list[Once] = []
    end = time.perf_counter() + effort.seconds
    while len(rows) < effort.max_samples:
        with TIMED.running():
            rows.append(run())
        if len(rows) >= _FEWEST_RUNS and time.perf_counter() > end:
            break
    firsts = [(row.first_ms, row.disturbed) for row in rows]
    means = [(sum(row.steps_ms) / len(row.steps_ms), row.disturbed) for row in rows if row.steps_ms]
    return timing_of(firsts, effort), timing_of(means, effort) if means else None


def _within(runs: tuple[_Run, ...], most: int) -> tuple[_Run, ...]:
    """Returns the runs, each halved until it has at most so many tokens in memory."""
    fitting = []
    for run in runs:
        kept = run
        while kept.held_tokens > most and (smaller := kept.halved()) is not None:
            kept = smaller
        fitting.append(kept)
    return tuple(dict.fromkeys(fitting))


def _measurement(
    point: WholePoint, precision: Precision, kind: str, step: Step, timing: Timing
) -> Measurement:
    return Measurement(
        kind=kind,
        precision=precision,
        engine=point.engine,
        shape=architecture_shape(point.architecture, step),
        latency_ms=timing.distribution,
        group=point.group,
        flags=timing.flags,
    )
