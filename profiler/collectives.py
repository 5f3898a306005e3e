"""Times what ranks send each other, by the size of the message.

An exchange stands between kernels, as in a model: ranks come to it a little apart, and threads
that carry it have gone to sleep. What kernels and exchanges take beyond the kernels counts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist

from model.measurement import Measurement
from model.operations import OperationKind
from profiler.device import dtype_of
from profiler.interface import ENGINE
from profiler.ranks import gather
from profiler.timing import DISTURBED_FLAG, DISTURBED_SHARE, RunDelay, distribution

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.precision import Precision
    from profiler.ranks import Rank

MESSAGE_BYTES = tuple(1 << power for power in range(9, 27))
"""From a token of a small model to a long prompt of a large one."""
KINDS = (
    OperationKind.ALL_REDUCE,
    OperationKind.ALL_GATHER,
    OperationKind.ALL_TO_ALL,
    OperationKind.POINT_TO_POINT,
)
_WARM_UP = 3
_SAMPLES = 15
_FEWEST_CLEAN = 3
_SAMPLE_MS = 10.0
"""A sample repeats quick exchanges until it lasts so long."""
_LEAST_MS = 1e-3
_WIDTH, _PRODUCTS = 1024, 6
"""Of the kernels between: ranks drift apart in half a layer, not in one kernel."""
_MOST_REPEATS = 256


def measure_collectives(
    rank: Rank,
    precision: Precision,
    sizes: Sequence[int] = MESSAGE_BYTES,
) -> list[Measurement]:
    """Returns one measurement a kind and size, as its slowest rank saw it.

    Args:
        rank: this one; all ranks call this alike.
        precision: of the values that are sent.
        sizes: bytes of the messages, as :func:`model.operations.all_reduce` and the others
            count them: what a rank holds in the end.
    """
    return [_measurement(rank, precision, kind, size) for kind in KINDS for size in sizes]


def _measurement(
    rank: Rank, precision: Precision, kind: OperationKind, message_bytes: int
) -> Measurement:
    dtype = dtype_of(precision)
    # Whole values for each rank: an all-to-all deals them out.
    values = max(1, message_bytes // dtype.itemsize // rank.count) * rank.count
    run = _exchange(rank, kind, rank.device.random(values, dtype=dtype))
    shape = {"message_bytes": float(values * dtype.itemsize)}
    if kind is not OperationKind.POINT_TO_POINT:
        shape["ranks"] = float(rank.count)
    samples, disturbed = _samples_ms(rank, run)
    return Measurement(
        kind=kind.value,
        precision=precision,
        engine=ENGINE,
        shape=shape,
        latency_ms=distribution(samples),
        group=f"{kind.value}-{rank.count}",
        flags=(DISTURBED_FLAG,) if disturbed else (),
    )


def _exchange(rank: Rank, kind: OperationKind, sent: torch.Tensor) -> Callable[[], object]:
    if kind is OperationKind.ALL_REDUCE:
        return lambda: dist.all_reduce(sent)
    received = torch.empty_like(sent)
    if kind is OperationKind.POINT_TO_POINT:
        # Pairs of neighbours, all at one time; the last of an odd number has none.
        if rank.index % 2 == 0 and rank.index + 1 == rank.count:
            return lambda: None
        if rank.index % 2:
            return lambda: dist.recv(received, rank.index - 1)
        return lambda: dist.send(sent, rank.index + 1)
    if kind is OperationKind.ALL_GATHER:
        share = sent.chunk(rank.count)[rank.index]
        return lambda: gather(received, share)
    return lambda: dist.all_to_all_single(received, sent)


def _samples_ms(rank: Rank, run: Callable[[], object]) -> tuple[list[float], bool]:
    """Returns samples of the slowest rank, and whether other processes disturbed too many."""
    work = _kernels(rank)

    def both() -> None:
        work()
        run()

    for _ in range(_WARM_UP):
        both()
    (once,) = rank.slowest([_elapsed_ms(rank, both, 1)])
    repeats = int(max(1, min(_MOST_REPEATS, _SAMPLE_MS / max(once, 1e-4))))
    alone, together, waited = [], [], []
    for _ in range(_SAMPLES):
        dist.barrier()
        delay = RunDelay()
        alone.append(_elapsed_ms(rank, work, repeats))
        dist.barrier()
        together.append(_elapsed_ms(rank, both, repeats))
        waited.append(delay.lap_ms())
    kernels = float(np.median(rank.slowest(alone)))
    # The same samples count on all ranks: what disturbs one holds up the others.
    pairs = list(zip(rank.slowest(together), rank.slowest(waited), strict=True))
    clean = [ms for ms, lost in pairs if lost <= DISTURBED_SHARE * ms]
    enough = len(clean) >= _FEWEST_CLEAN
    chosen = clean if enough else [ms for ms, _ in pairs]
    return [max(ms - kernels, _LEAST_MS) / repeats for ms in chosen], not enough


def _kernels(rank: Rank) -> Callable[[], object]:
    """Returns what runs between exchanges: products with weights, as decode steps have them."""
    row = rank.device.random(1, _WIDTH, dtype=torch.float32)
    weights = [rank.device.random(_WIDTH, _WIDTH, dtype=torch.float32) for _ in range(_PRODUCTS)]

    def run() -> None:
        for matrix in weights:
            torch.mm(row, matrix)

    return run


def _elapsed_ms(rank: Rank, run: Callable[[], object], repeats: int) -> float:
    rank.device.synchronize()
    begin = time.perf_counter()
    for _ in range(repeats):
        run()
    rank.device.synchronize()
    return (time.perf_counter() - begin) * 1e3
