"""Dimensions of decoder-only transformers and the parameters they come to.

An architecture is a stack of layer groups; a layer is an attention block and a
feed-forward block. Other kinds of block (experts, latent attention) are other
classes in the same two places.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from model.errors import InvalidFieldError
from model.precision import Precision


class Activation(StrEnum):
    """Activation function of a feed-forward block."""

    SILU = "silu"
    GELU = "gelu"
    RELU = "relu"


class Norm(StrEnum):
    """Kind of norm: RMS has a weight, layer norm a weight and a bias."""

    RMS = "rms"
    LAYER = "layer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Multi-head attention with grouped KV heads (MHA and MQA are its corners)."""

    query_heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False

    def shard(self, tensor: int) -> Attention:
        """Returns the heads of one tensor-parallel rank; KV heads are replicated when too few.

        Raises:
            InvalidFieldError: ``tensor`` does not fit the heads.
        """
        if self.query_heads % tensor:
            raise InvalidFieldError(
                "tensor", f"{tensor} does not divide the {self.query_heads} query heads"
            )
        if self.kv_heads % tensor and tensor % self.kv_heads:
            raise InvalidFieldError(
                "tensor",
                f"{tensor} neither divides the {self.kv_heads} KV heads nor is a multiple of them",
            )
        return Attention(
            query_heads=self.query_heads // tensor,
            kv_heads=max(1, self.kv_heads // tensor),
            head_dim=self.head_dim,
            window=self.window,
            qkv_bias=self.qkv_bias,
            output_bias=self.output_bias,
            qk_norm=self.qk_norm,
        )

    def parameter_count(self, hidden_size: int) -> int:
        """Returns the number of weights and biases."""
        query, kv = self.query_heads * self.head_dim, self.kv_heads * self.head_dim
        weights = hidden_size * (2 * query + 2 * kv)
        biases = (query + 2 * kv) * self.qkv_bias + hidden_size * self.output_bias
        return weights + biases + 2 * self.head_dim * self.qk_norm


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForward:
    """A dense feed-forward block, gated (SwiGLU-like) or plain."""

    intermediate_size: int
    gated: bool = True
    activation: Activation = Activation.SILU
    bias: bool = False

    def shard(self, tensor: int) -> FeedForward:
        """Returns the columns of one tensor-parallel rank (the fullest one)."""
        return FeedForward(
            intermediate_size=-(-self.intermediate_size // tensor),
            gated=self.gated,
            activation=self.activation,
            bias=self.bias,
        )

    def parameter_count(self, hidden_size: int) -> int:
        """Returns the number of weights and biases."""
        ups = 2 if self.gated else 1
        weights = (ups + 1) * hidden_size * self.intermediate_size
        return weights + (ups * self.intermediate_size + hidden_size) * self.bias


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One decoder layer: norms, attention, feed-forward."""

    attention: Attention
    feed_forward: FeedForward
    norm: Norm = Norm.RMS
    norms: int = 2

    def shard(self, tensor: int) -> Layer:
        """Returns the layer as one tensor-parallel rank holds it."""
        return Layer(
            attention=self.attention.shard(tensor),
            feed_forward=self.feed_forward.shard(tensor),
            norm=self.norm,
            norms=self.norms,
        )

    def parameter_count(self, hidden_size: int) -> int:
        """Returns the number of weights and biases."""
        return (
            self.attention.parameter_count(hidden_size)
            + self.feed_forward.parameter_count(hidden_size)
            + self.norms * norm_parameters(self.norm, hidden_size)
        )


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
    source: str = ""

    @property
    def layer_count(self) -> int:
        """Number of decoder layers."""
        return sum(group.count for group in self.layers)

    def parameter_count(self) -> int:
        """Returns the number of parameters, shared weights counted once."""
        embedding = self.vocab_size * self.hidden_size
        return (
            embedding * (1 if self.tied_embeddings else 2)
            + self.vocab_size * self.head_bias
            + self.learned_positions * self.hidden_size
            + norm_parameters(self.norm, self.hidden_size)
            + sum(g.count * g.layer.parameter_count(self.hidden_size) for g in self.layers)
        )


def norm_parameters(norm: Norm, hidden_size: int) -> int:
    """Returns the number of parameters of one norm over the residual stream."""
    return hidden_size * (2 if norm is Norm.LAYER else 1)
