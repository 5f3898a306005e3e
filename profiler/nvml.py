"""The NVIDIA GPUs of this machine, as the driver's management library sees them.

GPUs are numbered as torch numbers them: those of CUDA_VISIBLE_DEVICES, in the
order of the PCI bus (CUDA_DEVICE_ORDER is set so by the daemon for its workers, and by
``python -m profiler`` for itself).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

try:
    import pynvml as library
except ModuleNotFoundError:  # a GPU machine without a daemon may have the driver alone
    from profiler import nvml_library as library

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

T = TypeVar("T")

POWER_CAP = "power cap"
"""What holds down a GPU that is cool and well: its usual state under large products."""
# Bits of the driver's answer; an idle GPU and a clock that the user asked for
# hold nothing down.
_REASONS = {
    0x0000000000000004: POWER_CAP,
    0x0000000000000008: "hardware slowdown",
    0x0000000000000010: "sync boost",
    0x0000000000000020: "thermal slowdown (software)",
    0x0000000000000040: "thermal slowdown (hardware)",
    0x0000000000000080: "power brake",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU; ``handle`` is the library's."""

    name: str
    uuid: str
    memory_bytes: int
    handle: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """A GPU at one moment; None stands for what cannot be read."""

    utilization: float
    memory_used_bytes: int
    memory_total_bytes: int
    temperature_celsius: float | None
    power_watts: float | None
    clock_mhz: float | None
    throttle_reasons: tuple[str, ...]
    processes: tuple[str, ...]
    uncorrected_ecc_errors: int | None
    mig_enabled: bool | None
    persistence_mode: bool | None


@lru_cache(maxsize=1)
def gpus() -> tuple[Gpu, ...]:
    """Returns the GPUs that CUDA may use; empty without a driver."""
    try:
        library.nvmlInit()
        found = tuple(_gpu(index) for index in range(library.nvmlDeviceGetCount()))
    except library.NVMLError:
        return ()
    return _visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))


def driver_version() -> str:
    """Returns the version of the driver; empty without one."""
    return str(_read(library.nvmlSystemGetDriverVersion) or "") if gpus() else ""


def state(gpu: Gpu, own_processes: Collection[int] = ()) -> GpuState:
    """Returns how a GPU stands now.

    Args:
        gpu: one of :func:`gpus`.
        own_processes: process ids that are not counted among the others.

    Raises:
        OSError: the driver does not answer for it any more.
    """
    handle = gpu.handle
    try:
        memory = library.nvmlDeviceGetMemoryInfo(handle)
    except library.NVMLError as error:
        raise OSError(f"{gpu.name}: {error}") from error
    rates = _read(lambda: library.nvmlDeviceGetUtilizationRates(handle))
    power = _read(lambda: library.nvmlDeviceGetPowerUsage(handle))
    processes = _read(lambda: library.nvmlDeviceGetComputeRunningProcesses(handle)) or []
    return GpuState(
        utilization=rates.gpu / 100 if rates is not None else 0.0,
        memory_used_bytes=int(memory.used),
        memory_total_bytes=int(memory.total),
        temperature_celsius=_float(
            _read(lambda: library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU))
        ),
        power_watts=power / 1000 if power is not None else None,
        clock_mhz=clock_mhz(gpu),
        throttle_reasons=throttle_reasons(gpu),
        processes=tuple(
            f"{process.pid} {_process_name(process.pid)}"
            for process in processes
            if process.pid not in own_processes
        ),
        uncorrected_ecc_errors=_read(
            lambda: int(
                library.nvmlDeviceGetTotalEccErrors(
                    handle, library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, library.NVML_VOLATILE_ECC
                )
            )
        ),
        # The mode now, and that from the next reset on.
        mig_enabled=_read(lambda: bool(library.nvmlDeviceGetMigMode(handle)[0])),
        persistence_mode=_read(lambda: bool(library.nvmlDeviceGetPersistenceMode(handle))),
    )


def clock_mhz(gpu: Gpu) -> float | None:
    """Returns the clock of a GPU's multiprocessors."""
    return _float(_read(lambda: library.nvmlDeviceGetClockInfo(gpu.handle, library.NVML_CLOCK_SM)))


def throttle_reasons(gpu: Gpu) -> tuple[str, ...]:
    """Returns why a GPU's clocks are held down; empty when they are not, or it cannot be read."""
    read = _read(lambda: library.nvmlDeviceGetCurrentClocksThrottleReasons(gpu.handle)) or 0
    return tuple(text for bit, text in _REASONS.items() if read & bit)


def energy_joules(gpu: Gpu) -> float | None:
    """Returns what a GPU has taken since its driver was loaded; None before Volta."""
    count = _read(lambda: library.nvmlDeviceGetTotalEnergyConsumption(gpu.handle))
    return None if count is None else count / 1e3


def _gpu(index: int) -> Gpu:
    handle = library.nvmlDeviceGetHandleByIndex(index)
    return Gpu(
        name=str(library.nvmlDeviceGetName(handle)),
        uuid=str(library.nvmlDeviceGetUUID(handle)),
        memory_bytes=int(library.nvmlDeviceGetMemoryInfo(handle).total),
        handle=handle,
    )


def _visible(found: tuple[Gpu, ...], setting: str | None) -> tuple[Gpu, ...]:
    """Picks as CUDA does: numbers or beginnings of UUIDs, up to the first that fits none."""
    if setting is None:
        return found
    picked: list[Gpu] = []
    for entry in (part.strip() for part in setting.split(",")):
        if entry.isdecimal():
            matches = [found[int(entry)]] if int(entry) < len(found) else []
        else:
            matches = [gpu for gpu in found if entry and gpu.uuid.startswith(entry)]
        if len(matches) != 1:
            break
        picked.extend(matches)
    return tuple(picked)


def _read(call: Callable[[], T]) -> T | None:
    try:
        return call()
    except library.NVMLError:
        return None


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _process_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
