"""Which devices the tensor-parallel ranks of a live measurement run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from model.blocks import FeedForward
from profiler import telemetry
from server.devices import CPU

if TYPE_CHECKING:
    from model.architecture import Architecture
    from server.devices import Device, DeviceRegistry


class Ranks(NamedTuple):
    """Who measures together.

    Attributes:
        devices: one a rank, the one that was asked for first; that one alone where a single
            rank runs.
        alone: why a single rank runs where there are several, for a person; else empty.
    """

    devices: tuple[Device, ...]
    alone: str = ""

    @property
    def each(self) -> dict[str, Device]:
        """Each device once, by the name that it is stored under."""
        return {device.stored_name: device for device in self.devices}

    @property
    def on_one(self) -> int:
        """How many run on one device."""
        return len(self.devices) // len(self.each)


def ranks_of(
    device: Device, tensor: int, architecture: Architecture, devices: DeviceRegistry
) -> Ranks:
    """Returns where ranks run: each on a GPU of one kind, or on cores of its own.

    On the CPU each rank computes with as many threads as a campaign does, and has as many cores:
    what is predicted is of such ranks.

    Args:
        device: a local one, asked for.
        tensor: ranks that share the layers.
        architecture: what they run.
        devices: among which others of its kind are.
    """
    if tensor == 1:
        return Ranks((device,))
    dense = all(isinstance(group.layer.feed_forward, FeedForward) for group in architecture.layers)
    if not dense:
        return Ranks((device,), "experts are not spread over ranks yet")
    if device.stored_name == CPU:
        threads = device.environment.threads if device.environment is not None else 1
        cores = telemetry.core_count()
        if tensor * threads > cores:
            return Ranks(
                (device,), f"{tensor} ranks of {threads} threads need more than the {cores} cores"
            )
        return Ranks((device,) * tensor)
    others = [
        other
        for other in devices.local()
        if other.stored_name != device.stored_name
        and other.sheet.display_name == device.sheet.display_name
    ]
    if len(others) + 1 < tensor:
        return Ranks((device,), f"GPUs of its kind here: {len(others) + 1}")
    return Ranks((device, *others[: tensor - 1]))
