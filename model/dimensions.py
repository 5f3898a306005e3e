"""Architectures from explicit dimensions, and back.

The names, ranges and zeros are those of the API's ``Architecture`` message.
Every other way to an architecture (a config.json, a bare parameter count) goes
through ``architecture_of_dimensions``, so that one place holds the ranges.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict

from model.architecture import Architecture, Layer, LayerGroup, Norm
from model.blocks import (
    Activation,
    Attention,
    Experts,
    FeedForward,
    Indexer,
    LatentAttention,
    LinearAttention,
)
from model.errors import InvalidFieldError
from model.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model.precision import PackedFormat

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
    "experts": (0, 65_536),
    "experts_per_token": (0, 65_536),
    "expert_intermediate_size": (0, 4_194_304),
    "shared_intermediate_size": (0, 4_194_304),
    "leading_dense_layers": (0, 4_096),
    "expert_interval": (0, 4_096),
    "kv_rank": (0, 65_536),
    "query_rank": (0, 65_536),
    "rope_dim": (0, 65_536),
    "value_dim": (0, 65_536),
    "linear_key_heads": (0, 65_536),
    "linear_value_heads": (0, 65_536),
    "linear_key_dim": (0, 65_536),
    "linear_value_dim": (0, 65_536),
    "linear_conv_width": (0, 65_536),
    "index_top_k": (0, 16_777_216),
    "index_heads": (0, 65_536),
    "index_head_dim": (0, 65_536),
}
"""Lowest and highest value of each dimension."""

_EXPERT_FIELDS = (
    "experts_per_token",
    "expert_intermediate_size",
    "shared_intermediate_size",
    "leading_dense_layers",
    "expert_interval",
)

_LINEAR_FIELDS = (
    "linear_key_heads",
    "linear_value_heads",
    "linear_key_dim",
    "linear_value_dim",
    "linear_conv_width",
)
_INDEX_FIELDS = ("index_top_k", "index_heads", "index_head_dim")

MAX_NAME = 128
MAX_PARAMETERS = 10**15
"""More parameters than this are no model; keeps every byte count inside 64 bits."""


class Dimensions(TypedDict):
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
    experts: int
    experts_per_token: int
    expert_intermediate_size: int
    shared_intermediate_size: int
    leading_dense_layers: int
    expert_interval: int
    expert_bias: bool
    kv_rank: int
    query_rank: int
    rope_dim: int
    value_dim: int
    attention_output_gate: bool
    linear_key_heads: int
    linear_value_heads: int
    linear_key_dim: int
    linear_value_dim: int
    linear_conv_width: int
    index_top_k: int
    index_heads: int
    index_head_dim: int


def architecture_of_dimensions(
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
    experts: int = 0,
    experts_per_token: int = 0,
    expert_intermediate_size: int = 0,
    shared_intermediate_size: int = 0,
    leading_dense_layers: int = 0,
    expert_interval: int = 0,
    expert_bias: bool = False,
    kv_rank: int = 0,
    query_rank: int = 0,
    rope_dim: int = 0,
    value_dim: int = 0,
    attention_output_gate: bool = False,
    linear_key_heads: int = 0,
    linear_value_heads: int = 0,
    linear_key_dim: int = 0,
    linear_value_dim: int = 0,
    linear_conv_width: int = 0,
    index_top_k: int = 0,
    index_heads: int = 0,
    index_head_dim: int = 0,
    linear_layers: int | None = None,
    model_type: str = "",
    stored_precision: Precision = Precision.BF16,
    stored_experts: PackedFormat | None = None,
    source: str = "",
) -> Architecture:
    """Builds an architecture whose layers differ in their attention and their experts alone.

    With a window or linear attention some layers have that, and every so many attend to
    everything.

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
        full_attention_interval: every n-th layer attends to everything; 0 is none, which
            linear attention does not go with.
        norm: kind of all norms.
        norms_per_layer: 2, 4 or 1 (a parallel block); 0 is 2.
        learned_positions: rows of a learned position table; 0 is none.
        head_bias: whether the output head has a bias.
        experts: routed experts of a layer that has them; 0 is a dense model.
        experts_per_token: experts that the router sends a token to.
        expert_intermediate_size: inner width of one routed expert.
        shared_intermediate_size: inner width of all shared experts together; 0 is none.
        leading_dense_layers: layers before the first one with experts.
        expert_interval: of the layers after those every n-th has experts; 0 is every one.
        expert_bias: whether the experts' projections and the router have biases.
        kv_rank: width of latent attention's latent; 0 is plain attention. With it
            ``head_dim`` is a head's part without positions and ``kv_heads`` plays no part.
        query_rank: width that latent attention compresses queries to; 0 is none.
        rope_dim: width of a latent attention head's part with rotary positions.
        value_dim: width of a latent attention head's value; 0 is ``head_dim``.
        attention_output_gate: whether a sigmoid gates the attention's output.
        linear_key_heads: query and key heads of linear attention; 0 is no such layer.
        linear_value_heads: its value heads, a multiple of its key heads.
        linear_key_dim: width of its query and key heads.
        linear_value_dim: width of its value heads.
        linear_conv_width: tokens that its convolution sees.
        index_top_k: keys that a query of latent attention sees at most; 0 is all.
        index_heads: heads of the indexer that picks them.
        index_head_dim: width of one of these.
        linear_layers: layers with linear attention; None is all but every
            ``full_attention_interval``-th.
        model_type: family whose modules run it; empty picks one by ``closest_family``.
        stored_precision: format of the published checkpoint.
        stored_experts: format of its routed experts where they have one of their own.
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
        "experts": experts,
        "experts_per_token": experts_per_token,
        "expert_intermediate_size": expert_intermediate_size,
        "shared_intermediate_size": shared_intermediate_size,
        "leading_dense_layers": leading_dense_layers,
        "expert_interval": expert_interval,
        "kv_rank": kv_rank,
        "query_rank": query_rank,
        "rope_dim": rope_dim,
        "value_dim": value_dim,
        "linear_key_heads": linear_key_heads,
        "linear_value_heads": linear_value_heads,
        "linear_key_dim": linear_key_dim,
        "linear_value_dim": linear_value_dim,
        "linear_conv_width": linear_conv_width,
        "index_top_k": index_top_k,
        "index_heads": index_heads,
        "index_head_dim": index_head_dim,
    }
    for field, value in sizes.items():
        check_range(field, value, *RANGES[field])
    if len(name) > MAX_NAME:
        raise InvalidFieldError("name", f"{len(name)} characters are more than {MAX_NAME}")
    if norms_per_layer not in {0, 1, 2, 4}:
        raise InvalidFieldError("norms_per_layer", f"{norms_per_layer} is none of 0, 1, 2 and 4")
    _check_experts(sizes)
    _check_latent(sizes)
    _check_linear(sizes)
    kv_heads = query_heads if kv_rank else kv_heads or query_heads
    if query_heads % kv_heads:
        raise InvalidFieldError(
            "kv_heads", f"{kv_heads} does not divide the {query_heads} query heads"
        )
    head_dim = head_dim or _usual_head_dim(hidden_size, query_heads)
    if full_attention_interval and not (sliding_window or linear_key_heads):
        raise InvalidFieldError(
            "full_attention_interval",
            "needs a sliding_window or linear attention for the other layers; set one or use 0",
        )
    attention: Attention | LatentAttention
    if kv_rank:
        attention = LatentAttention(
            query_heads=query_heads,
            kv_rank=kv_rank,
            query_rank=query_rank,
            head_dim=head_dim,
            rope_dim=rope_dim,
            value_dim=value_dim or head_dim,
            indexer=Indexer(heads=index_heads, head_dim=index_head_dim, top_k=index_top_k)
            if index_top_k
            else None,
        )
    else:
        attention = Attention(
            query_heads=query_heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            qkv_bias=qkv_bias,
            output_bias=attention_output_bias,
            qk_norm=qk_norm,
            output_gate=attention_output_gate,
        )
    block = FeedForward(
        intermediate_size=intermediate_size,
        gated=not plain_mlp,
        activation=activation,
        bias=mlp_bias,
    )
    layer = Layer(attention=attention, feed_forward=block, norm=norm, norms=norms_per_layer or 2)
    mixture = 0
    if experts:
        mixture = (layer_count - leading_dense_layers) // max(1, expert_interval)
        expert = replace(block, intermediate_size=expert_intermediate_size, bias=expert_bias)
        shared = replace(block, intermediate_size=shared_intermediate_size)
        routed = Experts(
            expert=expert,
            count=experts,
            top_k=experts_per_token,
            shared=shared if shared_intermediate_size else None,
            router_bias=expert_bias,
        )
    groups = [(layer, layer_count - mixture)]
    if mixture:
        groups.append((replace(layer, feed_forward=routed), mixture))
    architecture = Architecture(
        name=name,
        model_type=model_type or closest_family(groups[-1][0], learned_positions),
        hidden_size=hidden_size,
        layers=tuple(LayerGroup(layer=kind, count=count) for kind, count in groups if count),
        vocab_size=vocab_size,
        tied_embeddings=tied_embeddings,
        norm=norm,
        learned_positions=learned_positions,
        head_bias=head_bias,
        stored_precision=stored_precision,
        stored_experts=stored_experts,
        source=source,
    )
    full = layer_count // full_attention_interval if full_attention_interval else 0
    if linear_key_heads:
        linear = LinearAttention(
            key_heads=linear_key_heads,
            value_heads=linear_value_heads,
            key_dim=linear_key_dim,
            value_dim=linear_value_dim,
            conv_width=linear_conv_width,
        )
        count = layer_count - full if linear_layers is None else linear_layers
        architecture = _with_linear_attention(architecture, linear, count)
    elif sliding_window:
        architecture = with_window(architecture, sliding_window, layer_count - full)
    if architecture.parameter_count() > MAX_PARAMETERS:
        raise InvalidFieldError(
            "", f"the dimensions come to more than {MAX_PARAMETERS:.0e} parameters; reduce them"
        )
    return architecture


