"""Dense architectures from explicit dimensions, and back.

The names, ranges and zeros are those of the API's ``Architecture`` message.
Every other way to an architecture (a config.json, a bare parameter count) goes
through ``dense_architecture``, so that one place holds the ranges.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypedDict

from model.architecture import (
    Activation,
    Architecture,
    Attention,
    FeedForward,
    Layer,
    LayerGroup,
    Norm,
)
from model.errors import InvalidFieldError
from model.precision import Precision

RANGES = {
    "hidden_size": (1, 1_048_576),
    "layer_count": (1, 4_096),
    "query_heads": (1, 65_536),
    "kv_heads": (0, 65_536),
    "head_dim": (0, 65_536),
    "intermediate_size": (1, 4_194_304),
    "vocab_size": (1, 16_777_216),
    "sliding_window": (0, 16_777_216),
    "full_attention_interval": (0, 4_096),
    "learned_positions": (0, 16_777_216),
}
"""Lowest and highest value of each dimension."""

MAX_NAME = 128
MAX_PARAMETERS = 10**15
"""More parameters than this are no model; keeps every byte count inside 64 bits."""


class DenseDimensions(TypedDict):
    """Fields of the API's ``Architecture`` message, output-only ones left out."""

    name: str
    hidden_size: int
    layer_count: int
    query_heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    plain_mlp: bool
    activation: Activation
    tied_embeddings: bool
    qkv_bias: bool
    attention_output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    sliding_window: int
    full_attention_interval: int
    norm: Norm
    norms_per_layer: int
    learned_positions: int
    head_bias: bool


def dense_architecture(
    *,
    hidden_size: int,
    layer_count: int,
    query_heads: int,
    intermediate_size: int,
    vocab_size: int,
    name: str = "",
    kv_heads: int = 0,
    head_dim: int = 0,
    plain_mlp: bool = False,
    activation: Activation = Activation.SILU,
    tied_embeddings: bool = False,
    qkv_bias: bool = False,
    attention_output_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: bool = False,
    sliding_window: int = 0,
    full_attention_interval: int = 0,
    norm: Norm = Norm.RMS,
    norms_per_layer: int = 0,
    learned_positions: int = 0,
    head_bias: bool = False,
    model_type: str = "",
    stored_precision: Precision = Precision.BF16,
    source: str = "",
) -> Architecture:
    """Builds an architecture whose layers differ at most in their attention window.

    Args:
        hidden_size: width of the residual stream.
        layer_count: decoder layers.
        query_heads: query heads.
        intermediate_size: inner width of the feed-forward block.
        vocab_size: rows of the embedding.
        name: free text, at most 128 characters.
        kv_heads: key and value heads; 0 is as many as query heads.
        head_dim: width of one head; 0 is ``hidden_size / query_heads``.
        plain_mlp: up, activation, down instead of gate and up, product, down.
        activation: of the feed-forward block.
        tied_embeddings: whether the head shares the embedding's weights.
        qkv_bias: whether the query, key and value projections have biases.
        attention_output_bias: whether the attention's output projection has a bias.
        mlp_bias: whether the feed-forward projections have biases.
        qk_norm: whether queries and keys are normalised per head.
        sliding_window: tokens that a windowed layer looks back on; 0 is no such layer.
        full_attention_interval: every n-th layer attends to everything; 0 is none.
        norm: kind of all norms.
        norms_per_layer: 2, 4 or 1 (a parallel block); 0 is 2.
        learned_positions: rows of a learned position table; 0 is none.
        head_bias: whether the output head has a bias.
        model_type: family whose modules run it; empty picks one by ``closest_family``.
        stored_precision: format of the published checkpoint.
        source: document the dimensions were read from.

    Raises:
        InvalidFieldError: a value is out of range or does not go with another; names
            the argument, or nothing when the whole is too large.
    """
    sizes = {
        "hidden_size": hidden_size,
        "layer_count": layer_count,
        "query_heads": query_heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": intermediate_size,
        "vocab_size": vocab_size,
        "sliding_window": sliding_window,
        "full_attention_interval": full_attention_interval,
        "learned_positions": learned_positions,
    }
    for field, value in sizes.items():
        check_range(field, value, *RANGES[field])
    if len(name) > MAX_NAME:
        raise InvalidFieldError("name", f"{len(name)} characters are more than {MAX_NAME}")
    if norms_per_layer not in {0, 1, 2, 4}:
        raise InvalidFieldError("norms_per_layer", f"{norms_per_layer} is none of 0, 1, 2 and 4")
    kv_heads = kv_heads or query_heads
    if query_heads % kv_heads:
        raise InvalidFieldError(
            "kv_heads", f"{kv_heads} does not divide the {query_heads} query heads"
        )
    if not head_dim:
        if hidden_size % query_heads:
            raise InvalidFieldError(
                "head_dim",
                f"required, as the {query_heads} query heads do not divide "
                f"the hidden size {hidden_size}",
            )
        head_dim = hidden_size // query_heads
    if full_attention_interval and not sliding_window:
        raise InvalidFieldError(
            "full_attention_interval",
            "needs a sliding_window for the other layers; set it or use 0",
        )
    layer = Layer(
        attention=Attention(
            query_heads=query_heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            qkv_bias=qkv_bias,
            output_bias=attention_output_bias,
            qk_norm=qk_norm,
        ),
        feed_forward=FeedForward(
            intermediate_size=intermediate_size,
            gated=not plain_mlp,
            activation=activation,
            bias=mlp_bias,
        ),
        norm=norm,
        norms=norms_per_layer or 2,
    )
    architecture = Architecture(
        name=name,
        model_type=model_type or closest_family(layer, learned_positions),
        hidden_size=hidden_size,
        layers=(LayerGroup(layer=layer, count=layer_count),),
        vocab_size=vocab_size,
        tied_embeddings=tied_embeddings,
        norm=norm,
        learned_positions=learned_positions,
        head_bias=head_bias,
        stored_precision=stored_precision,
        source=source,
    )
    if architecture.parameter_count() > MAX_PARAMETERS:
        raise InvalidFieldError(
            "", f"the dimensions come to more than {MAX_PARAMETERS:.0e} parameters; reduce them"
        )
    if not sliding_window:
        return architecture
    full = layer_count // full_attention_interval if full_attention_interval else 0
    return with_window(architecture, sliding_window, layer_count - full)


