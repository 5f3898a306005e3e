"""Attention of plain layers over a cache that is written in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from model.architecture import Norm
from profiler.attention_backends import Sight
from profiler.attention_choice import attend_by_fastest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.blocks import Attention
    from profiler.device import Device

LayerCache = tuple[torch.Tensor, ...]
"""What is kept of a layer's tokens: keys and values, (sequences, kv_heads, tokens, head_dim)
each, or latents, (sequences, tokens, kv_rank + rope_dim)."""

_THETA = 10_000.0


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


class Part(NamedTuple):
    """Equal sequences of a pass, as one layer sees them.

    Attributes:
        sequences: that are run together.
        tokens: of each, in this pass.
        past: of each, before it.
        kept: what the layer keeps of them, with room for the tokens.
        rotary: positions, by the width that they turn; none where they are learned.
    """

    sequences: int
    tokens: int
    past: int
    kept: LayerCache
    rotary: dict[int, Rotary]


def parts_of(rows: torch.Tensor, parts: Sequence[Part]) -> list[torch.Tensor]:
    """Returns each part's rows of a pass, (tokens of all, ...) to (sequences, tokens, ...) each."""
    cut = torch.split(rows, [part.sequences * part.tokens for part in parts])
    return [
        own.view(part.sequences, part.tokens, *rows.shape[1:])
        for own, part in zip(cut, parts, strict=True)
    ]


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
    end = past + query.shape[1]
    keys[:, :, past:end] = key.transpose(1, 2)
    values[:, :, past:end] = value.transpose(1, 2)
    return attend_to(query, keys[:, :, :end], values[:, :, :end], window)


def attend_to(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, window: int | None = None
) -> torch.Tensor:
    """Returns the attention of the last tokens of sequences to all of them up to each.

    On a GPU the kernel is the fastest of plain torch for the shape, chosen when it is first met.

    Args:
        query: (sequences, tokens, query_heads, head_dim).
        keys: (sequences, kv_heads, all tokens, head_dim).
        values: alike.
        window: keys that a query sees at most; None: all.

    Returns:
        (sequences, tokens, query_heads x head_dim).
    """
    sequences, tokens, heads, _ = query.shape
    kv_heads, end = keys.shape[1:3]
    past = end - tokens
    begin = max(0, past + 1 - window) if window else 0
    seen_keys, seen_values = keys[:, :, begin:], values[:, :, begin:]
    if tokens == 1:
        # The heads that share a key are the rows of one product.
        grouped = query.view(sequences, kv_heads, heads // kv_heads, -1)
        every = Sight(heads // kv_heads, end - begin, is_causal=False)
        output = attend_by_fastest(every, grouped, seen_keys, seen_values)
        return output.reshape(sequences, 1, -1)
    sight = Sight(tokens, end - begin, window=window if window and end > window else None)
    output = attend_by_fastest(sight, query.transpose(1, 2), seen_keys, seen_values)
    return output.transpose(1, 2).reshape(sequences, tokens, -1)


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

    def forward(self, stream: torch.Tensor, parts: Sequence[Part]) -> torch.Tensor:
        """Returns the attention of the parts' rows, (tokens, hidden_size), to all before them."""
        heads = self._heads
        qkv = self.qkv(stream).unflatten(-1, (-1, heads.head_dim))
        both, value = qkv.split([heads.query_heads + heads.kv_heads, heads.kv_heads], dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = both.split([heads.query_heads, heads.kv_heads], dim=1)
            both = torch.cat([self.query_norm(query), self.key_norm(key)], dim=1)
        attended = [
            self._attend(part, *own).flatten(0, 1)
            for part, *own in zip(parts, parts_of(both, parts), parts_of(value, parts), strict=True)
        ]
        result: torch.Tensor = self.output(joined(attended))
        return result

    def _attend(self, part: Part, both: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        heads, (keys, values) = self._heads, part.kept
        if part.rotary:
            both = part.rotary[heads.head_dim](both, part.past)
        query, key = torch.split(both, [heads.query_heads, heads.kv_heads], dim=2)
        return attend(query, key, value, keys, values, part.past, heads.window)


def joined(rows: list[torch.Tensor]) -> torch.Tensor:
    """Returns the rows of all parts in one, copied only where there are several."""
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def norm_of(kind: Norm, width: int) -> nn.Module:
    """Returns a norm over so many values."""
    return nn.RMSNorm(width, eps=1e-6) if kind is Norm.RMS else nn.LayerNorm(width)
