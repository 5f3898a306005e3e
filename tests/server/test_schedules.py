from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from model.errors import InvalidFieldError
from server.cancellation import Cancellation
from server.cost_models import CurrentCostModel
from server.jobs import JobManager
from server.records import JobRecord, JobState, ScheduleOutcome, ScheduleRecord, ScheduleRun
from server.schedules import Schedules, TooManySchedulesError, next_cron_time
from server.store.paging import PageRequest

NIGHT = datetime(2026, 3, 1, 2, 59, 30, tzinfo=UTC)


@pytest.fixture
def jobs(state, scripted):
    manager = JobManager(state, scripted("five"))
    manager.start()
    yield manager
    manager.drain()


@pytest.fixture
def schedules(state, jobs):
    """Ticks come from the tests alone."""
    return Schedules(state, jobs)


@pytest.fixture
def cpu(state):
    return state.devices.get("cpu")


@pytest.fixture
def runs_of(schedules):
    def runs(schedule):
        (found,) = [s for s in schedules.page(PageRequest()).items if s.id == schedule.id]
        return found.runs

    return runs


def ended(jobs, job_id):
    jobs.board.await_end(job_id, 60)
    assert jobs.board.get(job_id).state.ended


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 3 * * *", datetime(2026, 3, 1, 3, tzinfo=UTC)),
        ("*/15 * * * *", datetime(2026, 3, 1, 3, tzinfo=UTC)),
        ("30 4 * * MON", datetime(2026, 3, 2, 4, 30, tzinfo=UTC)),
        ("0 0 29 2 *", datetime(2028, 2, 29, tzinfo=UTC)),
    ],
)
def test_the_next_time_of_a_cron_expression(cron, expected):
    assert next_cron_time(cron, NIGHT) == expected


def test_cron_counts_in_utc():
    somewhere = NIGHT.astimezone(tz=datetime.now().astimezone().tzinfo)
    assert next_cron_time("0 3 * * *", somewhere) == datetime(2026, 3, 1, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    "cron", ["", "bad", "0 3 * *", "* * * * * *", "61 * * * *", "0 0 30 2 *", "@daily", "x" * 300]
)
def test_a_bad_cron_expression_is_told_with_the_remedy(schedules, cpu, cron):
    with pytest.raises(InvalidFieldError, match="minute, hour, day of month") as caught:
        schedules.create(cpu, budget_s=30, cron=cron)
    assert caught.value.field == "cron"
    assert schedules.page(PageRequest()).total_size == 0


@pytest.mark.parametrize("interval_s", [0.5, 0, -1, 1e12, float("nan")])
def test_an_interval_out_of_range_is_told(schedules, cpu, interval_s):
    with pytest.raises(InvalidFieldError) as caught:
        schedules.create(cpu, budget_s=30, interval_s=interval_s)
    assert caught.value.field == "interval"


def test_a_schedule_that_is_not_due_starts_nothing(schedules, state, cpu, runs_of):
    made = schedules.create(cpu, budget_s=30, interval_s=60)
    schedules.tick(made.next_run_time - timedelta(seconds=1))
    assert runs_of(made) == ()
    assert state.store.jobs.unfinished() == ()


def test_a_due_schedule_starts_a_job_and_records_how_it_ended(schedules, jobs, cpu, runs_of):
    made = schedules.create(cpu, budget_s=30, interval_s=60)
    schedules.tick(made.next_run_time)
    (run,) = runs_of(made)
    assert (run.outcome, run.time) == (ScheduleOutcome.STARTED, made.next_run_time)
    job = jobs.board.get(run.job_id)
    assert (job.schedule_id, job.budget_s) == (made.id, 30)
    ended(jobs, run.job_id)
    schedules.tick(made.next_run_time + timedelta(seconds=1))
    (run,) = runs_of(made)
    assert (run.outcome, run.reason, run.drift) == (ScheduleOutcome.SUCCEEDED, "", None)


def test_drift_is_the_error_of_the_model_before_on_what_the_run_measured(
    schedules, jobs, state, cpu, runs_of
):
    scored = []

    def errors_on(measurements):
        scored.extend(measurements)
        return np.array([0.1, 0.4, 0.2])

    before = CurrentCostModel(SimpleNamespace(id="old"), SimpleNamespace(errors_on=errors_on))
    state.cost_models._current["cpu"] = before
    made = schedules.create(cpu, budget_s=30, interval_s=60)
    schedules.tick(made.next_run_time)
    ended(jobs, runs_of(made)[0].job_id)
    assert state.cost_models.current(cpu) is not before
    schedules.tick(made.next_run_time + timedelta(seconds=1))
    (run,) = runs_of(made)
    assert run.drift == pytest.approx(0.2)
    assert len(scored) == 5


