"""Latent attention in plain layers: a compressed cache, absorbed for single queries.

As DeepSeek serves it (DeepSeek-V2, arXiv 2405.04434, section 2.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from model.architecture import Norm
from profiler.latent import attend_expanded, attend_to_latents, multiply_heads
from profiler.operations import AttentionModule
from profiler.plain_attention import LayerCache, Rotary, band, norm_of

if TYPE_CHECKING:
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

    def forward(
        self, stream: torch.Tensor, kept: LayerCache, rotary: dict[int, Rotary], past: int
    ) -> torch.Tensor:
        """Returns the attention of (sequences, tokens, hidden_size) to all tokens up to them."""
        heads, turn, (cache,) = self._heads, rotary[self._heads.rope_dim], kept
        sizes = [heads.query_rank, heads.kv_rank, heads.rope_dim]
        compressed, latent, key = torch.split(self.compress(stream), sizes, dim=-1)
        source = stream if self.query_norm is None else self.query_norm(compressed)
        query = self.query(source).unflatten(-1, (-1, heads.query_dim))
        plain, turned = torch.split(query, [heads.head_dim, heads.rope_dim], dim=-1)
        key = turn(key[:, :, None], past)[:, :, 0]
        new = torch.cat([self.latent_norm(latent), key], dim=-1)
        attend = self._absorbed if stream.shape[1] == 1 else self._expanded
        result: torch.Tensor = self.output(attend(plain, turn(turned, past), new, cache, past))
        return result

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
        mask = band(tokens, past, 0, end, new.device)[None, None] if past else None
        attended = attend_expanded(self._attention, query, expanded, keys[:, None], mask)
        return attended.flatten(2)