def with_window(architecture: Architecture, window: int, windowed: int) -> Architecture:
    """Returns the architecture with ``windowed`` of its layers looking back on ``window`` tokens.

    Layers are counted, not ordered: a step costs the same whichever they are. Dense
    layers and those with experts get their share of the windows, rounded.

    Args:
        architecture: of plain attention without windows.
        window: tokens, at least 1.
        windowed: number of layers with the window, 0 to ``layer_count``.
    """

    def narrowed(layer: Layer) -> Layer:
        attention = layer.attention
        if isinstance(attention, Attention):
            attention = replace(attention, window=window)
        return replace(layer, attention=attention)

    return _changed(architecture, windowed, narrowed)


def _with_linear_attention(
    architecture: Architecture, block: LinearAttention, linear: int
) -> Architecture:
    """Returns the architecture with linear attention in ``linear`` of its layers."""
    if linear == architecture.layer_count:
        raise InvalidFieldError(
            "full_attention_interval",
            "leaves no layer that attends to everything; with linear attention some layer must",
        )
    return _changed(architecture, linear, lambda layer: replace(layer, attention=block))


def _changed(
    architecture: Architecture, count: int, change: Callable[[Layer], Layer]
) -> Architecture:
    """Changes so many layers: dense ones and those with experts get their share, rounded."""
    groups: list[LayerGroup] = []
    left, layers = count, architecture.layer_count
    for group in architecture.layers:
        share = round(left * group.count / layers)
        left, layers = left - share, layers - group.count
        changed = LayerGroup(layer=change(group.layer), count=share)
        groups += [changed, replace(group, count=group.count - share)]
    return replace(architecture, layers=tuple(group for group in groups if group.count))


