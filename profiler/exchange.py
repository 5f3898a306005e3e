"""Measures what ranks send each other into the file of a campaign."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from model.errors import InvalidFieldError
from profiler import processor
from profiler.campaign_file import CampaignFile
from profiler.collectives import MESSAGE_BYTES, measure_collectives
from profiler.identity import default_device, header_of, identify
from profiler.ranks import run_on_ranks
from profiler.standalone import check_unused, open_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.measurement import Measurement
    from profiler.progress import Progress
    from profiler.standalone import Plan

_FEWEST_RANKS = 2
_CPU_RANKS = 2


def exchange(
    plan: Plan, ranks: int, progress: Progress, sizes: Sequence[int] = MESSAGE_BYTES
) -> str:
    """Measures collectives by size, and returns a line for each.

    Args:
        plan: its file, device and precisions count; on the CPU each rank computes with as
            many threads as the campaign did.
        ranks: how many; 0: one a GPU, two on the CPU.
        progress: is told what is measured.
        sizes: bytes of the messages.

    Raises:
        InvalidFieldError: the device does not run one of the precisions, there are not so
            many GPUs, or the source is of another commit; names the field.
        NoDeviceError: torch sees no such device.
        DeviceInUseError: others compute on one of the devices, and it is not forced.
        CampaignFileError: the file cannot be gone on with.
        RankError: a rank failed.
        OSError: the file cannot be written.
    """
    name = plan.device or default_device()
    # Before any is opened: this process itself would be on it.
    for each in dict.fromkeys((name, *_gpus(name, ranks))):
        check_unused(each, force=plan.force)
    device = open_named(name)
    precisions = plan.precisions or (device.default_precision,)
    for precision in precisions:
        device.check(precision)
    count = ranks or (torch.cuda.device_count() if device.is_cuda else _CPU_RANKS)
    if count < _FEWEST_RANKS:
        raise InvalidFieldError("ranks", f"{count} is too few to send anything; use 2 or more")
    if device.is_cuda and count > torch.cuda.device_count():
        raise InvalidFieldError(
            "ranks", f"{count} are more than the {torch.cuda.device_count()} GPUs here"
        )
    devices = _gpus(name, count) or (name,) * count
    found: list[Measurement] = []
    header = header_of(identify(name), plan.arguments, plan.commit)
    with CampaignFile(plan.out, header) as file:
        for precision in precisions:
            progress.say(f"{count} ranks send each other {precision}")
            rows = run_on_ranks(devices, processor.threads(), measure_collectives, precision, sizes)
            for row in rows:
                file.append(row)
            found += rows
    return "\n".join(_line(row) for row in found)


def _gpus(name: str, ranks: int) -> tuple[str, ...]:
    """Returns the GPUs that so many ranks run on, all of them for 0; empty on the CPU."""
    if name == "cpu":
        return ()
    here = torch.cuda.device_count()
    return tuple(f"cuda:{index}" for index in range(min(ranks or here, here)))


def _line(row: Measurement) -> str:
    latency = row.latency_ms
    return (
        f"{row.kind:<15} {row.precision:<5} {row.shape['message_bytes']:>11,.0f} bytes"
        f" {latency.median:>9.3f} ms ({latency.p10:.3f} to {latency.p90:.3f})"
    )
