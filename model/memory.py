"""What a model holds in memory on one device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.architecture import norm_parameters

if TYPE_CHECKING:
    from model.architecture import Architecture
    from model.precision import Precision
    from model.workload import Parallelism

_LOGIT_BYTES = 4
"""Logits are turned to fp32 before sampling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFootprint:
    """Bytes on the fullest device.

    Attributes:
        weights_bytes: weights.
        kv_cache_bytes: keys and values of all its sequences.
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


def weights_bytes(
    architecture: Architecture, parallelism: Parallelism, precision: Precision
) -> float:
    """Returns the weights on the fullest device.

    Embedding, head, norms and biases keep the format of the activations when the
    projections are packed. Of several pipeline stages the first holds the embedding
    and the last the head, a copy of the embedding where they are tied.
    """
    hidden, tensor = architecture.hidden_size, parallelism.tensor
    plain = precision.activation_bytes
    layers = 0.0
    for group in architecture.layers:
        layer = group.layer.shard(tensor, data=parallelism.data, expert=parallelism.expert)
        matrices = layer.matrix_parameters(hidden)
        others = layer.parameter_count(hidden) - matrices
        count = -(-group.count // parallelism.pipeline)
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
    """Returns the keys and values of one sequence of ``tokens`` on the fullest device.

    Of latent attention every tensor-parallel rank keeps the whole latent. A layer with a
    window keeps no more than the window. Layers of several kinds are taken to be spread
    evenly over the pipeline stages.
    """
    values = 0
    for group in architecture.layers:
        heads = group.layer.attention.shard(parallelism.tensor)
        kept = min(tokens, heads.window or tokens)
        count = -(-group.count // parallelism.pipeline)
        values += count * kept * heads.cached_values
    return values * kv_precision.weight_bytes


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
