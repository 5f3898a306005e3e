"""Which device a campaign without a daemon measures, and with what: the header of its file."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from model.hardware import recognise
from model.source import ROOT, commit_of
from profiler import telemetry
from reference.campaigns import Header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from profiler.interface import Environment

_DRIVER = Path("/proc/driver/nvidia/version")
_DRIVER_VERSION = re.compile(r"Kernel Module\b.*?\s(\d+(?:\.\d+)+)\s")
_PACKAGES = ("numpy", "scipy", "scikit-learn", "onnxruntime", "nvidia-ml-py", "torchao", "triton")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A device of this machine.

    Attributes:
        data_sheet: name of the one that it was recognised by; empty where none is.
        memory_bytes: of the device.
        environment: that measurements on it are made in.
    """

    data_sheet: str
    memory_bytes: int
    environment: Environment


def default_device() -> str:
    """Returns the first GPU that torch sees, else the CPU."""
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def identify(device: str) -> Identity:
    """Returns what a device is: by NVML, else by torch where its library is missing.

    Args:
        device: "cpu" or "cuda:0"; torch sees it.
    """
    for local in telemetry.local_devices():
        if local.torch_name == device:
            environment, memory_bytes = local.environment, local.memory_bytes
            break
    else:
        properties = torch.cuda.get_device_properties(device)
        memory_bytes = int(properties.total_memory)
        environment = telemetry.gpu_environment(
            properties.name, f"GPU-{properties.uuid}", driver_version()
        )
    sheet = None if device == "cpu" else recognise(environment.device_name, memory_bytes)
    return Identity(
        data_sheet=sheet.name if sheet is not None else "",
        memory_bytes=memory_bytes,
        environment=environment,
    )


def driver_version(file: Path = _DRIVER) -> str:
    """Returns the version of NVIDIA's driver as the kernel tells it, empty where it does not."""
    try:
        found = _DRIVER_VERSION.search(file.read_text(errors="replace"))
    except OSError:
        return ""
    return found[1] if found else ""


def header_of(identity: Identity, arguments: Sequence[str], commit: str = "") -> Header:
    """Returns the header of a campaign that begins now.

    Args:
        identity: of the device.
        arguments: of the command, without the interpreter.
        commit: as :func:`model.source.commit_of` is given it.

    Raises:
        InvalidFieldError: the checkout is of another commit; names ``commit``.
    """
    return Header(
        device=identity.data_sheet,
        environment=asdict(identity.environment),
        memory_bytes=identity.memory_bytes,
        create_time=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(("python", "-m", "profiler", *arguments)),
        commit=commit_of(commit, ROOT),
        versions={name: version for name in _PACKAGES if (version := telemetry.version_of(name))},
    )
