"""Real layers and real ``generate()`` runs of transformers models with random weights."""

from __future__ import annotations

import inspect
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import DynamicCache
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList

from model.blocks import LatentAttention
from model.execution import layer_operations, projections_of
from model.laws import KERNELS
from model.measurement import Measurement
from model.shapes import architecture_shape
from model.workload import Sequences
from profiler.device import Device, dtype_of
from profiler.modules import build_model
from profiler.points import ENGINE, MODEL_EFFORT
from profiler.timing import DISTURBED_FLAG, DISTURBED_SHARE, Effort, RunDelay, distribution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from transformers import PreTrainedModel

    from model.architecture import Architecture
    from model.operations import Operation
    from model.precision import Precision
    from profiler.points import Measured


_FEWEST_RUNS = 2
"""Runs of ``generate()``, each of several steps, that a median needs at the least."""


@dataclass(frozen=True, slots=True)
class ForwardPoint:
    """One forward pass of equal sequences through the layers of a model."""

    sequences: int
    query_tokens: int
    kv_tokens: int

    @property
    def step(self) -> Sequences:
        """What runs in the pass."""
        return Sequences(
            count=self.sequences, query_tokens=self.query_tokens, kv_tokens=self.kv_tokens
        )


@dataclass(frozen=True, slots=True)
class GeneratePoint:
    """One real ``generate()``."""

    sequences: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class ModelPoint:
    """A small model built once: passes through its layers, and real ``generate()`` runs."""

    architecture: Architecture
    forwards: tuple[ForwardPoint, ...]
    generates: tuple[GeneratePoint, ...]

    @property
    def group(self) -> str:
        """All that one architecture is measured in is held out together."""
        return self.architecture.name

    def operations(self, precision: Precision) -> list[Operation]:
        """Returns the kernels of its passes, which a cost model prices it by."""
        layer = self.architecture.layers[0].layer
        projections = projections_of(self.architecture, ENGINE)
        return [
            operation
            for forward in self.forwards
            for operation in layer_operations(
                self.architecture.hidden_size,
                layer,
                (forward.step,),
                precision,
                precision,
                projections,
            )
            if operation.kind in KERNELS
        ]

    def needed_bytes(self, precision: Precision, device: Device) -> float:
        """Returns an upper bound of the bytes that measuring it allocates."""
        architecture = self.architecture
        widest = max(
            [f.sequences * f.kv_tokens for f in self.forwards]
            + [g.sequences * (g.input_tokens + g.output_tokens) for g in self.generates]
        )
        layer = architecture.layers[0].layer
        row = 8 * architecture.hidden_size + 2 * layer.feed_forward.activation_values
        if isinstance(layer.attention, LatentAttention):
            row += layer.attention.activation_values  # keys and values are wider than their cache
        cache = 2 * architecture.layer_count * layer.attention.cached_values
        values = 1.1 * architecture.parameter_count() + widest * (row + cache)
        return dtype_of(precision).itemsize * values

    def is_measured(self, precision: Precision, measured: Measured) -> bool:
        """Returns whether nothing of it is left to measure."""
        return measured.count("decode", precision, self.group) >= len(self.generates)

    def measure(self, precision: Precision, device: Device) -> Iterator[Measurement]:
        """Yields the measurements of a campaign."""
        return measure_model(self, precision, device, MODEL_EFFORT)


class Stopwatch:
    """Marks moments on a device: the clock on the CPU, events on CUDA."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._marks: list[Any] = []

    def reset(self) -> None:
        """Forgets all marks."""
        self._marks = []

    def mark(self) -> None:
        """Marks this moment in the device's order of work."""
        if self._device.is_cuda:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def laps_ms(self) -> list[float]:
        """Returns the milliseconds between one mark and the next."""
        self._device.synchronize()
        pairs = zip(self._marks, self._marks[1:], strict=False)
        if self._device.is_cuda:
            return [begin.elapsed_time(end) for begin, end in pairs]
        return [(end - begin) * 1e3 for begin, end in pairs]


