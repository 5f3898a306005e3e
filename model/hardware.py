"""What vendors say of their devices: memory, bandwidth, caches, links, peak rates."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from model.errors import UnknownNameError
from model.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

_MEMORY_TOLERANCE = 0.05
"""Drivers and ECC settings differ by less; cards of one name with other memory by more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSheet:
    """One device; 0, empty and absent stand for unknown.

    Attributes:
        name: name to ask for, such as "h100-sxm".
        display_name: name for people.
        kind: "cuda" or "cpu".
        memory_bytes: total memory as the driver reports it.
        bandwidth_bytes_per_second: peak memory bandwidth.
        last_level_cache_bytes: last-level cache.
        processors: streaming multiprocessors of a GPU.
        compute_capability: of a GPU, such as "9.0"; those that share one run the same kernels.
        link_bytes_per_second: bandwidth to its peers in one direction.
        link_name: of that link, such as "NVLink 4".
        peaks: dense operations a second by the precision of the operands; a precision
            the device has no multipliers for is absent.
        sources: documents the figures were read from.
        nvml_names: what the driver calls it, "NVIDIA " left out.
    """

    name: str
    display_name: str
    kind: str
    memory_bytes: int = 0
    bandwidth_bytes_per_second: float = 0.0
    last_level_cache_bytes: int = 0
    processors: int = 0
    compute_capability: str = ""
    link_bytes_per_second: float = 0.0
    link_name: str = ""
    peaks: Mapping[Precision, float]
    sources: tuple[str, ...] = ()
    nvml_names: tuple[str, ...] = ()

    def compute_precision(self, precision: Precision) -> Precision:
        """Returns the format that the multipliers run in.

        Weight-only formats compute in bf16. So do formats the device has no multipliers
        for (fp8 on an A100, fp4 before Blackwell): their weights are unpacked first.
        """
        compute = precision.compute
        packed = compute.activation is not compute
        return Precision.BF16 if packed and compute not in self.peaks else compute

    def effective_peak(self, precision: Precision) -> float:
        """Returns the dense operations a second that a format can reach; 0 where unknown.

        Of ``compute_precision``; where even that is absent (bf16 on an old CPU), of fp32.
        """
        compute = self.compute_precision(precision)
        return self.peaks.get(compute, self.peaks.get(Precision.FP32, 0.0))


def data_sheet(name: str) -> DataSheet:
    """Returns a device's data sheet; that of "cpu" is blank, for local figures to fill.

    Raises:
        UnknownNameError: no device has that name; tells the closest ones.
    """
    devices = _devices()
    if name not in devices:
        raise UnknownNameError("device", name, devices)
    return devices[name]


def device_names() -> tuple[str, ...]:
    """Returns the names of all devices."""
    return tuple(_devices())


def recognise(nvml_name: str, memory_bytes: int) -> DataSheet | None:
    """Returns the data sheet of a card in this machine, or None where there is none.

    Args:
        nvml_name: name that NVML gives, such as "NVIDIA H100 80GB HBM3". A MIG slice has
            a longer one and is not recognised: no data sheet holds for it.
        memory_bytes: total memory that NVML gives; tells cards of one name apart.
    """
    short = nvml_name.strip().removeprefix("NVIDIA ").casefold()
    for sheet in _devices().values():
        difference = abs(memory_bytes - sheet.memory_bytes)
        named = short in (known.casefold() for known in sheet.nvml_names)
        if named and difference <= _MEMORY_TOLERANCE * sheet.memory_bytes:
            return sheet
    return None


@lru_cache(maxsize=1)
def _devices() -> dict[str, DataSheet]:
    text = (files("model") / "data" / "devices.json").read_text(encoding="utf-8")
    sheets = (
        DataSheet(
            name=row["name"],
            display_name=row["display_name"],
            kind=row["kind"],
            memory_bytes=row["memory_bytes"],
            bandwidth_bytes_per_second=row["bandwidth_bytes_per_second"],
            last_level_cache_bytes=row["last_level_cache_bytes"],
            processors=row["processors"],
            compute_capability=row["compute_capability"],
            link_bytes_per_second=row["link_bytes_per_second"],
            link_name=row["link_name"],
            peaks={Precision(k): v for k, v in row["peak_flops_per_second"].items()},
            sources=tuple(row["sources"]),
            nvml_names=tuple(row["nvml_names"]),
        )
        for row in json.loads(text)["devices"]
    )
    return {sheet.name: sheet for sheet in sheets}
