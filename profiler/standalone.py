"""A campaign in a process of its own: no daemon, a file instead of a store."""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.errors import NotEnoughMeasurementsError
from model.training import fit_cost_model
from profiler import processor, telemetry
from profiler.campaign import Campaign
from profiler.campaign_file import CampaignFile
from profiler.device import open_device
from profiler.identity import default_device, header_of, identify
from profiler.interface import MOST_LOST, CampaignRequest, DeviceLostError, Skipped, reserve_s
from profiler.overhead import Overhead
from profiler.summary import summary
from profiler.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import FrameType

    from model.cost_model import FittedCostModel
    from model.measurement import Measurement
    from model.precision import Precision
    from profiler.design import Space
    from profiler.device import Device
    from profiler.progress import Progress

_OVERRUN_S = 5.0
"""The point at hand may take longer than was foreseen, as in a job of the daemon."""
_FEWEST_FIT_S = 2.0


class NoDeviceError(Exception):
    """There is no such device; the text names those that there are."""


class DeviceInUseError(Exception):
    """Other processes compute on the device; the text names them."""


class NothingMeasuredError(Exception):
    """The budget was over before anything was measured."""


class _TimeOverError(BaseException):
    """Raised wherever the process is; no error of what runs there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked.

    Attributes:
        out: the file.
        budget_s: seconds from ``begin`` until the end of it all.
        device: "cpu" or "cuda:0"; empty: the GPU if there is one.
        precisions: in this order; empty: the device's own choice.
        target_error: stop once the median error of steps is below; 0 never does.
        begin: monotonic seconds at which the budget began.
        arguments: of the command, for the file's header.
        space: of the design; None takes what suits the device.
        force: whether to measure while others compute on the device.
        design_only: as :class:`CampaignRequest` has it.
        commit: of the source where git does not tell it, 40 hexadecimal digits; else empty.
        whole_budget_s: as :class:`CampaignRequest` has it.
        lost: processes of this campaign that lost the device before.
    """

    out: Path
    budget_s: float
    device: str = ""
    precisions: tuple[Precision, ...] = ()
    target_error: float = 0.0
    begin: float
    arguments: Sequence[str] = ()
    space: Space | None = None
    force: bool = False
    design_only: bool = False
    commit: str = ""
    whole_budget_s: float = 0.0
    lost: int = 0


def run(plan: Plan, progress: Progress) -> str:
    """Measures into the file until the budget is over, and returns the summary.

    Raises:
        InvalidFieldError: the device does not run one of the precisions, or the source is of
            another commit; names the field.
        NoDeviceError: torch sees no such device.
        DeviceInUseError: others compute on it, and it is not forced.
        CampaignFileError: the file cannot be gone on with.
        DeviceLostError: a point took the device with it; the file says so, and another process
            goes on without it.
        RuntimeError: several points did.
        NothingMeasuredError: the budget was too small.
        OSError: the file cannot be written.
    """
    name = plan.device or default_device()
    check_unused(name, force=plan.force)
    device = open_named(name)
    for precision in plan.precisions:
        device.check(precision)
    identity = identify(name)
    reserve = reserve_s(plan.budget_s)
    end = plan.begin + plan.budget_s
    with CampaignFile(plan.out, header_of(identity, plan.arguments, plan.commit)) as file:
        measured = list(file.measured)
        if measured:
            progress.say(f"{plan.out} holds {len(measured)} points; going on")
        request = CampaignRequest(
            device=name,
            budget_s=plan.budget_s,
            reserve_s=reserve,
            target_error=plan.target_error,
            precisions=plan.precisions,
            done=file.measured,
            design_only=plan.design_only,
            avoided=file.avoided,
            whole_budget_s=plan.whole_budget_s,
        )
        campaign = Campaign(request, device, plan.begin, plan.space)
        overhead = Overhead(plan.begin, campaign.measuring)
        skipped = Counter[str]()
        watch = Watch(name, file.note)
        watch.look(always=True)
        progress.show(campaign.fraction, end - time.monotonic(), campaign.text)
        with _until(end - reserve + min(_OVERRUN_S, reserve / 2)):
            try:
                for event in campaign.run():
                    if isinstance(event, Skipped):
                        skipped[event.reason] += 1
                    else:
                        clock_mhz = telemetry.clock_mhz(name)
                        file.append(event, overhead.lap(), clock_mhz)
                        measured.append(event)
                    watch.look()
                    progress.show(campaign.fraction, end - time.monotonic(), campaign.text)
            except DeviceLostError as error:
                file.avoid(error.group)
                if plan.lost >= MOST_LOST:
                    raise RuntimeError(f"{error}, as others did before it") from error
                raise
        watch.look(always=True)
    fresh = len(measured) - len(file.measured)
    if not measured:
        raise NothingMeasuredError(
            f"the budget of {plan.budget_s:g} s was over before anything was measured; give it"
            " more (loading torch alone takes seconds)"
        )
    progress.show(campaign.fraction, end - time.monotonic(), "fitting")
    fitted = _fit(measured, device.processors, end)
    return summary(measured, fresh, skipped, fitted, campaign.goal.text)


def open_named(name: str) -> Device:
    """Returns the device of that name.

    Raises:
        NoDeviceError: torch sees no such device.
    """
    try:
        return open_device(name, processor.threads())
    except RuntimeError as error:
        raise NoDeviceError(f"device: {error}") from error


def check_unused(name: str, *, force: bool) -> None:
    """Checks that no other process is on a GPU, before this one is.

    Where the driver's library is not installed nothing can be told.

    Args:
        name: of the device.
        force: whether to go on all the same.

    Raises:
        DeviceInUseError: one is, and it is not forced.
    """
    if force or name == "cpu":
        return
    try:
        processes = telemetry.read(name).processes
    except (OSError, ValueError):
        return
    if processes:
        remedy = "end them, wait, or add --force"
        raise DeviceInUseError(telemetry.occupied_text(name, processes, remedy))


def _fit(measured: Sequence[Measurement], processors: int, end: float) -> FittedCostModel | str:
    """Returns the cost model of what was measured, or why there is none."""
    fitted: FittedCostModel | str = "fitting took longer than the budget"
    with _until(max(end, time.monotonic() + _FEWEST_FIT_S)):
        try:
            fitted = fit_cost_model(measured, processors)
        except NotEnoughMeasurementsError as error:
            fitted = str(error)
    return fitted


@contextmanager
def _until(end: float) -> Iterator[None]:
    """Leaves the block at that moment (monotonic seconds), as if it had come to its end."""

    def over(number: int, frame: FrameType | None) -> None:
        raise _TimeOverError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(1e-3, end - time.monotonic()))
    try:
        yield
    except _TimeOverError:
        return
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