class LayerSpans:
    """Marks when the layers of a model begin and end in each of its passes.

    Hooks on the first layer of each group and on the last one do it, so that masks,
    positions and caches are those that the model itself makes.

    Args:
        model: whose layers.
        device: where it runs.
        counts: layers of each group that is timed apart, one after the other; None takes
            all together.
    """

    def __init__(
        self, model: PreTrainedModel, device: Device, counts: Sequence[int] | None = None
    ) -> None:
        self._watch = Stopwatch(device)
        layers = decoder(model).layers
        self.layer_count = len(layers)
        starts = [0, *accumulate(counts or [self.layer_count])][:-1]
        self._groups = len(starts)
        self._handles = [
            layers[start].register_forward_pre_hook(lambda *_: self._watch.mark())
            for start in starts
        ]
        self._handles.append(layers[-1].register_forward_hook(lambda *_: self._watch.mark()))

    def reset(self) -> None:
        """Forgets the passes so far."""
        self._watch.reset()

    def milliseconds(self) -> list[float]:
        """Returns the time of all layers together, one a pass."""
        return [sum(groups) for groups in self.by_group()]

    def by_group(self) -> list[list[float]]:
        """Returns the milliseconds of each group of layers, (passes, groups)."""
        laps, width = self._watch.laps_ms(), self._groups + 1
        return [laps[start : start + self._groups] for start in range(0, len(laps), width)]

    def close(self) -> None:
        """Takes the hooks off."""
        for handle in self._handles:
            handle.remove()


