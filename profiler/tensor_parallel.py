"""Times layers that are spread over ranks, their sums included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from profiler.models import ForwardTimer, decoder
from profiler.modules import build_model, shard
from profiler.timing import Effort, distribution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from model.architecture import Architecture
    from model.measurement import Distribution
    from model.precision import Precision
    from profiler.models import ForwardPoint
    from profiler.ranks import Rank

_SUMMED = ("o_proj", "down_proj")
"""Modules whose outputs are a rank's part of a sum."""


def layer_latencies(
    rank: Rank,
    architecture: Architecture,
    points: Sequence[ForwardPoint],
    precision: Precision,
    samples: int = 9,
) -> list[Distribution]:
    """Returns the milliseconds of one layer of each pass, as the slowest rank saw it.

    Args:
        rank: this one; all ranks call this alike.
        architecture: the whole model, of dense layers; each rank builds its share.
        points: passes through the layers.
        precision: of weights and activations.
        samples: of each pass.

    Raises:
        InvalidFieldError: the architecture cannot be cut into so many ranks.
    """
    model = build_model(shard(architecture, rank.count), precision, rank.device)
    _sum_parts(model)
    timer = ForwardTimer(model, rank.device)
    # As many passes on every rank: one more on one of them would wait for ever.
    effort = Effort(seconds=0.0, min_samples=samples, max_samples=samples)
    found = []
    for point in points:
        dist.barrier()
        # Undisturbed ones would be others on each rank.
        every, _ = timer.every_layer_ms(point, effort)
        found.append(distribution(rank.slowest(every)))
    timer.close()
    return found


def _sum_parts(model: PreTrainedModel) -> None:
    for layer in decoder(model).layers:
        for name, module in layer.named_modules():
            if name.rpartition(".")[2] in _SUMMED:
                module.register_forward_hook(_summed)


def _summed(_module: Any, _inputs: Any, output: Any) -> Any:  # noqa: ANN401 - torch's hook
    dist.all_reduce(output)
    return output
