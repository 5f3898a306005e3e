"""What a device can execute, with its FLOPs and bytes.

FLOPs count a multiply-add as two. Bytes are the least that must move once:
weights and KV cache from memory, activations in and out.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from model.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model.blocks import Attention, Experts, Indexer, LatentAttention, LinearAttention


class OperationKind(StrEnum):
    """Kinds that a cost model prices apart; ``SHAPE_FIELDS`` names their sizes."""

    LINEAR = "linear"
    LINEAR_TRANSPOSED = "linear_transposed"
    """A linear whose weights are stored (k, n), as GPT-2's: other kernels run it."""
    LINEAR_PER_TENSOR = "linear_per_tensor"
    """A linear in fp8 with one scale for all weights and one for all activations, as NVIDIA's
    checkpoints of dense models have them; a ``LINEAR`` measured here has one a row of either."""
    BATCHED_LINEAR = "batched_linear"
    """As many equal products side by side, each with weights of its own."""
    ATTENTION = "attention"
    STATIC_ATTENTION = "static_attention"
    """Attention over a cache that was allocated once and is written in place, as engines with
    static batches have it; transformers' cache is copied when it grows."""
    PAGED_ATTENTION = "paged_attention"
    """Attention over a cache of pages that lie anywhere, as continuous batching needs it (vLLM,
    arXiv 2309.06180, section 4)."""
    MLA = "mla"
    """Latent attention: absorbed into the latent for one query, over expanded heads else."""
    SPARSE_MLA = "sparse_mla"
    """Latent attention, absorbed for any number of queries, of each over chosen latents."""
    INDEXER = "indexer"
    """Scores of all keys, of which sparse attention keeps the best."""
    TOP_K = "top_k"
    """Choice of the best scores."""
    LINEAR_ATTENTION = "linear_attention"
    """The gated delta rule: recurrent for one query, in chunks else."""
    CONVOLUTION = "convolution"
    """A short causal convolution of each channel."""
    EXPERTS = "experts"
    """All routed experts of one rank, gate to down projection."""
    EMBEDDING = "embedding"
    LAYER_OVERHEAD = "layer_overhead"
    STEP_OVERHEAD = "step_overhead"
    REQUEST_OVERHEAD = "request_overhead"
    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    ALL_TO_ALL = "all_to_all"
    POINT_TO_POINT = "point_to_point"


_ATTENTION_FIELDS = (
    "sequences",
    "query_tokens",
    "kv_tokens",
    "query_heads",
    "kv_heads",
    "head_dim",
)
SHAPE_FIELDS: dict[OperationKind, tuple[str, ...]] = {
    OperationKind.LINEAR: ("m", "n", "k"),
    OperationKind.LINEAR_TRANSPOSED: ("m", "n", "k"),
    OperationKind.LINEAR_PER_TENSOR: ("m", "n", "k"),
    OperationKind.ATTENTION: _ATTENTION_FIELDS,
    OperationKind.STATIC_ATTENTION: _ATTENTION_FIELDS,
    OperationKind.PAGED_ATTENTION: _ATTENTION_FIELDS,
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
    OperationKind.SPARSE_MLA: (
        "sequences",
        "query_tokens",
        "kv_tokens",
        "query_heads",
        "kv_rank",
        "rope_dim",
        "top_k",
    ),
    OperationKind.INDEXER: ("sequences", "query_tokens", "kv_tokens", "heads", "head_dim"),
    OperationKind.TOP_K: ("sequences", "query_tokens", "kv_tokens", "top_k"),
    OperationKind.LINEAR_ATTENTION: (
        "sequences",
        "query_tokens",
        "key_heads",
        "value_heads",
        "key_dim",
        "value_dim",
    ),
    OperationKind.CONVOLUTION: ("sequences", "query_tokens", "channels", "width"),
    OperationKind.EXPERTS: (
        "tokens",
        "hidden_size",
        "intermediate_size",
        "local_experts",
        "assignments",
        "touched",
        "experts",
    ),
    OperationKind.EMBEDDING: ("tokens", "hidden_size"),
    OperationKind.LAYER_OVERHEAD: ("kernels", "elements", "sequences"),
    OperationKind.STEP_OVERHEAD: ("sequences", "logits", "layers"),
    OperationKind.REQUEST_OVERHEAD: (),
    OperationKind.ALL_REDUCE: ("message_bytes", "ranks"),
    OperationKind.ALL_GATHER: ("message_bytes", "ranks"),
    OperationKind.ALL_TO_ALL: ("message_bytes", "ranks"),
    OperationKind.POINT_TO_POINT: ("message_bytes", "ranks"),
}


CHUNK_TOKENS = 64
"""Tokens that the gated delta rule takes as one chunk, in transformers and in the engines."""
_SCORE_BYTES = 4
"""Scores and their weights are fp32."""


