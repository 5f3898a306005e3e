"""What a model holds in memory on one device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from model.architecture import norm_parameters
from model.blocks import Experts, LatentAttention, LinearAttention
from model.precision import Precision

if TYPE_CHECKING:
    from model.architecture import Architecture
    from model.blocks import AnyAttention
    from model.precision import PackedFormat
    from model.workload import Parallelism

_LOGIT_BYTES = 4
"""Logits are turned to fp32 before sampling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFootprint:
    """Bytes on the fullest device.

    Attributes:
        weights_bytes: weights.
        kv_cache_bytes: keys and values of all its sequences; states of linear attention, too.
        activations_bytes: largest activations alive at one time.
        capacity_bytes: memory of one device; 0 where it is not known.
    """

    weights_bytes: float
    kv_cache_bytes: float
    activations_bytes: float
    capacity_bytes: int

    @property
    def total_bytes(self) -> float:
        """Sum of the parts."""
        return self.weights_bytes + self.kv_cache_bytes + self.activations_bytes

    @property
    def fits(self) -> bool | None:
        """Whether the parts fit; None where the capacity is not known."""
        return self.total_bytes <= self.capacity_bytes if self.capacity_bytes else None


@lru_cache(maxsize=1_024)
def weights_bytes(
    architecture: Architecture,
    parallelism: Parallelism,
    precision: Precision,
    stored_experts: PackedFormat | None = None,
) -> float:
    """Returns the weights on the fullest device.

    Embedding, head, norms and biases keep the format of the activations when the
    projections are packed. Of several pipeline stages the first holds the embedding
    and the last the head, a copy of the embedding where they are tied.

    Args:
        architecture: the whole model.
        parallelism: how it is spread.
        precision: of weights and activations.
        stored_experts: format of the routed experts' weights; None is that of the others.
    """
    hidden, tensor = architecture.hidden_size, parallelism.tensor
    plain = precision.activation_bytes
    layers = 0.0
    for group in architecture.layers:
        layer = group.layer.shard(tensor, data=parallelism.data, expert=parallelism.expert)
        matrices = layer.matrix_parameters(hidden)
        others = layer.parameter_count(hidden) - matrices
        count = -(-group.count // parallelism.pipeline)
        block = layer.feed_forward
        if stored_experts is not None and isinstance(block, Experts):
            routed = block.held * block.expert.matrix_parameters(hidden)
            matrices -= routed
            layers += count * routed * stored_experts.weight_bytes
        layers += count * (matrices * precision.weight_bytes + others * plain)
    rows = -(-architecture.vocab_size // tensor)
    embedding = (rows + architecture.learned_positions) * hidden
    head = (
        rows * hidden + rows * architecture.head_bias + norm_parameters(architecture.norm, hidden)
    )
    if parallelism.pipeline > 1:
        return layers + max(embedding, head) * plain
    if architecture.tied_embeddings:
        head -= rows * hidden
    return layers + (embedding + head) * plain


def kv_cache_bytes_per_sequence(
    architecture: Architecture, parallelism: Parallelism, kv_precision: Precision, tokens: int
) -> float:
    """Returns what one sequence of ``tokens`` keeps on the fullest device.

    Keys and values; of linear attention its state, which does not grow; of sparse
    attention the indexer's keys, too. Of latent attention every tensor-parallel rank keeps
    the whole latent. A layer with a window keeps no more than the window. Layers of
    several kinds are taken to be spread evenly over the pipeline stages.
    """
    kept = 0.0
    for group in architecture.layers:
        heads = group.layer.shard(parallelism.tensor).attention
        count = -(-group.count // parallelism.pipeline)
        kept += count * _kept_bytes(heads, kv_precision, tokens)
    return kept


def activations_bytes(
    architecture: Architecture,
    parallelism: Parallelism,
    precision: Precision,
    tokens: int,
    sequences: int,
) -> float:
    """Returns the largest activations alive at one time in a step.

    Either attention's (residual stream, normed input, queries, keys, values, output), or
    the feed-forward block's (residual stream, normed input, gate, up, product; of the
    experts that a token is sent to, too), or the logits beside the residual stream.

    Args:
        architecture: the whole model.
        parallelism: ``tensor`` counts here.
        precision: of weights and activations.
        tokens: processed in the step.
        sequences: of which a next token is sampled.
    """
    hidden = architecture.hidden_size
    widest = 0
    for group in architecture.layers:
        layer = group.layer.shard(parallelism.tensor)
        widest = max(
            widest, layer.attention.activation_values, layer.feed_forward.activation_values
        )
    block_bytes = tokens * (2 * hidden + widest) * precision.activation_bytes
    logits = sequences * architecture.vocab_size * _LOGIT_BYTES
    return max(block_bytes, tokens * hidden * precision.activation_bytes + logits)


def _kept_bytes(heads: AnyAttention, kv_precision: Precision, tokens: int) -> float:
    """Returns what one layer keeps of one sequence."""
    if isinstance(heads, LinearAttention):
        state = heads.state_values * Precision.FP32.weight_bytes
        return state + heads.conv_values * kv_precision.activation_bytes
    kept = min(tokens, heads.window or tokens)
    values = kept * heads.cached_values * kv_precision.weight_bytes
    if isinstance(heads, LatentAttention) and heads.indexer is not None:
        return values + tokens * heads.indexer.cached_bytes
    return values