def test_a_model_that_predicts_none_of_it_tells_no_drift(schedules, jobs, state, cpu, runs_of):
    state.store.measurements.append([], device="cpu", environment=cpu.environment)
    made = schedules.create(cpu, budget_s=30, interval_s=60)
    for second in range(2):  # the first run fits a model that holds nothing
        schedules.tick(made.next_run_time + timedelta(seconds=60 * second))
        ended(jobs, runs_of(made)[0].job_id)
    schedules.tick(made.next_run_time + timedelta(seconds=61))
    assert [run.outcome for run in runs_of(made)] == [ScheduleOutcome.SUCCEEDED] * 2
    assert runs_of(made)[0].drift is None


def test_a_job_that_fails_is_recorded_with_its_reason(state, scripted, cpu):
    jobs = JobManager(state, scripted("crash"))
    jobs.start()
    schedules = Schedules(state, jobs)
    made = schedules.create(cpu, budget_s=30, interval_s=60)
    schedules.tick(made.next_run_time)
    (job,) = jobs.board.page(PageRequest()).items
    ended(jobs, job.id)
    schedules.tick(made.next_run_time + timedelta(seconds=1))
    (run,) = schedules.page(PageRequest()).items[0].runs
    assert run.outcome is ScheduleOutcome.FAILED
    assert "exit code 3" in run.reason
    jobs.drain()


def test_a_busy_device_is_skipped_with_the_reason(state, scripted, cpu, eventually):
    jobs = JobManager(state, scripted("sleep"))
    jobs.start()
    schedules = Schedules(state, jobs)
    made = schedules.create(cpu, budget_s=60, interval_s=10)
    schedules.tick(made.next_run_time)
    (job,) = jobs.board.page(PageRequest()).items
    eventually(lambda: jobs.board.get(job.id).state is JobState.RUNNING)
    schedules.tick(made.next_run_time + timedelta(seconds=10))
    skipped, _ = schedules.page(PageRequest()).items[0].runs
    assert skipped.outcome is ScheduleOutcome.SKIPPED
    assert skipped.reason == f"device busy: job {job.id} is running"
    assert jobs.board.page(PageRequest()).total_size == 1
    jobs.cancel(job.id)
    schedules.tick(made.next_run_time + timedelta(seconds=11))
    run = schedules.page(PageRequest()).items[0].runs[-1]
    assert (run.outcome, run.reason) == (ScheduleOutcome.FAILED, "the job was cancelled")
    with jobs.queue(cpu).measurement(Cancellation()):
        schedules.tick(made.next_run_time + timedelta(seconds=20))
    run = schedules.page(PageRequest()).items[0].runs[0]
    assert run.reason == "device busy: a live measurement is running"
    jobs.drain()


def test_a_device_that_others_use_is_skipped_and_they_are_named(
    schedules, jobs, state, cpu, monkeypatch
):
    telemetry = SimpleNamespace(processes=("12 train",))
    monkeypatch.setattr(type(state.devices), "telemetry", staticmethod(lambda *_: telemetry))
    made = schedules.create(cpu, budget_s=60, interval_s=10)
    schedules.tick(made.next_run_time)
    (skipped,) = schedules.page(PageRequest()).items[0].runs
    assert skipped.outcome is ScheduleOutcome.SKIPPED
    assert "12 train" in skipped.reason
    assert jobs.board.page(PageRequest()).total_size == 0


def test_of_times_missed_one_is_made_up_for(schedules, jobs, state, cpu, runs_of, eventually):
    made = schedules.create(cpu, budget_s=30, interval_s=60)
    late = made.next_run_time + timedelta(seconds=60 * 100 + 5)
    schedules.tick(late)
    schedules.tick(late + timedelta(seconds=1))
    assert len(runs_of(made)) == 1
    (kept,) = state.store.schedules.all()
    assert kept.next_run_time == made.next_run_time + timedelta(seconds=60 * 101)
    ended(jobs, runs_of(made)[0].job_id)


