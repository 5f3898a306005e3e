"""A decoder of plain torch layers: what the engine ``torch`` runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch._inductor import config as inductor

from model.blocks import Attention, FeedForward
from model.errors import InvalidFieldError
from profiler.device import dtype_of, fill_random
from profiler.packed import PACKED, pack_linears
from profiler.plain_attention import LayerCache, Part, Rotary, norm_of
from profiler.plain_blocks import PlainLayer, cache_shapes
from profiler.plain_limits import check_plain, rotated
from profiler.spread import head_rows, join_ranks, with_layers_cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.architecture import Architecture, Layer
    from model.precision import Precision
    from profiler.device import Device
    from profiler.ranks import Rank


class StaticCache:
    """What is kept of every layer's tokens, allocated once, and their rotary positions.

    Args:
        architecture: whose layers; one that :func:`check_plain` passes.
        sequences: that are decoded together.
        tokens: that each of them may hold.
        dtype: of what is kept.
        device: that they are on.

    Attributes:
        sequences: that are decoded together.
        layers: of each layer, random.
        rotary: positions, by the width that they turn; none where they are learned.
    """

    def __init__(
        self,
        architecture: Architecture,
        sequences: int,
        tokens: int,
        dtype: torch.dtype,
        device: Device,
    ) -> None:
        attentions = [layer.attention for layer in layers_of(architecture)]
        self.sequences = sequences
        self.layers: list[LayerCache] = [
            tuple(
                device.random(sequences, *shape, dtype=dtype)
                for shape in cache_shapes(heads, tokens)
            )
            for heads in attentions
        ]
        widths = set() if architecture.learned_positions else set(map(rotated, attentions))
        self.rotary = {width: Rotary(width, tokens, dtype, device) for width in widths}


class Share(NamedTuple):
    """Equal sequences of a pass.

    Attributes:
        cache: that their tokens are written to.
        tokens: of each, in this pass.
        past: of each, that it holds before.
    """

    cache: StaticCache
    tokens: int
    past: int

    def part(self, layer: int) -> Part:
        """Returns what the layer of that number sees of them."""
        cache = self.cache
        return Part(cache.sequences, self.tokens, self.past, cache.layers[layer], cache.rotary)


class PlainDecoder(nn.Module):
    """A decoder with random weights.

    Args:
        architecture: one that :func:`check_plain` passes.
        precision: of weights and activations.
        device: that it runs on; memory is taken here.
        rank: whose share it is; all ranks run it alike. The embedding is whole on each, and
            logits are gathered. None: it is the whole decoder.

    Raises:
        InvalidFieldError: it lacks a block of the architecture, plain torch does not run in the
            precision, or the layers cannot be cut so.
        RuntimeError: out of memory.

    Attributes:
        architecture: its layers those of the rank.
        rank: as given.
    """

    def __init__(
        self,
        architecture: Architecture,
        precision: Precision,
        device: Device,
        rank: Rank | None = None,
    ) -> None:
        super().__init__()
        check_plain(architecture)
        if precision in PACKED and not all(
            isinstance(layer.attention, Attention) and isinstance(layer.feed_forward, FeedForward)
            for layer in layers_of(architecture)
        ):
            raise InvalidFieldError(
                "precision",
                f"plain experts and latent attention are not held in {precision}; use fp32, bf16"
                " or fp16",
            )
        if rank is not None:
            architecture = with_layers_cut(architecture, rank.count)
        self.architecture = architecture
        self.dtype = dtype_of(precision)
        self.device = device
        self.rank = rank
        hidden, vocab = architecture.hidden_size, architecture.vocab_size
        own = head_rows(vocab, rank)
        rows = own.stop - own.start
        with torch.device("meta"):
            # Where the head's rows are the embedding's, those of the last rank are, too.
            self.embedding = nn.Embedding(rows * (rank.count if rank else 1), hidden)
            learned = architecture.learned_positions
            self.positions = nn.Embedding(learned, hidden) if learned else None
            self.layers = nn.ModuleList(
                PlainLayer(hidden, layer) for layer in layers_of(architecture)
            )
            self.norm = norm_of(architecture.norm, hidden)
            self.head = nn.Linear(hidden, rows, bias=architecture.head_bias)
        if architecture.tied_embeddings:
            self.head.register_parameter("weight", None)
        self.to(self.dtype).to_empty(device=device.torch_device)
        if architecture.tied_embeddings:
            shared = self.embedding.weight
            self.head.weight = nn.Parameter(shared[own]) if rank else shared
        with torch.no_grad():
            for parameter in self.parameters():
                fill_random(parameter)
            if precision in PACKED:
                pack_linears(self, precision)
        self.requires_grad_(requires_grad=False)
        if rank is not None:
            join_ranks(self.layers, self.head, rank, vocab)

    def compile_layers(self) -> None:
        """Has torch compile its layers when they first run, equal ones once."""
        # Processes that compile side by side would be no children of ours to end.
        inductor.compile_threads = 1
        for layer in self.layers:
            layer.compile()

    def new_cache(self, sequences: int, tokens: int) -> StaticCache:
        """Returns a cache of random keys and values."""
        return StaticCache(self.architecture, sequences, tokens, self.dtype, self.device)

    def embed(self, ids: torch.Tensor, past: int) -> torch.Tensor:
        """Returns the residual stream of ids, (sequences, tokens) to (all tokens, hidden_size)."""
        stream: torch.Tensor = self.embedding(ids)
        if self.positions is not None:
            stream = stream + self.positions.weight[past : past + ids.shape[1]]
        return stream.flatten(0, 1)

    def run_layers(self, stream: torch.Tensor, shares: Sequence[Share]) -> torch.Tensor:
        """Returns the residual stream behind all layers.

        Args:
            stream: (tokens of all shares, hidden_size) before them.
            shares: of the pass, one after the other: a chunk of a prompt, and sequences that
                decode beside it.
        """
        for index, layer in enumerate(self.layers):
            stream = layer(stream, [share.part(index) for share in shares])
        return stream

    def forward(self, ids: torch.Tensor, cache: StaticCache, past: int) -> torch.Tensor:
        """Returns the logits of each sequence's next token, (sequences, vocab_size).

        Args:
            ids: (sequences, tokens) behind those that the cache holds.
            cache: that they are written to.
            past: tokens that it holds before.
        """
        share = Share(cache, ids.shape[1], past)
        stream = self.run_layers(self.embed(ids, past), [share]).view(*ids.shape, -1)
        logits: torch.Tensor = self.head(self.norm(stream[:, -1]))
        return logits


def layers_of(architecture: Architecture) -> list[Layer]:
    """Returns the layers one by one, equal ones in a row."""
    return [group.layer for group in architecture.layers for _ in range(group.count)]
