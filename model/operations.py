"""What a device executes in one forward pass, with its FLOPs and bytes.

FLOPs count a multiply-add as two. Bytes are the least that must move once:
weights and KV cache from memory, activations in and out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from model.architecture import Norm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from model.architecture import Architecture, Attention, FeedForward, Layer
    from model.precision import Precision
    from model.workload import Parallelism, Step


class OperationKind(StrEnum):
    """Kinds that a cost model prices apart; ``SHAPE_FIELDS`` names their sizes."""

    LINEAR = "linear"
    LINEAR_TRANSPOSED = "linear_transposed"
    """A linear whose weights are stored (k, n), as GPT-2's: other kernels run it."""
    ATTENTION = "attention"
    EMBEDDING = "embedding"
    LAYER_OVERHEAD = "layer_overhead"
    STEP_OVERHEAD = "step_overhead"
    REQUEST_OVERHEAD = "request_overhead"
    ALL_REDUCE = "all_reduce"
    POINT_TO_POINT = "point_to_point"


SHAPE_FIELDS: dict[OperationKind, tuple[str, ...]] = {
    OperationKind.LINEAR: ("m", "n", "k"),
    OperationKind.LINEAR_TRANSPOSED: ("m", "n", "k"),
    OperationKind.ATTENTION: (
        "sequences",
        "query_tokens",
        "kv_tokens",
        "query_heads",
        "kv_heads",
        "head_dim",
    ),
    OperationKind.EMBEDDING: ("tokens", "hidden_size"),
    OperationKind.LAYER_OVERHEAD: ("kernels", "elements", "sequences"),
    OperationKind.STEP_OVERHEAD: ("sequences", "logits", "layers"),
    OperationKind.REQUEST_OVERHEAD: (),
    OperationKind.ALL_REDUCE: ("message_bytes", "ranks"),
    OperationKind.POINT_TO_POINT: ("message_bytes",),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a step.

    Attributes:
        kind: what it is.
        name: which one of the model ("q_proj", "attention", "head").
        precision: of weights and activations; of the KV cache for attention.
        shape: sizes in the order of ``SHAPE_FIELDS[kind]``.
        flops: floating-point operations of one run.
        bytes: bytes moved by one run.
        count: runs in the step.
    """

    kind: OperationKind
    name: str
    precision: Precision
    shape: tuple[float, ...]
    flops: float
    bytes: float
    count: int = 1


LINEARS = frozenset({OperationKind.LINEAR, OperationKind.LINEAR_TRANSPOSED})
"""Kinds that are matrix products with weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Projections:
    """How a layer's projections are stored.

    Attributes:
        qkv: query, key and value as one.
        gate_up: gate and up as one.
        transposed: weights as (k, n).
    """

    qkv: bool = False
    gate_up: bool = False
    transposed: bool = False


SEPARATE = Projections()
FUSED = Projections(qkv=True, gate_up=True)
FAMILY_PROJECTIONS = {"gpt2": Projections(qkv=True, transposed=True), "phi3": FUSED}
"""Families whose modules in transformers store them otherwise than separate."""

FUSED_ENGINES = frozenset({"torch", "gpt-fast", "vllm", "sglang", "trtllm", "fastertransformer"})
"""Engines that run query, key and value, and gate and up, as one projection each."""


def linear(
    name: str,
    m: int,
    n: int,
    k: int,
    precision: Precision,
    count: int = 1,
    kind: OperationKind = OperationKind.LINEAR,
) -> Operation:
    """Returns ``y[m, n] = x[m, k] @ w[k, n]``; ``kind`` is one of ``LINEARS``."""
    weights = n * k * precision.weight_bytes
    activations = m * (n + k) * precision.activation_bytes
    return Operation(
        kind,
        name,
        precision,
        (m, n, k),
        2.0 * m * n * k,
        weights + activations,
        count,
    )


def attention(
    sequences: int,
    query_tokens: int,
    kv_tokens: int,
    heads: Attention,
    kv_precision: Precision,
    count: int = 1,
) -> Operation:
    """Returns causal attention of the last ``query_tokens`` over ``kv_tokens`` each.

    A window bounds what a query sees and what the cache holds.
    """
    window = heads.window or kv_tokens
    kv_read = min(kv_tokens, window + query_tokens - 1)
    seen = sum_of_visible(query_tokens, kv_read, window)
    query_size = heads.query_heads * heads.head_dim
    kv_size = heads.kv_heads * heads.head_dim
    query_bytes = query_tokens * query_size * kv_precision.activation_bytes
    return Operation(
        OperationKind.ATTENTION,
        "attention",
        kv_precision,
        (sequences, query_tokens, kv_read, heads.query_heads, heads.kv_heads, heads.head_dim),
        4.0 * sequences * seen * query_size,
        2.0 * sequences * (kv_read * kv_size * kv_precision.weight_bytes + query_bytes),
        count,
    )


def sum_of_visible(query_tokens: int, kv_tokens: int, window: int) -> float:
    """Returns the keys that all queries see: query i sees ``past + i + 1``, at most ``window``."""
    past = kv_tokens - query_tokens
    growing = max(0, min(query_tokens, window - past))
    return growing * past + growing * (growing + 1) / 2 + (query_tokens - growing) * window


def step_operations(
    architecture: Architecture,
    step: Step,
    parallelism: Parallelism,
    precision: Precision,
    kv_precision: Precision,
    engine: str,
    *,
    first: bool = False,
) -> list[Operation]:
    """Lists what one rank of each pipeline stage runs in one step, one stage after the other.

    Args:
        architecture: the whole model; sharded here.
        step: the sequences of the step (of one data-parallel rank).
        parallelism: ``tensor`` and ``pipeline`` count here.
        precision: of weights and activations.
        kv_precision: of the KV cache.
        engine: decides which projections are fused.
        first: whether the step answers a new request (adds the request's overhead).

    Raises:
        InvalidFieldError: the tensor degree does not fit; names ``tensor``.
    """
    tokens = sum(s.tokens for s in step)
    sequences = sum(s.count for s in step)
    hidden, tensor = architecture.hidden_size, parallelism.tensor
    stored = projections_of(architecture, engine)
    rows = [embedding(tokens, hidden, precision)]
    for group in architecture.layers:
        layer = group.layer.shard(tensor)
        rows += layer_operations(hidden, layer, step, precision, kv_precision, stored, group.count)
        if tensor > 1:
            rows.append(all_reduce(tokens * hidden, tensor, precision, 2 * group.count))
    if parallelism.pipeline > 1:
        message = tokens * hidden * precision.activation_bytes
        rows.append(
            Operation(
                OperationKind.POINT_TO_POINT,
                "stage_to_stage",
                precision,
                (message,),
                0.0,
                message,
                parallelism.pipeline - 1,
            )
        )
    vocab = -(-architecture.vocab_size // tensor)
    rows.append(linear("head", sequences, vocab, hidden, precision))
    logits = sequences * architecture.vocab_size
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
    """
    tokens = sum(s.tokens for s in step)
    shapes = (
        *_attention_linears(hidden_size, layer.attention, stored.qkv),
        *_feed_forward_linears(hidden_size, layer.feed_forward, stored.gate_up),
    )
    kind = OperationKind.LINEAR_TRANSPOSED if stored.transposed else OperationKind.LINEAR
    rows = [linear(name, tokens, n, k, precision, count, kind) for name, n, k in shapes]
    rows += [
        attention(s.count, s.query_tokens, s.kv_tokens, layer.attention, kv_precision, count)
        for s in step
    ]
    rows.append(
        layer_overhead(hidden_size, layer, tokens, sum(s.count for s in step), precision, count)
    )
    return rows


def projections_of(architecture: Architecture, engine: str) -> Projections:
    """Returns how an engine stores the projections of an architecture."""
    if engine in FUSED_ENGINES:
        return FUSED
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
    query, kv = heads.query_heads * heads.head_dim, heads.kv_heads * heads.head_dim
    norm_kernels = 6 if layer.norm is Norm.RMS else 1
    inner = layer.feed_forward.intermediate_size
    inner_kernels = 2 if layer.feed_forward.gated else 1
    kernels = norm_kernels * layer.norms + 10 + inner_kernels + 2
    elements = (
        (norm_kernels * layer.norms + 2) * hidden_size + 5 * (query + kv) + inner_kernels * inner
    )
    if heads.qk_norm:
        kernels += 2 * norm_kernels
        elements += norm_kernels * (query + kv)
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


def embedding(tokens: int, hidden_size: int, precision: Precision) -> Operation:
    """Returns the look-up of ``tokens`` rows and the final norm over them."""
    moved = 2.0 * tokens * hidden_size * precision.activation_bytes
    return Operation(
        OperationKind.EMBEDDING, "embedding", precision, (tokens, hidden_size), 0.0, moved
    )


def all_reduce(elements: int, ranks: int, precision: Precision, count: int = 1) -> Operation:
    """Returns a ring all-reduce; one rank sends 2 (ranks - 1) / ranks of the message."""
    message = elements * precision.activation_bytes
    return Operation(
        OperationKind.ALL_REDUCE,
        "all_reduce",
        precision,
        (message, ranks),
        0.0,
        message * 2 * (ranks - 1) / ranks,
        count,
    )


def total(operations: Iterable[Operation]) -> tuple[float, float]:
    """Returns the FLOPs and the bytes of all runs of all operations."""
    rows = list(operations)
    return sum(o.flops * o.count for o in rows), sum(o.bytes * o.count for o in rows)


def _attention_linears(
    hidden_size: int, heads: Attention, fused: bool
) -> Iterator[tuple[str, int, int]]:
    query, kv = heads.query_heads * heads.head_dim, heads.kv_heads * heads.head_dim
    if fused:
        yield "qkv_proj", query + 2 * kv, hidden_size
    else:
        yield "q_proj", query, hidden_size
        yield "k_proj", kv, hidden_size
        yield "v_proj", kv, hidden_size
    yield "o_proj", hidden_size, query


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
