from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta, timezone
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.errors import InvalidFieldError
from model.estimate import ValidationScore
from model.precision import Precision
from profiler.telemetry import Telemetry
from server.records import (
    CostModelRecord,
    JobRecord,
    JobState,
    ScheduleOutcome,
    ScheduleRecord,
    ScheduleRun,
)
from server.store import Store, measurements
from server.store.paging import PageRequest, page_of


@pytest.fixture
def job(at):
    def make(name="job", **changes):
        return JobRecord(id=name, device="local", budget_s=60.0, create_time=at(), **changes)

    return make


@pytest.fixture
def cost_model(at, environment):
    def make(name, seconds=0.0, **changes):
        score = ValidationScore(
            kind="linear",
            precision=Precision.BF16,
            rows=9,
            groups=3,
            mean_error=0.05,
            median_error=0.04,
            p90_error=0.1,
            coverage=0.9,
        )
        values = {
            "id": name,
            "device": "cpu",
            "fingerprint": environment.fingerprint,
            "create_time": at(seconds),
            "measurement_count": 9,
            "scores": (score,),
            "precisions": (Precision.FP32, Precision.BF16),
            "engines": ("transformers",),
        }
        return CostModelRecord(**values | changes)

    return make


@pytest.fixture
def schedule(at):
    return ScheduleRecord(
        id="s1",
        device="local",
        budget_s=5.0,
        create_time=at(),
        next_run_time=at(10),
        interval_s=10.0,
    )


class TestMeasurements:
    def test_come_back_as_they_were(self, store, environment, point):
        points = (point(1), point(2, precision=Precision.INT8_WEIGHT_ONLY, flags=()))
        store.measurements.append(points, device="cpu", environment=environment)
        assert store.measurements.of("cpu", environment.fingerprint) == points
        assert store.environments.get(environment.fingerprint) == environment

    def test_other_environments_and_devices_are_apart(self, store, environment, point):
        other = replace(environment, torch_version="2.14.0")
        store.measurements.append([point()], device="cpu", environment=environment)
        store.measurements.append([point()], device="cpu", environment=other)
        store.measurements.append([point()], device="local", environment=environment)
        assert store.measurements.count("cpu", environment.fingerprint) == 1
        assert store.environments.get("unknown") is None

    def test_are_counted_in_their_job(self, store, environment, point, job):
        store.jobs.add(job())
        store.measurements.append(
            [point(1), point(2)], device="cpu", environment=environment, job_id="job"
        )
        store.measurements.append([point(3)], device="cpu", environment=environment)
        assert store.jobs.get("job").measurement_count == 2
        assert store.measurements.of_job("job") == (point(1), point(2))

    def test_of_an_unknown_job_are_refused_whole(self, store, environment, point):
        with pytest.raises(Exception, match="FOREIGN KEY"):
            store.measurements.append(
                [point()], device="cpu", environment=environment, job_id="none"
            )
        assert store.measurements.page(PageRequest()).total_size == 0

    def test_pages_filter_and_count_all_matches(self, store, environment, point, job):
        store.jobs.add(job())
        store.measurements.append(
            [point(m) for m in range(5)], device="cpu", environment=environment, job_id="job"
        )
        store.measurements.append(
            [point(9, kind="attention")], device="local", environment=environment
        )
        page = store.measurements.page(PageRequest(2), device="cpu", kind="linear", job_id="job")
        assert (page.total_size, len(page.items)) == (5, 2)
        assert [row.measurement.shape["m"] for row in page.items] == [4, 3]
        assert {(row.device, row.job_id) for row in page.items} == {("cpu", "job")}
        assert store.measurements.page(PageRequest(), kind="attention").items[0].job_id == ""
        assert store.measurements.page(PageRequest(), device="h100-sxm").total_size == 0

    @settings(
        max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(1, 4))
    def test_pages_stay_put_while_rows_are_added(self, store, environment, point, added, size):
        store.measurements.append(
            [point(m) for m in range(7)], device="cpu", environment=environment
        )
        before = [row.id for row in store.measurements.page(PageRequest(1000)).items]
        seen, token = [], ""
        for count in (*added, *([0] * 1000)):
            page = store.measurements.page(PageRequest(size, token))
            seen += [row.id for row in page.items]
            token = page.next_token
            if not token:
                break
            store.measurements.append([point()] * count, device="cpu", environment=environment)
        assert seen == before

    @pytest.mark.parametrize("daemons", [1, 2])
    def test_two_that_import_one_source_at_one_moment_store_it_once(
        self, tmp_path, environment, point, daemons
    ):
        rows = [point(m) for m in range(50)]
        url = f"sqlite:///{tmp_path / 'shared.db'}"
        meeting = Barrier(2)

        def send(store):
            held = []
            for number in range(10):
                source = replace(environment, source=f"paper {number}")
                meeting.wait(30)
                for first in (0, 25):
                    batch = rows[first : first + 25]
                    held.append(
                        store.measurements.append_imported(
                            batch, first=first, device="h100-sxm", environment=source
                        )
                    )
            return held

        with ExitStack() as opened, ThreadPoolExecutor(2) as pool:
            folders = [tmp_path / str(index) for index in range(daemons)]
            stores = [opened.enter_context(Store(folder, url)) for folder in folders]
            sent = list(pool.map(send, (stores[0], stores[-1])))
            for number in range(10):
                source = replace(environment, source=f"paper {number}")
                assert stores[0].measurements.of("h100-sxm", source.fingerprint) == tuple(rows)
        assert all(counts[1::2] == [50] * 10 for counts in sent)

    def test_threads_may_write_at_one_time(self, store, environment, point, job):
        store.jobs.add(job())

        def write(m):
            store.measurements.append(
                [point(m)], device="cpu", environment=environment, job_id="job"
            )

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(40)))
        assert store.jobs.get("job").measurement_count == 40


