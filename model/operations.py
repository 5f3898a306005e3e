"""What a device can execute, with its FLOPs and bytes.

FLOPs count a multiply-add as two. Bytes are the least that must move once:
weights and KV cache from memory, activations in and out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model.blocks import Attention, Experts, LatentAttention
    from model.precision import Precision


class OperationKind(StrEnum):
    """Kinds that a cost model prices apart; ``SHAPE_FIELDS`` names their sizes."""

    LINEAR = "linear"
    LINEAR_TRANSPOSED = "linear_transposed"
    """A linear whose weights are stored (k, n), as GPT-2's: other kernels run it."""
    BATCHED_LINEAR = "batched_linear"
    """As many equal products side by side, each with weights of its own."""
    ATTENTION = "attention"
    MLA = "mla"
    """Latent attention: absorbed into the latent for one query, over expanded heads else."""
    EXPERTS = "experts"
    """All routed experts of one rank, gate to down projection."""
    EMBEDDING = "embedding"
    LAYER_OVERHEAD = "layer_overhead"
    STEP_OVERHEAD = "step_overhead"
    REQUEST_OVERHEAD = "request_overhead"
    ALL_REDUCE = "all_reduce"
    ALL_TO_ALL = "all_to_all"
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
    OperationKind.BATCHED_LINEAR: ("m", "n", "k", "batch"),
    OperationKind.MLA: (
        "sequences",
        "query_tokens",
        "kv_tokens",
        "query_heads",
        "kv_rank",
        "rope_dim",
        "head_dim",
        "value_dim",
    ),
    OperationKind.EXPERTS: (
        "tokens",
        "hidden_size",
        "intermediate_size",
        "local_experts",
        "assignments",
        "touched",
    ),
    OperationKind.EMBEDDING: ("tokens", "hidden_size"),
    OperationKind.LAYER_OVERHEAD: ("kernels", "elements", "sequences"),
    OperationKind.STEP_OVERHEAD: ("sequences", "logits", "layers"),
    OperationKind.REQUEST_OVERHEAD: (),
    OperationKind.ALL_REDUCE: ("message_bytes", "ranks"),
    OperationKind.ALL_TO_ALL: ("message_bytes", "ranks"),
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

COLLECTIVES = frozenset(
    {OperationKind.ALL_REDUCE, OperationKind.ALL_TO_ALL, OperationKind.POINT_TO_POINT}
)
"""Kinds that devices exchange data in."""


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


def batched_linear(
    name: str, m: int, n: int, k: int, batch: int, precision: Precision, count: int = 1
) -> Operation:
    """Returns ``batch`` products ``y[m, n] = x[m, k] @ w[k, n]``, each with its own weights."""
    weights = n * k * precision.weight_bytes
    activations = m * (n + k) * precision.activation_bytes
    return Operation(
        OperationKind.BATCHED_LINEAR,
        name,
        precision,
        (m, n, k, batch),
        2.0 * batch * m * n * k,
        batch * (weights + activations),
        count,
    )


def mla(
    sequences: int,
    query_tokens: int,
    kv_tokens: int,
    heads: LatentAttention,
    kv_precision: Precision,
    count: int = 1,
) -> Operation:
    """Returns latent attention of the last ``query_tokens`` over ``kv_tokens`` each.

    A single query is absorbed: it attends to the latents themselves, which all heads
    share. Several attend to keys and values expanded for each head (DeepSeek-V2, arXiv
    2405.04434, section 2.1.2). Projections and expansion are operations of their own.
    """
    seen = sum_of_visible(query_tokens, kv_tokens, kv_tokens)
    width = kv_precision.activation_bytes
    if query_tokens == 1:
        query, value = heads.cached_values, heads.kv_rank
        read = kv_tokens * heads.cached_values * kv_precision.weight_bytes
    else:
        query, value = heads.query_dim, heads.value_dim
        read = kv_tokens * heads.query_heads * (query + value) * width
    written = query_tokens * heads.query_heads * (query + value) * width
    return Operation(
        OperationKind.MLA,
        "attention",
        kv_precision,
        (
            sequences,
            query_tokens,
            kv_tokens,
            heads.query_heads,
            heads.kv_rank,
            heads.rope_dim,
            heads.head_dim,
            heads.value_dim,
        ),
        2.0 * sequences * seen * heads.query_heads * (query + value),
        sequences * (read + written),
        count,
    )


def experts(
    tokens: int,
    hidden_size: int,
    block: Experts,
    precision: Precision,
    count: int = 1,
    imbalance: float = 1.0,
    touched: float | None = None,
) -> Operation:
    """Returns the routed experts of the fullest rank.

    Args:
        tokens: that are routed, those of all ranks that share the experts.
        hidden_size: width of the residual stream.
        block: already sharded.
        precision: of weights and activations.
        count: number of layers.
        imbalance: load of the fullest rank over the mean, at least 1.
        touched: experts met; None takes what as many random choices meet.
    """
    share = block.held / block.count
    assignments = min(tokens * block.top_k * share * imbalance, float(tokens) * block.held)
    if touched is None:
        touched = block.touched(tokens)
    one = block.expert.matrix_parameters(hidden_size)
    inner = block.expert.intermediate_size
    values = assignments * (2 * hidden_size + 2 * inner)
    return Operation(
        OperationKind.EXPERTS,
        "experts",
        precision,
        (tokens, hidden_size, inner, block.held, assignments, touched),
        2.0 * assignments * one,
        touched * one * precision.weight_bytes + values * precision.activation_bytes,
        count,
    )


def sum_of_visible(query_tokens: int, kv_tokens: int, window: int) -> float:
    """Returns the keys that all queries see: query i sees ``past + i + 1``, at most ``window``."""
    past = kv_tokens - query_tokens
    growing = max(0, min(query_tokens, window - past))
    return growing * past + growing * (growing + 1) / 2 + (query_tokens - growing) * window


def embedding(tokens: int, hidden_size: int, precision: Precision) -> Operation:
    """Returns the look-up of ``tokens`` rows and the final norm over them."""
    moved = 2.0 * tokens * hidden_size * precision.activation_bytes
    return Operation(
        OperationKind.EMBEDDING, "embedding", precision, (tokens, hidden_size), 0.0, moved
    )


def all_reduce(elements: float, ranks: int, precision: Precision, count: int = 1) -> Operation:
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


def all_to_all(elements: float, ranks: int, precision: Precision, count: int = 1) -> Operation:
    """Returns an all-to-all of which one rank sends all but its own share."""
    message = elements * precision.activation_bytes
    return Operation(
        OperationKind.ALL_TO_ALL,
        "all_to_all",
        precision,
        (message, ranks),
        0.0,
        message * (ranks - 1) / ranks,
        count,
    )
