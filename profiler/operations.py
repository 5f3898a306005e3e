"""Single operations timed alone, over data that is cold as in a real model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch import nn
from transformers.cache_utils import DynamicLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from model.blocks import Attention
from model.errors import InvalidFieldError
from model.measurement import Measurement
from model.operations import OperationKind, attention, linear
from model.precision import Precision
from profiler.device import Device, dtype_of
from profiler.interface import ENGINE
from profiler.numerics import CHECKED, check
from profiler.overhead import TIMED
from profiler.packed import PACKED, PER_TENSOR
from profiler.points import (
    ATTENTION_EFFORT,
    MATRIX_EFFORT,
    AttendingPoint,
    RowsPoint,
)
from profiler.timing import Effort, Run, Timing, captured, time_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from model.operations import Operation
    from profiler.interface import Skipped
    from profiler.packed import PackedLinear
    from profiler.points import Measured

MAX_COPIES = 256
"""Runs that one point rotates over, at the most."""
_WIDEST_GROUPED = 256
"""Head dimension beyond which transformers takes no kernel of groups."""
_GROUPED_BYTES = 2
"""Of a value, beyond which torch has no kernel of groups on GPUs."""


@dataclass(frozen=True, slots=True)
class LinearPoint(RowsPoint):
    """``y[m, n] = x[m, k] @ w[k, n]`` at several ``m``: the weights are made once.

    ``kind`` is one of ``LINEARS``.
    """

    n: int
    k: int
    rows: tuple[int, ...]
    kind: OperationKind = OperationKind.LINEAR

    @property
    def group(self) -> str:
        """Points of one weight matrix are held out together."""
        return f"{self.kind}-{self.n}x{self.k}"

    def operations(self, precision: Precision) -> list[Operation]:
        """Returns what a cost model prices it by."""
        return [linear("linear", m, self.n, self.k, precision, kind=self.kind) for m in self.rows]

    def needed_bytes(self, precision: Precision, device: Device) -> float:
        """Returns an upper bound of the bytes that measuring it allocates."""
        weights, inputs = self.n * self.k, max(self.rows) * self.k
        values = 2 * weights + inputs + max(self.rows) * self.n
        # In 32 bits: what is compared, and weights while they are packed.
        wide = inputs + (3 * weights if precision in PACKED else 0)
        return dtype_of(precision).itemsize * values + 4 * wide + device.cold_bytes

    def measure(self, precision: Precision, device: Device) -> Iterator[Measurement]:
        """Yields the measurements of a campaign."""
        return measure_linear(self, precision, device, MATRIX_EFFORT)

    def shape(self, m: int) -> dict[str, float]:
        """Returns the sizes at ``m`` rows as a measurement has them."""
        return {"m": m, "n": self.n, "k": self.k}

    def holds(self, m: int, precision: Precision, measured: Measured) -> bool:
        """Returns whether it is measured at ``m`` rows."""
        return measured.holds(self.kind, precision, self.shape(m))


@dataclass(frozen=True, slots=True)
class AttentionPoint(AttendingPoint):
    """Attention of ``query_tokens`` over ``kv_tokens``, the cache's update included."""

    query_heads: int
    kv_heads: int
    head_dim: int
    kind: ClassVar[OperationKind] = OperationKind.ATTENTION

    @property
    def group(self) -> str:
        """Points of one set of heads are held out together."""
        return f"{self.kind}-{self.query_heads}-{self.kv_heads}-{self.head_dim}"

    @property
    def heads(self) -> Attention:
        """Heads of the layer."""
        return Attention(
            query_heads=self.query_heads, kv_heads=self.kv_heads, head_dim=self.head_dim
        )

    def operations(self, precision: Precision) -> list[Operation]:
        """Returns what a cost model prices it by."""
        sizes = (self.sequences, self.query_tokens, self.kv_tokens)
        return [attention(*sizes, self.heads, precision, kind=self.kind)]

    def needed_bytes(self, precision: Precision, device: Device) -> float:
        """Returns an upper bound of the bytes that measuring it allocates."""
        item = dtype_of(precision).itemsize
        copies = 2 * item * attention_values(self) + device.cold_bytes
        # In flight: keys and values joined, and repeated; the output, and it in order; a mask.
        repeated = self.query_heads if self.repeats_keys(precision, device) else 0
        rows = 2 * self.kv_tokens * (self.kv_heads + repeated)
        rows += 2 * self.query_tokens * self.query_heads
        mask = self.query_tokens * self.kv_tokens
        return copies + item * self.sequences * (rows * self.head_dim + mask)

    def repeats_keys(self, precision: Precision, device: Device) -> bool:
        """Returns whether keys and values may be copied for each query head.

        Kernels of groups take no mask and no wide heads, and on GPUs 16 bits alone.
        """
        if self.query_heads == self.kv_heads:
            return False
        masked = 1 < self.query_tokens < self.kv_tokens
        wide = device.is_cuda and dtype_of(precision).itemsize > _GROUPED_BYTES
        return masked or wide or self.head_dim > _WIDEST_GROUPED

    def measure(self, precision: Precision, device: Device) -> Iterator[Measurement | Skipped]:
        """Yields the measurement of a campaign."""
        return measure_attention(self, precision, device, ATTENTION_EFFORT)