class TestPaging:
    @pytest.mark.parametrize("size", [-1, 1001, 2**31 - 1])
    def test_a_size_out_of_range_names_its_field(self, size):
        with pytest.raises(InvalidFieldError) as caught:
            PageRequest(size)
        assert caught.value.field == "page_size"

    @given(st.text(min_size=1))
    def test_a_made_up_token_names_its_field(self, token):
        with pytest.raises(InvalidFieldError) as caught:
            PageRequest(0, token).position("devices")
        assert caught.value.field == "page_token"

    def test_a_token_of_another_listing_is_refused(self):
        token = page_of("devices", range(9), PageRequest(2)).next_token
        with pytest.raises(InvalidFieldError):
            page_of("architectures", range(9), PageRequest(2, token))

    @given(st.integers(0, 40), st.integers(1, 12))
    def test_pages_of_a_list_are_the_list(self, count, size):
        seen, token = [], ""
        while True:
            page = page_of("things", range(count), PageRequest(size, token))
            seen += page.items
            token = page.next_token
            assert page.total_size == count
            if not token:
                break
        assert seen == list(range(count))


class TestJobs:
    def test_come_back_as_they_were(self, store, job, at):
        full = job(
            state=JobState.FAILED,
            target_error=0.05,
            precisions=(Precision.FP8_BLOCK,),
            ranks=8,
            schedule_id="s",
            spent_s=3.5,
            progress=0.25,
            status="linear",
            error_message="worker killed",
            cost_model="cm",
            skipped=("too large",),
            start_time=at(1),
            end_time=at(2),
        )
        store.jobs.add(full)
        assert store.jobs.get("job") == full
        assert store.jobs.get("none") is None

    def test_an_update_leaves_the_count_of_measurements(self, store, environment, point, job):
        store.jobs.add(job())
        store.measurements.append([point()], device="cpu", environment=environment, job_id="job")
        store.jobs.update(job(state=JobState.RUNNING, spent_s=2.0))
        assert store.jobs.get("job") == job(
            state=JobState.RUNNING, spent_s=2.0, measurement_count=1
        )

    def test_the_unfinished_are_listed_oldest_first(self, store, job):
        for number, state in enumerate(JobState):
            store.jobs.add(job(f"j{number}", state=state))
        assert [found.id for found in store.jobs.unfinished()] == ["j0", "j1"]

    def test_pages_are_newest_first(self, store, job):
        for number in range(3):
            store.jobs.add(job(f"j{number}"))
        page = store.jobs.page(PageRequest(2))
        assert [found.id for found in page.items] == ["j2", "j1"]
        rest = store.jobs.page(PageRequest(2, page.next_token))
        assert [found.id for found in rest.items] == ["j0"]
        assert (rest.total_size, rest.next_token) == (3, "")

    def test_moments_keep_their_instant_in_any_zone(self, store, job, at):
        zone = timezone(timedelta(hours=5, minutes=30))
        store.jobs.add(job(start_time=at(1).astimezone(zone)))
        assert store.jobs.get("job").start_time == at(1)


