"""Runs all checks of a card that is lent for a quarter of an hour, one after the other.

    PYTHONPATH=. python benchmarks/card_checks.py --out h200 [--minutes 14] [--commit HASH]

What the profiler finds, the tests marked gpu, a campaign of eight minutes, the compact file of it,
models that it never saw and, with the time left, what its minutes bought. Each step may take its
share of the time and what those before it left over; then it is ended. One that fails stops no
other. Each step's output is a file of the folder, where steps.md tells how all of them went.

Where the source lies there without its git folder, --commit tells the compact file which commit it
is of (`git rev-parse HEAD` where it was copied from); without, that step fails.

It installs nothing. Fewer minutes scale all of it down; a processor's campaign has no compact file.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from evaluation.heading import heading
from model.errors import InvalidFieldError
from model.source import ROOT
from profiler.source import commit_argument

if TYPE_CHECKING:
    from collections.abc import Sequence

CAMPAIGN_SHARE = 8 / 14
OVERRUN_SHARE = 0.02
"""The summary of a campaign may take a moment longer than its budget."""
GRACE_S = 5.0
"""Between asking a step to end and killing it; part of its limit where that is longer."""
LEAST_S = 1.0
PAGE = "steps.md"


class Step(NamedTuple):
    """A command, and the share of all the time that it may take; 0 takes what is left."""

    name: str
    share: float
    command: tuple[str, ...]


class Ended(NamedTuple):
    """How a step went: the exit code, or why there is none."""

    step: Step
    seconds: float
    limit_s: float
    code: int | str

    @property
    def file(self) -> str:
        """Name of the file that holds the output."""
        return f"{self.step.name}.txt"


def plan(out: Path, seconds: float, device: str, commit: str = "") -> list[Step]:
    """Returns the steps in their order.

    Args:
        out: folder of what they write.
        seconds: for all of them.
        device: "cpu" or "cuda:0"; empty: the GPU if there is one.
        commit: of the source where git does not tell it; else empty.
    """
    python = (sys.executable, "-u")
    file = str(out / "campaign.jsonl")
    named = ("--device", device) if device else ()
    budget = f"{CAMPAIGN_SHARE * seconds:.1f}s"
    known = ("--commit", commit) if commit else ()
    # The card is lent to nobody else, and a step before that was killed lets go of it with delay:
    # its remains would be taken for another's process, and all minutes be lost.
    forced = (*named, "--force")
    campaign = ("campaign", "--budget", budget, "--out", file, *known)
    tests = ("-m", "gpu", "-o", "filterwarnings=default", "--durations=10", "tests/profiler")
    curve = ("benchmarks/learning_curve.py", file, "--layers-only")
    steps = [
        Step("check", 0.05, (*python, "-m", "profiler", "check", *forced)),
        Step("tests", 0.14, (*python, "-m", "pytest", *tests)),
        Step(
            "campaign",
            CAMPAIGN_SHARE + OVERRUN_SHARE,
            (*python, "-m", "profiler", *campaign, *forced),
        ),
        Step("compact", 0.01, (*python, "-m", "profiler", "compact", file, "--folder", str(out))),
        Step("held_out", 0.16, (*python, "benchmarks/held_out.py", file, *named)),
        Step("learning_curve", 0.0, (*python, *curve, *named)),
    ]
    return [step for step in steps if device != "cpu" or step.name != "compact"]


def run_all(steps: Sequence[Step], seconds: float, out: Path, head: str) -> list[Ended]:
    """Runs the steps and returns how each went; the page is written anew behind each of them.

    Args:
        steps: in their order.
        seconds: for all of them, from now on.
        out: folder of their outputs and the page; exists.
        head: of the page.
    """
    end = time.monotonic() + seconds
    ended: list[Ended] = []
    for place, step in enumerate(steps):
        owed = sum(later.share for later in steps[place + 1 :]) * seconds
        print(f"{step.name}: {shlex.join(step.command)}", flush=True)
        ended.append(run(step, end - time.monotonic() - owed, out))
        (out / PAGE).write_text("\n".join([head, *table(ended), ""]), encoding="utf-8")
        print(f"{step.name}: {ended[-1].code} after {ended[-1].seconds:.0f} s", flush=True)
    return ended


def run(step: Step, limit_s: float, out: Path) -> Ended:
    """Runs a step until it ends or its time is over, its output in a file.

    Args:
        step: what to run.
        limit_s: seconds until neither it nor a process that it started is left.
        out: folder of the file.
    """
    if limit_s < LEAST_S:
        return Ended(step, 0.0, max(0.0, limit_s), "no time left")
    begin = time.monotonic()
    grace_s = min(GRACE_S, limit_s / 4)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with (out / f"{step.name}.txt").open("wb") as output:
        process = subprocess.Popen(
            step.command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A group of its own: what it started ends with it.
            start_new_session=True,
        )
        try:
            is_over = not _exited(process, limit_s - grace_s)
            if is_over:
                # pytest and a campaign tell on an interrupt how far they have come.
                os.killpg(process.pid, signal.SIGINT)
                _exited(process, grace_s)
        finally:
            # Nothing of it may run beside the next step; until it is reaped its number is its own.
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    return Ended(step, time.monotonic() - begin, limit_s, "time over" if is_over else code)


def _exited(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Returns whether a process has exited within so many seconds, without reaping it."""
    end = time.monotonic() + seconds
    options = os.WEXITED | os.WNOWAIT | os.WNOHANG
    while os.waitid(os.P_PID, process.pid, options) is None:
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
    return True


def table(ended: Sequence[Ended]) -> list[str]:
    """Returns the lines of a table of steps."""
    lines = ["| step | seconds | at most | exit code | output |", "|---|---|---|---|---|"]
    for it in ended:
        took = f"{it.seconds:.1f} | {it.limit_s:.1f}"
        lines.append(f"| {it.step.name} | {took} | {it.code} | {it.file if it.seconds else '-'} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=14.0, help="for all of it")
    parser.add_argument("--device", default="", help="cpu or cuda:0; the GPU if there is one")
    parser.add_argument(
        "--commit",
        type=commit_argument,
        metavar="HASH",
        help="of this source where it is no git checkout",
    )
    options = parser.parse_args()
    if not 0 < options.minutes <= 24 * 60:
        parser.error(f"--minutes: {options.minutes:g} is not above 0 and up to a day")
    out, commit = options.out.resolve(), options.commit or ""
    try:
        head = heading(
            "Checks of a card",
            shlex.join(["python", "benchmarks/card_checks.py", *sys.argv[1:]]),
            ("torch", "transformers", "scikit-learn", "numpy"),
            commit,
        )
    except InvalidFieldError as error:
        parser.error(f"--{error}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out: {error}")
    seconds = 60 * options.minutes
    ended = run_all(plan(out, seconds, options.device, commit), seconds, out, head)
    print("\n".join(["", *table(ended), "", f"in {out / PAGE}"]))
    return 0 if all(it.code == 0 for it in ended) else 1


if __name__ == "__main__":
    sys.exit(main())
