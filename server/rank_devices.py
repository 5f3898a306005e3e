"""Which devices the tensor-parallel ranks of a live measurement run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from model.errors import InvalidFieldError
from profiler import telemetry
from server.devices import CPU

if TYPE_CHECKING:
    from server.devices import Device, DeviceRegistry

_MAX_RANKS = 4_096


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


def ranks_of(device: Device, tensor: int, devices: DeviceRegistry) -> Ranks:
    """Returns where ranks run: each on a GPU of one kind, or on cores of its own.

    On the CPU each rank computes with as many threads as a campaign does, and has as many cores:
    what is predicted is of such ranks.

    Args:
        device: a local one, asked for.
        tensor: ranks that share the layers.
        devices: among which others of its kind are.
    """
    if tensor == 1:
        return Ranks((device,))
    if device.stored_name == CPU:
        few = _few_cores(device, tensor)
        return Ranks((device,), few) if few else Ranks((device,) * tensor)
    kind = _kind(device, devices)
    if len(kind) < tensor:
        return Ranks((device,), f"GPUs of its kind here: {len(kind)}")
    others = [other for other in kind if other.stored_name != device.stored_name]
    return Ranks((device, *others[: tensor - 1]))


def exchanging(device: Device, ranks: int, devices: DeviceRegistry) -> tuple[Device, ...]:
    """Returns where ranks run whose messages to each other a profile job measures; empty: none do.

    Of GPUs of one kind the first one's jobs measure them: jobs that waited for each other's
    device would wait for ever.

    Args:
        device: a local one, which the job is of.
        ranks: how many; 0: all GPUs of the device's kind if it is the first, none on the CPU.
        devices: among which others of its kind are.

    Raises:
        InvalidFieldError: they cannot run here; names ``ranks``.
    """
    if not 0 <= ranks <= _MAX_RANKS:
        raise InvalidFieldError("ranks", f"{ranks} is not in 0 to {_MAX_RANKS}")
    if ranks == 1:
        return ()
    if device.stored_name == CPU:
        if few := _few_cores(device, ranks):
            raise InvalidFieldError(
                "ranks", f"{few} here; use fewer, or start the daemon with a lower OMP_NUM_THREADS"
            )
        return (device,) * ranks
    kind = _kind(device, devices)
    first = kind[0].stored_name == device.stored_name
    if ranks and not first:
        raise InvalidFieldError(
            "ranks", f"those of {device.name} are measured by jobs of {kind[0].name}; use 0 or 1"
        )
    if ranks > len(kind):
        raise InvalidFieldError("ranks", f"{ranks} are more than the {len(kind)} GPUs of its kind")
    return kind[: ranks or len(kind)] if first and len(kind) > 1 else ()


def _kind(device: Device, devices: DeviceRegistry) -> tuple[Device, ...]:
    """Returns the GPUs that are as the device, itself among them, in the machine's order."""
    name = device.sheet.display_name
    alike = [known for known in devices.local() if known.stored_name != CPU]
    return tuple(known for known in alike if known.sheet.display_name == name)


def _few_cores(device: Device, ranks: int) -> str:
    """Says that the CPU has too few cores for so many ranks; empty: it has enough."""
    threads = device.environment.threads if device.environment is not None else 1
    cores = telemetry.core_count()
    if ranks * threads <= cores:
        return ""
    return f"{ranks} ranks of {threads} threads need more than the {cores} cores"