def measure_linear(
    point: LinearPoint, precision: Precision, device: Device, effort: Effort
) -> Iterator[Measurement]:
    """Times a projection at each of the point's ``m``, its activations in their format.

    Raises:
        InaccurateError: it computes something else.
        InvalidFieldError: the device does not multiply that format, or not with one scale for
            all weights.
    """
    dtype = dtype_of(precision)
    packed = _packing(point.kind, precision)
    weight_bytes = int(point.n * point.k * precision.weight_bytes)
    matrices = [
        device.random(point.n, point.k, dtype=dtype)
        for _ in range(copies_beyond_cache(weight_bytes, device))
    ]
    project: Any = F.linear
    prepare: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] = _as_they_are
    weights: list[tuple[Any, ...]] = [(matrix,) for matrix in matrices]
    exact = matrices[0][:CHECKED].float().t()
    if packed is not None:
        pack, prepare, project = packed
        weights = [pack(matrix) for matrix in matrices]
    elif point.kind is OperationKind.LINEAR_TRANSPOSED:
        project = partial(torch.addmm, torch.zeros(point.n, dtype=dtype, device=exact.device))
        weights = [(matrix.view(point.k, point.n),) for matrix in matrices]
        exact = weights[0][0][:, :CHECKED].float()
    del matrices
    for m in point.rows:
        x = device.random(m, point.k, dtype=dtype)
        rows = prepare(x)
        check(project(*rows, *weights[0]), x.float() @ exact, precision)
        runs = [partial(project, *rows, *weight) for weight in weights]
        timing = time_graphed(device, runs, effort)
        yield measurement_of(point.kind, precision, point.shape(m), timing, point.group)