class Operation(NamedTuple):
    """One operation of a step; a tuple, as a request makes a hundred of them.

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
    count: int = 1  # type: ignore[assignment]  # hides the tuple's method

    @property
    def multiplied_in(self) -> Precision:
        """Format that is multiplied: attention's is the activations', whatever the cache's is."""
        return self.precision.activation if self.kind in ATTENTIONS else self.precision


LINEARS = frozenset(
    {
        OperationKind.LINEAR,
        OperationKind.LINEAR_TRANSPOSED,
        OperationKind.LINEAR_PER_TENSOR,
    }
)
"""Kinds that are matrix products with weights."""

PLAIN_ATTENTIONS = frozenset(
    {
        OperationKind.ATTENTION,
        OperationKind.STATIC_ATTENTION,
        OperationKind.PAGED_ATTENTION,
    }
)
"""Kinds in which each head reads keys and values of its own or its group's."""

ATTENTIONS = PLAIN_ATTENTIONS | {OperationKind.MLA, OperationKind.SPARSE_MLA}
"""Kinds that read a KV cache, in whose precision they are given."""

COLLECTIVES = frozenset(
    {
        OperationKind.ALL_REDUCE,
        OperationKind.ALL_GATHER,
        OperationKind.ALL_TO_ALL,
        OperationKind.POINT_TO_POINT,
    }
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
    kind: OperationKind = OperationKind.ATTENTION,
) -> Operation:
    """Returns causal attention of the last ``query_tokens`` over ``kv_tokens`` each.

    A window bounds what a query sees and what the cache holds; ``kind`` is one of
    ``PLAIN_ATTENTIONS``.
    """
    window = heads.window or kv_tokens
    kv_read = min(kv_tokens, window + query_tokens - 1)
    seen = sum_of_visible(query_tokens, kv_read, window)
    query_size = heads.query_heads * heads.head_dim
    kv_size = heads.kv_heads * heads.head_dim
    query_bytes = query_tokens * query_size * kv_precision.activation_bytes
    return Operation(
        kind,
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


def sparse_mla(
    sequences: int,
    query_tokens: int,
    kv_tokens: int,
    heads: LatentAttention,
    top_k: int,
    kv_precision: Precision,
    count: int = 1,
) -> Operation:
    """Returns latent attention of each query over the ``top_k`` latents chosen for it.

    Each query sees others, so nothing is expanded: all are absorbed (DeepSeek-V3.2, arXiv
    2512.02556, section 2.1). Of the cache no more is read than all queries choose.
    """
    seen = sum_of_visible(query_tokens, kv_tokens, top_k)
    query, value = heads.cached_values, heads.kv_rank
    read = min(kv_tokens, query_tokens * top_k) * query * kv_precision.weight_bytes
    values = query_tokens * heads.query_heads * (query + value)
    return Operation(
        OperationKind.SPARSE_MLA,
        "attention",
        kv_precision,
        (
            sequences,
            query_tokens,
            kv_tokens,
            heads.query_heads,
            heads.kv_rank,
            heads.rope_dim,
            top_k,
        ),
        2.0 * sequences * seen * heads.query_heads * (query + value),
        sequences * (read + values * kv_precision.activation_bytes),
        count,
    )


def indexer(
    sequences: int,
    query_tokens: int,
    kv_tokens: int,
    block: Indexer,
    count: int = 1,
) -> Operation:
    """Returns the scores of all keys that the last ``query_tokens`` see, in fp8.

    A score is the weighted sum over heads of a rectified product, written in fp32.
    """
    seen = sum_of_visible(query_tokens, kv_tokens, kv_tokens)
    queries = query_tokens * block.heads * (block.head_dim + _SCORE_BYTES)
    return Operation(
        OperationKind.INDEXER,
        "indexer",
        Precision.FP8,
        (sequences, query_tokens, kv_tokens, block.heads, block.head_dim),
        2.0 * sequences * seen * block.heads * (block.head_dim + 1),
        sequences * (kv_tokens * block.cached_bytes + queries + seen * _SCORE_BYTES),
        count,
    )


def top_k(
    sequences: int, query_tokens: int, kv_tokens: int, chosen: int, count: int = 1
) -> Operation:
    """Returns the choice of the ``chosen`` best of each query's scores.

    All are read, and compared, once.
    """
    seen = sum_of_visible(query_tokens, kv_tokens, kv_tokens)
    kept = sum_of_visible(query_tokens, kv_tokens, chosen)
    return Operation(
        OperationKind.TOP_K,
        "top_k",
        Precision.FP32,
        (sequences, query_tokens, kv_tokens, chosen),
        1.0 * sequences * seen,
        sequences * (seen + kept) * _SCORE_BYTES,
        count,
    )


def linear_attention(
    sequences: int,
    query_tokens: int,
    heads: LinearAttention,
    precision: Precision,
    count: int = 1,
) -> Operation:
    """Returns the gated delta rule over ``query_tokens`` of each sequence.

    One token decays the state, reads what its key recalls, writes the correction and reads
    what its query asks: 7 operations for each value of the state. Several are taken in
    chunks of C = 64 (arXiv 2412.06464, section 3.3; arXiv 2406.06484, section 3.2): a chunk
    has the products of keys with keys and queries (2 x 2 C^2 key_dim), a triangular system
    (C^3 / 3) applied to keys and values (2 C^2 (key_dim + value_dim)), the queries' share
    of the corrected values (2 C^2 value_dim), and three products with the state
    (3 x 2 C key_dim value_dim). A chunk that is not full costs as much.

    The state is read and written once, in fp32, whatever the length.
    """
    key, value = heads.key_dim, heads.value_dim
    if query_tokens == 1:
        work = 7.0 * key * value
    else:
        chunk = CHUNK_TOKENS
        system = chunk**3 / 3 + 2 * chunk**2 * (3 * key + 2 * value)
        work = -(-query_tokens // chunk) * (system + 6.0 * chunk * key * value)
    values = heads.channels + heads.value_size + 2 * heads.value_heads
    state = 2 * heads.state_values * Precision.FP32.weight_bytes
    return Operation(
        OperationKind.LINEAR_ATTENTION,
        "linear_attention",
        precision.activation,
        (sequences, query_tokens, heads.key_heads, heads.value_heads, key, value),
        sequences * heads.value_heads * work,
        sequences * (state + query_tokens * values * precision.activation_bytes),
        count,
    )


def convolution(
    sequences: int,
    query_tokens: int,
    channels: int,
    width: int,
    precision: Precision,
    count: int = 1,
) -> Operation:
    """Returns a causal convolution of each channel over the last ``width`` tokens."""
    kept = 2 * (width - 1) * channels
    moved = sequences * (2 * query_tokens * channels + kept) + channels * width
    return Operation(
        OperationKind.CONVOLUTION,
        "convolution",
        precision.activation,
        (sequences, query_tokens, channels, width),
        2.0 * sequences * query_tokens * channels * width,
        moved * precision.activation_bytes,
        count,
    )


def experts(
    tokens: int,
    hidden_size: int,
    block: Experts,
    precision: Precision,
    count: int = 1,
    imbalance: float = 1.0,
    *,
    touched: float | None = None,
    weight_bytes: float = 0.0,
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
        weight_bytes: of one weight, where it is packed otherwise than the precision says.
    """
    share = block.held / block.count
    # A token goes to an expert once: a rank that holds all has its share whatever the imbalance.
    most = float(tokens) * min(block.top_k, block.held)
    assignments = min(tokens * block.top_k * share * imbalance, most)
    if touched is None:
        touched = block.touched(tokens)
    one = block.expert.matrix_parameters(hidden_size)
    inner = block.expert.intermediate_size
    values = assignments * (2 * hidden_size + 2 * inner)
    return Operation(
        OperationKind.EXPERTS,
        "experts",
        precision,
        (tokens, hidden_size, inner, block.held, assignments, touched, block.count),
        2.0 * assignments * one,
        touched * one * (weight_bytes or precision.weight_bytes)
        + values * precision.activation_bytes,
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


def total(operations: Iterable[Operation]) -> tuple[float, float]:
    """Returns the FLOPs and the bytes of all runs of all operations."""
    rows = list(operations)
    return sum(o.flops * o.count for o in rows), sum(o.bytes * o.count for o in rows)


def point_to_point(elements: float, precision: Precision, count: int = 1) -> Operation:
    """Returns what one rank sends to another, as a pipeline's stage does to the next."""
    message = elements * precision.activation_bytes
    return Operation(
        OperationKind.POINT_TO_POINT,
        "stage_to_stage",
        precision,
        (message, 2),
        0.0,
        message,
        count,
    )


def all_reduce(elements: float, ranks: int, precision: Precision, count: int = 1) -> Operation:
    """Returns a ring all-reduce; one rank sends 2 (ranks - 1) / ranks of the message."""
    return _collective(OperationKind.ALL_REDUCE, elements, ranks, precision, count, times=2)


def all_to_all(elements: float, ranks: int, precision: Precision, count: int = 1) -> Operation:
    """Returns an all-to-all of which one rank sends all but its own share."""
    return _collective(OperationKind.ALL_TO_ALL, elements, ranks, precision, count)


def all_gather(elements: float, ranks: int, precision: Precision, count: int = 1) -> Operation:
    """Returns an all-gather after which each rank holds ``elements``, its own share among them."""
    return _collective(OperationKind.ALL_GATHER, elements, ranks, precision, count)


def _collective(
    kind: OperationKind,
    elements: float,
    ranks: int,
    precision: Precision,
    count: int,
    times: int = 1,
) -> Operation:
    """Returns an exchange that moves all but a rank's own share of a message, so many times."""
    message = elements * precision.activation_bytes
    moved = message * times * (ranks - 1) / ranks
    return Operation(kind, kind.value, precision, (message, ranks), 0.0, moved, count)
