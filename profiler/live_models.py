"""What a live measurement runs: a model of either engine, scaled to its whole depth."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch.distributed as dist
from torch._dynamo.exc import TorchDynamoException

from model.errors import InvalidFieldError
from model.estimate import Phase
from profiler.interface import PLAIN_ENGINE
from profiler.models import ForwardTimer, LayerSpans, generate_once, prepared_run
from profiler.modules import build_model
from profiler.plain_models import GreedyRequest, PlainModel, timed_decoder
from profiler.tensor_parallel import build_share, fixed_effort
from profiler.texts import one_line
from profiler.timing import Effort
from profiler.tracing import trace_run
from profiler.wholes import ForwardPoint, Once

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedModel

    from model.architecture import Architecture
    from profiler.device import Device
    from profiler.interface import LiveRequest, TracedPhase
    from profiler.plain import PlainDecoder
    from profiler.ranks import Rank
    from profiler.wholes import GeneratePoint

_LAYERS_EFFORT = Effort(seconds=0.5, min_samples=5, max_samples=50)
_RANKS_EFFORT = fixed_effort(15)


class LiveModel(Protocol):
    """A built model that stands for a deeper one of the same layers."""

    def warm_up(self, point: GeneratePoint) -> Once:
        """Runs the request's first two tokens."""

    def runs(self, point: GeneratePoint) -> Callable[[], Once]:
        """Returns what runs a request once, its milliseconds those of the whole depth."""

    def trace(self, point: GeneratePoint, path: Path | None) -> tuple[TracedPhase, ...]:
        """Runs what is built once under torch's profiler.

        Args:
            point: sequences and tokens.
            path: that the trace is written to; None: it is not.

        Raises:
            OSError, RuntimeError: the trace cannot be written.
        """


def live_model(
    request: LiveRequest,
    built: Architecture,
    whole: Architecture,
    device: Device,
    rank: Rank | None = None,
) -> LiveModel:
    """Returns a model with random weights; memory is taken here.

    Args:
        request: whose engine, precision and compilation count.
        built: the architecture that runs.
        whole: that it stands for, with as many groups of layers.
        device: where to run.
        rank: whose share runs, joined with the others'; None: all that is built.

    Raises:
        InvalidFieldError: the modules lack a block of the architecture, cannot be cut so, or
            cannot be timed in the precision there.
        RuntimeError: out of memory.
    """
    precision = request.precision
    if request.engine != PLAIN_ENGINE:
        if rank is None:
            return _Transformers(build_model(built, precision, device), built, whole, device)
        share = build_share(built, precision, rank)
        return _Together(_Transformers(share, built, whole, device), rank)
    decoder = timed_decoder(built, precision, device, rank)
    missing = whole.layer_count / built.layer_count - 1
    kind = _Plain
    if request.torch_compile:
        decoder.compile_layers()
        kind = _Compiled
    if rank is None:
        return kind(decoder, missing)
    return _Together(kind(decoder, missing, _RANKS_EFFORT), rank)


class _Together:
    """What runs on several ranks; the slowest of them counts.

    Args:
        model: the share of this rank; it runs as often on all ranks.
        rank: this one.
    """

    def __init__(self, model: LiveModel, rank: Rank) -> None:
        self._model = model
        self._rank = rank

    def warm_up(self, point: GeneratePoint) -> Once:
        """Runs the request's first two tokens."""
        return self._slowest(partial(self._model.warm_up, point))

    def runs(self, point: GeneratePoint) -> Callable[[], Once]:
        """Returns what runs a request once."""
        return partial(self._slowest, self._model.runs(point))

    def trace(self, point: GeneratePoint, path: Path | None) -> tuple[TracedPhase, ...]:
        """Runs what is built once under torch's profiler; the first rank writes its trace.

        The profiler slows all ranks alike: else the one that has it would never wait.
        """
        return self._model.trace(point, None if self._rank.index else path)

    def _slowest(self, run: Callable[[], Once]) -> Once:
        dist.barrier()  # none waits in its first exchange for one that is not ready
        first, steps, disturbed = run()
        first, lost, *steps = self._rank.slowest([first, disturbed, *steps])
        return Once(first, steps, bool(lost))