def dimensions_of(architecture: Architecture) -> Dimensions:
    """Returns the dimensions that ``architecture_of_dimensions`` builds the architecture from.

    Only where a config.json lists windowed or linear layers in a number that no interval
    gives is ``full_attention_interval`` the closest one. Dense layers among those with
    experts are counted, not placed.
    """
    layer = architecture.layers[0].layer
    block = layer.feed_forward
    attentions = [group.layer.attention for group in architecture.layers]
    linear = next((each for each in attentions if isinstance(each, LinearAttention)), None)
    # Some layer attends to everything: ``_with_linear_attention`` sees to it.
    attention = next(each for each in attentions if not isinstance(each, LinearAttention))
    latent = attention if isinstance(attention, LatentAttention) else None
    plain = attention if isinstance(attention, Attention) else None
    index = latent.indexer if latent else None
    dense = block.expert if isinstance(block, Experts) else block
    routed = architecture.experts
    counts: Counter[tuple[bool, bool]] = Counter()
    for group in architecture.layers:
        mixture = isinstance(group.layer.feed_forward, Experts)
        heads = group.layer.attention
        full_attention = heads.window is None and not isinstance(heads, LinearAttention)
        counts[mixture, full_attention] += group.count
    full = counts[False, True] + counts[True, True]
    mixtures = counts[True, True] + counts[True, False]
    # As many of them wherever they stand: an interval where one fits, else dense ones first.
    interval = _interval(architecture.layer_count, mixtures)
    if interval and architecture.layer_count // interval != mixtures:
        interval = 0
    windows = [group.layer.attention.window or 0 for group in architecture.layers]
    return Dimensions(
        name=architecture.name,
        hidden_size=architecture.hidden_size,
        layer_count=architecture.layer_count,
        query_heads=attention.query_heads,
        kv_heads=plain.kv_heads if plain else 0,
        head_dim=attention.head_dim,
        intermediate_size=dense.intermediate_size,
        vocab_size=architecture.vocab_size,
        plain_mlp=not dense.gated,
        activation=dense.activation,
        tied_embeddings=architecture.tied_embeddings,
        qkv_bias=plain is not None and plain.qkv_bias,
        attention_output_bias=plain is not None and plain.output_bias,
        mlp_bias=isinstance(block, FeedForward) and block.bias,
        qk_norm=plain is not None and plain.qk_norm,
        sliding_window=max(windows),
        full_attention_interval=_interval(architecture.layer_count, full),
        norm=architecture.norm,
        norms_per_layer=layer.norms,
        learned_positions=architecture.learned_positions,
        head_bias=architecture.head_bias,
        experts=routed.count if routed else 0,
        experts_per_token=routed.top_k if routed else 0,
        expert_intermediate_size=routed.expert.intermediate_size if routed else 0,
        shared_intermediate_size=routed.shared.intermediate_size if routed and routed.shared else 0,
        leading_dense_layers=0
        if interval
        else architecture.layer_count - mixtures
        if routed
        else 0,
        expert_interval=interval,
        expert_bias=routed is not None and routed.router_bias,
        kv_rank=latent.kv_rank if latent else 0,
        query_rank=latent.query_rank if latent else 0,
        rope_dim=latent.rope_dim if latent else 0,
        value_dim=latent.value_dim if latent else 0,
        attention_output_gate=plain is not None and plain.output_gate,
        linear_key_heads=linear.key_heads if linear else 0,
        linear_value_heads=linear.value_heads if linear else 0,
        linear_key_dim=linear.key_dim if linear else 0,
        linear_value_dim=linear.value_dim if linear else 0,
        linear_conv_width=linear.conv_width if linear else 0,
        index_top_k=index.top_k if index else 0,
        index_heads=index.heads if index else 0,
        index_head_dim=index.head_dim if index else 0,
    )


