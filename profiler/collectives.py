"""Times what ranks send each other, by the size of the message.

An exchange stands between kernels, as in a model: ranks come to it a little apart, and threads
that carry it have gone to sleep. What kernels and exchanges take beyond the kernels counts.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from model.measurement import Measurement
from model.operations import OperationKind
from profiler.device import dtype_of
from profiler.interface import ENGINE
from profiler.ranks import gather
from profiler.timing import CaptureError, Stopwatch, captured, distribution, in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.precision import Precision
    from profiler.ranks import Rank
    from profiler.timing import Run

MESSAGE_BYTES = tuple(1 << power for power in range(9, 27))
"""From a token of a small model to a long prompt of a large one."""
KINDS = (
    OperationKind.ALL_REDUCE,
    OperationKind.ALL_GATHER,
    OperationKind.ALL_TO_ALL,
    OperationKind.POINT_TO_POINT,
)
SAMPLES = 12
"""Of an exchange; a third of them does where time is short."""
_WARM_UP = 3
_SAMPLE_MS = 30.0
"""A sample repeats quick exchanges until it lasts so long: one alone takes anything from a third of
a millisecond to five on the CPU, as the threads that carry it find a core or wait for one."""
_LEAST_MS = 1e-3
_WIDTH, _PRODUCTS = 1024, 12
"""Of the kernels between: ranks drift apart in half a layer, not in one kernel."""
_MOST_REPEATS = 64


def measure_collectives(
    rank: Rank,
    precision: Precision,
    sizes: Sequence[int] = MESSAGE_BYTES,
    samples: int = SAMPLES,
) -> list[Measurement]:
    """Returns one measurement a kind and size, as its slowest rank saw it.

    Args:
        rank: this one; all ranks call this alike.
        precision: of the values that are sent.
        sizes: bytes of the messages, as :func:`model.operations.all_reduce` and the others
            count them: what a rank holds in the end.
        samples: of each, at least one.
    """
    between = _kernels(rank)
    found = []
    for kind in KINDS:
        spans = [_Spans(rank, precision, kind, size, between) for size in sizes]
        # In rounds: what slows the machine down for seconds meets all sizes alike.
        for _ in range(samples):
            for each in spans:
                each.sample()
        found += [each.measurement() for each in spans]
    return found


class _Spans:
    """Samples of one exchange, warmed up.

    Args:
        rank: this one.
        precision: of the values that are sent.
        kind: what is exchanged.
        message_bytes: that a rank holds in the end.
        between: runs the kernels between exchanges.
    """

    def __init__(
        self,
        rank: Rank,
        precision: Precision,
        kind: OperationKind,
        message_bytes: int,
        between: Callable[[], None],
    ) -> None:
        dtype = dtype_of(precision)
        # Whole values for each rank: an all-to-all deals them out.
        values = max(1, message_bytes // dtype.itemsize // rank.count) * rank.count
        self._rank = rank
        self._precision = precision
        self._kind = kind
        self._bytes = float(values * dtype.itemsize)
        exchange = _exchange(rank, kind, rank.device.random(values, dtype=dtype))

        def both() -> None:
            between()
            exchange()

        for _ in range(_WARM_UP):
            both()
        (once,) = rank.slowest([_elapsed_ms(rank, both)])
        self._repeats = int(max(1, min(_MOST_REPEATS, _SAMPLE_MS / max(once, 1e-4))))
        self._alone = _repeated(rank, between, self._repeats)
        self._together = _repeated(rank, both, self._repeats)
        self._beyond_ms: list[float] = []

    def sample(self) -> None:
        """Takes one more: kernels alone, then with exchanges between them."""
        dist.barrier()
        alone = _elapsed_ms(self._rank, self._alone)
        dist.barrier()
        together = _elapsed_ms(self._rank, self._together)
        self._beyond_ms.append((together - alone) / self._repeats)

    def measurement(self) -> Measurement:
        """Returns what an exchange takes beyond the kernels, as its slowest rank saw it."""
        shape = {"message_bytes": self._bytes}
        if self._kind is not OperationKind.POINT_TO_POINT:
            shape["ranks"] = float(self._rank.count)
        beyond = self._rank.slowest(self._beyond_ms)
        return Measurement(
            kind=self._kind.value,
            precision=self._precision,
            engine=ENGINE,
            shape=shape,
            latency_ms=distribution([max(ms, _LEAST_MS) for ms in beyond]),
            group=f"{self._kind.value}-{self._rank.count}",
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


def _kernels(rank: Rank) -> Callable[[], None]:
    """Returns what runs between exchanges: products with weights, as decode steps have them."""
    row = rank.device.random(1, _WIDTH, dtype=torch.float32)
    weights = [rank.device.random(_WIDTH, _WIDTH, dtype=torch.float32) for _ in range(_PRODUCTS)]

    def run() -> None:
        for matrix in weights:
            torch.mm(row, matrix)

    return run


def _repeated(rank: Rank, run: Callable[[], None], repeats: int) -> Run:
    """Returns what runs so often in turn, on GPUs from a graph: engines launch none by hand."""
    runs = [run] * repeats
    try:
        return captured(rank.device, runs)
    except CaptureError:
        return partial(in_turn, runs)


def _elapsed_ms(rank: Rank, run: Run) -> float:
    watch = Stopwatch(rank.device)
    watch.mark()
    run()
    watch.mark()
    (elapsed,) = watch.laps_ms()
    return elapsed
