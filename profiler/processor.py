"""The CPU of this machine as a computing device: name, cores, caches, memory, load."""

from __future__ import annotations

import os
import platform
from pathlib import Path

try:
    import psutil
except ModuleNotFoundError:  # optional where there is no daemon
    psutil = None  # type: ignore[assignment]

_CPUS = Path("/sys/devices/system/cpu")
_CPU_INFO = Path("/proc/cpuinfo")
_MEMORY_INFO = Path("/proc/meminfo")
_CONTROL_GROUP = Path("/sys/fs/cgroup")
_POWER_CAP = Path("/sys/class/powercap")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")


def name() -> str:
    """Returns the processor's name as it states it."""
    try:
        for line in _CPU_INFO.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine() or "CPU"


def threads() -> int:
    """Returns the threads to compute with: OMP_NUM_THREADS, else the physical cores.

    Of the cores, those that this process may run on count. The worker tells torch
    to use as many, so that what is measured and what is recorded agree.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return core_count()


def core_count() -> int:
    """Returns the physical cores that this process may run on."""
    return len(_cores())


def cores_of(index: int, count: int, threads: int) -> frozenset[int]:
    """Returns the processors of the physical cores that one of several equal processes may have.

    Args:
        index: which, from 0 on.
        count: of the processes.
        threads: that each computes with: as many cores.

    Returns:
        Empty where there are too few cores for all.
    """
    cores = _cores()
    if count * threads > len(cores):
        return frozenset()
    return frozenset(cpu for core in cores[index * threads :][:threads] for cpu in core)


def last_level_cache_bytes() -> int:
    """Returns the size of the last-level caches of the usable cores together; 0 where unknown."""
    caches: dict[str, int] = {}
    for cpu in _usable():
        levels = [
            (int(_text(index / "level") or 0), index)
            for index in sorted((_CPUS / f"cpu{cpu}" / "cache").glob("index*"))
        ]
        if levels:
            _, index = max(levels)
            caches[_text(index / "shared_cpu_list")] = _size(_text(index / "size"))
    return sum(caches.values())


def energy_joules() -> float | None:
    """Returns what all packages have taken since their counters began, in joules.

    None where nobody counts it, or this process may not read it: most systems let root alone.
    """
    packages = [path for path in _POWER_CAP.glob("intel-rapl:*") if path.name.count(":") == 1]
    counts = [_text(path / "energy_uj") for path in packages]
    if not counts or not all(count.isdecimal() for count in counts):
        return None
    return sum(int(count) for count in counts) / 1e6


def memory() -> tuple[int, int]:
    """Returns the bytes in use and in all; of the control group where that has a limit."""
    available, total = _system_memory()
    used = total - available
    limit = _text(_CONTROL_GROUP / "memory.max")
    if limit.isdecimal() and int(limit) < total:
        current = _text(_CONTROL_GROUP / "memory.current")
        used, total = int(current) if current.isdecimal() else used, int(limit)
    return used, total


def available_bytes() -> int:
    """Returns the memory of the system that can be taken without swapping."""
    return _system_memory()[0]


def utilization(interval_s: float = 0.05) -> float:
    """Returns the share of all cores in use, 0 to 1, watched for ``interval_s`` seconds.

    Without psutil: the load of the last minute.
    """
    if psutil is None:
        return min(1.0, os.getloadavg()[0] / max(1, len(_usable())))
    return min(1.0, psutil.cpu_percent(interval=interval_s) / 100)


def temperature_celsius() -> float | None:
    """Returns the processor's temperature, None where no sensor can be read."""
    read = getattr(psutil, "sensors_temperatures", None)
    sensors = read() if read is not None else {}
    for sensor in _SENSORS:
        if sensors.get(sensor):
            return float(sensors[sensor][0].current)
    return None


def clock_mhz() -> float | None:
    """Returns the mean clock of the cores, None where it cannot be read."""
    try:
        state = psutil.cpu_freq() if psutil is not None else None
    except (OSError, NotImplementedError):
        return None
    return float(state.current) if state is not None and state.current > 0 else None


def _system_memory() -> tuple[int, int]:
    """Returns the bytes that can be taken, and all.

    Raises:
        OSError: the system is not Linux, and psutil is missing.
    """
    if psutil is not None:
        state = psutil.virtual_memory()
        return state.available, state.total
    if not _MEMORY_INFO.exists():
        raise OSError("free memory cannot be read on this system without psutil; install psutil")
    kilobytes = {
        key: int(rest.split()[0])
        for key, _, rest in (line.partition(":") for line in _text(_MEMORY_INFO).splitlines())
    }
    return kilobytes["MemAvailable"] << 10, kilobytes["MemTotal"] << 10


def _usable() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _cores() -> list[list[int]]:
    """Returns the processors of each physical core that this process may run on, in order."""
    cores: dict[tuple[str, str], list[int]] = {}
    for cpu in _usable():
        cores.setdefault(_core(cpu), []).append(cpu)
    return list(cores.values())


def _core(cpu: int) -> tuple[str, str]:
    topology = _CPUS / f"cpu{cpu}" / "topology"
    package, core = _text(topology / "physical_package_id"), _text(topology / "core_id")
    return (package, core) if core else ("", str(cpu))


def _size(text: str) -> int:
    digits, unit = text.rstrip("KMG"), text[-1:]
    return int(digits) * _UNITS.get(unit, 1) if digits.isdecimal() else 0


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
