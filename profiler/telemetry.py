"""How a local device stands, and the environment that measurements are made in.

Without torch: the daemon asks here, too, and both must come to the same
fingerprint. Devices are named as torch names them: "cpu", "cuda:0", ...
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler import nvml, processor
from profiler.interface import Environment

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """A device at one moment; None stands for what cannot be read.

    Attributes:
        time: when it was read.
        utilization: share in use, 0 to 1.
        memory_used_bytes: by anyone.
        memory_total_bytes: of the device.
        temperature_celsius: degrees.
        power_watts: draw.
        clock_mhz: of the cores.
        throttle_reasons: why clocks are held down; empty when they are not.
        processes: others on the device, as "pid name".
        uncorrected_ecc_errors: of its memory, since the driver was loaded.
        mig_enabled: whether it is cut into instances.
        persistence_mode: whether its driver stays loaded while nobody uses it.
    """

    time: datetime
    utilization: float
    memory_used_bytes: int
    memory_total_bytes: int
    temperature_celsius: float | None = None
    power_watts: float | None = None
    clock_mhz: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    uncorrected_ecc_errors: int | None = None
    mig_enabled: bool | None = None
    persistence_mode: bool | None = None


def occupied_text(device: str, processes: Sequence[str], remedy: str) -> str:
    """Returns why nothing is timed on a device that others compute on.

    Args:
        device: as the reader calls it.
        processes: as in :class:`Telemetry`.
        remedy: what can be done about them.
    """
    return (
        f"other processes are on {device} and would disturb what is timed:"
        f" {', '.join(processes)}; {remedy}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalDevice:
    """A device of this machine.

    Attributes:
        torch_name: "cpu", "cuda:0", ...
        display_name: as the driver or the processor states it.
        memory_bytes: of the device.
        last_level_cache_bytes: 0 where it cannot be read.
        environment: that measurements on it are made in.
    """

    torch_name: str
    display_name: str
    memory_bytes: int
    last_level_cache_bytes: int
    environment: Environment


def local_devices() -> tuple[LocalDevice, ...]:
    """Returns the devices of this machine: the GPUs that CUDA may use, then the CPU."""
    gpus = [
        LocalDevice(
            torch_name=f"cuda:{index}",
            display_name=gpu.name,
            memory_bytes=gpu.memory_bytes,
            last_level_cache_bytes=0,
            environment=current_environment(f"cuda:{index}"),
        )
        for index, gpu in enumerate(nvml.gpus())
    ]
    _, memory_bytes = processor.memory()
    cpu = LocalDevice(
        torch_name="cpu",
        display_name=processor.name(),
        memory_bytes=memory_bytes,
        last_level_cache_bytes=processor.last_level_cache_bytes(),
        environment=current_environment("cpu"),
    )
    return (*gpus, cpu)


def core_count() -> int:
    """Returns the physical cores that this process may run on."""
    return processor.core_count()


def read(device: str, own_processes: Collection[int] = ()) -> Telemetry:
    """Returns how a device stands now; the CPU is watched for 50 ms.

    Args:
        device: "cpu" or "cuda:0".
        own_processes: process ids that are not listed among the others.

    Raises:
        OSError: the driver does not answer for it any more.
        ValueError: there is no such device.
    """
    now = datetime.now(UTC)
    if device == "cpu":
        used, total = processor.memory()
        return Telemetry(
            time=now,
            utilization=processor.utilization(),
            memory_used_bytes=used,
            memory_total_bytes=total,
            temperature_celsius=processor.temperature_celsius(),
            clock_mhz=processor.clock_mhz(),
        )
    state = nvml.state(_gpu(device), own_processes)
    return Telemetry(
        time=now,
        utilization=state.utilization,
        memory_used_bytes=state.memory_used_bytes,
        memory_total_bytes=state.memory_total_bytes,
        temperature_celsius=state.temperature_celsius,
        power_watts=state.power_watts,
        clock_mhz=state.clock_mhz,
        throttle_reasons=state.throttle_reasons,
        processes=state.processes,
        uncorrected_ecc_errors=state.uncorrected_ecc_errors,
        mig_enabled=state.mig_enabled,
        persistence_mode=state.persistence_mode,
    )


def clock_mhz(device: str) -> float | None:
    """Returns the clock of a GPU's multiprocessors now; None where it cannot be read.

    Args:
        device: "cuda:0", or "cpu", whose clocks are too many to be read often.
    """
    if device == "cpu":
        return None
    try:
        return nvml.clock_mhz(_gpu(device))
    except ValueError:
        return None


def held_down_by(device: str) -> tuple[str, ...]:
    """Returns what holds the clocks of a GPU below what it does when it is cool and well.

    A power cap is left out: under large products it is a GPU's usual state.

    Args:
        device: "cpu", for which nothing can be told, or "cuda:0".
    """
    if device == "cpu":
        return ()
    try:
        reasons = nvml.throttle_reasons(_gpu(device))
    except ValueError:
        return ()
    return tuple(reason for reason in reasons if reason != nvml.POWER_CAP)


def energy_joules(device: str) -> float | None:
    """Returns a device's counter of energy, None where it has none that can be read.

    Args:
        device: "cpu" or "cuda:0".
    """
    if device == "cpu":
        return processor.energy_joules()
    try:
        return nvml.energy_joules(_gpu(device))
    except ValueError:  # torch may see a GPU whose driver's library nobody installed
        return None


class EnergyMeter:
    """Counts the energy that a device takes from now on.

    GPUs renew their counter some ten times a second: what is metered should last for longer.

    Args:
        device: "cpu" or "cuda:0".
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._begin = energy_joules(device)

    def spent_joules(self) -> float | None:
        """Returns the joules so far; None where they cannot be read or the count began anew."""
        now = energy_joules(self._device)
        if now is None or self._begin is None or now <= self._begin:
            return None
        return now - self._begin


