"""Which of several candidates the cost model is least sure of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.blocks import Attention, Experts, FeedForward, LatentAttention
from model.execution import layer_operations, projections_of
from model.laws import KERNELS
from model.operations import attention, batched_linear, experts, linear, mla
from model.workload import Sequences
from profiler.operations import ENGINE
from profiler.points import (
    AttentionPoint,
    BatchedLinearPoint,
    ExpertsPoint,
    LatentPoint,
    LinearPoint,
    Point,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.cost_model import FittedCostModel
    from model.operations import Operation
    from model.precision import Precision


def least_sure(
    cost_model: FittedCostModel, candidates: Sequence[Point], precision: Precision
) -> int:
    """Returns the index of the candidate whose kernels the cost model doubts most."""
    doubts = [
        float(np.mean(cost_model.doubt(_operations(point, precision)))) for point in candidates
    ]
    return int(np.argmax(doubts))


def _operations(point: Point, precision: Precision) -> list[Operation]:
    if isinstance(point, LinearPoint):
        return [
            linear("linear", m, point.n, point.k, precision, kind=point.kind) for m in point.rows
        ]
    if isinstance(point, AttentionPoint):
        heads = Attention(
            query_heads=point.query_heads, kv_heads=point.kv_heads, head_dim=point.head_dim
        )
        return [attention(point.sequences, point.query_tokens, point.kv_tokens, heads, precision)]
    if isinstance(point, ExpertsPoint):
        block = Experts(
            expert=FeedForward(intermediate_size=point.intermediate_size),
            count=point.experts,
            top_k=point.top_k,
            local=point.local_experts,
        )
        return [
            experts(tokens, point.hidden_size, block, precision, imbalance=point.imbalance)
            for tokens in point.tokens
        ]
    if isinstance(point, LatentPoint):
        latent = LatentAttention(
            query_heads=point.query_heads,
            kv_rank=point.kv_rank,
            query_rank=0,
            head_dim=point.head_dim,
            rope_dim=point.rope_dim,
            value_dim=point.value_dim,
        )
        return [mla(point.sequences, point.query_tokens, point.kv_tokens, latent, precision)]
    if isinstance(point, BatchedLinearPoint):
        return [
            batched_linear("batched_linear", m, point.n, point.k, point.batch, precision)
            for m in point.rows
        ]
    layer = point.architecture.layers[0].layer
    rows = [
        operation
        for forward in point.forwards
        for operation in layer_operations(
            point.architecture.hidden_size,
            layer,
            (
                Sequences(
                    count=forward.sequences,
                    query_tokens=forward.query_tokens,
                    kv_tokens=forward.kv_tokens,
                ),
            ),
            precision,
            precision,
            projections_of(point.architecture, ENGINE),
        )
    ]
    return [row for row in rows if row.kind in KERNELS]
