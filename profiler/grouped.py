"""Where torch's grouped products, which experts are, can run from a CUDA graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.errors import InvalidFieldError
from model.precision import Precision
from profiler.packed import PACKED

if TYPE_CHECKING:
    from profiler.device import Device

_CAPABILITIES = (9, 10)
"""Major compute capabilities that torch has a kernel for (``torch._grouped_mm`` of torch 2.11)."""


def check_grouped(precision: Precision, device: Device) -> None:
    """Checks that experts are timed there: on the CPU in any plain type, on GPUs from a graph.

    Without its kernel torch multiplies expert by expert, by offsets that it copies to the host;
    no graph holds that.

    Raises:
        InvalidFieldError: experts are not held in the precision, or torch has no such kernel;
            names ``precision``.
    """
    if device.is_cuda and device.capability[0] not in _CAPABILITIES:
        known = " or ".join(map(str, _CAPABILITIES))
        raise InvalidFieldError(
            "precision",
            f"torch's grouped products run from CUDA graphs on compute capability {known} alone,"
            f" in no precision on {device.name}'s {'.'.join(map(str, device.capability))}; whole"
            " models of engine transformers run without graphs",
        )
    if device.is_cuda and precision is not Precision.BF16:
        raise InvalidFieldError(
            "precision",
            f"torch's grouped products run on GPUs in bf16, not in {precision}; use bf16",
        )
    if precision in PACKED:
        raise InvalidFieldError(
            "precision", f"experts are not held in {precision}; use fp32 or bf16"
        )
