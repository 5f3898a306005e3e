"""The worker, as a process and in this one: campaign, pause, live measurements, faults, ends."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import SimpleNamespace

import pytest

import profiler.campaign
import profiler.collectives
from model.dimensions import architecture_of_dimensions
from model.precision import Precision
from model.workload import Workload
from profiler.interface import (
    CampaignRequest,
    DeviceLostError,
    ExchangeRequest,
    Failed,
    FailureCode,
    Finished,
    LiveRequest,
    LiveResult,
    Measured,
    Observed,
    Pause,
    Paused,
    Progressed,
    Resume,
    Scope,
    Skipped,
    Started,
)
from profiler.telemetry import current_environment
from profiler.worker import serve

TINY = architecture_of_dimensions(
    name="tiny",
    hidden_size=64,
    layer_count=2,
    query_heads=4,
    kv_heads=2,
    intermediate_size=128,
    vocab_size=128,
)
VAST = architecture_of_dimensions(
    name="vast",
    hidden_size=1 << 20,
    layer_count=2,
    query_heads=1 << 10,
    intermediate_size=1 << 22,
    vocab_size=128,
)
"""Its weights exceed the address space, so that no machine allocates them."""

LOADING_S = 180
"""torch takes seconds to load, more on a machine that is busy."""

ENDING_S = 30
"""A point at hand is finished first; what ends by itself leaves most of its budget."""


class Worker:
    """A worker process and the daemon's end of its connection."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "profiler.worker",
                    f"--fd={theirs.fileno()}",
                    f"--parent-pid={os.getpid()}",
                ],
                pass_fds=[theirs.fileno()],
                stderr=subprocess.DEVNULL,
            )
        self.connection = Connection(ours.detach())

    def receive(self, timeout_s=LOADING_S):
        assert self.connection.poll(timeout_s), "the worker said nothing"
        return self.connection.recv()

    def until(self, kind, timeout_s=LOADING_S):
        """Returns the events up to the first of a kind."""
        events = [self.receive(timeout_s)]
        while not isinstance(events[-1], kind):
            events.append(self.receive(timeout_s))
        return events

    def close(self):
        self.connection.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def worker(request):
    started = Worker()
    try:
        started.connection.send(request)
        yield started
    finally:
        started.close()


def campaign(budget_s, target_error=0.0):
    return CampaignRequest(
        device="cpu",
        budget_s=budget_s,
        reserve_s=0.0,
        target_error=target_error,
        precisions=(),
        done=(),
    )


def live(scope=Scope.MODEL, **changes):
    values = {
        "device": "cpu",
        "budget_s": 60.0,
        "architecture": TINY,
        "workload": Workload(input_tokens=12, output_tokens=4, batch_size=2),
        "tensor": 1,
        "precision": Precision.FP32,
        "scope": scope,
    }
    return LiveRequest(**values | changes)


def test_a_worker_whose_daemon_is_gone_ends_by_itself():
    with worker(campaign(budget_s=600.0)) as running:
        running.until(Measured)
        running.connection.close()
        assert running.process.wait(timeout=ENDING_S) == 1


# --- the same in this process, where torch is loaded already ------------------------


@pytest.fixture
def served():
    """Serves requests on threads; gives the daemon's end and what the worker returned."""
    with ThreadPoolExecutor() as pool, ExitStack() as ends:

        def start(request):
            ours, theirs = Pipe()
            ends.enter_context(ours)
            ours.send(request)

            def run():
                with theirs:
                    return serve(theirs)

            return ours, pool.submit(run)

        yield start


def events_of(connection):
    events = []
    while not events or not isinstance(events[-1], Finished | Failed):
        assert connection.poll(LOADING_S)
        events.append(connection.recv())
    return events


def until(connection, kind):
    """Returns the events up to the first of a kind."""
    events = [connection.recv()]
    while not isinstance(events[-1], kind):
        assert connection.poll(LOADING_S), "the worker said nothing"
        events.append(connection.recv())
    return events


@pytest.fixture
def pass_by(monkeypatch):
    """Lets the campaigns' clock go on by so many seconds at once."""
    passed = [0.0]
    clock = SimpleNamespace(
        monotonic=lambda: time.monotonic() + sum(passed), perf_counter=time.perf_counter
    )
    monkeypatch.setattr(profiler.campaign, "time", clock)
    return passed.append


