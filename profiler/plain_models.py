"""Plain decoders timed: passes through their layers and greedy decoding, in graphs on GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch

from profiler.grouped import check_grouped
from profiler.interface import PLAIN_ENGINE
from profiler.overhead import TIMED
from profiler.plain import PlainDecoder, Share
from profiler.timing import (
    DISTURBED_SHARE,
    RunDelay,
    Stopwatch,
    captured,
    sample_runs,
    timing_of,
)
from profiler.wholes import Once, WholePoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.architecture import Architecture
    from model.precision import Precision
    from profiler.device import Device
    from profiler.plain import StaticCache
    from profiler.ranks import Rank
    from profiler.timing import Effort, Run, Timing
    from profiler.wholes import ForwardPoint, GeneratePoint

_GRAPHS = 8
"""Decode steps that are captured of a request, spread over its contexts."""


@dataclass(frozen=True, slots=True)
class PlainModelPoint(WholePoint):
    """A model of plain layers: passes through them, and greedy decoding."""

    engine: ClassVar[str] = PLAIN_ENGINE

    def build(self, precision: Precision, device: Device) -> PlainModel:
        """Returns the model with random weights; memory is taken here."""
        return PlainModel(timed_decoder(self.architecture, precision, device))


def timed_decoder(
    architecture: Architecture, precision: Precision, device: Device, rank: Rank | None = None
) -> PlainDecoder:
    """Returns a decoder that can be timed, on GPUs from graphs; memory is taken here.

    Args:
        architecture: as :class:`PlainDecoder` has it, like the others.
        precision: of weights and activations.
        device: that it runs on.
        rank: whose share it is.

    Raises:
        InvalidFieldError: there is no such decoder, or a graph cannot hold its experts; names
            the field.
        RuntimeError: out of memory.
    """
    if architecture.experts is not None:
        check_grouped(precision, device)
    return PlainDecoder(architecture, precision, device, rank)


class PlainModel:
    """A plain decoder to be timed.

    Args:
        decoder: built.
    """

    def __init__(self, decoder: PlainDecoder) -> None:
        self._decoder = decoder

    def layer(self, point: ForwardPoint, effort: Effort) -> Timing:
        """Returns the timing of one of its layers in a pass, the mean over them."""
        return self.layers(point, effort).per(len(self._decoder.layers))

    def layers(self, point: ForwardPoint, effort: Effort) -> Timing:
        """Returns the timing of all its layers together, in a pass of their own."""
        return timing_of(self.every_pass_ms(point, effort), effort)

    @torch.inference_mode()
    def every_pass_ms(self, point: ForwardPoint, effort: Effort) -> list[tuple[float, bool]]:
        """Returns the milliseconds of all its layers in each pass, and which were disturbed."""
        run = self.pass_of(point)
        with TIMED.running():
            return sample_runs(self._decoder.device, [run], effort, self._decoder.rank)

    @torch.inference_mode()
    def pass_of(self, point: ForwardPoint) -> Run:
        """Returns a pass through all its layers, on GPUs captured; it runs in inference mode."""
        decoder, device = self._decoder, self._decoder.device
        shares = [
            Share(
                decoder.new_cache(alike.count, alike.kv_tokens),
                alike.query_tokens,
                alike.kv_tokens - alike.query_tokens,
            )
            for alike in point.step
        ]
        size = (sum(alike.tokens for alike in point.step), decoder.architecture.hidden_size)
        stream = device.random(*size, dtype=decoder.dtype)
        layers = partial(decoder.run_layers, stream, shares)
        return captured(device, [layers])

    def runs(self, point: GeneratePoint) -> Callable[[], Once]:
        """Returns what decodes a request once; it has been warmed up."""
        request = GreedyRequest(self._decoder, point)
        request.warm_up()
        return request.once


class GreedyRequest:
    """A random prompt of equal sequences and the greedy decode steps behind it.

    On GPUs the prompt's pass and each step are graphs of their own, as a step's context is
    part of a graph; of many steps a few are captured, spread evenly.

    Args:
        decoder: that runs.
        point: sequences and tokens.
        whole: runs a step for each token, those that are not captured by the nearest that is:
            energy is that of a prompt with all its steps. Else each captured one runs once, whose
            mean is that of all.
    """

    @torch.inference_mode()
    def __init__(self, decoder: PlainDecoder, point: GeneratePoint, *, whole: bool = False) -> None:
        self._decoder = decoder
        self._device = device = decoder.device
        last = point.input_tokens + point.output_tokens - 1
        self._cache = decoder.new_cache(point.sequences, max(last, point.input_tokens))
        self._prompt = torch.zeros(
            (point.sequences, point.input_tokens), dtype=torch.long, device=device.torch_device
        )
        self._token = torch.zeros_like(self._prompt[:, :1])
        contexts = range(point.input_tokens, last)
        chosen = spread(contexts, _GRAPHS) if device.is_cuda else contexts
        # None of these holds the request itself: it would live until a collection of garbage.
        step = partial(_step, decoder, self._cache, self._token)
        self._first = captured(device, [partial(step, self._prompt, 0)])
        steps = {
            context: captured(device, [partial(step, self._token, context)]) for context in chosen
        }
        self._steps = [
            steps[context] for context in (nearest(contexts, chosen) if whole else chosen)
        ]

    @torch.inference_mode()
    def once(self) -> Once:
        """Runs the request with another prompt."""
        self._prompt.random_(self._decoder.architecture.vocab_size)
        watch = Stopwatch(self._device)
        self._device.synchronize()
        delay = RunDelay()
        watch.mark()
        self.run(watch.mark)
        first, *steps = watch.laps_ms()
        return Once(first, steps, delay.lap_ms() > DISTURBED_SHARE * (first + sum(steps)))

    @torch.inference_mode()
    def run(self, told: Callable[[], None]) -> None:
        """Decodes the prompt.

        Args:
            told: called behind the prompt's pass and behind each later step.
        """
        for run in (self._first, *self._steps):
            run()
            told()

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Runs the prompt's pass and a step."""
        for run in (self._first, *self._steps[:1]):
            run()


def _step(
    decoder: PlainDecoder, cache: StaticCache, token: torch.Tensor, ids: torch.Tensor, past: int
) -> None:
    """Runs a pass and writes the likeliest next token, in inference mode as its caller is."""
    logits = decoder(ids, cache, past)
    token.copy_(logits.argmax(dim=-1, keepdim=True))


def spread(items: Sequence[int], count: int) -> Sequence[int]:
    """Returns at most so many of the items, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def nearest(items: Sequence[int], chosen: Sequence[int]) -> Sequence[int]:
    """Returns for each item the chosen one that is nearest to it."""
    if len(chosen) == len(items):
        return chosen
    return [min((abs(one - item), one) for one in chosen)[1] for item in items]
