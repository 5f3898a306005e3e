"""Kills, crashes, deadlines and restarts, with the real worker: nothing is lost, nothing stays."""

import contextlib
import os
import signal
import time

import grpc
import psutil
import pytest
from google.protobuf import struct_pb2
from google.protobuf.duration_pb2 import Duration

from profiler.processor import core_count
from tokenpace.v1 import catalog_pb2, latency_pb2, types_pb2
from tokenpace.v1 import profiler_pb2 as pb

GONE_S = 20.0
"""What was not ended stays for minutes, and a busy machine may take seconds for anything."""
KILLED_S = 5.0
"""In which a killed daemon takes its workers along: 2 s are promised, and this machine is busy."""
MODEL = types_pb2.ModelSpec(preset="smollm2-135m")
WORKLOAD = types_pb2.Workload(input_tokens=8, output_tokens=3)
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "vocab_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture
def running(start_daemon):
    """Starts a daemon with few threads in its workers, so that tests share the machine."""

    def start(*flags, **environment):
        return start_daemon(*flags, OMP_NUM_THREADS="1", **environment)

    return start


def seconds(value):
    return Duration(seconds=int(value), nanos=round(value % 1 * 1e9))


def family(daemon):
    """Process ids of a daemon's workers and of what they started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(daemon.pid).children(recursive=True)]
    return []


def alive(pids):
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def eventually(condition, timeout_s=180.0):
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.05)
    return value


def started(daemon, budget_s=300.0):
    """Starts a job and returns its id once it has measured something."""
    request = pb.CreateProfileJobRequest(budget=seconds(budget_s))
    job_id = daemon.profiler.CreateProfileJob(request).profile_job.id
    eventually(lambda: job(daemon, job_id).measurement_count > 1)
    return job_id


def job(daemon, job_id):
    return daemon.profiler.GetProfileJob(pb.GetProfileJobRequest(id=job_id)).profile_job


def stored(daemon, job_id):
    """Measurements of a job, oldest first."""
    request = catalog_pb2.ListMeasurementsRequest(page_size=1_000, job_id=job_id)
    return list(daemon.catalog.ListMeasurements(request).measurements)[::-1]


def predict(daemon):
    request = latency_pb2.PredictRequest(model=MODEL, workload=WORKLOAD)
    return daemon.latency.Predict(request, timeout=GONE_S)


def measures_more(daemon, job_id):
    """Waits until a job has measured more, and returns all that it has."""
    count = job(daemon, job_id).measurement_count
    eventually(lambda: job(daemon, job_id).measurement_count > count)
    return stored(daemon, job_id)


def left(pids):
    """Returns those of the processes that outlive the time that they may take to end."""
    end = time.monotonic() + KILLED_S
    while (found := alive(pids())) and time.monotonic() < end:
        time.sleep(0.05)
    return found


UNFINISHED = (types_pb2.JOB_STATE_QUEUED, types_pb2.JOB_STATE_RUNNING)


def test_a_job_goes_on_after_a_kill_and_after_a_drain(running):
    with running() as daemon:
        job_id = started(daemon)
        workers = family(daemon)
        assert workers
        reported = stored(daemon, job_id)
        budget = job(daemon, job_id).budget
        daemon.kill()
        assert left(lambda: workers) == []
    with running("--drain-seconds", "60") as daemon:
        assert job(daemon, job_id).state in UNFINISHED
        assert stored(daemon, job_id)[: len(reported)] == reported
        # and the same job measures more, of what is left of the same budget
        reported = measures_more(daemon, job_id)
        assert job(daemon, job_id).budget == budget
        assert job(daemon, job_id).state == types_pb2.JOB_STATE_RUNNING
        workers = family(daemon)
        assert workers
        watching = daemon.profiler.WatchProfileJob(pb.WatchProfileJobRequest(id=job_id))
        next(watching)
        daemon.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            list(watching)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert daemon.process.wait(timeout=GONE_S) == 0
        assert alive(workers) == []
    with running() as daemon:
        assert job(daemon, job_id).state in UNFINISHED
        assert stored(daemon, job_id)[: len(reported)] == reported
        workers = eventually(lambda: family(daemon))
        cancelled = daemon.profiler.CancelProfileJob(pb.CancelProfileJobRequest(id=job_id))
        assert cancelled.profile_job.state == types_pb2.JOB_STATE_CANCELLED
        assert alive([*workers, *family(daemon)]) == []


@pytest.mark.skipif(core_count() < 2, reason="each of two ranks needs a core of its own")
def test_ranks_are_measured_together_and_end_with_their_worker(running):
    config = struct_pb2.Struct()
    config.update({"model_type": "llama", **SMALL})
    request = pb.MeasureRequest(
        model=types_pb2.ModelSpec(huggingface_config=config),
        workload=WORKLOAD,
        parallelism=types_pb2.Parallelism(tensor=2),
        engine="torch",
        budget=seconds(120),
    )
    with running() as daemon:
        *_, last = daemon.profiler.Measure(request, timeout=150)
        assert "2 tensor-parallel ranks were run" in last.result.warnings[0].text
        assert last.result.tpot_ms.median > 0
        assert left(lambda: family(daemon)) == []

        request.workload.output_tokens = 4_096
        call = daemon.profiler.Measure(request, timeout=150)
        eventually(lambda: len(family(daemon)) > 2)
        (worker,) = psutil.Process(daemon.pid).children()
        ranks = [child.pid for child in worker.children()]
        worker.kill()
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.ABORTED
        assert len(ranks) >= 2
        assert left(lambda: ranks) == []


def test_a_measure_goes_ahead_of_a_campaign_whose_worker_is_then_killed(running):
    with running() as daemon:
        job_id = started(daemon)
        request = pb.MeasureRequest(model=MODEL, workload=WORKLOAD, budget=seconds(300))
        *_, last = daemon.profiler.Measure(request, timeout=300)
        result = last.result
        assert result.ttft_ms.samples >= 1
        assert result.tpot_ms.median > 0
        predicted = result.prediction.ttft_ms.value
        assert result.ttft_residual == pytest.approx(result.ttft_ms.median / predicted - 1)
        measures_more(daemon, job_id)
        (worker,) = family(daemon)
        os.kill(worker, signal.SIGKILL)
        failed = eventually(
            lambda: (j := job(daemon, job_id)).state == types_pb2.JOB_STATE_FAILED and j, GONE_S
        )
        assert failed.error_message == "worker killed by SIGKILL (out of memory?)"
        assert len(stored(daemon, job_id)) == failed.measurement_count > 2
        assert predict(daemon).ttft_ms.value > 0


def measuring(daemon, **options):
    request = pb.MeasureRequest(
        model=types_pb2.ModelSpec(preset="qwen2.5-0.5b"),
        workload=types_pb2.Workload(input_tokens=2_048, output_tokens=512),
        budget=seconds(300),
    )
    return daemon.profiler.Measure(request, **options)


def test_a_measure_that_is_cancelled_or_past_its_deadline_leaves_nothing(running):
    with running() as daemon:
        call = measuring(daemon)
        next(call)
        workers = eventually(lambda: family(daemon))
        call.cancel()
        assert left(lambda: [*workers, *family(daemon)]) == []
        assert predict(daemon).ttft_ms.value > 0
        # long enough for the real worker to have loaded and to measure
        call = measuring(daemon, timeout=6)
        workers = eventually(lambda: family(daemon))
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert left(lambda: [*workers, *family(daemon)]) == []


def test_a_schedule_is_kept_over_a_restart_and_skips_a_busy_device(running):
    with running() as daemon:
        request = pb.CreateScheduleRequest(interval=seconds(1), budget=seconds(300))
        schedule = daemon.profiler.CreateSchedule(request).schedule
        daemon.kill()
    with running() as daemon:

        def runs():
            (kept,) = daemon.profiler.ListSchedules(pb.ListSchedulesRequest()).schedules
            assert kept.id == schedule.id
            return kept.runs

        skipped = eventually(
            lambda: [run for run in runs() if run.outcome == pb.SCHEDULE_OUTCOME_SKIPPED]
        )
        assert skipped[0].reason.startswith("device busy: job ")
        (first,) = [run for run in runs() if run.job_id]
        assert first.outcome == pb.SCHEDULE_OUTCOME_STARTED
        assert job(daemon, first.job_id).schedule_id == schedule.id
        daemon.profiler.DeleteSchedule(pb.DeleteScheduleRequest(id=schedule.id))
        daemon.profiler.CancelProfileJob(pb.CancelProfileJobRequest(id=first.job_id))
