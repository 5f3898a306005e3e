import threading

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tokenpace import first_run
from tokenpace.v1 import catalog_pb2, latency_pb2, profiler_pb2, types_pb2


def job(state):
    return profiler_pb2.ProfileJob(
        id="job-1", state=state, budget=Duration(seconds=110), progress=0.5, error_message="broken"
    )


@pytest.fixture
def device(daemon):
    """A daemon that knows this device, and answers the first preset alone with an error."""

    def answer(request, _):
        results = [
            latency_pb2.BatchPredictResult(
                response=latency_pb2.PredictResponse(
                    tpot_ms=types_pb2.Estimate(value=41.27, lower=38, upper=45),
                    ttft_ms=types_pb2.Estimate(value=300, lower=280, upper=333),
                )
            )
            for _ in request.requests
        ]
        results[0] = latency_pb2.BatchPredictResult(
            error=latency_pb2.BatchPredictError(code=5, message="no such preset")
        )
        return latency_pb2.BatchPredictResponse(results=results)

    daemon.answers |= {
        "BatchPredict": answer,
        "GetDevice": catalog_pb2.GetDeviceResponse(
            device=catalog_pb2.Device(
                display_name="Some CPU",
                cost_model="7f3a",
                provenance=types_pb2.PROVENANCE_MEASURED_LOCALLY,
            )
        ),
    }
    return daemon


def test_it_waits_for_the_campaign_then_shows_a_table_and_how_to_ask_more(device, capsys):
    device.answers |= {
        "ListProfileJobs": profiler_pb2.ListProfileJobsResponse(
            profile_jobs=[job(types_pb2.JOB_STATE_RUNNING)]
        ),
        "WatchProfileJob": lambda *_: iter(
            [profiler_pb2.WatchProfileJobResponse(profile_job=job(types_pb2.JOB_STATE_SUCCEEDED))]
        ),
    }
    first_run.introduce(device.address, threading.Event())
    out = capsys.readouterr().out
    assert device.request("WatchProfileJob").id == "job-1"
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert (
        "Predicted on Some CPU (measured locally): 128 tokens in, 64 out, static batches"
        in " ".join(lines)
    )
    assert "smollm2-135m 4 41.3 38.0 to 45.0 300 280 to 333" in lines
    assert any(line.startswith("smollm2-135m 1 - no such preset") for line in lines)
    assert f"--address {device.address}" in out
    asked = {request.model.preset for request in device.request("BatchPredict").requests}
    assert asked == set(first_run.PRESETS)


def test_a_device_that_is_known_is_not_waited_for(device, capsys):
    first_run.introduce(device.address, threading.Event())
    assert "WatchProfileJob" not in device.called()
    assert "measured locally" in capsys.readouterr().out


def test_a_campaign_that_fails_is_told_and_the_daemon_stays(device, capsys):
    device.answers |= {
        "ListProfileJobs": profiler_pb2.ListProfileJobsResponse(
            profile_jobs=[job(types_pb2.JOB_STATE_QUEUED)]
        ),
        "WatchProfileJob": lambda *_: iter(
            [profiler_pb2.WatchProfileJobResponse(profile_job=job(types_pb2.JOB_STATE_FAILED))]
        ),
    }
    first_run.introduce(device.address, threading.Event())
    printed = capsys.readouterr()
    assert "error: job job-1 is failed: broken" in printed.err
    assert "predict --model" in printed.out


def test_a_daemon_that_refuses_is_told(device, capsys, refusal):
    device.answers["ListProfileJobs"] = refusal(grpc.StatusCode.INTERNAL, "no store")
    first_run.introduce(device.address, threading.Event())
    assert "no store" in capsys.readouterr().err
