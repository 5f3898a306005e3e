import os
import re
import signal
import sys
import threading
import time
from dataclasses import replace

import psutil
import pytest

from model.precision import Precision
from profiler import telemetry
from profiler.interface import reserve_s
from server.cancellation import Cancellation, CancelledError
from server.cost_models import CostModels
from server.device_queue import QueueFullError
from server.job_board import BoardClosedError
from server.jobs import JobManager
from server.records import JobRecord, JobState
from server.store.errors import StoreFullError
from server.store.paging import PageRequest


@pytest.fixture
def manager(state, scripted):
    """Starts job managers one after the other, as restarts of a daemon do."""
    managers = []

    def start(behaviour="five", state=state):
        for before in managers:
            before.drain()
        managers.append(JobManager(state, scripted(behaviour)))
        managers[-1].start()
        return managers[-1]

    yield start
    for each in managers:
        each.drain()


@pytest.fixture
def cpu(state):
    return state.devices.get("cpu")


SOON_S = 20
"""Scripted workers sleep for a minute, and a busy machine may take seconds for anything."""


def ended(manager, job, timeout_s=60.0):
    manager.board.await_end(job.id, timeout_s)
    found = manager.board.get(job.id)
    assert found.state.ended, found
    return found


def test_a_job_measures_fits_and_succeeds(manager, state, cpu, workers):
    jobs = manager("five")
    asked = jobs.create(cpu, budget_s=30)
    assert asked.state is JobState.QUEUED
    job = ended(jobs, asked)
    assert (job.state, job.error_message) == (JobState.SUCCEEDED, "")
    assert job.measurement_count == 5
    assert job.progress == 1.0
    assert job.skipped == ("too large",)
    assert asked.create_time <= job.start_time <= job.end_time
    current = state.cost_models.current(cpu)
    assert job.cost_model == current.record.id
    assert current.record.measurement_count == 5
    assert state.store.jobs.get(job.id) == job
    rows = state.store.measurements.page(PageRequest(), job_id=job.id)
    assert rows.total_size == 5
    assert {row.fingerprint for row in rows.items} == {cpu.fingerprint}
    assert not workers()


def test_a_job_that_has_ended_says_what_came_of_the_error_that_was_asked_for(manager, state, cpu):
    jobs = manager("asked")
    job = ended(jobs, jobs.create(cpu, budget_s=30, target_error=0.05))
    assert job.state is JobState.SUCCEEDED
    assert job.status == "the asked error of 5.0% took 5 points"
    assert state.store.jobs.get(job.id).status == job.status
    plain = manager("five")
    assert ended(plain, plain.create(cpu, budget_s=30)).status == ""


def test_the_worker_is_told_the_budget_and_what_was_measured_before(manager, state, cpu, point):
    state.store.measurements.append([point(1), point(2)], device="cpu", environment=cpu.environment)
    jobs = manager("echo")
    job = ended(
        jobs,
        jobs.create(
            cpu, budget_s=40, target_error=0.25, precisions=(Precision.BF16, Precision.FP32)
        ),
    )
    (request,) = job.skipped
    assert "target_error=0.25" in request
    assert "precisions=(<Precision.BF16: 'bf16'>, <Precision.FP32: 'fp32'>)" in request
    assert request.count("Measurement(") == 2
    assert "reserve_s=10.0" in request
    assert "budget_s=39.9" in request
    assert "whole_budget_s=40" in request


@pytest.fixture
def cores(state, monkeypatch):
    """Gives the machine as many cores as two ranks have threads."""
    threads = state.devices.get("cpu").environment.threads
    monkeypatch.setattr(telemetry, "core_count", lambda: 2 * threads)


def test_what_ranks_send_each_other_is_measured_once(manager, state, cpu, cores):
    jobs = manager("five")
    first = ended(jobs, jobs.create(cpu, budget_s=60, ranks=2))
    second = ended(jobs, jobs.create(cpu, budget_s=60, ranks=2))
    assert [first.measurement_count, second.measurement_count] == [6, 5]
    rows = state.store.measurements.of("cpu", cpu.fingerprint)
    (sum_,) = [row for row in rows if row.kind == "all_reduce"]
    assert (sum_.shape["ranks"], sum_.precision) == (2, Precision.FP32)
    assert first.skipped == second.skipped == ("too large",)


