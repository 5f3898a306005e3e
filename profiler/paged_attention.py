"""Attention over a cache of pages, timed alone by the best kernel that is installed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch

from model.operations import OperationKind
from profiler.device import Device, dtype_of
from profiler.flashinfer_kernel import WORKSPACE_BYTES
from profiler.interface import DeviceLostError, Skipped
from profiler.numerics import check
from profiler.operations import (
    AttentionPoint,
    attention_values,
    copies_beyond_cache,
    measurement_of,
    time_graphed,
)
from profiler.paged_kernels import PagedKernel, PagedKernels, installed_kernels, lost_group
from profiler.pages import PAGE_TOKENS, Pages, pages_of, scattered
from profiler.points import ATTENTION_EFFORT
from profiler.process_limits import is_out_of_memory
from profiler.texts import typed_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.measurement import Measurement
    from model.precision import Precision
    from profiler.timing import Effort, Timing


@dataclass(frozen=True, slots=True)
class PagedAttentionPoint(AttentionPoint):
    """Attention of ``query_tokens`` over ``kv_tokens``, written into their pages first."""

    kind: ClassVar[OperationKind] = OperationKind.PAGED_ATTENTION

    def layer_values(self) -> int:
        """Returns the values that one layer has: queries, what is new, and whole pages."""
        whole = replace(self, kv_tokens=pages_of(self.kv_tokens) * PAGE_TOKENS)
        new = 2 * self.sequences * self.query_tokens * self.kv_heads * self.head_dim
        return attention_values(whole) + new

    def needed_bytes(self, precision: Precision, device: Device) -> float:
        """Returns an upper bound of the bytes that measuring it allocates."""
        # Of one sequence in 32 bits: keys and values, joined and turned; a token's scores.
        wide = 2 * self.kv_tokens * (2 * self.kv_heads * self.head_dim + self.query_heads)
        # What is counted of one layer leaves its whole pages and what is new out.
        more = 2 * dtype_of(precision).itemsize * (self.layer_values() - attention_values(self))
        scratch = WORKSPACE_BYTES if device.is_cuda else 0
        # A dataclass with slots is made anew: super() would not find it.
        alike = AttentionPoint.needed_bytes(self, precision, device)
        return alike + more + 4 * wide + scratch

    def measure(self, precision: Precision, device: Device) -> Iterator[Measurement | Skipped]:
        """Yields the measurement of a campaign, and which kernels were left out of it."""
        return measure_paged_attention(self, precision, device, ATTENTION_EFFORT)


@torch.inference_mode()
def measure_paged_attention(
    point: PagedAttentionPoint,
    precision: Precision,
    device: Device,
    effort: Effort,
    kernels: PagedKernels | None = None,
) -> Iterator[Measurement | Skipped]:
    """Times one layer's cache update and attention by the first kernel that takes the point.

    A kernel that fails, whatever the reason, is left out from then on and said to be; the
    measurement's engine is that whose code ran.

    Args:
        point: its sizes.
        precision: of which the activations count.
        device: where to measure.
        effort: when repeating ends.
        kernels: the best first; None: those installed.

    Raises:
        DeviceLostError: one took the whole context with it.
        InaccurateError, RuntimeError: the last one fails as well, or memory is out.
    """
    chosen = kernels or installed_kernels(device)
    last = chosen.names[-1]
    for name in chosen.libraries:
        failure = ""
        try:
            kernel = chosen.named(name)
            if not kernel.takes(point.heads, dtype_of(precision)):
                continue
            timing = _timed(point, kernel, precision, device, effort)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            failure = typed_line(error)
        if not failure:
            break
        if lost := device.lost():
            raise DeviceLostError(lost_group(name), lost)
        chosen.leave_out(name)
        yield Skipped(reason=f"{point.kind} by {name} is left out: {failure}")
    else:
        name = last
        timing = _timed(point, chosen.named(name), precision, device, effort)
    shape = asdict(point)
    yield measurement_of(point.kind, precision.activation, shape, timing, point.group, name)


def _timed(
    point: PagedAttentionPoint,
    kernel: PagedKernel,
    precision: Precision,
    device: Device,
    effort: Effort,
) -> Timing:
    dtype = dtype_of(precision)
    pages = scattered(point.sequences, point.query_tokens, point.kv_tokens, device)
    attend = kernel.plan(pages, point.heads, dtype)
    copies = copies_beyond_cache(point.layer_values() * dtype.itemsize, device)
    layers = [_layer(point, pages, dtype, device) for _ in range(copies)]
    for tensor in layers[0]:
        # What is timed is so small that all keys weigh the same: wrong ones would pass.
        tensor.normal_()
    exact = _exact(pages, *layers[0])
    found = attend(*layers[0]).view(pages.sequences, pages.query_tokens, -1)
    rows = [found[sequence, token] for sequence, each in _checked(pages).items() for token in each]
    check(torch.stack(rows), exact, precision.activation)
    return time_graphed(device, [partial(attend, *layer) for layer in layers], effort)


def _layer(
    point: PagedAttentionPoint, pages: Pages, dtype: torch.dtype, device: Device
) -> tuple[torch.Tensor, ...]:
    """Returns queries, new keys and values, and the pools of one layer."""
    tokens = point.sequences * point.query_tokens
    query = device.random(tokens, point.query_heads, point.head_dim, dtype=dtype)
    key, value = (
        device.random(tokens, point.kv_heads, point.head_dim, dtype=dtype) for _ in range(2)
    )
    pool = (pages.count, PAGE_TOKENS, point.kv_heads, point.head_dim)
    keys, values = (device.random(*pool, dtype=dtype) for _ in range(2))
    return query, key, value, keys, values


def _checked(pages: Pages) -> dict[int, list[int]]:
    """Returns which new tokens of which sequences are looked at: some of the first and the last."""
    last = pages.query_tokens - 1
    return {sequence: sorted({0, last // 2, last}) for sequence in (0, pages.sequences - 1)}


def _exact(
    pages: Pages,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    """Returns the attention of the tokens looked at in 32 bits, (tokens, query_heads x head_dim).

    The new keys and values are taken from where they come, not from their pages: a kernel that
    writes them elsewhere differs.
    """
    past = pages.kv_tokens - pages.query_tokens
    scale = query.shape[2] ** -0.5
    found = []
    for sequence, tokens in _checked(pages).items():
        begin = sequence * pages.query_tokens
        own = pages.table[sequence].long()
        old = (pool[own].flatten(0, 1)[:past] for pool in (keys, values))
        new = (each[begin : begin + pages.query_tokens] for each in (key, value))
        # (kv_heads, all tokens, head_dim)
        seen = [torch.cat(both).float().transpose(0, 1) for both in zip(old, new, strict=True)]
        for token in tokens:
            up_to = past + token + 1
            heads = query[begin + token].float().view(len(seen[0]), -1, query.shape[2])
            scores = heads @ seen[0][:, :up_to].transpose(1, 2) * scale
            found.append((scores.softmax(dim=2) @ seen[1][:, :up_to]).flatten())
    return torch.stack(found)