def with_window(architecture: Architecture, window: int, windowed: int) -> Architecture:
    """Returns the architecture with ``windowed`` of its layers looking back on ``window`` tokens.

    Layers are counted, not ordered: a step costs the same whichever they are.

    Args:
        architecture: of equal layers.
        window: tokens, at least 1.
        windowed: number of layers with the window, 0 to ``layer_count``.
    """
    layer = architecture.layers[0].layer
    narrow = replace(layer, attention=replace(layer.attention, window=window))
    counts = ((narrow, windowed), (layer, architecture.layer_count - windowed))
    groups = tuple(LayerGroup(layer=kind, count=count) for kind, count in counts if count)
    return replace(architecture, layers=groups)


def dense_dimensions(architecture: Architecture) -> DenseDimensions:
    """Returns the dimensions that ``dense_architecture`` builds the architecture from.

    Only where a config.json lists windowed layers in a number that no interval gives
    is ``full_attention_interval`` the closest one.
    """
    layer = architecture.layers[0].layer
    attention, feed_forward = layer.attention, layer.feed_forward
    windows = [(g.layer.attention.window, g.count) for g in architecture.layers]
    full = sum(count for window, count in windows if window is None)
    return DenseDimensions(
        name=architecture.name,
        hidden_size=architecture.hidden_size,
        layer_count=architecture.layer_count,
        query_heads=attention.query_heads,
        kv_heads=attention.kv_heads,
        head_dim=attention.head_dim,
        intermediate_size=feed_forward.intermediate_size,
        vocab_size=architecture.vocab_size,
        plain_mlp=not feed_forward.gated,
        activation=feed_forward.activation,
        tied_embeddings=architecture.tied_embeddings,
        qkv_bias=attention.qkv_bias,
        attention_output_bias=attention.output_bias,
        mlp_bias=feed_forward.bias,
        qk_norm=attention.qk_norm,
        sliding_window=max((window or 0 for window, _ in windows)),
        full_attention_interval=_interval(architecture.layer_count, full),
        norm=architecture.norm,
        norms_per_layer=layer.norms,
        learned_positions=architecture.learned_positions,
        head_bias=architecture.head_bias,
    )


def closest_family(layer: Layer, learned_positions: int) -> str:
    """Returns the model type whose modules come closest to layers of explicit dimensions.

    Learned positions are GPT-2's, a parallel block is Phi's, four norms are Gemma's
    (with QK norm Gemma 3's, else Gemma 2's), a plain feed-forward block is StarCoder 2's,
    QK norm is Qwen3's, biases on queries, keys and values alone are Qwen2's; all else is
    Llama's. What such a module lacks (a bias, a window) the operations have all the same.
    """
    attention = layer.attention
    rules = (
        (learned_positions > 0, "gpt2"),
        (layer.norms == 1, "phi"),
        (layer.norms == 4, "gemma3_text" if attention.qk_norm else "gemma2"),
        (not layer.feed_forward.gated, "starcoder2"),
        (attention.qk_norm, "qwen3"),
        (attention.qkv_bias and not attention.output_bias, "qwen2"),
    )
    return next((family for holds, family in rules if holds), "llama")


def check_range(field: str, value: int, low: int, high: int) -> None:
    """Checks that a value lies in ``low`` to ``high``.

    Raises:
        InvalidFieldError: it does not; names ``field``.
    """
    if not low <= value <= high:
        raise InvalidFieldError(field, f"{value:.7g} is not in {low:,} to {high:,}")


def _interval(layer_count: int, full: int) -> int:
    """Inverts ``full = layer_count // interval``; 0 when all layers or none are full."""
    if full in {0, layer_count}:
        return 0
    return max(2, layer_count // full)