@pytest.mark.parametrize("ranks", [0, 1])
def test_on_the_cpu_ranks_are_measured_where_asked_for_alone(manager, cpu, cores, ranks):
    jobs = manager("five")
    assert ended(jobs, jobs.create(cpu, budget_s=60, ranks=ranks)).measurement_count == 5


@pytest.mark.parametrize(
    ("behaviour", "budget_s", "reason"),
    [
        ("apart", 60, "rank 1 failed: as told"),
        ("five", 30, "the budget leaves no time for them"),
    ],
)
def test_a_campaign_goes_on_where_ranks_fail(manager, cpu, cores, behaviour, budget_s, reason):
    jobs = manager(behaviour)
    job = ended(jobs, jobs.create(cpu, budget_s=budget_s, ranks=2))
    assert (job.state, job.measurement_count) == (JobState.SUCCEEDED, 5)
    assert job.skipped == (f"messages between ranks: {reason}", "too large")


def test_ranks_that_find_fewer_cores_after_a_restart_are_left_out(manager, cpu, monkeypatch):
    monkeypatch.setattr(telemetry, "core_count", lambda: 1)
    jobs = manager("five")
    job = ended(jobs, jobs.create(cpu, budget_s=60, ranks=2))
    assert (job.state, job.measurement_count) == (JobState.SUCCEEDED, 5)
    assert "ranks: 2 ranks of" in job.skipped[0]


def test_a_job_is_cancelled_while_its_ranks_measure(manager, cpu, cores, eventually, workers):
    jobs = manager("sleep")
    job = jobs.create(cpu, budget_s=600, ranks=2)
    eventually(lambda: "2 ranks" in jobs.board.get(job.id).status and workers())
    assert jobs.cancel(job.id).state is JobState.CANCELLED
    eventually(lambda: not workers())


def test_what_was_measured_in_another_environment_is_not_told(manager, state, cpu, point):
    other = replace(cpu.environment, torch_version="0.1")
    state.store.measurements.append([point(1)], device="cpu", environment=other)
    jobs = manager("echo")
    job = ended(jobs, jobs.create(cpu, budget_s=40))
    assert job.skipped[0].count("Measurement(") == 0
    # and as the worker measured nothing, there is nothing to fit on
    assert job.state is JobState.FAILED
    assert "nothing was measured on cpu in its present environment" in job.error_message


def test_a_worker_killed_from_outside_fails_the_job_and_keeps_its_rows(manager, state, cpu):
    jobs = manager("killed")
    job = ended(jobs, jobs.create(cpu, budget_s=30))
    assert job.state is JobState.FAILED
    assert job.error_message == "worker killed by SIGKILL (out of memory?)"
    assert job.measurement_count == 3
    assert len(state.store.measurements.of_job(job.id)) == 3


def test_a_worker_killed_while_it_measures_leaves_the_manager_at_work(
    manager, cpu, eventually, scripted, workers
):
    jobs = manager("campaign")
    job = jobs.create(cpu, budget_s=30)
    eventually(lambda: jobs.board.get(job.id).measurement_count > 1)
    (worker,) = workers()
    os.kill(worker, signal.SIGKILL)
    assert ended(jobs, job).error_message == "worker killed by SIGKILL (out of memory?)"
    again = jobs.create(cpu, budget_s=30)
    eventually(lambda: jobs.board.get(again.id).measurement_count > 1)


def test_a_crash_is_told_with_the_last_words(manager, cpu):
    jobs = manager("crash")
    job = ended(jobs, jobs.create(cpu, budget_s=30))
    assert job.state is JobState.FAILED
    assert job.error_message == "worker ended with exit code 3; its last output: the last words"


