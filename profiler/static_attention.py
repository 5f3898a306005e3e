"""Attention over a cache that is written in place, timed alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch

from model.operations import OperationKind
from profiler.device import Device, dtype_of
from profiler.interface import PLAIN_ENGINE
from profiler.operations import (
    AttentionPoint,
    attention_values,
    copies_beyond_cache,
    measurement_of,
    time_graphed,
)
from profiler.plain_attention import attend
from profiler.points import ATTENTION_EFFORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.measurement import Measurement
    from model.precision import Precision
    from profiler.timing import Effort, Run


@dataclass(frozen=True, slots=True)
class StaticAttentionPoint(AttentionPoint):
    """Attention of ``query_tokens`` over ``kv_tokens``, written into a static cache first."""

    kind: ClassVar[OperationKind] = OperationKind.STATIC_ATTENTION

    def needed_bytes(self, precision: Precision, device: Device) -> float:
        """Returns an upper bound of the bytes that measuring it allocates."""
        # While the fastest kernel is found: queries, two results and their difference.
        tried = 4 * self.sequences * self.query_tokens * self.query_heads * self.head_dim
        more = dtype_of(precision).itemsize * tried if device.is_cuda else 0
        # A dataclass with slots is made anew: super() would not find it.
        return AttentionPoint.needed_bytes(self, precision, device) + more

    def repeats_keys(self, precision: Precision, device: Device) -> bool:
        """Returns whether keys and values may be copied for each query head.

        On GPUs wherever heads share them, but for single queries, whose heads are rows: the
        memory-efficient kernel, which takes no groups, is tried beside the others.
        """
        shared = self.query_heads != self.kv_heads and self.query_tokens > 1
        return (device.is_cuda and shared) or AttentionPoint.repeats_keys(self, precision, device)

    def measure(self, precision: Precision, device: Device) -> Iterator[Measurement]:
        """Yields the measurement of a campaign."""
        return measure_static_attention(self, precision, device, ATTENTION_EFFORT)


@torch.inference_mode()
def measure_static_attention(
    point: StaticAttentionPoint, precision: Precision, device: Device, effort: Effort
) -> Iterator[Measurement]:
    """Times one layer's cache update and attention as the plain layers run them."""
    dtype = dtype_of(precision)
    # The new keys and values lie beside the cache before they are written into it.
    new = 2 * point.sequences * point.query_tokens * point.kv_heads * point.head_dim
    copies = copies_beyond_cache((attention_values(point) + new) * dtype.itemsize, device)
    runs = [_run(point, dtype, device) for _ in range(copies)]
    timing = time_graphed(device, runs, effort)
    yield measurement_of(
        point.kind, precision.activation, asdict(point), timing, point.group, PLAIN_ENGINE
    )


def _run(point: StaticAttentionPoint, dtype: torch.dtype, device: Device) -> Run:
    new = (point.sequences, point.query_tokens)
    query = device.random(*new, point.query_heads, point.head_dim, dtype=dtype)
    key, value = (
        device.random(*new, point.kv_heads, point.head_dim, dtype=dtype) for _ in range(2)
    )
    keys, values = (
        device.random(point.sequences, point.kv_heads, point.kv_tokens, point.head_dim, dtype=dtype)
        for _ in range(2)
    )
    past = point.kv_tokens - point.query_tokens
    return partial(attend, query, key, value, keys, values, past)