def current_environment(device: str) -> Environment:
    """Returns where and with what a measurement on the device would be made now.

    Args:
        device: "cpu" or "cuda:0".

    Raises:
        ValueError: there is no such device.
    """
    if device == "cpu":
        return Environment(
            device_name=processor.name(),
            device_kind="cpu",
            threads=processor.threads(),
            **_versions(),
        )
    gpu = _gpu(device)
    return gpu_environment(gpu.name, gpu.uuid, nvml.driver_version())


def gpu_environment(name: str, uuid: str, driver_version: str) -> Environment:
    """Returns where and with what a measurement on that GPU would be made now.

    Args:
        name: as the driver states it.
        uuid: likewise, "GPU-" in front.
        driver_version: of the driver.
    """
    _, cuda_version = _torch_versions()
    return Environment(
        device_name=name,
        device_kind="cuda",
        device_uuid=uuid,
        driver_version=driver_version,
        cuda_version=cuda_version,
        **_versions(),
    )


def _versions() -> dict[str, Any]:
    torch_version, _ = _torch_versions()
    return {
        "torch_version": torch_version,
        "transformers_version": version_of("transformers"),
        "platform": f"{platform.system()} {platform.release()}",
        "python_version": platform.python_version(),
    }


def _gpu(device: str) -> nvml.Gpu:
    kind, _, number = device.partition(":")
    gpus = nvml.gpus()
    if kind != "cuda" or not number.isdecimal() or int(number) >= len(gpus):
        known = ", ".join(["cpu", *(f"cuda:{index}" for index in range(len(gpus)))])
        raise ValueError(f"there is no device {device!r}; there are {known}")
    return gpus[int(number)]


@lru_cache(maxsize=1)
def _torch_versions() -> tuple[str, str]:
    """Returns torch's version and that of its CUDA, empty where it has none.

    Read from the source of torch/version.py: importing it would load torch, and
    the package's metadata leaves out the local part of the version, such as
    "+cu130", that torch.__version__ has.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "", ""
    found = {"__version__": version_of("torch"), "cuda": ""}
    try:
        tree = ast.parse((Path(spec.origin).parent / "version.py").read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return found["__version__"], ""
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if (
            isinstance(target, ast.Name)
            and target.id in found
            and isinstance(value, ast.Constant)
            and isinstance(value.value, str)
        ):
            found[target.id] = value.value
    return found["__version__"], found["cuda"]


@lru_cache(maxsize=8)
def version_of(package: str) -> str:
    """Returns the version that is installed, empty where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
