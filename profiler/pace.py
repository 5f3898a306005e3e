"""Whether the processor keeps its usual pace: a neighbour on the same core shows in no counter.

Virtual machines share cores. For seconds at a time products of matrices then run up to
40% slower, though no thread of ours ever waits. Two small products are timed between
points; while one of them is slow against its own median, what is measured is marked.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)

if TYPE_CHECKING:
    from profiler.device import Device

CONTENDED_FLAG = "contended"
"""Marks a point that was measured while the pace was slow."""

_SLOW = 1.25
_FEWEST = 8
"""Laps before a median means anything."""
_ROWS = (2, 64)
"""A thin product lives off the memory's bandwidth, a wide one off the multipliers."""
_WIDTH = 1024
_REPEATS = 4


class Pace:
    """Times reference products on the CPU; a GPU is nobody else's while we measure.

    Args:
        device: whose pace it is.
    """

    def __init__(self, device: Device) -> None:
        self._laps: dict[int, list[float]] = {rows: [] for rows in _ROWS}
        self._was_slow = False
        self._weights: list[torch.Tensor] = []
        if not device.is_cuda:
            copies = max(2, -(-device.cold_bytes // (8 * _WIDTH * _WIDTH)))
            size = (2 * _WIDTH, _WIDTH)
            self._weights = [device.random(*size, dtype=torch.float32) for _ in range(copies)]
            self._inputs = {
                rows: device.random(rows, _WIDTH, dtype=torch.float32) for rows in _ROWS
            }

    def lap(self) -> bool:
        """Times the products; returns whether the pace was slow now or at the lap before."""
        before, self._was_slow = self._was_slow, False
        if not self._weights:
            return False
        for rows, laps in self._laps.items():
            laps.append(self._time(rows))
            slow = laps[-1] > _SLOW * statistics.median(laps)
            self._was_slow |= len(laps) >= _FEWEST and slow
        return before or self._was_slow

    def _time(self, rows: int) -> float:
        times = []
        for repeat in range(_REPEATS):
            weight = self._weights[(len(self._laps[rows]) + repeat) % len(self._weights)]
            begin = time.perf_counter()
            F.linear(self._inputs[rows], weight)
            times.append(time.perf_counter() - begin)
        return statistics.median(times)
