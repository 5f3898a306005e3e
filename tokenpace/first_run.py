"""What `make run` does once all is installed: serve, profile, show, stay.

Starts the daemon, waits for its quick campaign, prints what it predicts for a
few presets on this device, and keeps the daemon in the foreground until Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from tokenpace.client import DEFAULT_ADDRESS, Client, TokenpaceError, predict_request
from tokenpace.commands.interrupt import interrupts_noted
from tokenpace.commands.jobs import check, follow
from tokenpace.commands.session import (
    ADDRESS_VARIABLE,
    REFUSED,
    CommandError,
    Session,
    output,
    progress_bar,
)
from tokenpace.render import text
from tokenpace.v1 import types_pb2

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from tokenpace.v1 import latency_pb2, profiler_pb2

PRESETS = ("smollm2-135m", "qwen2.5-0.5b", "llama-3.2-1b", "qwen2.5-1.5b")
BATCH_SIZES = (1, 4)
INPUT_TOKENS, OUTPUT_TOKENS = 128, 64

_CAMPAIGN_STARTS_WITHIN_S = 10.0
_DAEMON_ENDS_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.2
_PENDING = (types_pb2.JOB_STATE_QUEUED, types_pb2.JOB_STATE_RUNNING)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs it all; returns 0 when ended by Ctrl-C or SIGTERM, else the daemon's exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tokenpace.first_run",
        description=__doc__,
        allow_abbrev=False,
        epilog="Other options are passed on to `tokenpace serve`.",
    )
    parser.add_argument("--address", default=os.environ.get(ADDRESS_VARIABLE, DEFAULT_ADDRESS))
    options, passed_on = parser.parse_known_args(arguments)
    with (
        interrupts_noted(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as noted,
        _daemon(options.address, passed_on) as (process, address),
    ):
        if address:
            with suppress(KeyboardInterrupt):
                introduce(address, noted)
        while not noted.wait(_LOOK_EVERY_S):
            if process.poll() is not None:
                return process.returncode
    return 0


@contextmanager
def _daemon(address: str, passed_on: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Runs the daemon; gives it and the address it listens on, empty where it ended at once."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tokenpace.command", "serve", "--address", address),
            *("--profile-on-start", "quick", "--log-level", "warning"),
            *passed_on,
        ],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # a terminal's Ctrl-C comes here alone, and is passed on once
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        yield process, line.removeprefix("listening on ").strip()
    finally:
        process.terminate()
        try:
            process.wait(_DAEMON_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def introduce(address: str, noted: threading.Event) -> None:
    """Waits for the campaign of a daemon that was just started, and shows what it predicts.

    Raises:
        KeyboardInterrupt: an interrupt was noted meanwhile.
    """
    console = output()
    console.print(f"tokenpace listens on {address}")
    with Session(address, json=False) as session:
        try:
            _await_campaign(session, noted)
            console.print(_table(session.client))
        except (CommandError, TokenpaceError) as error:
            print(f"error: {error}", file=sys.stderr)
    command = os.path.relpath(Path(sys.executable).with_name("tokenpace"))
    elsewhere = "" if address == DEFAULT_ADDRESS else f" --address {address}"
    console.print(
        "\nAsk more from another terminal:\n"
        f"  {command} predict --model llama-3.2-1b --batch-size 4 --breakdown{elsewhere}\n"
        "Ctrl-C ends the daemon.",
        soft_wrap=True,
    )


def _await_campaign(session: Session, noted: threading.Event) -> None:
    job = _find_campaign(session.client)
    if job is None:
        return
    with progress_bar("profiling this device") as report:
        job = follow(session, job, report, noted)
    check(job)


def _find_campaign(client: Client) -> profiler_pb2.ProfileJob | None:
    """Returns the job to wait for; None where this device has a cost model already."""
    give_up = time.monotonic() + _CAMPAIGN_STARTS_WITHIN_S
    while time.monotonic() < give_up:
        for job in client.profile_jobs(page_size=1).profile_jobs:
            if job.state in _PENDING:
                return job
        if client.device("local").device.cost_model:
            return None
        time.sleep(0.2)
    raise CommandError(REFUSED, "the daemon started no campaign; its log says why")


def _table(client: Client) -> RenderableType:
    questions = [(preset, batch) for preset in PRESETS for batch in BATCH_SIZES]
    answers = client.batch_predict(
        predict_request(
            preset, input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS, batch_size=batch
        )
        for preset, batch in questions
    )
    rows = text.table(
        "model",
        "batch",
        "ms/token",
        "90% interval",
        "TTFT ms",
        "90% interval ",
        right=("batch", "ms/token", "TTFT ms"),
    )
    for (preset, batch), result in zip(questions, answers.results, strict=True):
        if result.HasField("response"):
            rows.add_row(preset, f"{batch}", *_figures(result.response))
        else:
            rows.add_row(preset, f"{batch}", text.NONE, result.error.message)
    device = client.device("local").device
    source = text.enum(types_pb2.Provenance, "PROVENANCE_", device.provenance)
    title = (
        f"\nPredicted on {device.display_name} ({source.replace('-', ' ')}): "
        f"{INPUT_TOKENS} tokens in, {OUTPUT_TOKENS} out, static batches\n"
    )
    return Group(Text(title), rows)


def _figures(answer: latency_pb2.PredictResponse) -> Iterator[str]:
    for estimate in (answer.tpot_ms, answer.ttft_ms):
        yield text.figure(estimate.value)
        yield text.interval(estimate)


if __name__ == "__main__":
    sys.exit(main())
