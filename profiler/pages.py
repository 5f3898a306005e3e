"""Where the tokens of sequences lie in a cache of pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from profiler.device import Device

PAGE_TOKENS = 16
"""Tokens of a page: what vLLM takes by default on GPUs."""


@dataclass(frozen=True, slots=True)
class Pages:
    """Equal sequences over pages in random order: what is contiguous is so by no luck.

    As in the engines, all layers share one table, and each has a pool of keys and one of
    values, (pages, ``PAGE_TOKENS``, kv_heads, head_dim).

    Attributes:
        query_tokens: that are new in each sequence, the last of its tokens.
        kv_tokens: of each sequence.
        table: place in the pool of each sequence's pages, (sequences, pages of each), int32.
    """

    query_tokens: int
    kv_tokens: int
    table: torch.Tensor

    @property
    def sequences(self) -> int:
        """How many there are."""
        return len(self.table)

    @property
    def count(self) -> int:
        """Pages of all sequences."""
        return self.table.numel()

    @property
    def positions(self) -> torch.Tensor:
        """Where in its sequence each new token stands, (tokens,), int32."""
        first = self.kv_tokens - self.query_tokens
        one = torch.arange(first, self.kv_tokens, device=self.table.device, dtype=torch.int32)
        return one.repeat(self.sequences)

    @property
    def owners(self) -> torch.Tensor:
        """Sequence of each new token, (tokens,), int32."""
        every = torch.arange(self.sequences, device=self.table.device, dtype=torch.int32)
        return every.repeat_interleave(self.query_tokens)

    @property
    def slots(self) -> torch.Tensor:
        """Place of each new token in a pool taken as one row of tokens, (tokens,), int64."""
        positions = self.positions.long()
        pages = self.table[self.owners.long(), positions // PAGE_TOKENS].long()
        return pages * PAGE_TOKENS + positions % PAGE_TOKENS

    @property
    def last_page_tokens(self) -> int:
        """Tokens in the last page of each sequence, 1 to ``PAGE_TOKENS``."""
        return (self.kv_tokens - 1) % PAGE_TOKENS + 1

    def starts(self, each: int) -> torch.Tensor:
        """Returns where sequences of so many items begin and end, (sequences + 1,), int32."""
        ends = torch.arange(self.sequences + 1, device=self.table.device, dtype=torch.int32)
        return ends * each

    def lengths(self, each: int) -> torch.Tensor:
        """Returns so many for each sequence, (sequences,), int32."""
        return torch.full((self.sequences,), each, device=self.table.device, dtype=torch.int32)


def scattered(sequences: int, query_tokens: int, kv_tokens: int, device: Device) -> Pages:
    """Returns as many pages as the sequences need, dealt out at random."""
    each = pages_of(kv_tokens)
    order = torch.randperm(sequences * each, device=device.torch_device, dtype=torch.int32)
    return Pages(query_tokens, kv_tokens, order.view(sequences, each))


def pages_of(tokens: int) -> int:
    """Returns how many pages hold so many tokens of one sequence."""
    return -(-tokens // PAGE_TOKENS)