def test_a_worker_that_lost_the_device_is_followed_by_one_that_avoids_the_point(manager, cpu):
    jobs = manager("losing")
    job = ended(jobs, jobs.create(cpu, budget_s=30))
    assert job.state is JobState.SUCCEEDED
    assert job.measurement_count == 3 + 3 + 5
    lost = [f"point {number} took the device with it: as told" for number in (1, 2)]
    assert job.skipped == (*lost, "too large")


def test_a_device_that_every_worker_loses_fails_the_job_and_keeps_what_was_measured(manager, cpu):
    jobs = manager("doomed")
    job = ended(jobs, jobs.create(cpu, budget_s=60))
    assert job.state is JobState.FAILED
    assert job.error_message == "point 4 took the device with it: as told"
    assert job.measurement_count == 4 * 3


def test_a_worker_that_cannot_is_told_in_its_words(manager, cpu):
    jobs = manager("fault")
    job = ended(jobs, jobs.create(cpu, budget_s=30))
    assert (job.state, job.error_message) == (JobState.FAILED, "as told")


@pytest.mark.parametrize("behaviour", ["deaf", "sleep", "budget"])
def test_a_budget_that_measured_nothing_is_told_with_the_remedy(manager, cpu, behaviour, workers):
    jobs = manager(behaviour)
    begin = time.monotonic()
    job = ended(jobs, jobs.create(cpu, budget_s=1))
    assert time.monotonic() - begin < SOON_S
    assert job.state is JobState.FAILED
    assert job.error_message.startswith("the budget of 1 s was over before anything was measured")
    assert not workers()


def measured_already(state, cpu, at, point, spent_s):
    """Stores a job of a minute that has measured, as a daemon leaves it that is killed."""
    job = JobRecord(
        id="job-1",
        device="cpu",
        budget_s=60,
        create_time=at(),
        state=JobState.RUNNING,
        spent_s=spent_s,
    )
    state.store.jobs.add(job)
    state.store.measurements.append(
        [point(m) for m in range(1, 6)],
        device="cpu",
        environment=cpu.environment,
        job_id=job.id,
    )
    return job


def test_the_budget_covers_measuring_and_the_fit(manager, cpu):
    jobs = manager("campaign")
    job = ended(jobs, jobs.create(cpu, budget_s=4))
    assert job.state is JobState.SUCCEEDED
    assert job.measurement_count > 5
    assert 4 - reserve_s(4) <= job.spent_s < 4 + 10


def test_a_fit_that_hangs_ends_the_job_10_s_after_its_budget(
    manager, state, cpu, at, point, monkeypatch
):
    monkeypatch.setattr("server.campaign_run._FIT_OVERRUN_S", 0.2)
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    slow = replace(state, cost_models=CostModels(state.store, state.devices, sleeping))
    asked = measured_already(state, cpu, at, point, spent_s=59.5)
    begin = time.monotonic()
    job = ended(manager("crash", slow), asked)
    assert 0.5 + 0.2 <= time.monotonic() - begin < SOON_S
    assert job.state is JobState.FAILED
    assert "fitting took longer" in job.error_message
    assert job.measurement_count == 5
    assert len(state.store.measurements.of_job(job.id)) == 5


def test_a_worker_elsewhere_is_told_and_its_rows_are_kept_apart(manager, state, cpu):
    jobs = manager("elsewhere")
    job = ended(jobs, jobs.create(cpu, budget_s=30))
    assert job.state is JobState.FAILED
    assert "torch_version" in job.error_message
    assert "is now '0.1'" in job.error_message
    assert "restart the daemon" in job.error_message
    assert len(state.store.measurements.of_job(job.id)) == 5
    assert state.store.measurements.count("cpu", cpu.fingerprint) == 0


def test_a_state_that_cannot_be_stored_leaves_the_job_at_work(manager, state, cpu, monkeypatch):
    def full(*_):
        raise StoreFullError("the store is full")

    monkeypatch.setattr(state.store.job_states, "append", full)
    jobs = manager("watched")
    job = ended(jobs, jobs.create(cpu, budget_s=30))
    assert (job.state, job.measurement_count) == (JobState.SUCCEEDED, 3)
    assert state.store.job_states.of(job.id) == ()


