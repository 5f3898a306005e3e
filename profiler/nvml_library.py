"""The driver's management library by itself, for machines without its package, ``pynvml``.

The calls that ``profiler.nvml`` makes, under that package's names and with its results.
Signatures, structures and codes are those of NVIDIA's NVML API reference.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_uint, c_ulonglong, c_void_p, create_string_buffer
from functools import lru_cache
from typing import Any

LIBRARY = "libnvidia-ml.so.1"

NVML_TEMPERATURE_GPU = 0
NVML_CLOCK_SM = 1
NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
NVML_VOLATILE_ECC = 0
NVML_ERROR_INSUFFICIENT_SIZE = 7
NVML_ERROR_LIBRARY_NOT_FOUND = 12
NVML_ERROR_FUNCTION_NOT_FOUND = 13

_CHARACTERS = 96
"""Of the longest name or UUID, its end included."""
_PROCESSES = 32
"""Room for so many at first."""
_TRIES = 4


class NVMLError(Exception):
    """A call failed.

    Attributes:
        value: the library's code.
    """

    def __init__(self, value: int) -> None:
        super().__init__(_text_of(value))
        self.value = value


class _Memory(ctypes.Structure):
    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", c_uint), ("memory", c_uint))


class _OldProcess(ctypes.Structure):
    _fields_ = (("pid", c_uint), ("usedGpuMemory", c_ulonglong))


class _Process(ctypes.Structure):
    _fields_ = (*_OldProcess._fields_, ("gpuInstanceId", c_uint), ("computeInstanceId", c_uint))


_RUNNING = (
    ("nvmlDeviceGetComputeRunningProcesses_v3", _Process),
    ("nvmlDeviceGetComputeRunningProcesses_v2", _Process),
    ("nvmlDeviceGetComputeRunningProcesses", _OldProcess),
)
"""The newest first; drivers before R510 lack that, before R460 all but the last."""


def nvmlInit() -> None:
    """Starts the library; every other call needs it.

    Raises:
        NVMLError: there is no such library, or it finds no driver.
    """
    _call("nvmlInit_v2")


def nvmlSystemGetDriverVersion() -> str:
    """Returns the driver's version."""
    return _text("nvmlSystemGetDriverVersion")


def nvmlDeviceGetCount() -> int:
    """Returns how many GPUs there are."""
    return _number(c_uint, "nvmlDeviceGetCount_v2")


def nvmlDeviceGetHandleByIndex(index: int) -> c_void_p:
    """Returns what the library knows a GPU by; they are counted along the PCI bus."""
    handle = c_void_p()
    _call("nvmlDeviceGetHandleByIndex_v2", c_uint(index), byref(handle))
    return handle


def nvmlDeviceGetName(handle: c_void_p) -> str:
    """Returns a GPU's name."""
    return _text("nvmlDeviceGetName", handle)


def nvmlDeviceGetUUID(handle: c_void_p) -> str:
    """Returns a GPU's UUID, "GPU-" in front."""
    return _text("nvmlDeviceGetUUID", handle)


def nvmlDeviceGetMemoryInfo(handle: c_void_p) -> _Memory:
    """Returns a GPU's memory in bytes: ``total``, ``free`` and ``used``."""
    memory = _Memory()
    _call("nvmlDeviceGetMemoryInfo", handle, byref(memory))
    return memory


def nvmlDeviceGetUtilizationRates(handle: c_void_p) -> _Utilization:
    """Returns the percent of the last second in which kernels ran (``gpu``) or memory was read."""
    rates = _Utilization()
    _call("nvmlDeviceGetUtilizationRates", handle, byref(rates))
    return rates


def nvmlDeviceGetPowerUsage(handle: c_void_p) -> int:
    """Returns milliwatts."""
    return _number(c_uint, "nvmlDeviceGetPowerUsage", handle)


def nvmlDeviceGetTotalEnergyConsumption(handle: c_void_p) -> int:
    """Returns millijoules since the driver was loaded."""
    return _number(c_ulonglong, "nvmlDeviceGetTotalEnergyConsumption", handle)


def nvmlDeviceGetTemperature(handle: c_void_p, sensor: int) -> int:
    """Returns degrees Celsius."""
    return _number(c_uint, "nvmlDeviceGetTemperature", handle, c_int(sensor))


def nvmlDeviceGetClockInfo(handle: c_void_p, kind: int) -> int:
    """Returns a clock in MHz."""
    return _number(c_uint, "nvmlDeviceGetClockInfo", handle, c_int(kind))


def nvmlDeviceGetCurrentClocksThrottleReasons(handle: c_void_p) -> int:
    """Returns the bits of what holds the clocks down."""
    return _number(c_ulonglong, "nvmlDeviceGetCurrentClocksThrottleReasons", handle)


def nvmlDeviceGetTotalEccErrors(handle: c_void_p, kind: int, counter: int) -> int:
    """Returns a count of memory errors."""
    codes = c_int(kind), c_int(counter)
    return _number(c_ulonglong, "nvmlDeviceGetTotalEccErrors", handle, *codes)


def nvmlDeviceGetMigMode(handle: c_void_p) -> list[int]:
    """Returns whether a GPU is cut into instances: now, and from its next reset on."""
    modes = c_uint(), c_uint()
    _call("nvmlDeviceGetMigMode", handle, *map(byref, modes))
    return [mode.value for mode in modes]


def nvmlDeviceGetPersistenceMode(handle: c_void_p) -> int:
    """Returns 1 where the driver stays loaded while nobody uses it."""
    return _number(c_uint, "nvmlDeviceGetPersistenceMode", handle)


def nvmlDeviceGetComputeRunningProcesses(handle: c_void_p) -> list[_Process | _OldProcess]:
    """Returns the processes that compute on a GPU, each with its ``pid``."""
    library = _library()
    name, structure = next((each for each in _RUNNING if hasattr(library, each[0])), _RUNNING[0])
    count = c_uint(_PROCESSES)
    for _ in range(_TRIES):
        found = (structure * count.value)()
        try:
            _call(name, handle, byref(count), found)
        except NVMLError as error:
            if error.value != NVML_ERROR_INSUFFICIENT_SIZE:
                raise
            count.value *= 2  # others may begin before it is asked again
        else:
            return list(found[: count.value])
    raise NVMLError(NVML_ERROR_INSUFFICIENT_SIZE)


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NVMLError(NVML_ERROR_LIBRARY_NOT_FOUND) from error


def _call(name: str, *arguments: object) -> None:
    function = getattr(_library(), name, None)
    code = NVML_ERROR_FUNCTION_NOT_FOUND if function is None else function(*arguments)
    if code:
        raise NVMLError(code)


def _number(kind: type[Any], name: str, *arguments: object) -> int:
    value = kind()
    _call(name, *arguments, byref(value))
    return int(value.value)


def _text(name: str, *arguments: object) -> str:
    buffer = create_string_buffer(_CHARACTERS)
    _call(name, *arguments, buffer, c_uint(_CHARACTERS))
    return buffer.value.decode()


def _text_of(code: int) -> str:
    """Returns the library's text for a code; it cannot be asked for that of its absence."""
    if code == NVML_ERROR_LIBRARY_NOT_FOUND:
        return f"{LIBRARY} is not installed"
    describe = _library().nvmlErrorString
    describe.restype = c_char_p
    return str(describe(c_int(code)).decode())
