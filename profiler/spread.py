"""Models that are spread over ranks: each one's share, and what they exchange while they run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from model.errors import InvalidFieldError
from profiler.ranks import gather

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model.architecture import Architecture
    from profiler.ranks import Rank

_SUMMED = frozenset({"o_proj", "down_proj", "dense", "fc2", "c_proj", "output", "down"})
"""Linears whose outputs are a rank's part of a sum, as families of transformers and the plain
layers call them."""
_SUMS = 2
"""Of a layer: behind attention and behind the feed-forward."""
_EXPERTS_DIMENSIONS = 3
"""Of the weights of all experts in one, which nothing else of a layer has."""
_SUMMED_BIAS = "down_proj_bias"
"""Biases of experts behind their second product, as families of transformers call them."""


def with_layers_cut(architecture: Architecture, tensor: int) -> Architecture:
    """Returns the architecture with the layers of one tensor-parallel rank, its vocabulary whole.

    Raises:
        InvalidFieldError: ``tensor`` does not fit the heads.
    """
    layers = tuple(replace(g, layer=g.layer.shard(tensor)) for g in architecture.layers)
    return replace(architecture, layers=layers)


def head_rows(vocab_size: int, rank: Rank | None) -> slice:
    """Returns the rows of the head that a rank holds; all hold as many, the last ones padded."""
    if rank is None:
        return slice(0, vocab_size)
    rows = -(-vocab_size // rank.count)
    return slice(rank.index * rows, (rank.index + 1) * rows)


def join_ranks(layers: Iterable[nn.Module], head: nn.Module, rank: Rank, vocab_size: int) -> None:
    """Has layers add up what the ranks compute, and the head return the logits of all.

    In place behind the linears, as serving engines have it, and once behind all experts of a
    layer, shared ones included; a CUDA graph holds it with them. A bias is added once, by the
    first rank. The first pass opens NCCL's connections: it comes before a capture.

    Args:
        layers: of this rank, their heads and widths cut.
        head: of this rank, its outputs those of :func:`head_rows`.
        rank: this one.
        vocab_size: logits that the head returns.

    Raises:
        InvalidFieldError: a layer's parts are called otherwise; names ``tensor``.
    """
    for layer in layers:
        parts = [part for name, child in layer.named_children() for part in _parts(name, child)]
        if len(parts) != _SUMS:
            raise InvalidFieldError(
                "tensor", "these layers cannot be spread over ranks yet; use 1, or Predict"
            )
        for module in parts:
            if rank.index:
                _zero_biases(module)
            module.register_forward_hook(_summed)
    head.register_forward_hook(_Gather(rank.count, vocab_size))


def _parts(name: str, child: nn.Module) -> list[nn.Module]:
    """Returns the modules of a layer's child whose outputs are a rank's part of a sum."""
    if any(weights.dim() == _EXPERTS_DIMENSIONS for weights in child.parameters()):
        return [child]
    return [
        module
        for path, module in child.named_modules(prefix=name)
        if path.rpartition(".")[2] in _SUMMED
    ]


def _zero_biases(module: nn.Module) -> None:
    """Leaves what is added behind the last products of a part to another rank."""
    for name, parameter in module.named_parameters():
        path, _, own = name.rpartition(".")
        is_last = own == "bias" and path.rpartition(".")[2] in {"", *_SUMMED}
        if is_last or own == _SUMMED_BIAS:
            parameter.data.zero_()


def _summed(_module: nn.Module, _inputs: Any, output: Any) -> Any:  # noqa: ANN401 - torch's hook
    # Experts of some families return the router's scores, too.
    dist.all_reduce(output[0] if isinstance(output, tuple) else output)
    return output


class _Gather:
    """Puts the logits of all ranks side by side, (..., their columns) to (..., vocab_size)."""

    def __init__(self, ranks: int, vocab_size: int) -> None:
        self._ranks = ranks
        self._vocab_size = vocab_size

    def __call__(self, _module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch's hook
        rows, *columns = output.shape
        parts = output.new_empty(self._ranks * rows, *columns)
        gather(parts, output.contiguous())
        parts = parts.view(self._ranks, rows, *columns)
        return parts.movedim(0, -2).flatten(-2)[..., : self._vocab_size]
