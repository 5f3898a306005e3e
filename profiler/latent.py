"""Latent attention (MLA, DeepSeek-V2, arXiv 2405.04434, section 2.1) timed alone, in plain torch.

A single query attends to the compressed latents themselves: its part without positions
is multiplied into the latent's space before, the result out of it behind ("absorbed"), by
products of their own. Several queries attend to keys and values expanded for each head,
as transformers runs them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from model.blocks import LatentAttention
from model.operations import OperationKind, batched_linear, mla
from profiler.device import Device, dtype_of
from profiler.operations import (
    AttentionModule,
    causal_mask,
    copies_beyond_cache,
    measurement_of,
    time_graphed,
)
from profiler.points import (
    ATTENTION_EFFORT,
    MATRIX_EFFORT,
    AttendingPoint,
    RowsPoint,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.measurement import Measurement
    from model.operations import Operation
    from model.precision import Precision
    from profiler.points import Measured
    from profiler.timing import Effort, Run


@dataclass(frozen=True, slots=True)
class LatentPoint(AttendingPoint):
    """Latent attention of ``query_tokens`` over ``kv_tokens``, the cache's update included."""

    query_heads: int
    kv_rank: int
    rope_dim: int
    head_dim: int
    value_dim: int
    kind: ClassVar[OperationKind] = OperationKind.MLA

    @property
    def group(self) -> str:
        """Points of one set of heads are held out together."""
        return (
            f"mla-{self.query_heads}-{self.kv_rank}-{self.rope_dim}"
            f"-{self.head_dim}-{self.value_dim}"
        )

    def operations(self, precision: Precision) -> list[Operation]:
        """Returns what a cost model prices it by."""
        latent = LatentAttention(
            query_heads=self.query_heads,
            kv_rank=self.kv_rank,
            query_rank=0,
            head_dim=self.head_dim,
            rope_dim=self.rope_dim,
            value_dim=self.value_dim,
        )
        return [mla(self.sequences, self.query_tokens, self.kv_tokens, latent, precision)]

    def needed_bytes(self, precision: Precision, device: Device) -> float:
        """Returns an upper bound of the bytes that measuring it allocates."""
        # In flight: latents and keys joined, scores in fp32 and as they are.
        keys = self.kv_tokens * self.query_heads * (self.head_dim + self.rope_dim)
        scores = 3 * self.query_tokens * self.kv_tokens * self.query_heads
        values = 2 * latent_values(self) + self.sequences * (keys + scores)
        return dtype_of(precision).itemsize * values + device.cold_bytes

    def measure(self, precision: Precision, device: Device) -> Iterator[Measurement]:
        """Yields the measurement of a campaign."""
        return measure_latent(self, precision, device, ATTENTION_EFFORT)


@dataclass(frozen=True, slots=True)
class BatchedLinearPoint(RowsPoint):
    """``batch`` products ``y[m, n] = x[m, k] @ w[k, n]`` at several ``m``."""

    n: int
    k: int
    batch: int
    rows: tuple[int, ...]

    @property
    def group(self) -> str:
        """Points of one set of matrices are held out together."""
        return f"batched_linear-{self.batch}-{self.n}x{self.k}"

    def operations(self, precision: Precision) -> list[Operation]:
        """Returns what a cost model prices it by."""
        return [
            batched_linear("batched_linear", m, self.n, self.k, self.batch, precision)
            for m in self.rows
        ]

    def needed_bytes(self, precision: Precision, device: Device) -> float:
        """Returns an upper bound of the bytes that measuring it allocates."""
        values = 2 * self.n * self.k + max(self.rows) * (self.n + self.k)
        return dtype_of(precision).itemsize * self.batch * values + device.cold_bytes

    def measure(self, precision: Precision, device: Device) -> Iterator[Measurement]:
        """Yields the measurements of a campaign."""
        return measure_batched_linear(self, precision, device, MATRIX_EFFORT)

    def shape(self, m: int) -> dict[str, float]:
        """Returns the sizes at ``m`` rows as a measurement has them."""
        return {"m": m, "n": self.n, "k": self.k, "batch": self.batch}

    def holds(self, m: int, precision: Precision, measured: Measured) -> bool:
        """Returns whether it is measured at ``m`` rows."""
        return measured.holds("batched_linear", precision.activation, self.shape(m))


@torch.inference_mode()
def measure_latent(
    point: LatentPoint, precision: Precision, device: Device, effort: Effort
) -> Iterator[Measurement]:
    """Times one layer's cache update and latent attention."""
    dtype = dtype_of(precision)
    copies = copies_beyond_cache(latent_values(point) * dtype.itemsize, device)
    make = _absorbed_run if point.query_tokens == 1 else _expanded_run
    timing = time_graphed(device, [make(point, device, dtype) for _ in range(copies)], effort)
    # As of other attentions only activations and the cache count.
    yield measurement_of("mla", precision.activation, asdict(point), timing, point.group)


