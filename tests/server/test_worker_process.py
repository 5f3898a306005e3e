import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from profiler.interface import (
    CampaignRequest,
    Failed,
    Finished,
    Measured,
    Pause,
    Paused,
    Progressed,
    Resume,
    Skipped,
    Started,
)
from server.worker_process import WorkerEndedError, WorkerProcess

SOON_S = 20.0
"""Scripted workers sleep for a minute, and a busy machine may take seconds for anything."""


@pytest.fixture
def request_(point):
    def make(budget_s=30.0, done=()):
        return CampaignRequest(
            device="cpu",
            budget_s=budget_s,
            reserve_s=0.0,
            target_error=0.0,
            precisions=(),
            done=tuple(done),
        )

    return make


@pytest.fixture
def worker(scripted):
    def start(behaviour, lifetime_s=60.0, **options):
        return WorkerProcess(lifetime_s=lifetime_s, command=scripted(behaviour), **options)

    return start


def is_running(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def until_ended(worker, timeout_s=SOON_S):
    """The reason that the worker's events end with."""
    with pytest.raises(WorkerEndedError) as caught:
        list(worker.events(timeout_s))
    return str(caught.value)


def test_a_conversation_from_the_request_to_the_end(worker, request_):
    with worker("five") as process:
        process.send(request_())
        events = []
        for event in process.events(SOON_S):
            events.append(event)
            if isinstance(event, Finished):
                break
        assert isinstance(events[0], Started)
        assert sum(isinstance(event, Measured) for event in events) == 5
        assert until_ended(process) == "worker ended with exit code 0"
    assert not is_running(process.pid)


def test_a_request_larger_than_the_pipe_does_not_block_the_sender(worker, request_, point):
    done = [point(m) for m in range(20_000)]
    with worker("deaf") as process:
        begin = time.monotonic()
        process.send(request_(done=done))
        assert time.monotonic() - begin < SOON_S
    with worker("echo") as process:
        process.send(request_(done=done))
        echoed = next(e.reason for e in process.events(SOON_S) if isinstance(e, Skipped))
    assert echoed.count("Measurement(") == 20_000


def test_pause_and_resume(worker, request_):
    with worker("campaign") as process:
        process.send(request_())
        next(e for e in process.events(SOON_S) if isinstance(e, Measured))
        process.send(Pause())
        next(e for e in process.events(SOON_S) if isinstance(e, Paused))
        assert process.receive(0.3) is None
        process.send(Resume())
        assert isinstance(process.receive(SOON_S), Measured)


def test_no_event_in_time_is_told_and_ends_nothing(worker, request_):
    with worker("sleep") as process:
        process.send(request_())
        assert isinstance(process.receive(SOON_S), Started)
        assert process.receive(0.05) is None
        with pytest.raises(TimeoutError, match=r"longer than 0\.1 s"):
            list(process.events(0.1))
        assert is_running(process.pid)


def test_a_crash_is_told_with_the_last_words(worker, request_):
    with worker("crash") as process:
        process.send(request_())
        reason = until_ended(process)
    assert reason == "worker ended with exit code 3; its last output: the last words"


def test_a_kill_from_outside_is_told_as_what_it_probably_is(worker, request_):
    with worker("sleep") as process:
        process.send(request_())
        assert isinstance(process.receive(SOON_S), Started)
        os.kill(process.pid, signal.SIGKILL)
        assert until_ended(process) == "worker killed by SIGKILL (out of memory?)"


def test_a_fault_in_native_code_is_told_by_its_signal(worker, request_):
    with worker("sleep") as process:
        process.send(request_())
        assert isinstance(process.receive(SOON_S), Started)
        os.kill(process.pid, signal.SIGSEGV)
        assert until_ended(process).startswith("worker killed by SIGSEGV")


def test_ending_kills_what_ignores_the_request_and_its_children(worker, request_, eventually):
    with worker("stubborn") as process:
        process.send(request_())
        child = next(int(e.text) for e in process.events(SOON_S) if isinstance(e, Progressed))
        begin = time.monotonic()
    assert time.monotonic() - begin < SOON_S
    assert not is_running(process.pid)
    # Killed, it closes its end of the pipe a moment before it is gone.
    eventually(lambda: not is_running(child))


def test_ending_from_another_thread_wakes_the_one_that_waits(worker, request_):
    with worker("sleep") as process:
        process.send(request_())
        assert isinstance(process.receive(SOON_S), Started)
        timer = threading.Timer(0.1, process.end_soon)
        timer.start()
        begin = time.monotonic()
        assert until_ended(process) == "worker was ended by the daemon"
        assert time.monotonic() - begin < SOON_S
        timer.join()


def test_its_lifetime_ends_a_worker_that_reads_and_says_nothing(worker, request_):
    with worker("deaf", lifetime_s=0.5) as process:
        process.send(request_())
        assert until_ended(process) == "worker was ended by the daemon"


def test_allocating_more_than_the_limit_fails_in_the_worker(worker, request_):
    with worker("greedy", memory_bytes=1 << 30) as process:
        process.send(request_())
        failed = next(e for e in process.events(SOON_S) if isinstance(e, Failed))
    assert failed.message == "no memory left"


def test_the_kernel_takes_the_worker_first_when_memory_runs_out(worker, request_):
    with worker("sleep") as process:
        process.send(request_())
        assert isinstance(process.receive(SOON_S), Started)
        score = Path(f"/proc/{process.pid}/oom_score_adj").read_text()
    assert int(score) == 800


def test_a_command_that_cannot_be_started_is_told():
    with pytest.raises(OSError, match="no-such-program"):
        WorkerProcess(lifetime_s=1, command=["no-such-program"])