def test_a_missed_cron_time_is_made_up_for_once(schedules, jobs, state, cpu, runs_of):
    state.store.schedules.add(
        ScheduleRecord(
            id="schedule-1",
            device="cpu",
            budget_s=30,
            create_time=NIGHT - timedelta(days=9),
            next_run_time=NIGHT - timedelta(days=8),
            cron="0 3 * * *",
        )
    )
    schedules.tick(NIGHT)
    (schedule,) = state.store.schedules.all()
    assert len(schedule.runs) == 1
    assert schedule.next_run_time == datetime(2026, 3, 1, 3, tzinfo=UTC)
    ended(jobs, schedule.runs[0].job_id)


def test_schedules_and_their_open_runs_are_kept_over_a_restart(
    state, scripted, cpu, jobs, eventually
):
    due = datetime.now(UTC) + timedelta(hours=1)
    schedule = ScheduleRecord(
        id="schedule-1",
        device="cpu",
        budget_s=30,
        create_time=due,
        next_run_time=due,
        interval_s=3600,
    )
    state.store.schedules.add(schedule)
    job = JobRecord(
        id="job-1",
        device="cpu",
        budget_s=30,
        create_time=due,
        state=JobState.SUCCEEDED,
        schedule_id="schedule-1",
    )
    state.store.jobs.add(job)
    started = ScheduleRun(time=due, outcome=ScheduleOutcome.STARTED, job_id="job-1")
    state.store.schedules.record_run("schedule-1", started)
    again = Schedules(state, jobs)
    again.start()
    # its job had ended before the daemon could record it
    closed = replace(started, outcome=ScheduleOutcome.SUCCEEDED)
    eventually(lambda: state.store.schedules.all()[0].runs == (closed,))
    again.stop()


def test_a_job_that_goes_on_after_a_restart_is_recorded_though_its_run_was_dropped(
    state, scripted, cpu, at, eventually
):
    now = datetime.now(UTC)
    state.store.schedules.add(
        ScheduleRecord(
            id="schedule-1",
            device="cpu",
            budget_s=30,
            create_time=now,
            next_run_time=now + timedelta(hours=1),
            interval_s=3600,
        )
    )
    job = JobRecord(
        id="job-1", device="cpu", budget_s=30, create_time=now, schedule_id="schedule-1"
    )
    state.store.jobs.add(job)
    jobs = JobManager(state, scripted("five"))
    jobs.start()
    schedules = Schedules(state, jobs)
    schedules.start()
    (run,) = eventually(lambda: state.store.schedules.all()[0].runs)
    assert (run.job_id, run.outcome) == ("job-1", ScheduleOutcome.SUCCEEDED)
    schedules.stop()
    jobs.drain()


def test_a_deleted_schedule_starts_nothing_and_its_job_goes_on(schedules, jobs, cpu):
    made = schedules.create(cpu, budget_s=30, interval_s=60)
    schedules.tick(made.next_run_time)
    (job,) = jobs.board.page(PageRequest()).items
    assert schedules.delete(made.id)
    assert not schedules.delete(made.id)
    ended(jobs, job.id)
    assert jobs.board.get(job.id).state is JobState.SUCCEEDED
    schedules.tick(made.next_run_time + timedelta(seconds=600))
    assert jobs.board.page(PageRequest()).total_size == 1


def test_a_device_that_is_gone_is_skipped_with_the_reason(schedules, state):
    due = datetime.now(UTC)
    state.store.schedules.add(
        ScheduleRecord(
            id="schedule-1",
            device="local:7",
            budget_s=30,
            create_time=due,
            next_run_time=due,
            interval_s=60,
        )
    )
    schedules.tick(due)
    (run,) = state.store.schedules.all()[0].runs
    assert run.outcome is ScheduleOutcome.SKIPPED
    assert "local:7" in run.reason


def test_there_is_an_end_to_the_number_of_schedules(schedules, cpu, monkeypatch):
    monkeypatch.setattr("server.schedules.MAX_SCHEDULES", 3)
    for _ in range(3):
        schedules.create(cpu, budget_s=30, interval_s=3600)
    with pytest.raises(TooManySchedulesError, match="delete one"):
        schedules.create(cpu, budget_s=30, interval_s=3600)


def test_the_clock_starts_what_is_due(schedules, jobs, cpu, eventually, runs_of):
    made = schedules.create(cpu, budget_s=30, interval_s=1)
    schedules.start()
    eventually(lambda: runs_of(made))
    schedules.stop()
    seen = len(runs_of(made))
    assert seen >= 1
