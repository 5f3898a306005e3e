"""Which operations one rank executes in a layer and in a step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from model.architecture import Norm
from model.blocks import Attention, Experts, FeedForward, LatentAttention, LinearAttention
from model.operations import (
    Operation,
    OperationKind,
    all_gather,
    all_reduce,
    all_to_all,
    attention,
    batched_linear,
    convolution,
    embedding,
    experts,
    indexer,
    linear,
    linear_attention,
    mla,
    point_to_point,
    sparse_mla,
    top_k,
)
from model.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.architecture import Architecture, Layer
    from model.blocks import AnyAttention
    from model.precision import PackedFormat
    from model.workload import Parallelism, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Projections:
    """How a layer's projections and its cache are stored and run.

    Attributes:
        qkv: query, key and value as one.
        qkvz: of linear attention query, key, value and gate as one, and step size with decay.
        gate_up: gate and up as one.
        transposed: weights as (k, n).
        expands_latents: the whole context's latents are expanded in every pass, single
            queries' too.
        per_tensor: fp8 with one scale for all weights of a projection and one for all its
            activations; else there is one for each row of either.
        attention: kind of what reads keys and values, by the cache that holds them: one that is
            copied when it grows, one that is allocated once and written in place, or pages.
    """

    qkv: bool = False
    qkvz: bool = False
    gate_up: bool = False
    transposed: bool = False
    expands_latents: bool = False
    per_tensor: bool = False
    attention: OperationKind = OperationKind.ATTENTION

    def linear_kind(self, precision: Precision) -> OperationKind:
        """Returns the kind of a projection in that precision, unless it is ``transposed``."""
        if self.per_tensor and precision is Precision.FP8:
            return OperationKind.LINEAR_PER_TENSOR
        return OperationKind.LINEAR


SEPARATE = Projections()
FUSED = Projections(qkv=True, qkvz=True, gate_up=True)
FAMILY_PROJECTIONS = {
    "deepseek_v2": Projections(expands_latents=True),
    "deepseek_v3": Projections(expands_latents=True),
    "gpt2": Projections(qkv=True, transposed=True),
    "phi3": FUSED,
    "qwen3_next": Projections(qkvz=True),
}
"""Families whose modules in transformers have them otherwise than separate."""

FUSED_ENGINES = frozenset({"torch", "gpt-fast", "vllm", "sglang", "trtllm", "fastertransformer"})
"""Engines that run query, key and value, and gate and up, as one projection each, over a cache
that is written in place."""
PAGED_ENGINES = frozenset({"vllm", "sglang", "trtllm"})
"""Those of them whose cache is one of pages; that of the others is static. They are also those that
serve checkpoints published in fp8, such as NVIDIA's, which have a static scale for each tensor."""

GATHERING_ENGINES = frozenset({"transformers", "torch"})
"""Engines of which the gathering of a cut head's logits is priced as a collective of its own
(transformers' plan of Llama's modules: ``lm_head`` is "colwise_gather_output"). Serving engines
gather those of a step's sequences, too (vLLM's LogitsProcessor). By physics that takes 0.1 to 3% of
their decode steps (Llama 3.1 8B and 70B, 2 and 8 ranks of H100 or A100, 1 to 256 sequences), and
their coefficients were fitted on deployments of several ranks, too, which hold it already."""

_FUSED_STATIC = replace(FUSED, attention=OperationKind.STATIC_ATTENTION)
_FUSED_PAGED = replace(FUSED, per_tensor=True, attention=OperationKind.PAGED_ATTENTION)