@torch.inference_mode()
def measure_attention(
    point: AttentionPoint, precision: Precision, device: Device, effort: Effort
) -> Iterator[Measurement]:
    """Times one layer's cache update and attention as transformers runs them."""
    dtype = dtype_of(precision)
    past = point.kv_tokens - point.query_tokens
    copy_bytes = attention_values(point) * dtype.itemsize
    module = AttentionModule(point.query_heads // point.kv_heads, point.head_dim**-0.5)
    mask = causal_mask(point, device)
    runs: list[Run] = []
    for _ in range(copies_beyond_cache(copy_bytes, device)):
        query = device.random(
            point.sequences, point.query_heads, point.query_tokens, point.head_dim, dtype=dtype
        )
        new = [_keys(point, point.query_tokens, device, dtype) for _ in range(2)]
        old = [_keys(point, past, device, dtype) for _ in range(2)] if past else []
        runs.append(partial(_attend, module, query, new, old, mask))
    timing = time_graphed(device, runs, effort)
    # Weights are none of its business: only activations and the cache count.
    yield measurement_of(point.kind, precision.activation, asdict(point), timing, point.group)


def _packing(kind: OperationKind, precision: Precision) -> PackedLinear | None:
    """Returns how a linear's format is multiplied; None where torch takes it as it is.

    Raises:
        InvalidFieldError: another format than fp8 is asked to have one scale for all weights.
    """
    if kind is not OperationKind.LINEAR_PER_TENSOR:
        return PACKED.get(precision)
    if precision is not Precision.FP8:
        raise InvalidFieldError(
            "precision", f"{precision} is not timed with one scale for all weights; use fp8"
        )
    return PER_TENSOR


def _as_they_are(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x,)


def attention_values(point: AttentionPoint) -> int:
    """Returns the values of queries, keys and values that one run reads."""
    tokens = 2 * point.kv_tokens * point.kv_heads + point.query_tokens * point.query_heads
    return point.sequences * tokens * point.head_dim


def time_graphed(device: Device, runs: Sequence[Run], effort: Effort) -> Timing:
    """Times runs in turn; on CUDA one graph holds them all, so that launches cost nothing."""
    if not device.is_cuda:
        with TIMED.running():
            return time_runs(device, runs, effort)
    graph = captured(device, runs)
    with TIMED.running():
        return time_runs(device, [graph], effort).per(len(runs))


class AttentionModule(nn.Module):
    """What transformers' attention functions read off the module that calls them."""

    def __init__(self, groups: int, scaling: float) -> None:
        super().__init__()
        self.num_key_value_groups = groups
        self.is_causal = True
        self.scaling = scaling
        self.training = False


def _attend(
    module: AttentionModule,
    query: torch.Tensor,
    new: list[torch.Tensor],
    old: list[torch.Tensor],
    mask: torch.Tensor | None,
) -> Any:  # noqa: ANN401 (transformers returns what it likes)
    cache = DynamicLayer()  # type: ignore[no-untyped-call]
    keys, values = new
    if old:
        cache.lazy_initialization(keys, values)
        cache.is_initialized = True
        cache.keys, cache.values = old
    keys, values = cache.update(keys, values)
    attend = ALL_ATTENTION_FUNCTIONS["sdpa"]
    return attend(module, query, keys, values, mask, dropout=0.0, scaling=module.scaling)


def _keys(point: AttentionPoint, tokens: int, device: Device, dtype: torch.dtype) -> torch.Tensor:
    return device.random(point.sequences, point.kv_heads, tokens, point.head_dim, dtype=dtype)


class _Tokens(Protocol):
    """Queries over keys of several sequences."""

    @property
    def sequences(self) -> int: ...
    @property
    def query_tokens(self) -> int: ...
    @property
    def kv_tokens(self) -> int: ...


def causal_mask(point: _Tokens, device: Device) -> torch.Tensor | None:
    """Returns the mask that transformers makes: none for a whole prompt or a single query."""
    past = point.kv_tokens - point.query_tokens
    if past == 0 or point.query_tokens == 1:
        return None
    queries = torch.arange(past, point.kv_tokens, device=device.torch_device)
    keys = torch.arange(point.kv_tokens, device=device.torch_device)
    mask = keys[None, :] <= queries[:, None]
    return mask.expand(point.sequences, 1, point.query_tokens, point.kv_tokens)


def copies_beyond_cache(copy_bytes: int, device: Device) -> int:
    """Returns how many copies of so many bytes to rotate over: what overflows the cache."""
    return max(2, min(MAX_COPIES, -(-device.cold_bytes // copy_bytes)))


def measurement_of(
    kind: str,
    precision: Precision,
    shape: Mapping[str, float],
    timing: Timing,
    group: str,
    engine: str = ENGINE,
) -> Measurement:
    """Returns the measurement of an operation that was timed alone."""
    return Measurement(
        kind=kind,
        precision=precision,
        engine=engine,
        shape={name: float(size) for name, size in shape.items()},
        latency_ms=timing.distribution,
        group=group,
        flags=timing.flags,
    )
