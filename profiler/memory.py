"""What measuring a point takes of the device's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.blocks import LatentAttention
from profiler.device import dtype_of
from profiler.experts import expert_values
from profiler.latent import latent_values
from profiler.operations import attention_values
from profiler.points import (
    AttentionPoint,
    BatchedLinearPoint,
    ExpertsPoint,
    LatentPoint,
    LinearPoint,
    Point,
)

if TYPE_CHECKING:
    from model.precision import Precision
    from profiler.device import Device

FREE_SHARE = 0.8
"""A point that needs more than this share of what is free is not measured."""


def point_bytes(point: Point, precision: Precision, device: Device) -> float:
    """Returns an upper bound of the bytes that measuring the point allocates."""
    item = dtype_of(precision).itemsize
    if isinstance(point, LinearPoint):
        weights = point.n * point.k
        activations = max(point.rows) * (point.n + point.k)
        return item * (2 * weights + activations) + device.cold_bytes
    if isinstance(point, AttentionPoint):
        copies = 2 * item * attention_values(point) + device.cold_bytes
        # In flight: keys and values joined, and repeated for each query head where a
        # kernel takes no groups; the output; a mask.
        rows = 2 * point.kv_tokens * (point.kv_heads + point.query_heads)
        rows += point.query_tokens * point.query_heads
        mask = point.query_tokens * point.kv_tokens
        return copies + item * point.sequences * (rows * point.head_dim + mask)
    if isinstance(point, ExpertsPoint):
        # In flight: each choice's input, gate and up, product, output, and it in order.
        row = 3 * point.hidden_size + 3 * point.intermediate_size
        rows = max(point.tokens) * (point.top_k * row + point.hidden_size + 4 * point.top_k)
        return item * (2 * expert_values(point) + rows) + device.cold_bytes
    if isinstance(point, LatentPoint):
        # In flight: latents and keys joined, scores in fp32 and as they are.
        keys = point.kv_tokens * point.query_heads * (point.head_dim + point.rope_dim)
        scores = 3 * point.query_tokens * point.kv_tokens * point.query_heads
        values = 2 * latent_values(point) + point.sequences * (keys + scores)
        return item * values + device.cold_bytes
    if isinstance(point, BatchedLinearPoint):
        weights = point.batch * point.n * point.k
        activations = max(point.rows) * point.batch * (point.n + point.k)
        return item * (2 * weights + activations) + device.cold_bytes
    architecture = point.architecture
    widest = max(
        [f.sequences * f.kv_tokens for f in point.forwards]
        + [g.sequences * (g.input_tokens + g.output_tokens) for g in point.generates]
    )
    layer = architecture.layers[0].layer
    row = 8 * architecture.hidden_size + 2 * layer.feed_forward.activation_values
    if isinstance(layer.attention, LatentAttention):
        row += layer.attention.activation_values  # keys and values are wider than their cache
    cache = 2 * architecture.layer_count * layer.attention.cached_values
    return item * (1.1 * architecture.parameter_count() + widest * (row + cache))
