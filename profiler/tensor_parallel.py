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
    from profiler.ranks import Rank
    from profiler.wholes import ForwardPoint

_FEWEST_CLEAN = 5
"""Passes that a median needs, disturbed ones where there are too few others."""
_SUMMED = ("o_proj", "down_proj")
"""Modules whose outputs are a rank's part of a sum."""


def layer_latencies(
    rank: Rank,
    architecture: Architecture,
    points: Sequence[ForwardPoint],
    precision: Precision,
    samples: int = 25,
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
        every, disturbed = zip(*timer.every_layer_ms(point, effort), strict=True)
        # The same passes count on all ranks: what disturbs one holds up the others.
        pairs = zip(rank.slowest(every), rank.slowest(disturbed), strict=True)
        passes = sorted(pairs, key=lambda pair: pair[1])
        clean = sum(1 for _, lost in passes if not lost)
        kept = passes[: max(clean, _FEWEST_CLEAN)]
        found.append(distribution([ms for ms, _ in kept]))
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
