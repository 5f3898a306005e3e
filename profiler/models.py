"""Real layers and real ``generate()`` runs of transformers models with random weights."""

from __future__ import annotations

import inspect
import time
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from transformers import DynamicCache
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList

from profiler.interface import ENGINE
from profiler.modules import build_model
from profiler.overhead import TIMED
from profiler.timing import DISTURBED_SHARE, RunDelay, Stopwatch, timing_of
from profiler.wholes import Once, WholePoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedModel

    from model.precision import Precision
    from profiler.device import Device
    from profiler.timing import Effort, Timing
    from profiler.wholes import ForwardPoint, GeneratePoint


@dataclass(frozen=True, slots=True)
class ModelPoint(WholePoint):
    """A model of transformers: passes through its layers, and real ``generate()`` runs."""

    engine: ClassVar[str] = ENGINE

    def build(self, precision: Precision, device: Device) -> TransformersModel:
        """Returns the model with random weights; memory is taken here."""
        return TransformersModel(build_model(self.architecture, precision, device), device)


class TransformersModel:
    """A model of transformers to be timed.

    Args:
        model: built.
        device: that it is on.
    """

    def __init__(self, model: PreTrainedModel, device: Device) -> None:
        self._model = model
        self._device = device

    def layer(self, point: ForwardPoint, effort: Effort) -> Timing:
        """Returns the timing of one of its layers in a pass, the mean over them."""
        timer = ForwardTimer(self._model, self._device)
        try:
            return timer.layer(point, effort)
        finally:
            timer.close()

    def runs(self, point: GeneratePoint) -> Callable[[], Once]:
        """Returns what runs ``generate()`` once; it has been warmed up.

        At every context: on GPUs cuDNN plans its attention for each length that it meets first.
        """
        generate_once(self._model, point, self._device)
        return partial(generate_once, self._model, point, self._device)


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

    def layer(self, point: ForwardPoint, effort: Effort) -> Timing:
        """Returns the timing of one layer in a pass."""
        return timing_of(self.every_layer_ms(point, effort), effort)

    @torch.inference_mode()
    def every_layer_ms(self, point: ForwardPoint, effort: Effort) -> list[tuple[float, bool]]:
        """Returns one layer's milliseconds in each pass, and whether that was disturbed.

        Raises:
            ValueError: sequences decode beside others, which these modules do not.
        """
        if point.decoding:
            raise ValueError("modules of transformers run equal sequences alone")
        filled = self._filled_cache(point)
        samples: list[tuple[float, bool]] = []
        end = 0.0
        for repeat in range(effort.max_samples + 1):
            run = self._pass(point, filled)
            self._spans.reset()
            delay = RunDelay()
            with TIMED.running():
                run()
                (elapsed,) = self._spans.milliseconds()
            if repeat == 0:  # warm-up
                end = time.perf_counter() + effort.seconds
                continue
            disturbed = delay.lap_ms() > DISTURBED_SHARE * elapsed
            samples.append((elapsed / self._spans.layer_count, disturbed))
            if len(samples) >= effort.min_samples and time.perf_counter() > end:
                break
        return samples

    @torch.inference_mode()
    def once(self, point: ForwardPoint) -> Callable[[], object]:
        """Returns a pass that runs once, in inference mode: its cache then holds its tokens.

        It is the whole decoder's, its embedding and final norm included; the head is left out.
        """
        return self._pass(point, self._filled_cache(point))

    def _pass(
        self, point: ForwardPoint, filled: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> Callable[[], object]:
        # Other tokens each time: they meet other experts, cold ones.
        shape = (point.sequences, point.query_tokens)
        device = self._device.torch_device
        ids = torch.randint(0, self._model.config.vocab_size, shape, device=device)
        past = point.kv_tokens - point.query_tokens
        positions = torch.arange(past, point.kv_tokens, device=device).unsqueeze(0)
        return partial(self._run, ids, self._cache_from(filled), position_ids=positions)

    def _run(self, ids: torch.Tensor, cache: DynamicCache, **inputs: torch.Tensor) -> None:
        caches = {self._cache_keyword: cache}
        self._decoder(input_ids=ids, use_cache=True, **caches, **inputs)

    def _filled_cache(self, point: ForwardPoint) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Returns each layer's keys and values before a pass, by running the model on tokens."""
        sequences, tokens = point.sequences, point.kv_tokens - point.query_tokens
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
def generate_once(model: PreTrainedModel, point: GeneratePoint, device: Device) -> Once:
    """Runs one greedy ``generate()`` of exactly so many tokens."""
    watch = Stopwatch(device)
    run = prepared_run(model, point, device, watch.mark)
    device.synchronize()
    delay = RunDelay()
    watch.mark()
    run()
    first, *steps = watch.laps_ms()
    return Once(first, steps, delay.lap_ms() > DISTURBED_SHARE * (first + sum(steps)))


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
