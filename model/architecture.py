"""Dimensions of decoder-only transformers and the parameters they come to.

An architecture is a stack of layer groups; a layer is an attention and a feed-forward,
each of one of the kinds in ``model.blocks``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache

from model.blocks import AnyAttention, Experts, FeedForward
from model.precision import PackedFormat, Precision


class Norm(StrEnum):
    """Kind of norm: RMS has a weight, layer norm a weight and a bias."""

    RMS = "rms"
    LAYER = "layer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One decoder layer: norms, attention, feed-forward."""

    attention: AnyAttention
    feed_forward: FeedForward | Experts
    norm: Norm = Norm.RMS
    norms: int = 2
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        kind = (self.attention, self.feed_forward, self.norm, self.norms)
        object.__setattr__(self, "_hash", hash(kind))

    def __hash__(self) -> int:
        """Returns what was computed once: every request looks its layers up."""
        return self._hash

    def shard(self, tensor: int, *, data: int = 1, expert: int = 1) -> Layer:
        """Returns the layer as one rank holds it.

        Args:
            tensor: tensor-parallel size.
            data: attention data-parallel size; experts are spread over all of its ranks.
            expert: expert-parallel size; divides ``tensor`` x ``data``, and what is left
                over is the experts' own tensor size.

        Raises:
            InvalidFieldError: a degree does not fit; names it.
        """
        return _sharded(self, tensor, data, expert)

    def matrix_parameters(self, hidden_size: int) -> int:
        """Returns the weights of the projections alone."""
        return self.attention.matrix_parameters(hidden_size) + self.feed_forward.matrix_parameters(
            hidden_size
        )

    def parameter_count(self, hidden_size: int) -> int:
        """Returns the number of weights and biases."""
        return self._outside_feed_forward(hidden_size) + self.feed_forward.parameter_count(
            hidden_size
        )

    def active_parameters(self, hidden_size: int) -> int:
        """Returns the weights and biases that one token meets."""
        return self._outside_feed_forward(hidden_size) + self.feed_forward.active_parameters(
            hidden_size
        )

    def _outside_feed_forward(self, hidden_size: int) -> int:
        norms = self.norms * norm_parameters(self.norm, hidden_size)
        return self.attention.parameter_count(hidden_size) + norms


@lru_cache(maxsize=1024)
def _sharded(layer: Layer, tensor: int, data: int, expert: int) -> Layer:
    """A request asks for its layers several times, and those before it for the same."""
    block = layer.feed_forward
    if isinstance(block, Experts):
        sharded: FeedForward | Experts = block.shard(tensor, expert, tensor * data // expert)
    else:
        sharded = block.shard(tensor)
    return replace(layer, attention=layer.attention.shard(tensor), feed_forward=sharded)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGroup:
    """So many equal layers (not necessarily in a row)."""

    layer: Layer
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A decoder-only transformer.

    Attributes:
        name: preset name or free text.
        model_type: family whose modules run it, as in a config.json.
        hidden_size: width of the residual stream.
        layers: groups of equal layers.
        vocab_size: rows of the embedding (as stored, padding included).
        tied_embeddings: whether the head shares the embedding's weights.
        norm: kind of the final norm.
        learned_positions: rows of a learned position table; 0 with rotary positions.
        head_bias: whether the output head has a bias.
        stored_precision: format of the published checkpoint.
        stored_experts: format of its routed experts where they have one of their own.
        source: document the dimensions were read from.
    """

    name: str
    model_type: str
    hidden_size: int
    layers: tuple[LayerGroup, ...]
    vocab_size: int
    tied_embeddings: bool = False
    norm: Norm = Norm.RMS
    learned_positions: int = 0
    head_bias: bool = False
    stored_precision: Precision = Precision.BF16
    stored_experts: PackedFormat | None = None
    source: str = ""

    @property
    def layer_count(self) -> int:
        """Number of decoder layers."""
        return sum(group.count for group in self.layers)

    @property
    def experts(self) -> Experts | None:
        """The mixture of experts that some of its layers have; None in a dense model."""
        blocks = (group.layer.feed_forward for group in self.layers)
        return next((block for block in blocks if isinstance(block, Experts)), None)

    def parameter_count(self) -> int:
        """Returns the number of parameters, shared weights counted once."""
        layers = (g.count * g.layer.parameter_count(self.hidden_size) for g in self.layers)
        return self._outside_layers() + sum(layers)

    def active_parameters(self) -> int:
        """Returns the parameters that one token meets, embedding and head included."""
        layers = (g.count * g.layer.active_parameters(self.hidden_size) for g in self.layers)
        return self._outside_layers() + sum(layers)

    def _outside_layers(self) -> int:
        embedding = self.vocab_size * self.hidden_size
        return (
            embedding * (1 if self.tied_embeddings else 2)
            + self.vocab_size * self.head_bias
            + self.learned_positions * self.hidden_size
            + norm_parameters(self.norm, self.hidden_size)
        )


def norm_parameters(norm: Norm, hidden_size: int) -> int:
    """Returns the number of parameters of one norm over the residual stream."""
    return hidden_size * (2 if norm is Norm.LAYER else 1)
