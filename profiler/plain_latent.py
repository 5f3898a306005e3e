"""Latent attention in plain layers: a compressed cache, absorbed for single queries.

As DeepSeek serves it (DeepSeek-V2, arXiv 2405.04434, section 2.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from model.architecture import Norm
from profiler.attention_backends import band
from profiler.latent import attend_expanded, attend_to_latents, multiply_heads
from profiler.operations import AttentionModule
from profiler.plain_attention import Part, joined, norm_of, parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.blocks import LatentAttention


class PlainLatentAttention(nn.Module):
    """Latent attention; what compresses queries and tokens is one projection."""

    def __init__(self, hidden_size: int, heads: LatentAttention) -> None:
        super().__init__()
        self._heads = heads
        self._attention = AttentionModule(1, heads.query_dim**-0.5)
        queries = heads.query_heads * heads.query_dim
        expanded = heads.query_heads * (heads.head_dim + heads.value_dim)
        self.compress = nn.Linear(hidden_size, heads.query_rank + heads.cached_values, bias=False)
        self.query = nn.Linear(heads.query_rank or hidden_size, queries, bias=False)
        self.query_norm = norm_of(Norm.RMS, heads.query_rank) if heads.query_rank else None
        self.latent_norm = norm_of(Norm.RMS, heads.kv_rank)
        self.expand = nn.Linear(heads.kv_rank, expanded, bias=False)
        self.output = nn.Linear(heads.query_heads * heads.value_dim, hidden_size, bias=False)

    def forward(self, stream: torch.Tensor, parts: Sequence[Part]) -> torch.Tensor:
        """Returns the attention of the parts' rows, (tokens, hidden_size), to all before them."""
        heads = self._heads
        sizes = [heads.query_rank, heads.kv_rank, heads.rope_dim]
        compressed, latent, key = torch.split(self.compress(stream), sizes, dim=-1)
        source = stream if self.query_norm is None else self.query_norm(compressed)
        query = self.query(source).unflatten(-1, (-1, heads.query_dim))
        cut = (parts_of(each, parts) for each in (query, self.latent_norm(latent), key))
        attended = [
            self._attend(part, *own).flatten(0, 1) for part, *own in zip(parts, *cut, strict=True)
        ]
        result: torch.Tensor = self.output(joined(attended))
        return result

    def _attend(
        self, part: Part, query: torch.Tensor, latent: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        heads, past, (cache,) = self._heads, part.past, part.kept
        turn = part.rotary[heads.rope_dim]
        plain, turned = torch.split(query, [heads.head_dim, heads.rope_dim], dim=-1)
        new = torch.cat([latent, turn(key[:, :, None], past)[:, :, 0]], dim=-1)
        attend = self._absorbed if part.tokens == 1 else self._expanded
        return attend(plain, turn(turned, past), new, cache, past)

    def _absorbed(
        self,
        plain: torch.Tensor,
        turned: torch.Tensor,
        new: torch.Tensor,
        cache: torch.Tensor,
        past: int,
    ) -> torch.Tensor:
        heads = self._heads
        weights = self.expand.weight.view(heads.query_heads, -1, heads.kv_rank)
        keys, values = torch.split(weights, [heads.head_dim, heads.value_dim], dim=1)
        query = torch.cat([multiply_heads(plain[:, 0], keys), turned[:, 0]], dim=-1)
        latents = attend_to_latents(
            query, cache[:, : past + 1], new, heads.kv_rank, self._attention.scaling
        )
        return multiply_heads(latents, values.transpose(1, 2)).flatten(1)[:, None]

    def _expanded(
        self,
        plain: torch.Tensor,
        turned: torch.Tensor,
        new: torch.Tensor,
        cache: torch.Tensor,
        past: int,
    ) -> torch.Tensor:
        heads, tokens = self._heads, new.shape[1]
        end = past + tokens
        cache[:, past:end] = new
        latents, keys = torch.split(cache[:, :end], [heads.kv_rank, heads.rope_dim], dim=-1)
        expanded = self.expand(latents).unflatten(-1, (heads.query_heads, -1)).transpose(1, 2)
        query = torch.cat([plain, turned], dim=-1).transpose(1, 2)
        mask = band(tokens, end, end, new.device)[None, None] if past else None
        attended = attend_expanded(self._attention, query, expanded, keys[:, None], mask)
        return attended.flatten(2)
