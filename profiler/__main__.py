"""``python -m profiler campaign --budget 8m --out FILE``: a campaign without a daemon.

For a machine with a GPU and little else. ``python -m profiler collectives --out FILE`` adds what
several GPUs send each other; ``tokenpace measurements import FILE`` brings the file home, and
``python -m profiler compact FILE`` makes of it what is committed with the project.
``python -m profiler check`` finds in a minute what a device fails at.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from model.committed import FOLDER
from model.loading import no_collection
from model.precision import Precision
from profiler import process_limits, processor
from profiler.source import commit_argument

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_BEGIN = time.monotonic()
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:s|m|h))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S = 86_400.0
_MEMORY_SHARE = 0.8
"""Of the memory that is free, as a worker of the daemon gets by default."""
_FEWEST_S = 15.0
"""That must be left for another process to go on: torch alone takes seconds to load."""
_DONE, _FAILED, _USAGE, _SIGNALLED = 0, 1, 2, 128


class _Ended(BaseException):
    """A signal came."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, 1 failed, 2 wrong usage, 128 + signal."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    if options.command == "compact":
        return _compact(options)
    if options.command == "check":
        return _check(options)
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise _Ended

    before = {s: signal.signal(s, end) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _measure(options, given)
    except BaseException:
        # Libraries may make something else of it on its way here.
        if not came:
            raise
        print(f"\nended; {options.out} keeps what was measured", file=sys.stderr)
        return _SIGNALLED + came[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _prepare() -> None:
    """Sets what must be in force before torch is loaded."""
    # Where torch and NVML number GPUs apart, the file would name another one.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    process_limits.be_first_out_of_memory()
    process_limits.limit_memory(int(_MEMORY_SHARE * processor.available_bytes()))


def _measure(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    _prepare()
    # torch takes seconds to load: the limits are in force before, the arguments read.
    with no_collection():
        from model.errors import InvalidFieldError  # noqa: PLC0415
        from profiler.campaign_file import CampaignFileError  # noqa: PLC0415
        from profiler.interface import DeviceLostError  # noqa: PLC0415
        from profiler.progress import Progress  # noqa: PLC0415
        from profiler.standalone import (  # noqa: PLC0415
            DeviceInUseError,
            NoDeviceError,
            NothingMeasuredError,
            Plan,
            run,
        )

    progress = Progress(sys.stderr)
    plan = Plan(
        out=options.out,
        budget_s=options.budget,
        device=options.device,
        precisions=options.precisions,
        target_error=options.error,
        begin=_BEGIN,
        arguments=arguments,
        force=options.force,
        design_only=options.design_only,
        whole_budget_s=options.whole_budget,
        lost=options.lost,
        commit=options.commit or "",
    )
    try:
        if options.ranks is None:
            text = run(plan, progress)
        else:
            from profiler.exchange import exchange  # noqa: PLC0415 - a campaign needs no ranks

            text = exchange(plan, options.ranks, progress)
    except (CampaignFileError, InvalidFieldError, NoDeviceError) as error:
        return _fail(_USAGE, error)
    except (DeviceInUseError, NothingMeasuredError, OSError) as error:
        return _fail(_FAILED, error)
    except DeviceLostError as error:
        left = options.budget - (time.monotonic() - _BEGIN)
        if left < _FEWEST_S:
            return _fail(_FAILED, error)
        progress.say(f"{error}; another process goes on without it")
        whole_s = options.whole_budget or options.budget
        # Of an option that is named twice the last one counts. By force: what is left of this
        # process may be on the device for a moment yet.
        again = ["-m", "profiler", *arguments, "--force", "--budget", f"{left:.1f}s"]
        again += ["--whole-budget", f"{whole_s}s", "--lost", f"{options.lost + 1}"]
        os.execv(sys.executable, [sys.executable, *again])  # noqa: S606 - this very command
    except RuntimeError as error:  # torch's, of a device that failed
        traceback.print_exc()
        return _fail(_FAILED, error)
    finally:
        progress.close()
    print(text)
    print(f"bring it home: tokenpace measurements import {options.out}", flush=True)
    return _DONE


def _check(options: argparse.Namespace) -> int:
    _prepare()
    with no_collection():
        from profiler.check import check  # noqa: PLC0415 - as above
        from profiler.identity import default_device  # noqa: PLC0415
        from profiler.standalone import (  # noqa: PLC0415
            DeviceInUseError,
            NoDeviceError,
            check_unused,
            open_named,
        )

    name = options.device or default_device()
    try:
        check_unused(name, force=options.force)
        device = open_named(name)
    except NoDeviceError as error:
        return _fail(_USAGE, error)
    except DeviceInUseError as error:
        return _fail(_FAILED, error)
    failures = 0
    for checked in check(device, options.precisions):
        print(checked.line, flush=True)
        if checked.error is not None:
            traceback.print_exception(checked.error)
        failures += checked.failed
    if failures:
        print(f"{failures} failed on {name}", file=sys.stderr)
        return _FAILED
    return _DONE


def _compact(options: argparse.Namespace) -> int:
    from profiler.compact import NotCommittableError, compact  # noqa: PLC0415 - campaigns need none

    try:
        out = compact(options.file, options.folder)
    except NotCommittableError as error:
        return _fail(_USAGE, error)
    except OSError as error:
        return _fail(_FAILED, error)
    print(f"{out}: {out.stat().st_size:,} bytes; commit it", flush=True)
    return _DONE


def _fail(code: int, error: Exception) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m profiler")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    campaign = commands.add_parser(
        "campaign",
        help="measure this device into a file",
        description="Measures this device into a file; a file that is there is gone on with.",
    )
    campaign.add_argument(
        "--budget", type=_budget, default="120s", help="time for all of it: 90s, 8m, 1h"
    )
    campaign.add_argument(
        "--error",
        type=_error,
        default=0.0,
        metavar="SHARE",
        help="end early once the median error of steps is below (0.05 is 5%%)",
    )
    campaign.add_argument(
        "--design-only",
        action="store_true",
        help="take points as the design has them, not those that tell the cost model most",
    )
    # Of a campaign that another process goes on with.
    campaign.add_argument("--whole-budget", type=_budget, default=0.0, help=argparse.SUPPRESS)
    campaign.add_argument("--lost", type=int, default=0, help=argparse.SUPPRESS)
    campaign.set_defaults(ranks=None)
    collectives = commands.add_parser(
        "collectives",
        help="measure what ranks send each other, into the file of a campaign",
        description="Measures all-reduces and all-to-alls by the size of the message: between"
        " GPUs, or between processes with as many threads as OMP_NUM_THREADS says.",
    )
    collectives.add_argument(
        "--ranks", type=int, default=0, metavar="N", help="else one a GPU, and two on the CPU"
    )
    collectives.set_defaults(budget=0.0, error=0.0, design_only=False, whole_budget=0.0, lost=0)
    compact = commands.add_parser(
        "compact",
        help="make of a campaign's file what is committed with the project",
        description="Makes of a campaign's file the compact one that is committed: the card's name"
        " then answers by it wherever the daemon starts.",
    )
    compact.add_argument("file", type=Path, metavar="FILE", help="of a campaign on a GPU")
    compact.add_argument(
        "--folder", type=Path, default=FOLDER, help="where it goes; else model/reference"
    )
    check = commands.add_parser(
        "check",
        help="find what fails on this device",
        description="Measures a small point of every kind in every precision, a line each: its"
        " milliseconds, or why there are none. Exits with 1 where one failed.",
    )
    for command in (campaign, collectives):
        command.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON lines")
        command.add_argument(
            "--commit",
            type=commit_argument,
            metavar="HASH",
            help="of this source where it is no git checkout: the file could not be committed else",
        )
    for command in (campaign, collectives, check):
        command.add_argument(
            "--force", action="store_true", help="measure beside other processes on the GPU"
        )
        command.add_argument(
            "--device",
            default="",
            metavar="NAME",
            help="cpu or cuda:0; else the GPU if there is one",
        )
        command.add_argument(
            "--precisions",
            type=_precisions,
            default=(),
            metavar="P,P",
            help="such as bf16,fp16, in this order; else what the device runs well (of a GPU in"
            " less than 20m bf16 and fp8), and for a check all there are",
        )
    return parser


def _budget(text: str) -> float:
    seconds = sum(float(n) * _SECONDS[unit] for n, unit in _PART.findall(text))
    if not _DURATION.fullmatch(text) or not 0 < seconds <= _LONGEST_S:
        _wrong(f"{text!r} is no duration up to 24h; use 90s, 8m or 1h")
    return seconds


def _precisions(text: str) -> tuple[Precision, ...]:
    try:
        return tuple(dict.fromkeys(Precision(part.strip()) for part in text.split(",")))
    except ValueError as error:
        _wrong(f"{error}; use some of {', '.join(Precision)}")


def _error(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        _wrong(f"{text!r} is no share between 0 and 1; 0.05 is 5%")
    return share


def _wrong(text: str) -> NoReturn:
    raise argparse.ArgumentTypeError(text)


if __name__ == "__main__":
    sys.exit(main())