def test_a_full_store_fails_the_job_and_keeps_what_was_committed(manager, state, cpu, monkeypatch):
    append, calls = state.store.measurements.append, []

    def full_after_two(*arguments, **options):
        calls.append(1)
        if len(calls) > 2:
            raise StoreFullError("the store is full")
        append(*arguments, **options)

    monkeypatch.setattr(state.store.measurements, "append", full_after_two)
    jobs = manager("five")
    job = ended(jobs, jobs.create(cpu, budget_s=30))
    assert job.state is JobState.FAILED
    assert job.error_message == "the store is full; the 2 measurements before are kept"
    assert len(state.store.measurements.of_job(job.id)) == 2


def test_jobs_of_a_device_run_one_after_the_other(manager, cpu, eventually, workers):
    jobs = manager("campaign")
    first, second = jobs.create(cpu, budget_s=60), jobs.create(cpu, budget_s=1)
    eventually(lambda: jobs.board.get(first.id).measurement_count > 1)
    assert jobs.board.get(second.id).state is JobState.QUEUED
    assert jobs.occupant(cpu) == f"job {first.id} is running"
    assert len(workers()) == 1
    jobs.cancel(first.id)
    assert ended(jobs, second).start_time >= ended(jobs, first).end_time


def test_too_many_jobs_are_refused(manager, cpu, eventually):
    jobs = manager("sleep")
    first = jobs.create(cpu, budget_s=60)
    eventually(lambda: jobs.board.get(first.id).state is JobState.RUNNING)
    for _ in range(2):
        jobs.create(cpu, budget_s=60)
    with pytest.raises(QueueFullError, match="2 jobs wait for cpu already"):
        jobs.create(cpu, budget_s=60)


def test_cancelling_a_running_job_ends_its_worker(manager, state, cpu, eventually, workers):
    jobs = manager("stubborn")
    job = jobs.create(cpu, budget_s=60)
    # its status is the process id of the child that it started
    child = int(eventually(lambda: re.fullmatch(r"\d+", jobs.board.get(job.id).status))[0])
    begin = time.monotonic()
    cancelled = jobs.cancel(job.id)
    assert time.monotonic() - begin < SOON_S
    assert cancelled.state is JobState.CANCELLED
    assert cancelled.end_time is not None
    assert not workers()
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"
    assert state.store.jobs.get(job.id).state is JobState.CANCELLED
    assert jobs.cancel(job.id) == cancelled


def test_cancelling_a_queued_job_leaves_the_running_one_alone(manager, cpu, eventually):
    jobs = manager("sleep")
    first, second = jobs.create(cpu, budget_s=60), jobs.create(cpu, budget_s=60)
    eventually(lambda: jobs.board.get(first.id).state is JobState.RUNNING)
    assert jobs.cancel(second.id).state is JobState.CANCELLED
    assert jobs.board.get(first.id).state is JobState.RUNNING


def test_an_unknown_job_cannot_be_cancelled(manager):
    assert manager().cancel("job-none") is None


def test_a_job_is_taken_up_after_a_drain_with_what_is_left(
    manager, state, cpu, eventually, workers
):
    jobs = manager("campaign")
    job = jobs.create(cpu, budget_s=60)
    eventually(lambda: jobs.board.get(job.id).measurement_count > 5)
    begin = time.monotonic()
    jobs.drain()
    assert time.monotonic() - begin < SOON_S
    assert not workers()
    kept = state.store.jobs.get(job.id)
    assert kept.state is JobState.RUNNING
    assert 0 < kept.spent_s < 60
    with pytest.raises(BoardClosedError):
        jobs.create(cpu, budget_s=60)

    finished = ended(manager("told_budget"), job)
    assert finished.state is JobState.SUCCEEDED
    assert finished.measurement_count == kept.measurement_count + 5
    (told,) = finished.skipped
    assert 60 - finished.spent_s < float(told) < 60 - kept.spent_s
    assert finished.spent_s > kept.spent_s
    assert finished.start_time == kept.start_time
    # the worker went on where the first had stopped
    rows = state.store.measurements.of_job(job.id)
    assert [row.shape["m"] for row in rows] == list(range(len(rows)))


