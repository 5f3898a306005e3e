"""Devices that can be answered for: those of this machine and those with a data sheet alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil
import structlog

from model.errors import UnknownNameError
from model.hardware import DataSheet, data_sheet, device_names, recognise
from profiler import telemetry
from server.errors import failed_precondition, not_found

if TYPE_CHECKING:
    from profiler.interface import Environment
    from profiler.telemetry import LocalDevice, Telemetry

LOCAL = "local"
CPU = "cpu"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device.

    Attributes:
        name: name it was asked for.
        stored_name: name its rows are stored under; "local" and "cpu" are one
            device where there is no GPU.
        sheet: what is known of it; for a local one, what the machine says
            over the data sheet it was recognised by.
        data_sheet: name of that data sheet; empty where none, and for others than local.
        torch_name: "cpu", "cuda:0", ...; empty for devices that are not here.
        environment: what it is measured in; None for devices that are not here.
    """

    name: str
    stored_name: str
    sheet: DataSheet
    data_sheet: str = ""
    torch_name: str = ""
    environment: Environment | None = None

    @property
    def local(self) -> bool:
        """Whether it is in this machine."""
        return self.environment is not None

    @property
    def fingerprint(self) -> str:
        """Fingerprint of its environment; empty for devices that are not here."""
        return self.environment.fingerprint if self.environment is not None else ""


class DeviceRegistry:
    """The devices, looked up once: a driver or torch does not change under a running daemon."""

    def __init__(self) -> None:
        self._devices = {device.name: device for device in _find()}

    def all(self) -> tuple[Device, ...]:
        """Returns all devices, the local ones first."""
        return tuple(self._devices.values())

    def local(self) -> tuple[Device, ...]:
        """Returns the local devices, each once."""
        by_name = {device.stored_name: device for device in self.all() if device.local}
        return tuple(by_name.values())

    def get(self, name: str, field: str = "device") -> Device:
        """Returns the device of that name; empty stands for "local".

        Raises:
            ServiceError: NOT_FOUND, there is none; names ``field``.
        """
        device = self._devices.get(name or LOCAL)
        if device is None:
            error = UnknownNameError("device", name, self._devices)
            raise not_found("device", name, error.message, field)
        return device

    def get_local(self, name: str, field: str = "device") -> Device:
        """Returns the local device of that name; empty stands for "local".

        Raises:
            ServiceError: NOT_FOUND, there is none; FAILED_PRECONDITION, it is
                not in this machine and cannot be measured.
        """
        device = self.get(name, field)
        if not device.local:
            here = ", ".join(known.name for known in self.all() if known.local)
            raise failed_precondition(
                "DEVICE_NOT_LOCAL",
                device.name,
                f"{field}: {device.name} is not in this machine; what can be measured: {here}",
            )
        return device

    @staticmethod
    def telemetry(device: Device) -> Telemetry | None:
        """Returns how a device stands now, None where that cannot be told.

        Workers, and the ranks that they have started, are not listed among other processes.

        Args:
            device: any; those that are not here have no telemetry.
        """
        if not device.local:
            return None
        own = {child.pid for child in psutil.Process().children(recursive=True)}
        try:
            return telemetry.read(device.torch_name, own)
        except OSError as error:
            _log.warning("no telemetry", device=device.name, error=str(error))
            return None


def _find() -> list[Device]:
    *gpus, processor = telemetry.local_devices()
    cpu = _cpu(processor)
    here = [_gpu(index, gpu) for index, gpu in enumerate(gpus)] or [replace(cpu, name=LOCAL)]
    elsewhere = [
        Device(name=name, stored_name=name, sheet=data_sheet(name))
        for name in device_names()
        if name != CPU
    ]
    return [*here, cpu, *elsewhere]


def _cpu(found: LocalDevice) -> Device:
    return Device(
        name=CPU,
        stored_name=CPU,
        sheet=replace(
            data_sheet(CPU),
            display_name=found.display_name,
            memory_bytes=found.memory_bytes,
            last_level_cache_bytes=found.last_level_cache_bytes,
        ),
        torch_name=found.torch_name,
        environment=found.environment,
    )


def _gpu(index: int, found: LocalDevice) -> Device:
    name = f"{LOCAL}:{index}" if index else LOCAL
    known = recognise(found.display_name, found.memory_bytes)
    blank = DataSheet(name=name, display_name="", kind="cuda", peaks={})
    return Device(
        name=name,
        stored_name=name,
        sheet=replace(
            known or blank,
            display_name=found.display_name,
            memory_bytes=found.memory_bytes,
        ),
        data_sheet=known.name if known is not None else "",
        torch_name=found.torch_name,
        environment=found.environment,
    )
