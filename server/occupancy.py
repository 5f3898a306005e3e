"""Whether others compute on a device that is to be timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from profiler.telemetry import occupied_text
from server.errors import failed_precondition

if TYPE_CHECKING:
    from profiler.telemetry import Telemetry
    from server.devices import Device, DeviceRegistry

FORCE_REMEDY = "end them, wait, or set force"
"""Where the request has a field for it."""


def unoccupied(
    device: Device, devices: DeviceRegistry, remedy: str = "end them or wait"
) -> Telemetry | None:
    """Returns how a device stands that no other process is on; None where that cannot be told.

    Args:
        device: a local one.
        devices: that it is one of.
        remedy: what can be done about processes.

    Raises:
        ServiceError: FAILED_PRECONDITION, other processes are on it; names them.
    """
    # Workers, and the ranks that they have started.
    own = {child.pid for child in psutil.Process().children(recursive=True)}
    state = devices.telemetry(device, own)
    if state is not None and state.processes:
        raise failed_precondition(
            "DEVICE_IN_USE",
            device.name,
            occupied_text(device.name, state.processes, remedy),
        )
    return state