def closest_family(layer: Layer, learned_positions: int) -> str:
    """Returns the model type whose modules come closest to layers of explicit dimensions.

    Latent attention is DeepSeek's (V3's, with an indexer V3.2's), a gated output
    Qwen3.5's. Experts with biases are gpt-oss's, those behind
    QK norm Qwen3's, others Mixtral's. Learned positions are GPT-2's, a parallel block is
    Phi's, four norms are Gemma's (with QK norm Gemma 3's, else Gemma 2's), a plain
    feed-forward block is StarCoder 2's, QK norm is Qwen3's, biases on queries, keys and
    values alone are Qwen2's; all else is Llama's. What such a module lacks (a bias, a
    window) the operations have all the same.
    """
    attention, block = layer.attention, layer.feed_forward
    if isinstance(attention, LatentAttention):
        return "deepseek_v32" if attention.indexer else "deepseek_v3"
    if isinstance(attention, LinearAttention) or attention.output_gate:
        return "qwen3_5_moe_text" if isinstance(block, Experts) else "qwen3_5_text"
    if isinstance(block, Experts):
        if block.router_bias:
            return "gpt_oss"
        return "qwen3_moe" if attention.qk_norm else "mixtral"
    rules = (
        (learned_positions > 0, "gpt2"),
        (layer.norms == 1, "phi"),
        (layer.norms == 4, "gemma3_text" if attention.qk_norm else "gemma2"),
        (not block.gated, "starcoder2"),
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


def _usual_head_dim(hidden_size: int, query_heads: int) -> int:
    if hidden_size % query_heads:
        raise InvalidFieldError(
            "head_dim",
            f"required, as the {query_heads} query heads do not divide "
            f"the hidden size {hidden_size}",
        )
    return hidden_size // query_heads


def _interval(layer_count: int, full: int) -> int:
    """Inverts ``full = layer_count // interval``; 0 when all layers or none are full."""
    if full in {0, layer_count}:
        return 0
    return max(2, layer_count // full)


def _check_experts(sizes: Mapping[str, int]) -> None:
    count, layers = sizes["experts"], sizes["layer_count"]
    if not count:
        for field in _EXPERT_FIELDS:
            if sizes[field]:
                raise InvalidFieldError(field, "needs experts; set experts or use 0")
        return
    for field in ("experts_per_token", "expert_intermediate_size"):
        if not sizes[field]:
            raise InvalidFieldError(field, "required with experts; is at least 1")
    if sizes["experts_per_token"] > count:
        raise InvalidFieldError(
            "experts_per_token", f"{sizes['experts_per_token']} exceeds the {count} experts"
        )
    behind = layers - sizes["leading_dense_layers"]
    if behind < max(1, sizes["expert_interval"]):
        field = "leading_dense_layers" if behind < 1 else "expert_interval"
        raise InvalidFieldError(field, f"leaves none of the {layers} layers with experts")


def _check_latent(sizes: Mapping[str, int]) -> None:
    if sizes["kv_rank"]:
        if sizes["sliding_window"]:
            raise InvalidFieldError("sliding_window", "latent attention has none; use 0")
        _check_index(sizes)
        return
    for field in ("query_rank", "rope_dim", "value_dim", *_INDEX_FIELDS):
        if sizes[field]:
            raise InvalidFieldError(field, "needs latent attention; set kv_rank or use 0")


def _check_index(sizes: Mapping[str, int]) -> None:
    if not any(sizes[field] for field in _INDEX_FIELDS):
        return
    for field in (*_INDEX_FIELDS, "query_rank"):
        if not sizes[field]:
            raise InvalidFieldError(field, "required with sparse attention; is at least 1")


def _check_linear(sizes: Mapping[str, int]) -> None:
    if not any(sizes[field] for field in _LINEAR_FIELDS):
        return
    for field in _LINEAR_FIELDS:
        if not sizes[field]:
            raise InvalidFieldError(field, "required with linear attention; is at least 1")
    key_heads, value_heads = sizes["linear_key_heads"], sizes["linear_value_heads"]
    if value_heads % key_heads:
        raise InvalidFieldError(
            "linear_value_heads", f"{value_heads} is no multiple of the {key_heads} key heads"
        )
    if sizes["sliding_window"]:
        raise InvalidFieldError(
            "sliding_window", "linear attention takes the place of windowed layers; use 0"
        )
