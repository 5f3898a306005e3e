"""A decoder of plain torch layers: what the engine ``torch`` runs.

Query, key and value are one projection, gate and up another; the cache is allocated once and
written in place. A pass launches no more than torch needs, synchronises with nothing and reads
no size off the device, so that a CUDA graph can hold it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch import nn
from torch.nn.attention.bias import causal_lower_right

from model.architecture import Norm
from model.blocks import Activation, Attention, FeedForward
from model.errors import InvalidFieldError
from profiler.device import dtype_of, fill_random
from profiler.packed import PACKED, pack_linears

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.architecture import Architecture, Layer
    from model.precision import Precision
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
        elif not isinstance(layer.feed_forward, FeedForward):
            lacking = "mixtures of experts"
        elif layer.norms != _NORMS:
            lacking = f"{layer.norms} norms a layer"
        elif heads.head_dim % 2 and not architecture.learned_positions:
            lacking = f"rotary positions of heads {heads.head_dim} wide, which are odd"
        if lacking:
            raise InvalidFieldError(
                "model",
                f"the plain layers of engine torch have no {lacking}; use engine transformers",
            )


class StaticCache:
    """Keys and values of every layer, allocated once, and the rotary positions of each token.

    Args:
        architecture: whose layers; of plain attention.
        sequences: that are decoded together.
        tokens: that each of them may hold.
        dtype: of keys and values.
        device: that they are on.

    Attributes:
        keys, values: one a layer, (sequences, kv_heads, tokens, head_dim), random.
        cosines, sines: (tokens, head_dim / 2) of each size of heads.
    """

    def __init__(
        self,
        architecture: Architecture,
        sequences: int,
        tokens: int,
        dtype: torch.dtype,
        device: Device,
    ) -> None:
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.rotary: dict[int, Rotary] = {}
        for layer in layers_of(architecture):
            heads = attention_of(layer)
            for kept in (self.keys, self.values):
                kept.append(
                    device.random(sequences, heads.kv_heads, tokens, heads.head_dim, dtype=dtype)
                )
            if heads.head_dim not in self.rotary and not architecture.learned_positions:
                self.rotary[heads.head_dim] = Rotary(heads.head_dim, tokens, dtype, device)


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


class PlainDecoder(nn.Module):
    """A decoder with random weights.

    Args:
        architecture: of plain attention and dense feed-forwards.
        precision: of weights and activations.
        device: that it runs on; memory is taken here.

    Raises:
        InvalidFieldError: it lacks a block of the architecture, or plain torch does not run in
            the precision.
        RuntimeError: out of memory.
    """

    def __init__(self, architecture: Architecture, precision: Precision, device: Device) -> None:
        super().__init__()
        check_plain(architecture)
        self.architecture = architecture
        self.dtype = dtype_of(precision)
        self.device = device
        hidden, vocab = architecture.hidden_size, architecture.vocab_size
        default = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            with torch.device("meta"):
                self.embedding = nn.Embedding(vocab, hidden)
                learned = architecture.learned_positions
                self.positions = nn.Embedding(learned, hidden) if learned else None
                self.layers = nn.ModuleList(
                    PlainLayer(hidden, layer) for layer in layers_of(architecture)
                )
                self.norm = _norm(architecture.norm, hidden)
                self.head = nn.Linear(hidden, vocab, bias=architecture.head_bias)
        finally:
            torch.set_default_dtype(default)
        self.to_empty(device=device.torch_device)
        with torch.no_grad():
            for parameter in self.parameters():
                fill_random(parameter)
            if precision in PACKED:
                pack_linears(self, precision)
            elif architecture.tied_embeddings:
                self.head.weight = self.embedding.weight
        self.requires_grad_(requires_grad=False)

    def new_cache(self, sequences: int, tokens: int) -> StaticCache:
        """Returns a cache of random keys and values."""
        return StaticCache(self.architecture, sequences, tokens, self.dtype, self.device)

    def embed(self, ids: torch.Tensor, past: int) -> torch.Tensor:
        """Returns the residual stream of token ids, (sequences, tokens) to (..., hidden_size)."""
        stream: torch.Tensor = self.embedding(ids)
        if self.positions is None:
            return stream
        return stream + self.positions.weight[past : past + ids.shape[1]]

    def run_layers(self, stream: torch.Tensor, cache: StaticCache, past: int) -> torch.Tensor:
        """Returns the residual stream behind all layers.

        Args:
            stream: (sequences, tokens, hidden_size) before them.
            cache: that the tokens are written to.
            past: tokens that it holds before.
        """
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            stream = layer(stream, keys, values, cache.rotary, past)
        return stream

    def forward(self, ids: torch.Tensor, cache: StaticCache, past: int) -> torch.Tensor:
        """Returns the logits of each sequence's next token, (sequences, vocab_size).

        Args:
            ids: (sequences, tokens) behind those that the cache holds.
            cache: that they are written to.
            past: tokens that it holds before.
        """
        stream = self.run_layers(self.embed(ids, past), cache, past)
        logits: torch.Tensor = self.head(self.norm(stream[:, -1]))
        return logits


class PlainLayer(nn.Module):
    """Attention and feed-forward, each behind a norm, added to the residual stream."""

    def __init__(self, hidden_size: int, layer: Layer) -> None:
        super().__init__()
        self.attention_norm = _norm(layer.norm, hidden_size)
        self.attention = PlainAttention(hidden_size, attention_of(layer))
        self.feed_forward_norm = _norm(layer.norm, hidden_size)
        self.feed_forward = PlainFeedForward(hidden_size, dense_of(layer))

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
        self.query_norm = _norm(Norm.RMS, heads.head_dim) if heads.qk_norm else None
        self.key_norm = _norm(Norm.RMS, heads.head_dim) if heads.qk_norm else None

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


def layers_of(architecture: Architecture) -> list[Layer]:
    """Returns the layers one by one, equal ones in a row."""
    return [group.layer for group in architecture.layers for _ in range(group.count)]


def attention_of(layer: Layer) -> Attention:
    """Returns the heads of a layer that :func:`check_plain` has passed."""
    assert isinstance(layer.attention, Attention)  # noqa: S101 - checked before
    return layer.attention


def dense_of(layer: Layer) -> FeedForward:
    """Returns the feed-forward of a layer that :func:`check_plain` has passed."""
    assert isinstance(layer.feed_forward, FeedForward)  # noqa: S101 - checked before
    return layer.feed_forward


def _norm(kind: Norm, width: int) -> nn.Module:
    return nn.RMSNorm(width, eps=1e-6) if kind is Norm.RMS else nn.LayerNorm(width)


def _band(tokens: int, past: int, begin: int, window: int, device: torch.device) -> torch.Tensor:
    """Returns which keys from ``begin`` on each new token sees, (tokens, keys)."""
    queries = torch.arange(past, past + tokens, device=device)[:, None]
    keys = torch.arange(begin, past + tokens, device=device)[None, :]
    return (keys <= queries) & (keys > queries - window)