def step_operations(
    architecture: Architecture,
    step: Step,
    parallelism: Parallelism,
    precision: Precision,
    kv_precision: Precision,
    engine: str,
    *,
    first: bool = False,
    imbalance: float = 1.0,
    filled: float = 1.0,
    stored_experts: PackedFormat | None = None,
) -> list[Operation]:
    """Lists what one rank of each pipeline stage runs in one step, one stage after the other.

    Args:
        architecture: the whole model; sharded here.
        step: the sequences of the step (of one data-parallel rank).
        parallelism: how the model is spread.
        precision: of weights and activations.
        kv_precision: of the KV cache.
        engine: decides which projections are fused.
        first: whether the step answers a new request (adds the request's overhead).
        imbalance: load of the fullest expert rank over the mean.
        filled: tokens of all data-parallel ranks over what there were if all had as many.
        stored_experts: format of the routed experts' weights; None is that of the others.

    Raises:
        InvalidFieldError: a degree does not fit; names it.
    """
    tokens = sum(s.tokens for s in step)
    sequences = sum(s.count for s in step)
    hidden, tensor = architecture.hidden_size, parallelism.tensor
    stored = projections_of(architecture, engine)
    rows = [embedding(tokens, hidden, precision)]
    data = parallelism.data
    for group in architecture.layers:
        layer = group.layer.shard(tensor, data=data, expert=parallelism.expert)
        rows += layer_operations(
            hidden,
            layer,
            step,
            precision,
            kv_precision,
            stored,
            group.count,
            routed=max(tokens, round(tokens * data * filled)),
            imbalance=imbalance,
            stored_experts=stored_experts,
        )
        rows += _collectives(hidden, layer, tokens, parallelism, precision, group.count)
    if parallelism.pipeline > 1:
        rows.append(point_to_point(tokens * hidden, precision, parallelism.pipeline - 1))
    vocab = -(-architecture.vocab_size // tensor)
    # GPT-2's is its embedding, and not transposed either.
    rows.append(
        linear("head", sequences, vocab, hidden, precision, kind=stored.linear_kind(precision))
    )
    logits = sequences * architecture.vocab_size
    if tensor > 1 and engine in GATHERING_ENGINES:
        rows.append(all_gather(logits, tensor, precision))
    rows.append(
        Operation(
            OperationKind.STEP_OVERHEAD,
            "step_overhead",
            precision,
            (sequences, logits, architecture.layer_count),
            0.0,
            logits * precision.activation_bytes,
        )
    )
    if first:
        rows.append(
            Operation(OperationKind.REQUEST_OVERHEAD, "request_overhead", precision, (), 0.0, 0.0)
        )
    return rows


def layer_operations(
    hidden_size: int,
    layer: Layer,
    step: Step,
    precision: Precision,
    kv_precision: Precision,
    stored: Projections = SEPARATE,
    count: int = 1,
    *,
    routed: int = 0,
    imbalance: float = 1.0,
    stored_experts: PackedFormat | None = None,
) -> list[Operation]:
    """Lists what one rank runs in ``count`` equal layers, collectives left out.

    Args:
        hidden_size: width of the residual stream.
        layer: already sharded.
        step: the sequences of the step.
        precision: of weights and activations.
        kv_precision: of the KV cache.
        stored: how its projections are stored.
        count: number of layers.
        routed: tokens that meet the experts, those of other data-parallel ranks included;
            0 is those of the step.
        imbalance: load of the fullest expert rank over the mean.
        stored_experts: format of the routed experts' weights; None is that of the others.
    """
    tokens = sum(s.tokens for s in step)
    heads, block = layer.attention, layer.feed_forward
    shapes = list(_attention_linears(hidden_size, heads, stored))
    dense = block.shared if isinstance(block, Experts) else block
    if dense is not None:
        shapes += _feed_forward_linears(hidden_size, dense, stored.gate_up)
    scaled = stored.linear_kind(precision)
    kind = OperationKind.LINEAR_TRANSPOSED if stored.transposed else scaled
    rows = [linear(name, tokens, n, k, precision, count, kind) for name, n, k in shapes]
    if isinstance(heads, LatentAttention):
        if stored.expands_latents:
            rows += _expanded_operations(step, heads, precision, kv_precision, count)
        else:
            rows += _latent_operations(
                hidden_size, step, heads, precision, kv_precision, count, scaled
            )
    elif isinstance(heads, LinearAttention):
        rows += _linear_attention_operations(
            hidden_size, step, heads, precision, count, fused=stored.qkvz
        )
    else:
        rows += [
            attention(
                s.count, s.query_tokens, s.kv_tokens, heads, kv_precision, count, stored.attention
            )
            for s in step
        ]
    if isinstance(block, Experts):
        plain = precision.activation
        rows.append(linear("router", tokens, block.count, hidden_size, plain, count))
        packed = stored_experts.precision if stored_experts else precision
        weight_bytes = stored_experts.weight_bytes if stored_experts else 0.0
        rows.append(
            experts(
                routed or tokens,
                hidden_size,
                block,
                packed,
                count,
                imbalance,
                weight_bytes=weight_bytes,
            )
        )
    rows.append(
        layer_overhead(hidden_size, layer, tokens, sum(s.count for s in step), precision, count)
    )
    return rows


def projections_of(architecture: Architecture, engine: str) -> Projections:
    """Returns how an engine stores the projections of an architecture."""
    if engine in PAGED_ENGINES:
        return _FUSED_PAGED
    if engine in FUSED_ENGINES:
        return _FUSED_STATIC
    return FAMILY_PROJECTIONS.get(architecture.model_type, SEPARATE)


def layer_overhead(
    hidden_size: int,
    layer: Layer,
    tokens: int,
    sequences: int,
    precision: Precision,
    count: int = 1,
) -> Operation:
    """Returns all of a layer beyond projections and attention: norms, rotary, product, sums.

    Sizes: ``kernels``, the elementwise kernels that an eager layer launches, and
    ``elements``, the values that they write, both counted off the modules of
    transformers (an RMS norm is six kernels, a layer norm one; rotary positions are five
    over queries and keys).
    """
    heads = layer.attention
    norm_kernels = 6 if layer.norm is Norm.RMS else 1
    kernels = norm_kernels * layer.norms + 2
    elements = (norm_kernels * layer.norms + 2) * hidden_size
    attention_kernels, attention_elements = _attention_overhead(heads, norm_kernels)
    kernels += attention_kernels
    elements += attention_elements
    block = layer.feed_forward
    if isinstance(block, Experts):
        # Scores, choice and weights of the router; a sum over the chosen experts.
        kernels += 6
        elements += 3 * block.count + block.top_k * hidden_size
    dense = block.shared if isinstance(block, Experts) else block
    if dense is not None:
        inner_kernels = 2 if dense.gated else 1
        kernels += inner_kernels
        elements += inner_kernels * dense.intermediate_size
    values = float(tokens) * elements
    return Operation(
        OperationKind.LAYER_OVERHEAD,
        "layer_overhead",
        precision,
        (kernels, values, sequences),
        values,
        2 * values * precision.activation_bytes,
        count,
    )


def _attention_overhead(heads: AnyAttention, norm_kernels: int) -> tuple[int, int]:
    """Returns the elementwise kernels of an attention, and the values that they write a token."""
    if isinstance(heads, LinearAttention):
        # Step size and decay of each head, then norm, activation and product of the gate.
        gated = norm_kernels + 2
        return 5 + gated, 5 * heads.value_heads + gated * heads.value_size
    if isinstance(heads, LatentAttention):
        rotated = (heads.query_heads + 1) * heads.rope_dim
        kernels = 10 + 2 * norm_kernels
        elements = 5 * rotated + norm_kernels * (heads.query_rank + heads.kv_rank)
        if index := heads.indexer:
            kernels += 10 + 1
            elements += 5 * (index.heads + 1) * heads.rope_dim + index.head_dim
        return kernels, elements
    rotated = (heads.query_heads + heads.kv_heads) * heads.head_dim
    kernels, elements = 10, 5 * rotated
    if heads.qk_norm:
        kernels += 2 * norm_kernels
        elements += norm_kernels * rotated
    if heads.output_gate:
        kernels += 2
        elements += 2 * heads.query_heads * heads.head_dim
    return kernels, elements


def _collectives(
    hidden_size: int,
    layer: Layer,
    tokens: int,
    parallelism: Parallelism,
    precision: Precision,
    count: int,
) -> Iterator[Operation]:
    """Yields what the ranks of a layer exchange: sums behind attention and feed-forward.

    Ranks of attention data parallelism hold other tokens: each sends its own to the
    experts that they chose and gets the results back, one all-to-all either way.
    """
    tensor, block = parallelism.tensor, layer.feed_forward
    spread = isinstance(block, Experts) and parallelism.data > 1
    if tensor > 1:
        sums = 1 if spread else 2
        yield all_reduce(tokens * hidden_size, tensor, precision, sums * count)
    if isinstance(block, Experts) and spread:
        # Tensor ranks hold the same tokens; each sends a share of them.
        sent = -(-tokens * block.top_k * hidden_size // tensor)
        yield all_to_all(sent, tensor * parallelism.data, precision, 2 * count)


def _attention_linears(
    hidden_size: int, heads: AnyAttention, stored: Projections
) -> Iterator[tuple[str, int, int]]:
    if isinstance(heads, LatentAttention):
        yield from _latent_linears(hidden_size, heads, stored.qkv)
        return
    if isinstance(heads, LinearAttention):
        if stored.qkvz:
            yield "qkvz_proj", heads.channels + heads.value_size, hidden_size
        else:
            yield "qkv_proj", heads.channels, hidden_size
            yield "z_proj", heads.value_size, hidden_size
        yield "o_proj", hidden_size, heads.value_size
        return
    query, kv = heads.projected_queries, heads.kv_heads * heads.head_dim
    if stored.qkv:
        yield "qkv_proj", query + 2 * kv, hidden_size
    else:
        yield "q_proj", query, hidden_size
        yield "k_proj", kv, hidden_size
        yield "v_proj", kv, hidden_size
    yield "o_proj", hidden_size, heads.query_heads * heads.head_dim


def _latent_linears(
    hidden_size: int, heads: LatentAttention, fused: bool
) -> Iterator[tuple[str, int, int]]:
    queries = heads.query_heads * heads.query_dim
    if fused and heads.query_rank:
        yield "qkv_a_proj", heads.query_rank + heads.cached_values, hidden_size
    else:
        yield "kv_a_proj", heads.cached_values, hidden_size
        if heads.query_rank:
            yield "q_a_proj", heads.query_rank, hidden_size
    if heads.query_rank:
        yield "q_b_proj", queries, heads.query_rank
    else:
        yield "q_proj", queries, hidden_size
    yield "o_proj", hidden_size, heads.query_heads * heads.value_dim
    if index := heads.indexer:
        yield "index_q_proj", index.heads * index.head_dim, heads.query_rank
        yield "index_k_proj", index.head_dim, hidden_size


def _latent_operations(
    hidden_size: int,
    step: Step,
    heads: LatentAttention,
    precision: Precision,
    kv_precision: Precision,
    count: int,
    kind: OperationKind,
) -> Iterator[Operation]:
    """Yields attention with what leads into and out of the latent, by linears of that kind.

    Single queries are absorbed; the keys and values of a prompt's tokens are expanded,
    unless an indexer picks other ones for each.
    """
    plain, index = precision.activation, heads.indexer
    absorbed = sum(s.tokens for s in step if s.query_tokens == 1 or index is not None)
    if absorbed:
        batch, rank = heads.query_heads, heads.kv_rank
        yield batched_linear("q_absorb", absorbed, rank, heads.head_dim, batch, plain, count)
        yield batched_linear("v_absorb", absorbed, heads.value_dim, rank, batch, plain, count)
    if index is not None:
        yield linear("index_weights", absorbed, index.heads, hidden_size, plain, count)
        for s in step:
            yield indexer(s.count, s.query_tokens, s.kv_tokens, index, count)
            yield top_k(s.count, s.query_tokens, s.kv_tokens, index.top_k, count)
            yield sparse_mla(
                s.count, s.query_tokens, s.kv_tokens, heads, index.top_k, kv_precision, count
            )
        return
    expanded = sum(s.count * s.kv_tokens for s in step if s.query_tokens > 1)
    if expanded:
        width = heads.query_heads * (heads.head_dim + heads.value_dim)
        yield linear("kv_b_proj", expanded, width, heads.kv_rank, precision, count, kind)
    for s in step:
        yield mla(s.count, s.query_tokens, s.kv_tokens, heads, kv_precision, count)


def _expanded_operations(
    step: Step, heads: LatentAttention, precision: Precision, kv_precision: Precision, count: int
) -> Iterator[Operation]:
    """Yields attention behind an expansion of the whole context's latents.

    A single query then is plain attention, over heads as wide as keys and values on average.
    """
    expanded = sum(s.count * s.kv_tokens for s in step)
    width = heads.query_heads * (heads.head_dim + heads.value_dim)
    yield linear("kv_b_proj", expanded, width, heads.kv_rank, precision, count)
    plain = Attention(
        query_heads=heads.query_heads,
        kv_heads=heads.query_heads,
        head_dim=-(-(heads.query_dim + heads.value_dim) // 2),
    )
    for s in step:
        if s.query_tokens == 1:
            yield attention(s.count, 1, s.kv_tokens, plain, kv_precision, count)
        else:
            yield mla(s.count, s.query_tokens, s.kv_tokens, heads, kv_precision, count)


def _linear_attention_operations(
    hidden_size: int,
    step: Step,
    heads: LinearAttention,
    precision: Precision,
    count: int,
    *,
    fused: bool,
) -> Iterator[Operation]:
    """Yields the convolution and the recurrence, behind each head's step size and decay."""
    tokens, plain = sum(s.tokens for s in step), precision.activation
    if fused:
        yield linear("ba_proj", tokens, 2 * heads.value_heads, hidden_size, plain, count)
    else:
        yield linear("b_proj", tokens, heads.value_heads, hidden_size, plain, count)
        yield linear("a_proj", tokens, heads.value_heads, hidden_size, plain, count)
    for s in step:
        yield convolution(
            s.count, s.query_tokens, heads.channels, heads.conv_width, precision, count
        )
        yield linear_attention(s.count, s.query_tokens, heads, precision, count)


def _feed_forward_linears(
    hidden_size: int, block: FeedForward, fused: bool
) -> Iterator[tuple[str, int, int]]:
    inner = block.intermediate_size
    if not block.gated:
        yield "up_proj", inner, hidden_size
    elif fused:
        yield "gate_up_proj", 2 * inner, hidden_size
    else:
        yield "gate_proj", inner, hidden_size
        yield "up_proj", inner, hidden_size
    yield "down_proj", hidden_size, inner