def test_what_is_spent_is_stored_while_the_job_runs(manager, state, cpu, eventually):
    jobs = manager("sleep")
    job = jobs.create(cpu, budget_s=60)
    spent = eventually(lambda: state.store.jobs.get(job.id).spent_s)
    later = eventually(lambda: (s := state.store.jobs.get(job.id).spent_s) > spent and s)
    assert 0.9 < later - spent < 5


def test_a_job_with_nothing_left_but_the_fit_starts_no_worker(manager, state, cpu, at, point):
    job = measured_already(state, cpu, at, point, spent_s=58)
    jobs = manager("crash")
    assert ended(jobs, job).state is JobState.SUCCEEDED


def test_a_job_whose_device_is_gone_fails(manager, state, at):
    job = JobRecord(id="job-1", device="local:7", budget_s=60, create_time=at())
    state.store.jobs.add(job)
    found = ended(manager(), job)
    assert found.state is JobState.FAILED
    assert found.error_message == "local:7 is not in this machine any more"


def test_a_measurement_goes_ahead_of_a_campaign(manager, cpu, eventually):
    jobs = manager("campaign")
    job = jobs.create(cpu, budget_s=60)
    eventually(lambda: jobs.board.get(job.id).measurement_count > 1)
    with jobs.queue(cpu).measurement(Cancellation()):
        paused = jobs.board.get(job.id)
        assert paused.status == "paused for a live measurement"
        time.sleep(0.3)
        assert jobs.board.get(job.id).measurement_count == paused.measurement_count
    eventually(lambda: jobs.board.get(job.id).measurement_count > paused.measurement_count)


def test_watching_shows_the_job_until_it_ends(manager, cpu):
    jobs = manager("sixty")
    job = jobs.create(cpu, budget_s=60)
    seen = list(jobs.board.watch(job, Cancellation()))
    assert seen[0].state is JobState.QUEUED
    assert seen[-1].state is JobState.SUCCEEDED
    assert seen[-1] == jobs.board.get(job.id)
    assert len(seen) > 4
    progress = [shown.progress for shown in seen]
    assert progress == sorted(progress)


def test_a_watcher_can_go_away(manager, cpu, eventually):
    jobs = manager("sleep")
    job = jobs.create(cpu, budget_s=60)
    eventually(lambda: jobs.board.get(job.id).status == "measuring")
    cancellation = Cancellation()
    threading.Timer(0.2, cancellation.cancel).start()
    with pytest.raises(CancelledError):
        list(jobs.board.watch(jobs.board.get(job.id), cancellation))


def test_a_drain_sends_watchers_away(manager, cpu, eventually):
    jobs = manager("sleep")
    job = jobs.create(cpu, budget_s=60)
    eventually(lambda: jobs.board.get(job.id).state is JobState.RUNNING)
    threading.Timer(0.2, jobs.drain).start()
    with pytest.raises(BoardClosedError, match="goes on at its next start"):
        list(jobs.board.watch(jobs.board.get(job.id), Cancellation()))


def test_a_page_shows_running_jobs_as_they_stand(manager, cpu, eventually):
    jobs = manager("campaign")
    job = jobs.create(cpu, budget_s=60)
    eventually(lambda: jobs.board.get(job.id).measurement_count > 3)
    (shown,) = jobs.board.page(PageRequest()).items
    assert shown.measurement_count > 3


@pytest.mark.parametrize(
    ("budget_s", "reserve"), [(1, 0.25), (20, 5), (60, 10), (110, 16.5), (600, 60), (86_400, 60)]
)
def test_the_reserve_of_a_budget(budget_s, reserve):
    assert reserve_s(budget_s) == pytest.approx(reserve)