def test_a_campaign_measures_pauses_goes_on_and_ends_by_its_budget(served, pass_by):
    connection, code = served(campaign(budget_s=300.0, target_error=0.05))
    started, *events = until(connection, Measured)
    assert started == Started(environment=current_environment("cpu"))
    connection.send(Pause())
    *last, _ = until(connection, Paused)
    # The point at hand is finished; nothing is measured while paused.
    assert sum(isinstance(event, Measured) for event in last) <= 2
    begin = time.monotonic()
    assert not connection.poll(1.5)  # longer than a point takes
    connection.send(Resume())
    events += last
    *first, after = until(connection, Measured)
    # The pause is none of the campaign's time.
    assert sum(after.seconds.values()) < time.monotonic() - begin - 1.4
    events += [*first, after]
    while sum(isinstance(event, Measured) for event in events) < 4:
        events += until(connection, Measured)
    pass_by(300.0)
    events += events_of(connection)
    assert code.result(timeout=ENDING_S) == 0
    told = "the asked error of 5.0% was not reached: it could not be told yet"
    assert events[-1] == Finished(text=told)
    assert {type(event) for event in events} <= {Measured, Observed, Progressed, Skipped, Finished}
    # The device is looked at before the first point and behind the last one.
    assert [type(events[place]) for place in (0, -2)] == [Observed, Observed]
    assert events[0].state.memory_total_bytes > 0
    fractions = [event.fraction for event in events if isinstance(event, Progressed)]
    assert fractions == sorted(fractions)
    assert all(0 <= fraction <= 1 for fraction in fractions)
    assert fractions.count(1.0) <= 1  # no more than the measurement at hand
    measured = [event for event in events if isinstance(event, Measured)]
    assert {event.measurement.precision for event in measured} == {Precision.FP32}
    assert all(event.seconds["timing"] >= 0 for event in measured)
    assert sum(event.seconds["timing"] for event in measured) > 0


@pytest.mark.parametrize("scope", Scope)
def test_a_live_request_is_answered(served, scope):
    connection, code = served(live(scope))
    started, *progress, result, finished = events_of(connection)
    assert isinstance(started, Started)
    assert progress
    assert all(isinstance(event, Progressed) for event in progress)
    assert isinstance(result, LiveResult)
    assert result.ttft_ms.median > 0
    assert result.tpot_ms.median > 0
    assert finished == Finished()
    assert code.result() == 0


@pytest.mark.parametrize(("brief", "sizes"), [(False, [512, 4096]), (True, [4096])])
def test_what_ranks_send_each_other_is_told(served, monkeypatch, brief, sizes):
    monkeypatch.setattr(profiler.collectives, "MESSAGE_BYTES", (512, 4096))
    monkeypatch.setattr(profiler.collectives, "SAMPLES", 3)
    request = ExchangeRequest(
        device="cpu", rank_devices=("cpu", "cpu"), precision=Precision.FP32, brief=brief
    )
    connection, code = served(request)
    started, *measured, finished = events_of(connection)
    assert started == Started(environment=current_environment("cpu"))
    found = [(event.measurement.kind, event.measurement.shape) for event in measured]
    assert [shape["message_bytes"] for kind, shape in found if kind == "all_gather"] == sizes
    assert len(found) == 4 * len(sizes)
    samples = {event.measurement.latency_ms.samples for event in measured}
    assert samples == {profiler.collectives.SAMPLES // (3 if brief else 1)}
    assert finished == Finished()
    assert code.result() == 0


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (live(tensor=3), FailureCode.UNSUPPORTED, "tensor: 3 does not divide"),
        (live(precision=Precision.FP4), FailureCode.UNSUPPORTED, "use fp32, bf16, fp16"),
        (live(budget_s=1e-3), FailureCode.BUDGET, "are left"),
        (live(device="cuda:99"), FailureCode.FAULT, "no device 'cuda:99'"),
        (live(architecture=VAST), FailureCode.MEMORY, "allocate memory"),
        (Resume(), FailureCode.FAULT, "Resume is no request"),
    ],
)
def test_what_cannot_be_done_is_told_with_the_reason(served, request_, code, words):
    connection, returned = served(request_)
    failed = events_of(connection)[-1]
    assert isinstance(failed, Failed)
    assert failed.code is code
    assert words in failed.message
    assert returned.result() == 1


def test_a_point_that_took_the_device_with_it_is_named(served, monkeypatch):
    def losing(self):
        yield from ()
        raise DeviceLostError("attention-8-2-64", "an illegal memory access")

    monkeypatch.setattr(profiler.campaign.Campaign, "run", losing)
    connection, returned = served(campaign(budget_s=600.0))
    assert events_of(connection)[-1] == Failed(
        code=FailureCode.DEVICE_LOST, message="an illegal memory access", group="attention-8-2-64"
    )
    assert returned.result() == 1


def test_a_paused_worker_whose_daemon_is_gone_ends_too(served):
    connection, returned = served(campaign(budget_s=600.0))
    connection.send(Pause())
    until(connection, Paused)
    connection.close()
    with pytest.raises((EOFError, OSError)):
        returned.result(timeout=ENDING_S)
