"""Times layers that are spread over ranks, their sums included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from profiler.interface import ENGINE, PLAIN_ENGINE
from profiler.models import ForwardTimer, decoder
from profiler.modules import build_model
from profiler.plain_models import PlainModel, timed_decoder
from profiler.spread import join_ranks
from profiler.timing import Effort, distribution

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedModel

    from model.architecture import Architecture
    from model.measurement import Distribution
    from model.precision import Precision
    from profiler.ranks import Rank
    from profiler.wholes import ForwardPoint

    _Passes = Callable[[ForwardPoint, Effort], list[tuple[float, bool]]]


def layer_latencies(
    rank: Rank,
    architecture: Architecture,
    points: Sequence[ForwardPoint],
    precision: Precision,
    samples: int = 25,
    engine: str = ENGINE,
) -> list[Distribution]:
    """Returns the milliseconds of one layer of each pass, as the slowest rank saw it.

    Args:
        rank: this one; all ranks call this alike.
        architecture: the whole model; each rank builds its share.
        points: passes through the layers.
        precision: of weights and activations.
        samples: of each pass.
        engine: whose layers: "transformers" or "torch".

    Raises:
        InvalidFieldError: the architecture cannot be cut into so many ranks.
    """
    build = _plain_passes if engine == PLAIN_ENGINE else _eager_passes
    passes = build(rank, architecture, precision)
    effort = fixed_effort(samples)
    found = []
    for point in points:
        dist.barrier()
        # Disturbed ones, too: a rank that waits for another's message looks as one that waits
        # for a core.
        every = [ms for ms, _ in passes(point, effort)]
        found.append(distribution(rank.slowest(every)))
    return found


def fixed_effort(samples: int) -> Effort:
    """Returns an effort of so many samples: one more on one of the ranks would wait for ever."""
    return Effort(seconds=0.0, min_samples=samples, max_samples=samples)


def build_share(architecture: Architecture, precision: Precision, rank: Rank) -> PreTrainedModel:
    """Returns a rank's share of a model of transformers, joined with the others'.

    Raises:
        InvalidFieldError: it cannot be cut so.
        RuntimeError: out of memory.
    """
    model = build_model(architecture, precision, rank.device, rank)
    untyped: Any = model
    head = untyped.get_output_embeddings()
    join_ranks(decoder(model).layers, head, rank, model.config.vocab_size)
    return model


def _eager_passes(rank: Rank, architecture: Architecture, precision: Precision) -> _Passes:
    return ForwardTimer(build_share(architecture, precision, rank), rank.device).every_layer_ms


def _plain_passes(rank: Rank, architecture: Architecture, precision: Precision) -> _Passes:
    model = PlainModel(timed_decoder(architecture, precision, rank.device, rank))

    def passes(point: ForwardPoint, effort: Effort) -> list[tuple[float, bool]]:
        every = model.every_pass_ms(point, effort)
        return [(ms / architecture.layer_count, disturbed) for ms, disturbed in every]

    return passes