class TestCostModels:
    def test_the_newest_is_current(self, store, environment, cost_model):
        store.cost_models.add(cost_model("a"), b"trees of a", environment)
        store.cost_models.add(cost_model("b", 1), b"trees of b", environment)
        found = store.cost_models.current("cpu", environment.fingerprint)
        assert found == (cost_model("b", 1), b"trees of b")
        assert store.cost_models.get("a") == cost_model("a", current=False)
        assert store.cost_models.get("none") is None

    def test_devices_and_environments_have_their_own(self, store, environment, cost_model):
        other = replace(environment, threads=4)
        store.cost_models.add(cost_model("a"), b"a", environment)
        store.cost_models.add(cost_model("b", fingerprint=other.fingerprint), b"b", other)
        store.cost_models.add(cost_model("c", device="local"), b"c", environment)
        assert store.cost_models.current("cpu", environment.fingerprint)[1] == b"a"
        assert store.cost_models.current("cpu", other.fingerprint)[1] == b"b"
        assert store.cost_models.current("h100-sxm", "") is None
        page = store.cost_models.page(PageRequest(), device="cpu")
        assert [record.id for record in page.items] == ["b", "a"]
        assert store.cost_models.page(PageRequest()).total_size == 3


class TestSchedules:
    def test_come_back_with_their_runs(self, store, schedule, at):
        store.schedules.add(schedule)
        run = ScheduleRun(time=at(10), outcome=ScheduleOutcome.STARTED, job_id="j")
        assert store.schedules.record_run("s1", run)
        done = replace(run, outcome=ScheduleOutcome.SUCCEEDED, drift=0.0)
        assert store.schedules.record_run("s1", done)
        skipped = ScheduleRun(time=at(20), outcome=ScheduleOutcome.SKIPPED, reason="busy")
        assert store.schedules.record_run("s1", skipped)
        assert store.schedules.set_next_run("s1", at(30))
        expected = replace(schedule, next_run_time=at(30), runs=(skipped, done))
        assert store.schedules.all() == (expected,)
        assert store.schedules.page(PageRequest()).items == (expected,)

    def test_the_latest_twenty_runs_are_kept(self, store, schedule, at):
        store.schedules.add(schedule)
        for number in range(25):
            run = ScheduleRun(time=at(number), outcome=ScheduleOutcome.SKIPPED)
            store.schedules.record_run("s1", run)
        (found,) = store.schedules.all()
        assert [run.time for run in found.runs] == [at(number) for number in range(24, 4, -1)]

    def test_a_deleted_one_is_gone_with_its_runs(self, store, schedule, at):
        run = ScheduleRun(time=at(), outcome=ScheduleOutcome.SKIPPED)
        store.schedules.add(schedule)
        store.schedules.record_run("s1", run)
        assert store.schedules.delete("s1")
        assert not store.schedules.delete("s1")
        assert not store.schedules.record_run("s1", run)
        assert not store.schedules.set_next_run("s1", at())
        assert store.schedules.all() == ()


def test_the_states_of_a_job_s_device_come_back_as_they_were(store, job, at):
    for name in ("one", "other"):
        store.jobs.add(job(name))
    plain = Telemetry(time=at(), utilization=0.5, memory_used_bytes=1, memory_total_bytes=1 << 40)
    full = replace(
        plain,
        time=at(5),
        temperature_celsius=61.0,
        throttle_reasons=("power cap", "heat"),
        processes=("12 train",),
        mig_enabled=False,
    )
    for state in (plain, full):
        store.job_states.append("one", state)
    assert store.job_states.of("one") == (plain, full)
    assert store.job_states.of("other") == ()


def test_what_a_job_measured_last_is_read_a_few_rows_at_a_time(
    store, job, environment, point, monkeypatch
):
    monkeypatch.setattr(measurements, "_ROWS_AT_A_TIME", 2)
    for name in ("one", "other"):
        store.jobs.add(job(name))
    upgraded = replace(environment, torch_version="2.14.0")
    assert store.environments.of_job("one") is None
    store.measurements.append([point(9)], device="cpu", environment=environment, job_id="one")
    for m in range(1, 5):
        spent = {"timing": float(m)} if m < 4 else None
        store.measurements.append(
            [point(m)], device="cpu", environment=upgraded, job_id="one", seconds=spent
        )
    store.measurements.append([point(8)], device="cpu", environment=environment, job_id="other")
    assert store.environments.of_job("one") == upgraded
    rows = list(store.measurements.stream_job("one", upgraded.fingerprint))
    assert [row.measurement for row in rows] == [point(m) for m in range(1, 5)]
    assert [row.seconds for row in rows] == [{"timing": 1.0}, {"timing": 2.0}, {"timing": 3.0}, {}]