@torch.inference_mode()
def measure_batched_linear(
    point: BatchedLinearPoint, precision: Precision, device: Device, effort: Effort
) -> Iterator[Measurement]:
    """Times the products at each of the point's ``m``, laid out as heads of tokens are."""
    dtype = dtype_of(precision.activation)
    values = point.batch * point.n * point.k
    weights = [
        device.random(point.batch, point.k, point.n, dtype=dtype)
        for _ in range(copies_beyond_cache(values * dtype.itemsize, device))
    ]
    for m in point.rows:
        x = device.random(m, point.batch, point.k, dtype=dtype)
        timing = time_graphed(device, [partial(multiply_heads, x, w) for w in weights], effort)
        shape = point.shape(m)
        yield measurement_of("batched_linear", precision.activation, shape, timing, point.group)


def multiply_heads(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Returns each head's product with its own weights, (tokens, heads, n).

    Args:
        x: (tokens, heads, k).
        weights: (heads, k, n).
    """
    return torch.bmm(x.transpose(0, 1), weights).transpose(0, 1)


def attend_to_latents(
    query: torch.Tensor, cache: torch.Tensor, new: torch.Tensor, kv_rank: int, scaling: float
) -> torch.Tensor:
    """Writes a token into the cache; returns its attention in the latent's space.

    Args:
        query: (sequences, heads, kv_rank + rope_dim), absorbed.
        cache: (sequences, tokens, kv_rank + rope_dim), its last token to be written.
        new: (sequences, 1, kv_rank + rope_dim).
        kv_rank: width of the latent; the rest of a row is the key's rotary part.
        scaling: of the scores.

    Returns:
        (sequences, heads, kv_rank).
    """
    cache[:, -1:] = new
    scores = torch.bmm(query, cache.transpose(1, 2)).mul_(scaling)
    shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.bmm(shares, cache[:, :, :kv_rank])


def attend_expanded(
    module: AttentionModule,
    query: torch.Tensor,
    expanded: torch.Tensor,
    rotary: torch.Tensor,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Returns attention to keys and values expanded for each head, (sequences, tokens, heads, v).

    Args:
        module: tells the scaling.
        query: (sequences, heads, queries, head_dim + rope_dim).
        expanded: (sequences, heads, tokens, head_dim + value_dim).
        rotary: (sequences, 1, tokens, rope_dim), the keys' rotary part.
        mask: True where a query sees a key; None is causal.
    """
    heads, head_dim = query.shape[1], query.shape[-1] - rotary.shape[-1]
    keys = torch.cat([expanded[..., :head_dim], rotary.expand(-1, heads, -1, -1)], dim=-1)
    attend: Any = ALL_ATTENTION_FUNCTIONS["sdpa"]
    values = expanded[..., head_dim:]
    output: torch.Tensor = attend(
        module, query, keys, values, mask, dropout=0.0, scaling=module.scaling
    )[0]
    return output


def latent_values(point: LatentPoint) -> int:
    """Returns the values of queries, and of latents or expanded keys and values, of one run."""
    cached = point.kv_rank + point.rope_dim
    if point.query_tokens == 1:
        return point.sequences * cached * (point.kv_tokens + point.query_heads + 1)
    queries = point.query_tokens * (point.head_dim + point.rope_dim)
    expanded = point.kv_tokens * (point.head_dim + point.value_dim)
    heads = point.query_heads * (queries + expanded)
    # Latents of the past and of the new tokens, joined in the run.
    return point.sequences * (heads + point.kv_tokens * cached)


def _absorbed_run(point: LatentPoint, device: Device, dtype: torch.dtype) -> Run:
    width = point.kv_rank + point.rope_dim
    query = device.random(point.sequences, point.query_heads, width, dtype=dtype)
    cache = device.random(point.sequences, point.kv_tokens, width, dtype=dtype)
    new = device.random(point.sequences, 1, width, dtype=dtype)
    return partial(attend_to_latents, query, cache, new, point.kv_rank, _scaling(point))


def _expanded_run(point: LatentPoint, device: Device, dtype: torch.dtype) -> Run:
    width = point.head_dim + point.rope_dim
    query = device.random(
        point.sequences, point.query_heads, point.query_tokens, width, dtype=dtype
    )
    # As the expanding projection leaves them: heads beside each other in a token's row.
    expanded = device.random(
        point.sequences,
        point.kv_tokens,
        point.query_heads,
        point.head_dim + point.value_dim,
        dtype=dtype,
    ).transpose(1, 2)
    past = point.kv_tokens - point.query_tokens
    old, new = (
        device.random(point.sequences, 1, tokens, point.kv_rank + point.rope_dim, dtype=dtype)
        for tokens in (past, point.query_tokens)
    )
    module, mask = AttentionModule(1, _scaling(point)), causal_mask(point, device)
    return partial(_update_and_attend, module, query, expanded, old, new, point.kv_rank, mask)


def _update_and_attend(
    module: AttentionModule,
    query: torch.Tensor,
    expanded: torch.Tensor,
    old: torch.Tensor,
    new: torch.Tensor,
    kv_rank: int,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    cache = torch.cat([old, new], dim=2)
    return attend_expanded(module, query, expanded, cache[..., kv_rank:], mask)


def _scaling(point: LatentPoint) -> float:
    return float((point.head_dim + point.rope_dim) ** -0.5)
