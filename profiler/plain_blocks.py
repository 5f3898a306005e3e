"""Layers of plain torch: fused projections, a cache written in place, experts as grouped products.

A pass launches no more than torch needs, synchronises with nothing and reads no size off the
device, so that a CUDA graph can hold it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch import nn

from model.blocks import Activation, Attention, Experts, FeedForward, LatentAttention
from profiler.plain_attention import Part, PlainAttention, norm_of
from profiler.plain_latent import PlainLatentAttention

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.architecture import Layer
    from model.blocks import AnyAttention

_ACTIVATIONS: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    Activation.SILU: F.silu,
    Activation.GELU: lambda x: F.gelu(x, approximate="tanh"),
    Activation.RELU: F.relu,
}


class PlainLayer(nn.Module):
    """Attention and feed-forward, each behind a norm, added to the residual stream."""

    def __init__(self, hidden_size: int, layer: Layer) -> None:
        super().__init__()
        self.attention_norm = norm_of(layer.norm, hidden_size)
        heads = layer.attention
        self.attention = (
            PlainLatentAttention(hidden_size, heads)
            if isinstance(heads, LatentAttention)
            else PlainAttention(hidden_size, _plain(heads))
        )
        self.feed_forward_norm = norm_of(layer.norm, hidden_size)
        block = layer.feed_forward
        self.feed_forward = (
            PlainExperts(hidden_size, block)
            if isinstance(block, Experts)
            else PlainFeedForward(hidden_size, block)
        )

    def forward(self, stream: torch.Tensor, parts: Sequence[Part]) -> torch.Tensor:
        """Returns the stream behind the layer; what is kept of its tokens is written in place.

        Args:
            stream: (tokens of all parts, hidden_size).
            parts: one after the other.
        """
        attended = self.attention(self.attention_norm(stream), parts)
        stream = stream + attended
        result: torch.Tensor = stream + self.feed_forward(self.feed_forward_norm(stream))
        return result


class PlainFeedForward(nn.Module):
    """A dense feed-forward, its gate and up projection one."""

    def __init__(self, hidden_size: int, block: FeedForward) -> None:
        super().__init__()
        inner = block.intermediate_size
        self._gated = block.gated
        self._activate = _ACTIVATIONS[block.activation]
        self.up = nn.Linear(hidden_size, (1 + block.gated) * inner, bias=block.bias)
        self.down = nn.Linear(inner, hidden_size, bias=block.bias)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        """Returns (..., hidden_size) of (..., hidden_size)."""
        inner = self.up(stream)
        if self._gated:
            gate, up = inner.chunk(2, dim=-1)
            inner = self._activate(gate).mul_(up)
        else:
            inner = self._activate(inner)
        result: torch.Tensor = self.down(inner)
        return result


class PlainExperts(nn.Module):
    """Routed experts as two grouped products over tokens in the experts' order.

    Each token goes to the experts of the best scores, weighted by their softmax (Mixtral, arXiv
    2401.04088, section 2.1); other ways to score take no other kernels.
    """

    def __init__(self, hidden_size: int, block: Experts) -> None:
        super().__init__()
        inner = block.expert.intermediate_size
        self._top_k = block.top_k
        self._activate = _ACTIVATIONS[block.expert.activation]
        self.router = nn.Linear(hidden_size, block.count, bias=block.router_bias)
        self.up = nn.Parameter(torch.empty(block.count, 2 * inner, hidden_size))
        self.down = nn.Parameter(torch.empty(block.count, hidden_size, inner))
        self.shared = PlainFeedForward(hidden_size, block.shared) if block.shared else None

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        """Returns (..., hidden_size) of (..., hidden_size)."""
        tokens = stream.flatten(0, -2)
        scores, chosen = self.router(tokens).float().topk(self._top_k, dim=-1)
        shares = scores.softmax(dim=-1).to(tokens.dtype).flatten()
        of_experts, order = chosen.flatten().sort()
        experts = torch.arange(len(self.up), device=tokens.device)
        ends = torch.searchsorted(of_experts, experts, right=True).to(torch.int32)
        rows = order // self._top_k
        inner = F.grouped_mm(tokens[rows], self.up.transpose(1, 2), offs=ends)
        gate, up = inner.chunk(2, dim=-1)
        output = F.grouped_mm(self._activate(gate) * up, self.down.transpose(1, 2), offs=ends)
        result = torch.zeros_like(tokens).index_add_(0, rows, output * shares[order, None])
        if self.shared is not None:
            result = result + self.shared(tokens)
        return result.view_as(stream)


def cache_shapes(heads: AnyAttention, tokens: int) -> tuple[tuple[int, ...], ...]:
    """Returns the shapes of what is kept of so many tokens of one sequence."""
    if isinstance(heads, LatentAttention):
        return ((tokens, heads.cached_values),)
    plain = _plain(heads)
    return ((plain.kv_heads, tokens, plain.head_dim),) * 2


def _plain(heads: AnyAttention) -> Attention:
    assert isinstance(heads, Attention)  # noqa: S101 - check_plain has passed it
    return heads
