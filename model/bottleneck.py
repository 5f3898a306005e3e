"""What holds a measured pass back, and how far it is from what the device could do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from model.laws import KERNELS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model.hardware import DataSheet
    from model.operations import Operation


class Bottleneck(NamedTuple):
    """Parts of a pass's time, in milliseconds, and what they say.

    Attributes:
        bandwidth_ms: of kernels that move their bytes for longer than they compute, at the
            device's bandwidth.
        compute_ms: of the others, at its peak rate.
        overhead_ms: in which no kernel ran: the device waited for launches.
        communication_ms: in which ranks exchanged and nothing else ran.
        bound: name of the largest: "bandwidth", "compute", "overhead" or "communication".
        share: of the measured time that the device needs at least: the first two parts.
    """

    bandwidth_ms: float
    compute_ms: float
    overhead_ms: float
    communication_ms: float
    bound: str
    share: float


def bottleneck(
    operations: Iterable[Operation],
    sheet: DataSheet,
    measured_ms: float,
    overhead_ms: float,
    communication_ms: float,
) -> Bottleneck:
    """Returns what holds a pass back, by the roofline of its kernels.

    Williams, Waterman and Patterson, Roofline (2009): a kernel takes the larger of its
    arithmetic at the peak rate and of its traffic at the bandwidth.

    Args:
        operations: of the pass on one rank; collectives and what is no kernel do not count.
        sheet: of the device, with its bandwidth and peak rates.
        measured_ms: that the pass took, above 0.
        overhead_ms: of it, in which no kernel ran.
        communication_ms: of it, in which collectives alone ran.
    """
    bandwidth = compute = 0.0
    for operation in operations:
        if operation.kind in KERNELS:
            computing = operation.flops / sheet.effective_peak(operation.multiplied_in)
            moving = operation.bytes / sheet.bandwidth_bytes_per_second
            if computing > moving:
                compute += 1e3 * operation.count * computing
            else:
                bandwidth += 1e3 * operation.count * moving
    parts = {
        "bandwidth": bandwidth,
        "compute": compute,
        "overhead": overhead_ms,
        "communication": communication_ms,
    }
    return Bottleneck(
        bandwidth,
        compute,
        overhead_ms,
        communication_ms,
        max(parts, key=lambda name: parts[name]),
        (bandwidth + compute) / measured_ms,
    )
