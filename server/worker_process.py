"""A worker process and the conversation with it.

Everything that touches torch runs in such a process: a fault, a hang or an
out-of-memory kill takes the worker, never the daemon.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Self

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from profiler.interface import WorkerEvent, WorkerRequest

# -P: a folder "profiler" where the daemon happens to be started is not ours.
WORKER_COMMAND = (sys.executable, "-P", "-m", "profiler.worker")
"""Command that starts a worker; ``--fd``, ``--parent-pid`` and ``--memory-bytes`` follow."""

GRACE_S = 0.5
"""Time between asking a worker to end and killing it."""

_POLL_S = 0.01
_JOIN_S = 1.0
_OUTPUT_LINES = 40
_LINE_BYTES = 2_000
_REASON_LINES = 5
_REASON_CHARACTERS = 1_000

# The kernel kills a worker when the *thread* that started it ends (see
# profiler.process_limits), so all are started on one that lasts as the daemon.
_launcher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="worker-launcher")
_log = structlog.get_logger(__name__)


class WorkerEndedError(Exception):
    """The worker is gone; the text says how and with which last words."""


class WorkerProcess:
    """One worker, started on construction and gone when the context is left.

    Args:
        lifetime_s: seconds after which it is ended whatever it does. Unlike a
            timeout of ``receive`` this also ends a worker that stopped in the
            middle of a message, or reads none.
        memory_bytes: memory that it may allocate; 0 is no limit.
        command: what to start, without the arguments of ``WORKER_COMMAND``.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(
        self,
        *,
        lifetime_s: float,
        memory_bytes: int = 0,
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        ours, theirs = socket.socketpair()
        try:
            arguments = [
                *command,
                f"--fd={theirs.fileno()}",
                f"--parent-pid={os.getpid()}",
                f"--memory-bytes={memory_bytes}",
            ]
            self._process = _launcher.submit(_start, arguments, theirs.fileno()).result()
        except BaseException:
            ours.close()
            raise
        finally:
            # A copy left open here would hide the worker's end from receive().
            theirs.close()
        self._connection = Connection(ours.detach())
        self._unsent: SimpleQueue[WorkerRequest | None] = SimpleQueue()
        self._end_lock = threading.Lock()
        self._ended_by_us = False
        self._output: deque[str] = deque(maxlen=_OUTPUT_LINES)
        self._log = _log.bind(worker_pid=self._process.pid)
        output = self._process.stdout
        assert output is not None  # noqa: S101 - _start asks for a pipe
        self._reader = _start_thread("worker-output", self._read_output, output)
        self._writer = _start_thread("worker-input", self._write_requests)
        self._watchdog = threading.Timer(lifetime_s, self.end)
        self._watchdog.daemon = True
        self._watchdog.start()

    @property
    def pid(self) -> int:
        """Process id; that of its session and process group, too."""
        return self._process.pid

    def send(self, request: WorkerRequest) -> None:
        """Sends a request and waits for nothing; any thread may.

        A worker that is loading torch reads nothing for seconds, so a thread of
        its own does the writing. That the worker is gone is told by ``receive``.
        """
        self._unsent.put(request)

    def receive(self, timeout_s: float) -> WorkerEvent | None:
        """Returns the next event, or None when none came in time; one thread alone may.

        Raises:
            WorkerEndedError: the worker is gone.
        """
        try:
            if not self._connection.poll(max(0.0, timeout_s)):
                return None
            event: WorkerEvent = self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerEndedError(self._reason()) from error
        return event

    def events(self, timeout_s: float) -> Iterator[WorkerEvent]:
        """Yields events for ``timeout_s`` seconds; one thread alone may.

        Raises:
            TimeoutError: the time is over; the worker goes on.
            WorkerEndedError: the worker is gone.
        """
        end = time.monotonic() + timeout_s
        while (event := self.receive(end - time.monotonic())) is not None:
            yield event
        raise TimeoutError(f"the worker went on for longer than {timeout_s:.1f} s")

    def end(self, grace_s: float = GRACE_S) -> None:
        """Ends the worker and all processes it started; any thread may, again and again.

        A thread that waits in ``receive`` learns of it at once.

        Args:
            grace_s: time between SIGTERM and SIGKILL.
        """
        with self._end_lock:
            if self._process.returncode is not None:
                return
            if not self._exited(0.0):
                self._ended_by_us = True
                self._signal_group(signal.SIGTERM)
                self._exited(grace_s)
            self._reap()

    def end_soon(self) -> None:
        """Like ``end`` and waits for nothing."""
        _start_thread("worker-end", self.end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watchdog.cancel()
        self.end()
        self._unsent.put(None)
        self._writer.join(timeout=_JOIN_S)
        self._connection.close()

    def _exited(self, timeout_s: float) -> bool:
        """Returns whether it has exited, without giving its process id free."""
        end = time.monotonic() + timeout_s
        options = os.WEXITED | os.WNOWAIT | os.WNOHANG
        while os.waitid(os.P_PID, self._process.pid, options) is None:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)
        return True

    def _reap(self) -> None:
        # The group is killed before the leader is reaped: until then nobody
        # else can have its number.
        self._signal_group(signal.SIGKILL)
        self._process.wait()
        # The pipe is at its end as soon as the group is gone.
        self._reader.join(timeout=_JOIN_S)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _reason(self) -> str:
        """Says how the worker ended, once its connection is closed."""
        with self._end_lock:
            if self._process.returncode is None:
                lingers = not self._exited(GRACE_S)
                self._reap()
                if lingers:
                    return self._with_output("worker closed its connection without an answer")
        if self._ended_by_us:
            return "worker was ended by the daemon"
        code = self._process.returncode
        if code is not None and code < 0:
            return self._with_output(_signal_text(-code))
        return self._with_output(f"worker ended with exit code {code}")

    def _with_output(self, reason: str) -> str:
        lines = [line for line in self._output if line.strip()][-_REASON_LINES:]
        text = "\n".join(lines)[-_REASON_CHARACTERS:]
        return f"{reason}; its last output: {text}" if text else reason

    def _write_requests(self) -> None:
        while (request := self._unsent.get()) is not None:
            try:
                self._connection.send(request)
            except OSError:
                return

    def _read_output(self, output: IO[bytes]) -> None:
        """Keeps and logs what the worker prints; lines are cut so that memory is bounded."""
        with output:
            while line := output.readline(_LINE_BYTES):
                text = line.decode(errors="replace").rstrip()
                self._output.append(text)
                self._log.info("worker output", line=text)


def _start(arguments: list[str], fd: int) -> subprocess.Popen[bytes]:
    # Both output streams go into one pipe: the daemon's standard output carries
    # its address alone. An own session makes one group of all it starts.
    return subprocess.Popen(
        arguments,
        pass_fds=(fd,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _start_thread(name: str, target: Callable[..., None], *arguments: object) -> threading.Thread:
    # Daemonic: none of them may keep the daemon from ending.
    thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
    thread.start()
    return thread


def _signal_text(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    hint = " (out of memory?)" if number == signal.SIGKILL else ""
    return f"worker killed by {name}{hint}"
