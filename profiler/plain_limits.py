"""Which architectures the engine torch's plain layers run, told without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.blocks import Attention, Experts, LatentAttention, LinearAttention
from model.errors import InvalidFieldError

if TYPE_CHECKING:
    from model.architecture import Architecture, Layer
    from model.blocks import AnyAttention

_NORMS = 2
"""Of a layer: before attention and before the feed-forward."""


def check_plain(architecture: Architecture) -> None:
    """Checks that plain layers have all that an architecture asks for.

    Raises:
        InvalidFieldError: they lack a block; names ``model``.
    """
    for group in architecture.layers:
        lacking = _lacking(group.layer)
        width = rotated(group.layer.attention)
        if not lacking and width % 2 and not architecture.learned_positions:
            lacking = f"rotary positions of an odd width, {width}"
        if lacking:
            raise InvalidFieldError(
                "model",
                f"the plain layers of engine torch have no {lacking}; use engine transformers",
            )


def rotated(heads: AnyAttention) -> int:
    """Returns how much of a head has rotary positions, 0 where there are no such heads."""
    if isinstance(heads, LatentAttention):
        return heads.rope_dim
    return heads.head_dim if isinstance(heads, Attention) else 0


def _lacking(layer: Layer) -> str:
    heads = layer.attention
    if isinstance(heads, LinearAttention) or (
        heads.indexer if isinstance(heads, LatentAttention) else heads.output_gate
    ):
        return "sparse, linear or gated attention"
    block = layer.feed_forward
    if isinstance(block, Experts) and (block.expert.bias or not block.expert.gated):
        return "experts with biases or without gates"
    return f"{layer.norms} norms a layer" if layer.norms != _NORMS else ""
