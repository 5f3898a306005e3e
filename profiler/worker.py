"""The worker process: does one request of the daemon, then ends.

Started as ``python -m profiler.worker --fd N --parent-pid PID --memory-bytes N``;
``profiler.interface`` tells what it reads and writes.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from model.errors import InvalidFieldError
from model.loading import no_collection
from profiler import process_limits
from profiler.interface import (
    CampaignRequest,
    DeviceLostError,
    ExchangeRequest,
    Failed,
    FailureCode,
    Finished,
    LiveRequest,
    Measured,
    Observed,
    Pause,
    Paused,
    Progressed,
    Resume,
    Skipped,
    Started,
)
from profiler.overhead import Overhead
from profiler.telemetry import current_environment
from profiler.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the first message asks; returns the exit code, 1 after ``Failed``."""
    parser = argparse.ArgumentParser(prog="python -m profiler.worker")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    parser.add_argument("--memory-bytes", type=int, default=0)
    options = parser.parse_args(arguments)
    process_limits.impose(parent_pid=options.parent_pid, memory_bytes=options.memory_bytes)
    connection = Connection(options.fd)
    try:
        return serve(connection)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 1  # the daemon is gone; nobody is left to tell


def serve(connection: Connection) -> int:
    """Does what the first message on the connection asks; returns the exit code.

    Raises:
        EOFError, OSError: the daemon has closed its end.
    """
    request = connection.recv()
    begin = time.monotonic()
    text = ""
    try:
        if isinstance(request, CampaignRequest):
            text = _campaign(connection, request, begin)
        elif isinstance(request, ExchangeRequest):
            _exchange(connection, request)
        elif isinstance(request, LiveRequest):
            _live(connection, request, begin)
        else:
            raise TypeError(f"{type(request).__name__} is no request to start with")
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:  # whatever it is, the daemon is told
        traceback.print_exc()
        connection.send(_failed(error))
        return 1
    connection.send(Finished(text=text))
    return 0


def _campaign(connection: Connection, request: CampaignRequest, begin: float) -> str:
    """Runs a campaign; returns what came of the error that was asked for."""
    environment = current_environment(request.device)
    # Loading torch takes seconds; the limits above are in force before.
    with no_collection():
        from profiler.campaign import Campaign  # noqa: PLC0415
        from profiler.device import open_device  # noqa: PLC0415

    device = open_device(request.device, environment.threads)
    campaign = Campaign(request, device, begin)
    connection.send(Started(environment=environment))
    overhead = Overhead(begin, campaign.measuring)
    watch = Watch(request.device, lambda state: connection.send(Observed(state=state)))
    watch.look(always=True)
    for event in campaign.run():
        if isinstance(event, Skipped):
            connection.send(event)
        else:
            connection.send(Measured(measurement=event, seconds=overhead.lap()))
        watch.look()
        connection.send(Progressed(fraction=campaign.fraction, text=campaign.text))
        if _obey(connection):
            overhead.lap()  # the pause went to none of the three
    watch.look(always=True)
    return campaign.goal.text


def _exchange(connection: Connection, request: ExchangeRequest) -> None:
    environment = current_environment(request.device)
    with no_collection():
        from profiler.collectives import MESSAGE_BYTES, SAMPLES, measure_collectives  # noqa: PLC0415
        from profiler.ranks import run_on_ranks  # noqa: PLC0415

    connection.send(Started(environment=environment))
    sizes, samples = MESSAGE_BYTES, SAMPLES
    if request.brief:
        # The largest is among them: what is larger still is told by it.
        sizes, samples = MESSAGE_BYTES[1::2], SAMPLES // 3
    rows = run_on_ranks(
        request.rank_devices,
        environment.threads,
        measure_collectives,
        request.precision,
        sizes,
        samples,
    )
    for row in rows:
        connection.send(Measured(measurement=row))


def _live(connection: Connection, request: LiveRequest, begin: float) -> None:
    environment = current_environment(request.device)
    if request.rank_devices:
        with no_collection():
            from profiler.live_ranks import measure_on_ranks  # noqa: PLC0415

        connection.send(Started(environment=environment))
        for event in measure_on_ranks(request, environment.threads, begin):
            connection.send(event)
        return
    with no_collection():
        from profiler.device import open_device  # noqa: PLC0415
        from profiler.live import measure_live  # noqa: PLC0415

    device = open_device(request.device, environment.threads)
    connection.send(Started(environment=environment))
    for event in measure_live(request, device, begin):
        connection.send(event)


def _obey(connection: Connection) -> bool:
    """Waits for ``Resume`` where ``Pause`` has come; returns whether it had."""
    if not connection.poll() or not isinstance(connection.recv(), Pause):
        return False
    connection.send(Paused())
    while not isinstance(connection.recv(), Resume):
        pass
    return True


def _failed(error: Exception) -> Failed:
    if isinstance(error, DeviceLostError):
        return Failed(code=FailureCode.DEVICE_LOST, message=error.message, group=error.group)
    return Failed(code=_code_of(error), message=_text_of(error))


def _code_of(error: Exception) -> FailureCode:
    if process_limits.is_out_of_memory(error):
        return FailureCode.MEMORY
    if isinstance(error, TimeoutError):
        return FailureCode.BUDGET
    if isinstance(error, InvalidFieldError | KeyError):
        return FailureCode.UNSUPPORTED
    return FailureCode.FAULT


def _text_of(error: Exception) -> str:
    told = isinstance(error, InvalidFieldError)
    return (str(error) if told else f"{type(error).__name__}: {error}")[:500]


if __name__ == "__main__":
    sys.exit(main())
