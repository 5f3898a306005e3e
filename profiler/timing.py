"""Repeated timings of something that runs on a device.

On the CPU a sample during which other processes held the processor is dropped:
the kernel counts the time that our runnable threads waited (run delay). On CUDA
a sample is the span between two events.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from model.measurement import Distribution
from profiler.process_limits import is_out_of_memory
from profiler.texts import one_line

if TYPE_CHECKING:
    from profiler.device import Device
    from profiler.ranks import Rank

Run = Callable[[], object]

DISTURBED_SHARE = 0.03
"""A sample is dropped when its threads waited for longer than this share of it."""

DISTURBED_FLAG = "disturbed"
"""Marks a point whose samples were all disturbed."""
THROTTLED_FLAG = "throttled"
"""Marks a point after which heat, a power brake or a fault held the GPU's clocks down."""
_WARM_UPS = 3
_MOST_IN_A_SAMPLE = 256
"""Runs on CUDA: more would fill the queue of launches, and the host would wait."""


class CaptureError(RuntimeError):
    """No CUDA graph can hold what is to be timed; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """When repeating ends.

    Attributes:
        seconds: time for one point, warm-up left out.
        min_samples: taken whatever the time.
        max_samples: never exceeded.
        sample_ms: a sample repeats short runs until it lasts so long.
    """

    seconds: float = 0.15
    min_samples: int = 3
    max_samples: int = 30
    sample_ms: float = 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Samples of one point in milliseconds a run, with remarks."""

    distribution: Distribution
    flags: tuple[str, ...]

    def per(self, runs: int) -> Timing:
        """Returns the timing of one of so many equal runs that a sample held."""
        whole = self.distribution
        return Timing(
            Distribution(
                median=whole.median / runs,
                p10=whole.p10 / runs,
                p90=whole.p90 / runs,
                samples=whole.samples,
            ),
            self.flags,
        )


def time_runs(device: Device, runs: Sequence[Run], effort: Effort) -> Timing:
    """Times runs that stand for the same point, each over data of its own, in turn.

    Args:
        device: where they run.
        runs: at least one; several rotate, so that data is cold as in a real model.
        effort: when repeating ends.
    """
    return timing_of(sample_runs(device, runs, effort), effort)


def sample_runs(
    device: Device, runs: Sequence[Run], effort: Effort, rank: Rank | None = None
) -> list[tuple[float, bool]]:
    """Returns samples of runs as :func:`time_runs` takes them, and which were disturbed.

    Args:
        device: where they run.
        runs: at least one.
        effort: when repeating ends; of ranks one of a fixed number of samples.
        rank: one of those that run together, all of which call this alike: each sample holds
            as many runs on all of them.
    """
    runs[0]()
    device.synchronize()
    once = _sample(device, runs[-1:])[0]
    if rank is not None:
        (once,) = rank.slowest([once])
    # On CUDA a sample begins on an idle GPU, so that the host's first launch counts: of a lone
    # graph's one replay it is a third. Repeats are cold, as a graph goes over more than the cache.
    most = _MOST_IN_A_SAMPLE if device.is_cuda else len(runs)
    block = max(1, min(most, math.ceil(effort.sample_ms / max(once, 1e-4))))
    samples: list[tuple[float, bool]] = []
    end = time.perf_counter() + effort.seconds
    position = 0
    while len(samples) < effort.max_samples:
        chosen = [runs[(position + i) % len(runs)] for i in range(block)]
        position += block
        elapsed, disturbed = _sample(device, chosen)
        samples.append((elapsed / block, disturbed))
        if time.perf_counter() > end and len(samples) >= effort.min_samples:
            break
    return samples


def timing_of(samples: Sequence[tuple[float, bool]], effort: Effort) -> Timing:
    """Returns the timing of samples, undisturbed ones alone where these are enough.

    Args:
        samples: at least one: milliseconds, and whether other processes disturbed it.
        effort: how many are enough.
    """
    clean = [ms for ms, disturbed in samples if not disturbed]
    if len(clean) >= min(effort.min_samples, len(samples)):
        return Timing(distribution(clean), ())
    return Timing(distribution([ms for ms, _ in samples]), (DISTURBED_FLAG,))