class _Transformers:
    """``generate()``; each kind of layer is timed in it and scaled to its own depth."""

    def __init__(
        self, model: PreTrainedModel, built: Architecture, whole: Architecture, device: Device
    ) -> None:
        self._model = model
        self._device = device
        self._counts = [group.count for group in built.layers]
        self._missing = whole.layer_count / built.layer_count - 1
        pairs = zip(whole.layers, built.layers, strict=True)
        self._scales = [of_whole.count / group.count for of_whole, group in pairs]

    def warm_up(self, point: GeneratePoint) -> Once:
        """Runs the request's first two tokens; on GPUs once more, as kernels are planned first."""
        once = partial(generate_once, self._model, replace(point, output_tokens=2), self._device)
        if self._device.is_cuda:
            once()
        return once()

    def runs(self, point: GeneratePoint) -> Callable[[], Once]:
        """Returns what runs ``generate()`` once."""
        return partial(self._once, point)

    def trace(self, point: GeneratePoint, path: Path | None) -> tuple[TracedPhase, ...]:
        """Runs ``generate()`` once under torch's profiler."""

        def run(told: Callable[[], None]) -> None:
            prepared_run(self._model, point, self._device, told)()

        layers: dict[Phase, Callable[[], object]] = {}
        if self._missing:
            timer = ForwardTimer(self._model, self._device)
            layers = {phase: timer.once(forward) for phase, forward in _passes(point).items()}
            timer.close()
        return trace_run(run, self._device, path, layers, self._missing)

    def _once(self, point: GeneratePoint) -> Once:
        spans = LayerSpans(self._model, self._device, self._counts)
        first, steps, disturbed = generate_once(self._model, point, self._device)
        spans.close()
        scaled = [
            total + sum((scale - 1) * ms for scale, ms in zip(self._scales, groups, strict=True))
            for total, groups in zip([first, *steps], spans.by_group(), strict=True)
        ]
        return Once(scaled[0], scaled[1:], disturbed)


class _Plain:
    """Greedy decoding; all layers together are timed beside it and scaled.

    Args:
        decoder: built.
        missing: layers that were not built, as a multiple of those that were.
        effort: that goes into timing those that were.
    """

    def __init__(
        self, decoder: PlainDecoder, missing: float, effort: Effort = _LAYERS_EFFORT
    ) -> None:
        self._decoder = decoder
        self._missing = missing
        self._effort = effort

    def warm_up(self, point: GeneratePoint) -> Once:
        """Runs the request's first two tokens."""
        return GreedyRequest(self._decoder, replace(point, output_tokens=2)).once()

    def runs(self, point: GeneratePoint) -> Callable[[], Once]:
        """Returns what decodes a request once."""
        missing = [self._missing_ms(forward) for forward in _passes(point).values()]
        return partial(_deepened, self._request(point), *missing)

    def trace(self, point: GeneratePoint, path: Path | None) -> tuple[TracedPhase, ...]:
        """Decodes a request once under torch's profiler."""
        request = GreedyRequest(self._decoder, point)
        layers: dict[Phase, Callable[[], object]] = {}
        if self._missing:
            model = PlainModel(self._decoder)
            layers = {phase: model.pass_of(forward) for phase, forward in _passes(point).items()}
        return trace_run(request.run, self._decoder.device, path, layers, self._missing)

    def _request(self, point: GeneratePoint) -> GreedyRequest:
        # Energy is told of whole models alone; the mean step of others needs no more than a few.
        return GreedyRequest(self._decoder, point, whole=not self._missing)

    def _missing_ms(self, forward: ForwardPoint) -> float:
        if not self._missing:
            return 0.0
        timing = PlainModel(self._decoder).layers(forward, self._effort)
        return self._missing * timing.distribution.median


class _Compiled(_Plain):
    """The same, its layers compiled while it warms up."""

    def warm_up(self, point: GeneratePoint) -> Once:
        """Runs the request's first two tokens, after all that is compiled for it.

        Raises:
            InvalidFieldError: torch cannot compile here; names ``torch_compile``.
        """
        try:
            # Its first step is compiled for that context, its second for any; a cache of another
            # length than the first for any length.
            tokens = min(3, point.output_tokens)
            GreedyRequest(self._decoder, replace(point, output_tokens=tokens)).once()
            super().warm_up(point)
        except TorchDynamoException as error:
            raise InvalidFieldError(
                "torch_compile", f"torch cannot compile here ({one_line(error)}); leave it out"
            ) from error
        return super().warm_up(point)

    def _request(self, point: GeneratePoint) -> GreedyRequest:
        request = super()._request(point)
        # A step that does not fill its cache is compiled apart from those of the warm-up, which do.
        request.warm_up()
        return request


def _passes(point: GeneratePoint) -> dict[Phase, ForwardPoint]:
    """Returns the prompt's pass of a request and the one of its mean later step."""
    context = point.input_tokens + point.output_tokens // 2
    return {
        Phase.PREFILL: ForwardPoint(point.sequences, point.input_tokens, point.input_tokens),
        Phase.DECODE: ForwardPoint(point.sequences, 1, context),
    }


def _deepened(request: GreedyRequest, first_ms: float, step_ms: float) -> Once:
    once = request.once()
    return Once(
        once.first_ms + first_ms, [step + step_ms for step in once.steps_ms], once.disturbed
    )