class ForwardTimer:
    """Times the layers of a model inside passes at any query length over any context."""

    def __init__(self, model: PreTrainedModel, device: Device) -> None:
        self._model = model
        self._device = device
        self._spans = LayerSpans(model, device)
        self._decoder = decoder(model).module
        parameters = inspect.signature(self._decoder.forward).parameters
        # transformers 5.24 renamed it.
        self._cache_keyword = "cache" if "cache" in parameters else "past_key_values"

    def close(self) -> None:
        """Takes the hooks off."""
        self._spans.close()

    def layer_ms(self, point: ForwardPoint, effort: Effort) -> tuple[list[float], bool]:
        """Returns the samples of one layer's milliseconds and whether they were disturbed."""
        pairs = self.every_layer_ms(point, effort)
        clean = [ms for ms, disturbed in pairs if not disturbed]
        if len(clean) >= min(effort.min_samples, len(pairs)):
            return clean, False
        return [ms for ms, _ in pairs], True

    @torch.inference_mode()
    def every_layer_ms(self, point: ForwardPoint, effort: Effort) -> list[tuple[float, bool]]:
        """Returns one layer's milliseconds in each pass, and whether that was disturbed."""
        config = self._model.config
        shape = (point.sequences, point.query_tokens)
        past = point.kv_tokens - point.query_tokens
        filled = self._filled_cache(point.sequences, past)
        samples: list[tuple[float, bool]] = []
        end = 0.0
        for repeat in range(effort.max_samples + 1):
            # Other tokens each time: they meet other experts, cold ones.
            ids = torch.randint(0, config.vocab_size, shape, device=self._device.torch_device)
            cache = self._cache_from(filled)
            positions = torch.arange(past, point.kv_tokens, device=self._device.torch_device)
            self._spans.reset()
            delay = RunDelay()
            self._run(ids, cache, position_ids=positions.unsqueeze(0))
            (elapsed,) = self._spans.milliseconds()
            if repeat == 0:  # warm-up
                end = time.perf_counter() + effort.seconds
                continue
            disturbed = delay.lap_ms() > DISTURBED_SHARE * elapsed
            samples.append((elapsed / self._spans.layer_count, disturbed))
            if len(samples) >= effort.min_samples and time.perf_counter() > end:
                break
        return samples

    def _run(self, ids: torch.Tensor, cache: DynamicCache, **inputs: torch.Tensor) -> None:
        caches = {self._cache_keyword: cache}
        self._decoder(input_ids=ids, use_cache=True, **caches, **inputs)

    def _filled_cache(self, sequences: int, tokens: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Returns each layer's keys and values of so many tokens, by running the model on them."""
        if not tokens:
            return []
        cache = DynamicCache(config=self._model.config)
        ids = torch.randint(
            0, self._model.config.vocab_size, (1, tokens), device=self._device.torch_device
        )
        self._run(ids, cache)
        layers: list[Any] = cache.layers
        return [
            (layer.keys.repeat(sequences, 1, 1, 1), layer.values.repeat(sequences, 1, 1, 1))
            for layer in layers
        ]

    def _cache_from(self, filled: list[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
        cache = DynamicCache(config=self._model.config)
        for index, (keys, values) in enumerate(filled):
            cache.update(keys, values, index)
        return cache


class _AfterEachStep(StoppingCriteria):
    """Is called at the end of every step of ``generate()``; never stops it."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told

    def __call__(self, input_ids: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        self._told()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def prepared_run(
    model: PreTrainedModel, point: GeneratePoint, device: Device, told: Callable[[], None]
) -> Callable[[], object]:
    """Returns a greedy ``generate()`` of exactly so many tokens, its random prompt drawn.

    Args:
        model: that runs.
        point: sequences and tokens.
        device: that the model is on.
        told: called at the end of the prompt's pass and of each later step.
    """
    shape = (point.sequences, point.input_tokens)
    ids = torch.randint(0, model.config.vocab_size, shape, device=device.torch_device)
    generate: Any = model.generate
    return partial(
        generate,
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=point.output_tokens,
        stopping_criteria=StoppingCriteriaList([_AfterEachStep(told)]),
    )


@torch.inference_mode()
def generate_once(
    model: PreTrainedModel, point: GeneratePoint, device: Device
) -> tuple[float, list[float], bool]:
    """Runs one greedy ``generate()`` of exactly so many tokens.

    Returns:
        Milliseconds to the first token, of each later step, and whether other
        processes disturbed it.
    """
    watch = Stopwatch(device)
    run = prepared_run(model, point, device, watch.mark)
    device.synchronize()
    delay = RunDelay()
    watch.mark()
    run()
    first, *steps = watch.laps_ms()
    return first, steps, delay.lap_ms() > DISTURBED_SHARE * (first + sum(steps))


def measure_model(
    point: ModelPoint, precision: Precision, device: Device, effort: Effort
) -> Iterator[Measurement]:
    """Builds the point's model and times all that is asked of it.

    Kinds: "layer" (one layer of a pass), "prefill" (a ``generate()`` up to its first
    token) and "decode" (one later step, at the mean context of the run).
    """
    model = build_model(point.architecture, precision, device)
    make = partial(_measurement, point, precision)
    timer = ForwardTimer(model, device)
    for forward in point.forwards:
        samples, disturbed = timer.layer_ms(forward, effort)
        yield make("layer", forward.step, samples, disturbed=disturbed)
    timer.close()
    for run in point.generates:
        generate_once(model, replace(run, output_tokens=2), device)
        firsts, steps, disturbed = repeat_generate(model, run, device, effort)
        prefill = Sequences(
            count=run.sequences, query_tokens=run.input_tokens, kv_tokens=run.input_tokens
        )
        yield make("prefill", prefill, firsts, disturbed=disturbed)
        if steps:
            context = run.input_tokens + run.output_tokens // 2
            decode = Sequences(count=run.sequences, query_tokens=1, kv_tokens=context)
            yield make("decode", decode, steps, disturbed=disturbed)


def repeat_generate(
    model: PreTrainedModel, run: GeneratePoint, device: Device, effort: Effort
) -> tuple[list[float], list[float], bool]:
    """Repeats a run until the effort is spent.

    Returns:
        Milliseconds to the first token and of the mean later step, one a repeat
        (undisturbed ones alone where there are enough), and whether there were not.
    """
    rows: list[tuple[float, list[float], bool]] = []
    end = time.perf_counter() + effort.seconds
    while len(rows) < effort.max_samples:
        rows.append(generate_once(model, run, device))
        if len(rows) >= _FEWEST_RUNS and time.perf_counter() > end:
            break
    clean = [row for row in rows if not row[2]]
    enough = len(clean) >= min(effort.min_samples, len(rows))
    kept = clean if enough else rows
    firsts = [first for first, _, _ in kept]
    means = [sum(steps) / len(steps) for _, steps, _ in kept if steps]
    return firsts, means, not enough


def _measurement(
    point: ModelPoint,
    precision: Precision,
    kind: str,
    step: Sequences,
    samples_ms: list[float],
    *,
    disturbed: bool,
) -> Measurement:
    return Measurement(
        kind=kind,
        precision=precision,
        engine=ENGINE,
        shape=architecture_shape(point.architecture, step),
        latency_ms=distribution(samples_ms),
        group=point.group,
        flags=(DISTURBED_FLAG,) if disturbed else (),
    )


class Decoder(NamedTuple):
    """The part of a model without its head."""

    module: torch.nn.Module
    layers: torch.nn.ModuleList


def decoder(model: PreTrainedModel) -> Decoder:
    """Returns the model without its head and its layers, whatever the family calls them."""
    base: Any = model.base_model
    if base is model:  # the text part of a model that reads images names no base
        base = base.model
    return Decoder(base, getattr(base, "layers", None) or base.h)