def captured(device: Device, runs: Sequence[Run]) -> Run:
    """Returns what does all runs one after the other, on CUDA from a graph.

    A graph's launches cost nothing, but its pointers are fixed: what rotates over data must
    be in it, and what runs go by is kept as long as the graph. Runs must not wait for the device.

    Raises:
        CaptureError: they do, or a graph cannot hold them for another reason.
    """
    if not device.is_cuda:
        return partial(in_turn, runs)
    # As torch's notes on graphs ask for: lazily made handles must be there before.
    stream = _capture_stream(device.name)
    stream.wait_stream(torch.cuda.current_stream(device.torch_device))
    with torch.cuda.stream(stream):
        for repeat in range(_WARM_UPS):
            runs[repeat % len(runs)]()
        _check_waits_for_nothing(runs[0])
    torch.cuda.current_stream(device.torch_device).wait_stream(stream)
    device.synchronize()
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    before = torch.cuda.current_stream(device.torch_device)
    # Beside ranks' exchanges a thread of torch's asks how far earlier ones have come, which
    # would end a capture that forbids all threads to ask.
    of_ranks = dist.is_available() and dist.is_initialized()
    mode = "thread_local" if of_ranks else "global"
    try:
        with torch.cuda.graph(graph, pool, stream, capture_error_mode=mode):
            in_turn(runs)
    except RuntimeError as error:
        _leave_capture(device, before, pool)
        if is_out_of_memory(error):
            raise
        raise CaptureError(f"no CUDA graph holds it: {one_line(error)}") from error
    return partial(_replay, graph, tuple(runs))


def _replay(graph: torch.cuda.CUDAGraph, _runs: tuple[Run, ...]) -> None:
    graph.replay()


def _leave_capture(device: Device, before: torch.cuda.Stream, pool: tuple[int, int]) -> None:
    """Makes torch as it was before a capture that failed.

    Where the capture's end fails, torch.cuda.graph leaves its stream the current one, and torch
    2.11's allocator goes on as inside of a capture (github.com/pytorch/pytorch/issues/180395). The
    memory of such a capture stays taken: whether torch gives it back differs by its version.
    """
    torch.cuda.set_stream(before)
    # Where torch did so itself, nothing is left to end, which is an error.
    with contextlib.suppress(RuntimeError):
        torch._C._cuda_endAllocateToPool(device.torch_device.index, pool)
    device.synchronize()


@lru_cache
def _capture_stream(device: str) -> Any:  # noqa: ANN401 - torch.cuda.Stream has no types
    """Returns the one that graphs are captured on: each stream keeps a workspace of cuBLAS."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _check_waits_for_nothing(run: Run) -> None:
    """Runs it once more, told if it waits for the device.

    A capture that finds out itself keeps its memory (:func:`_leave_capture`).

    Raises:
        CaptureError: it does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mode calls itself a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            run()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise CaptureError(f"it waits for the device: {one_line(error)}") from error
        finally:
            torch.cuda.set_sync_debug_mode("default")


def in_turn(runs: Sequence[Run]) -> None:
    """Does all runs one after the other."""
    for run in runs:
        run()


class Stopwatch:
    """Marks moments on a device: the clock on the CPU, events on CUDA."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._marks: list[Any] = []

    def reset(self) -> None:
        """Forgets all marks."""
        self._marks = []

    def mark(self) -> None:
        """Marks this moment in the device's order of work."""
        if self._device.is_cuda:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def laps_ms(self) -> list[float]:
        """Returns the milliseconds between one mark and the next."""
        self._device.synchronize()
        pairs = zip(self._marks, self._marks[1:], strict=False)
        if self._device.is_cuda:
            return [begin.elapsed_time(end) for begin, end in pairs]
        return [(end - begin) * 1e3 for begin, end in pairs]


def distribution(samples_ms: Sequence[float]) -> Distribution:
    """Returns median, 10th and 90th percentile of at least one timing."""
    p10, median, p90 = np.percentile(samples_ms, [10, 50, 90])
    return Distribution(
        median=float(median), p10=float(p10), p90=float(p90), samples=len(samples_ms)
    )


class RunDelay:
    """Time that this process's threads waited for a processor since it was last asked."""

    def __init__(self) -> None:
        self._last = _run_delay_ns()

    def lap_ms(self) -> float:
        """Returns the milliseconds waited since the last lap."""
        now = _run_delay_ns()
        waited, self._last = now - self._last, now
        return waited / 1e6


def _sample(device: Device, runs: Sequence[Run]) -> tuple[float, bool]:
    """Returns the milliseconds of all runs together and whether they were disturbed."""
    if device.is_cuda:
        make: Any = torch.cuda.Event
        begin, end = make(enable_timing=True), make(enable_timing=True)
        begin.record()
        for run in runs:
            run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)), False
    delay = RunDelay()
    start = time.perf_counter()
    for run in runs:
        run()
    elapsed = (time.perf_counter() - start) * 1e3
    return elapsed, delay.lap_ms() > DISTURBED_SHARE * elapsed


def _run_delay_ns() -> int:
    total = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[1])
        except (OSError, IndexError):  # the thread ended, or the kernel does not count
            continue
    return total
