"""Brings a GPU to the clock that it keeps: an idle one is slow, a cold one too fast for a while."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING

import torch

from profiler import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiler.device import Device

_LONGEST_S = 3.0
_BLIND_S = 0.5
"""Of work, where no clock can be read."""
_STEADY_S = 0.5
"""For so long readings must lie as close together as is asked: a rising clock may rest."""
_READINGS = 4
"""In that time, at the least."""
_STEADY = 0.01
_WIDTH, _PRODUCTS = 4096, 50
"""Of the work between two readings: some ten milliseconds on an H100, as slow as the driver
renews what it tells."""
_IDLE_S = 1.0
"""A GPU that has had nothing to do for longer may have lowered its clock."""


class Warmth:
    """Warms a GPU up behind every pause: while the host fits, or waits, its clock falls.

    Args:
        device: whose clock it is; nothing is done where it is no GPU.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._now = time.monotonic
        self._busy_until = -math.inf

    def note_work(self) -> None:
        """Notes that the GPU has worked until now."""
        self._busy_until = self._now()

    def renew(self) -> None:
        """Warms the GPU up if it has been idle, for as long as :func:`warm_up` takes."""
        if self._device.is_cuda and self._now() - self._busy_until > _IDLE_S:
            warm_up(self._device)
            self.note_work()


def warm_up(device: Device) -> None:
    """Keeps a GPU busy until its clock settles, for seconds at the most; does nothing elsewhere."""
    if not device.is_cuda:
        return
    a = device.random(_WIDTH, _WIDTH, dtype=torch.bfloat16)
    settle(partial(_work, device, a), partial(telemetry.clock_mhz, device.name))


def settle(
    work: Callable[[], None],
    clock_mhz: Callable[[], float | None],
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Repeats work until the clock changes no more.

    Args:
        work: takes some milliseconds.
        clock_mhz: reads the clock; None where it cannot be read.
        now: seconds of any beginning.
    """
    begin = now()
    readings: list[tuple[float, float]] = []
    while now() - begin < (_LONGEST_S if readings else _BLIND_S):
        work()
        clock = clock_mhz()
        if clock is None:
            continue
        readings = _near([*readings, (now(), clock)])
        if len(readings) >= _READINGS and readings[-1][0] - readings[0][0] >= _STEADY_S:
            return


def _near(readings: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the last of the readings, (seconds, clock), whose clocks lie close together."""
    first = len(readings)
    low = high = readings[-1][1]
    for _, clock in reversed(readings):
        low, high = min(low, clock), max(high, clock)
        if high - low > _STEADY * high:
            break
        first -= 1
    return readings[first:]


def _work(device: Device, a: torch.Tensor) -> None:
    for _ in range(_PRODUCTS):
        a @ a
    device.synchronize()
