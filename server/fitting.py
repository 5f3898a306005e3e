"""Fits a cost model in a process of its own: the regression's libraries stay out of the daemon."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from model.measurement import write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from threading import Event

    from model.measurement import Measurement

# -P: a folder "model" where the daemon happens to be started is not ours.
FIT_COMMAND = (sys.executable, "-P", "-m", "server.tether", str(os.getpid()), "model.fit")

_POLL_S = 0.1
_REASON_CHARACTERS = 500


class FitError(Exception):
    """No cost model came of it; the text says why."""


class NothingToFitError(FitError):
    """There are no measurements."""


class FitCancelledError(FitError):
    """The one who asked for it does not want it any more."""


class FitTimeoutError(FitError):
    """It took longer than it may."""


def fit(
    measurements: Iterable[Measurement],
    *,
    timeout_s: float,
    cancelled: Event | None = None,
    command: Sequence[str] = FIT_COMMAND,
) -> bytes:
    """Returns the serialised cost model of the measurements.

    Args:
        measurements: to fit on.
        timeout_s: seconds that it may take.
        cancelled: ends it once set.
        command: reads the measurements as JSON and writes the model.

    Raises:
        NothingToFitError: there are no measurements.
        FitCancelledError: ``cancelled`` was set.
        FitTimeoutError: the time was over.
        FitError: the process failed; its last words are in the text.
        OSError: the process cannot be started.
    """
    # A file and no pipe: communicate() forgets what is unsent when it times out.
    with tempfile.TemporaryFile() as data:
        if not write_json(measurements, data):
            raise NothingToFitError("there are no measurements")
        data.seek(0)
        process = subprocess.Popen(
            list(command),
            stdin=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    try:
        output, messages = _talk(process, timeout_s, cancelled)
    finally:
        _end(process)
    if process.returncode != 0:
        lines = [line for line in messages.decode(errors="replace").splitlines() if line.strip()]
        last = lines[-1][:_REASON_CHARACTERS] if lines else "it said nothing"
        raise FitError(f"fitting ended with exit code {process.returncode}: {last}")
    if not output:
        raise FitError("fitting wrote no cost model")
    return output


def _talk(
    process: subprocess.Popen[bytes], timeout_s: float, cancelled: Event | None
) -> tuple[bytes, bytes]:
    end = time.monotonic() + timeout_s
    while True:
        if cancelled is not None and cancelled.is_set():
            raise FitCancelledError("fitting was cancelled")
        left = end - time.monotonic()
        if left <= 0:
            raise FitTimeoutError(f"fitting took longer than {timeout_s:.0f} s")
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=min(_POLL_S, left))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
