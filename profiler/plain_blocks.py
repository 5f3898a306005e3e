"""Layers of plain torch: fused projections, a cache written in place, experts as grouped products.

A pass launches no more than torch needs, synchronises with nothing and reads no size off the
device, so that a CUDA graph can hold it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch import nn
from torch.nn.attention.bias import causal_lower_right

from model.architecture import Norm
from model.blocks import Activation, Attention, Experts, FeedForward
from model.errors import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.architecture import Architecture, Layer
    from profiler.device import Device

_NORMS = 2
"""Of a layer: before attention and before the feed-forward."""
_THETA = 10_000.0
_ACTIVATIONS: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    Activation.SILU: F.silu,
    Activation.GELU: lambda x: F.gelu(x, approximate="tanh"),
    Activation.RELU: F.relu,
}


def check_plain(architecture: Architecture) -> None:
    """Checks that plain layers have all that an architecture asks for.

    Raises:
        InvalidFieldError: they lack a block; names ``model``.
    """
    for group in architecture.layers:
        layer = group.layer
        heads = layer.attention
        lacking = ""
        if not isinstance(heads, Attention) or heads.output_gate:
            lacking = "latent, linear or gated attention"
        elif isinstance(layer.feed_forward, Experts) and not _is_plain(layer.feed_forward):
            lacking = "experts with biases or without gates"
        elif layer.norms != _NORMS:
            lacking = f"{layer.norms} norms a layer"
        elif heads.head_dim % 2 and not architecture.learned_positions:
            lacking = f"rotary positions of heads {heads.head_dim} wide, which are odd"
        if lacking:
            raise InvalidFieldError(
                "model",
                f"the plain layers of engine torch have no {lacking}; use engine transformers",
            )


class Rotary:
    """Rotary positions (RoFormer, arXiv 2104.09864, section 3.2): a table over tokens.

    Args:
        head_dim: width of a head, even.
        tokens: positions from zero on.
        dtype: of what is rotated.
        device: that the table is on.
    """

    def __init__(self, head_dim: int, tokens: int, dtype: torch.dtype, device: Device) -> None:
        where = device.torch_device
        steps = torch.arange(0, head_dim, 2, device=where).float() / head_dim
        angles = torch.outer(torch.arange(tokens, device=where).float(), _THETA**-steps)
        self._cosines = torch.cat([angles.cos()] * 2, dim=-1).to(dtype)[:, None]
        self._sines = torch.cat([-angles.sin(), angles.sin()], dim=-1).to(dtype)[:, None]

    def __call__(self, heads: torch.Tensor, first: int) -> torch.Tensor:
        """Returns heads turned to their positions.

        Args:
            heads: (sequences, tokens, heads, head_dim), its halves the pairs' parts.
            first: position of the first token.
        """
        tokens = slice(first, first + heads.shape[1])
        swapped = heads.roll(heads.shape[-1] // 2, dims=-1)
        return torch.addcmul(heads * self._cosines[tokens], swapped, self._sines[tokens])


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    past: int,
    window: int | None = None,
) -> torch.Tensor:
    """Writes new tokens into a cache in place and returns their attention to all up to them.

    Args:
        query: (sequences, tokens, query_heads, head_dim).
        key: (sequences, tokens, kv_heads, head_dim).
        value: alike.
        keys: (sequences, kv_heads, capacity, head_dim), those of the cache.
        values: alike.
        past: tokens that it holds before.
        window: keys that a query sees at most; None: all.

    Returns:
        (sequences, tokens, query_heads x head_dim).
    """
    sequences, tokens, heads, _ = query.shape
    end = past + tokens
    keys[:, :, past:end] = key.transpose(1, 2)
    values[:, :, past:end] = value.transpose(1, 2)
    begin = max(0, past + 1 - window) if window else 0
    seen_keys, seen_values = keys[:, :, begin:end], values[:, :, begin:end]
    if tokens == 1:
        # The heads that share a key are the rows of one product.
        grouped = query.view(sequences, key.shape[2], heads // key.shape[2], -1)
        output = F.scaled_dot_product_attention(grouped, seen_keys, seen_values)
        return output.reshape(sequences, 1, -1)
    mask = None
    if window and end > window:
        mask = _band(tokens, past, begin, window, query.device)
    elif past:
        mask = causal_lower_right(tokens, end)
    output = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        seen_keys,
        seen_values,
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=heads != key.shape[2],
    )
    return output.transpose(1, 2).reshape(sequences, tokens, -1)


class PlainLayer(nn.Module):
    """Attention and feed-forward, each behind a norm, added to the residual stream."""

    def __init__(self, hidden_size: int, layer: Layer) -> None:
        super().__init__()
        self.attention_norm = norm_of(layer.norm, hidden_size)
        self.attention = PlainAttention(hidden_size, attention_of(layer))
        self.feed_forward_norm = norm_of(layer.norm, hidden_size)
        block = layer.feed_forward
        self.feed_forward = (
            PlainExperts(hidden_size, block)
            if isinstance(block, Experts)
            else PlainFeedForward(hidden_size, block)
        )

    def forward(
        self,
        stream: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        rotary: dict[int, Rotary],
        past: int,
    ) -> torch.Tensor:
        """Returns the stream behind the layer; writes keys and values in place."""
        attended = self.attention(self.attention_norm(stream), keys, values, rotary, past)
        stream = stream + attended
        result: torch.Tensor = stream + self.feed_forward(self.feed_forward_norm(stream))
        return result


class PlainAttention(nn.Module):
    """Attention with grouped heads over a cache that is written in place."""

    def __init__(self, hidden_size: int, heads: Attention) -> None:
        super().__init__()
        self._heads = heads
        query, kv = heads.query_heads * heads.head_dim, heads.kv_heads * heads.head_dim
        self.qkv = nn.Linear(hidden_size, query + 2 * kv, bias=heads.qkv_bias)
        self.output = nn.Linear(query, hidden_size, bias=heads.output_bias)
        self.query_norm = norm_of(Norm.RMS, heads.head_dim) if heads.qk_norm else None
        self.key_norm = norm_of(Norm.RMS, heads.head_dim) if heads.qk_norm else None

    def forward(
        self,
        stream: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        rotary: dict[int, Rotary],
        past: int,
    ) -> torch.Tensor:
        """Returns the attention of (sequences, tokens, hidden_size) to all tokens up to them."""
        heads = self._heads
        qkv = self.qkv(stream).unflatten(-1, (-1, heads.head_dim))
        both, value = qkv.split([heads.query_heads + heads.kv_heads, heads.kv_heads], dim=2)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = both.split([heads.query_heads, heads.kv_heads], dim=2)
            both = torch.cat([self.query_norm(query), self.key_norm(key)], dim=2)
        if rotary:
            both = rotary[heads.head_dim](both, past)
        query, key = both.split([heads.query_heads, heads.kv_heads], dim=2)
        attended = attend(query, key, value, keys, values, past, heads.window)
        result: torch.Tensor = self.output(attended)
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


def _is_plain(block: Experts) -> bool:
    return block.expert.gated and not block.expert.bias


def attention_of(layer: Layer) -> Attention:
    """Returns the heads of a layer that :func:`check_plain` has passed."""
    assert isinstance(layer.attention, Attention)  # noqa: S101 - checked before
    return layer.attention


def norm_of(kind: Norm, width: int) -> nn.Module:
    """Returns a norm over so many values."""
    return nn.RMSNorm(width, eps=1e-6) if kind is Norm.RMS else nn.LayerNorm(width)


def _band(tokens: int, past: int, begin: int, window: int, device: torch.device) -> torch.Tensor:
    """Returns which keys from ``begin`` on each new token sees, (tokens, keys)."""
    queries = torch.arange(past, past + tokens, device=device)[:, None]
    keys = torch.arange(begin, past + tokens, device=device)[None, :]
    return (keys <= queries) & (keys > queries - window)
