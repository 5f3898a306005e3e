"""Whether others compute on a device that is to be timed.

In a container drivers may list the ids that processes have on the host: a worker of ours is then
listed under an id that no process here has, as any other's may be. Beside a worker of ours such an
id is another's if it was listed before that worker came onto the device; one that came later cannot
be told apart, and counts as ours. While none of ours is on the device all that are listed are
others. Where a worker's id on the host happens to be a process's here, it is taken for that one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from profiler.telemetry import occupied_text
from server.errors import failed_precondition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from profiler.telemetry import Telemetry
    from server.devices import Device, DeviceRegistry

FORCE_REMEDY = "end them, wait, or set force"
"""Where the request has a field for it."""


class Occupancy:
    """Who is on the local devices beside workers of ours.

    Args:
        devices: that are asked about; their telemetry lists processes.
    """

    def __init__(self, devices: DeviceRegistry) -> None:
        self._devices = devices
        # Ids of those who were on a device when none of ours was, by its stored name.
        self._before: dict[str, frozenset[int]] = {}

    def note_others(self, device: Device) -> None:
        """Notes who is on a local device before a worker of ours comes onto it."""
        if (state := self._devices.telemetry(device)) is not None:
            self._note(device, state.processes)

    def note_and_check(
        self,
        device: Device,
        remedy: str = "end them or wait",
        *,
        beside_ours: bool = False,
        force: bool = False,
    ) -> Telemetry | None:
        """Returns how a device stands that no other process is on; None where that cannot be told.

        Who is on it while no worker of ours is, is noted.

        Args:
            device: a local one.
            remedy: what can be done about processes.
            beside_ours: whether a worker of ours may be on it.
            force: whether others may be on it, too.

        Raises:
            ServiceError: FAILED_PRECONDITION, other processes are on it, and it is not forced;
                names them.
        """
        state = self._devices.telemetry(device)
        if state is None:
            return None
        others = tuple(state.processes)
        if beside_ours:
            before = self._before.get(device.stored_name, frozenset())
            others = tuple(
                text for text in others if _id(text) in before or psutil.pid_exists(_id(text))
            )
        else:
            self._note(device, others)
        if others and not force:
            raise failed_precondition(
                "DEVICE_IN_USE", device.name, occupied_text(device.name, others, remedy)
            )
        return state

    def _note(self, device: Device, others: Iterable[str]) -> None:
        self._before[device.stored_name] = frozenset(map(_id, others))


def _id(process: str) -> int:
    """Returns the process id of what telemetry lists."""
    return int(process.partition(" ")[0])
