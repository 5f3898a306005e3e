import inspect
import threading
import time
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from tokenpace.arguments import ArgumentError
from tokenpace.client import Client, TokenpaceError, predict_request
from tokenpace.v1 import catalog_pb2, latency_pb2, profiler_pb2, types_pb2


def test_predict_sends_every_argument_and_returns_the_response(daemon, client):
    daemon.answers["Predict"] = latency_pb2.PredictResponse(
        tpot_ms=types_pb2.Estimate(value=5, lower=4, upper=6), cost_model="abc"
    )
    answer = client.predict(
        "llama-3.1-8b",
        input_tokens=512,
        output_tokens=128,
        batch_size=2,
        concurrency=3,
        cached_prefix_tokens=4,
        prefill_chunk_tokens=5,
        tensor=2,
        pipeline=6,
        expert=7,
        data=8,
        device="h100-sxm",
        precision="bf16",
        kv_cache_precision="fp8",
        engine="vllm",
        confidence=0.8,
        breakdown=True,
        require_provenance="measured-locally",
        calibration="mine",
    )
    assert answer.tpot_ms.value == 5
    assert daemon.request("Predict") == latency_pb2.PredictRequest(
        model=types_pb2.ModelSpec(preset="llama-3.1-8b"),
        device="h100-sxm",
        workload=types_pb2.Workload(
            input_tokens=512,
            output_tokens=128,
            batch_size=2,
            concurrency=3,
            cached_prefix_tokens=4,
            prefill_chunk_tokens=5,
        ),
        parallelism=types_pb2.Parallelism(tensor=2, pipeline=6, expert=7, data=8),
        precision=types_pb2.PRECISION_BF16,
        kv_cache_precision=types_pb2.PRECISION_FP8,
        engine="vllm",
        confidence=0.8,
        include_breakdown=True,
        require_provenance=types_pb2.PROVENANCE_MEASURED_LOCALLY,
        calibration="mine",
    )


def test_predict_leaves_defaults_to_the_daemon(daemon, client):
    client.predict(7e9, input_tokens=1)
    assert daemon.request("Predict") == latency_pb2.PredictRequest(
        model=types_pb2.ModelSpec(parameter_count=7e9),
        workload=types_pb2.Workload(input_tokens=1),
    )


def test_batch_predict_keeps_the_order(daemon, client):
    daemon.answers["BatchPredict"] = lambda request, _: latency_pb2.BatchPredictResponse(
        results=[
            latency_pb2.BatchPredictResult(
                response=latency_pb2.PredictResponse(cost_model=question.model.preset)
            )
            for question in request.requests
        ]
    )
    answer = client.batch_predict(predict_request(name, input_tokens=1) for name in ("a", "b"))
    assert [result.response.cost_model for result in answer.results] == ["a", "b"]


def test_measure_yields_progress_then_the_result(daemon, client):
    events = [
        profiler_pb2.MeasureResponse(progress=profiler_pb2.Progress(fraction=0.5)),
        profiler_pb2.MeasureResponse(result=profiler_pb2.LiveMeasurement(ttft_residual=0.1)),
    ]
    daemon.answers["Measure"] = lambda *_: iter(events)
    assert list(client.measure("a", input_tokens=8, scope="model", budget="1m30s")) == events
    request = daemon.request("Measure")
    assert request.scope == profiler_pb2.MEASURE_SCOPE_MODEL
    assert request.budget == Duration(seconds=90)
    assert request.force is False


def test_closing_a_stream_cancels_it_at_the_daemon(daemon, client):
    ended = threading.Event()

    def endless(_, context):
        context.add_callback(ended.set)
        while context.is_active():
            yield profiler_pb2.MeasureResponse()
            time.sleep(0.01)

    daemon.answers["Measure"] = endless
    events = client.measure("a", input_tokens=8)
    next(events)
    events.close()
    assert ended.wait(5)


def test_every_rpc_that_is_built_is_called_by_a_method_of_its_own(daemon, client):
    for call in (
        lambda: client.predict("a", input_tokens=1),
        lambda: client.batch_predict([]),
        lambda: list(client.measure("a", input_tokens=1)),
        lambda: client.create_profile_job(budget=timedelta(minutes=2), precisions=["bf16"]),
        lambda: client.profile_job("j"),
        lambda: client.profile_jobs(page_size=3),
        lambda: client.cancel_profile_job("j"),
        lambda: list(client.watch_profile_job("j")),
        lambda: list(client.export_profile_job("j")),
        lambda: client.create_schedule(interval="6h", budget=60),
        client.schedules,
        lambda: client.delete_schedule("s"),
        lambda: client.devices(page_size=7),
        client.device,
        client.architectures,
        lambda: client.architecture("a"),
        lambda: client.cost_models(device="cpu"),
        lambda: client.cost_model("c"),
        lambda: client.fit_cost_model(device="cpu"),
        lambda: client.import_measurements(device="l4", engine="vllm", source="s"),
        lambda: client.measurements(job_id="j", kind="linear"),
        lambda: client.create_calibration("k", [catalog_pb2.CalibrationRow(device="cpu")]),
        lambda: client.calibration("k"),
        lambda: client.calibrations(page_size=2),
        lambda: client.delete_calibration("k"),
    ):
        streams = ("Measure", "WatchProfileJob", "ExportProfileJob")
        daemon.answers.update({name: lambda *_: iter(()) for name in streams})
        call()
    assert set(daemon.called()) == daemon.rpcs - {"Sweep", "Plan"}
    assert daemon.request("CreateProfileJob").precisions == [types_pb2.PRECISION_BF16]
    assert daemon.request("CreateProfileJob").budget == Duration(seconds=120)
    assert daemon.request("CreateSchedule").interval == Duration(seconds=21600)
    assert not daemon.request("CreateSchedule").cron
    assert daemon.request("ListDevices").page_size == 7
    assert daemon.request("ListMeasurements") == catalog_pb2.ListMeasurementsRequest(
        job_id="j", kind="linear"
    )


def test_public_methods_are_documented():
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_"):
            assert method.__doc__, name


def test_a_refusal_carries_code_fields_and_reason(daemon, client, refusal, bad_field):
    daemon.answers["Predict"] = refusal(
        grpc.StatusCode.INVALID_ARGUMENT,
        "workload.input_tokens: 0 is not in 1 to 16777216",
        bad_field,
        error_details_pb2.ErrorInfo(reason="OUT_OF_RANGE", domain="tokenpace"),
    )
    with pytest.raises(TokenpaceError) as caught:
        client.predict("a", input_tokens=0)
    error = caught.value
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [(v.field, v.description) for v in error.field_violations] == [
        ("workload.input_tokens", "0 is not in 1 to 16777216")
    ]
    assert error.reason == "OUT_OF_RANGE"
    assert error.retry_after_s is None
    assert not error.unreachable


def test_a_full_queue_says_when_to_come_back(daemon, client, refusal):
    daemon.answers["Measure"] = refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "queue is full",
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
    )
    with pytest.raises(TokenpaceError) as caught:
        list(client.measure("a", input_tokens=1))
    assert caught.value.retry_after_s == 1.5


def test_details_that_cannot_be_read_leave_code_and_message(daemon, client):
    def refuse(_, context):
        context.set_trailing_metadata([("grpc-status-details-bin", b"\xff\xff")])
        context.abort(grpc.StatusCode.NOT_FOUND, "no such preset")

    daemon.answers["Predict"] = refuse
    with pytest.raises(TokenpaceError, match="NOT_FOUND: no such preset"):
        client.predict("a", input_tokens=1)


def _busy(times):
    """An answer that is unavailable so many times before it is given."""
    left = [times]

    def answer(_, context):
        if left[0]:
            left[0] -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        return latency_pb2.PredictResponse(cost_model="here")

    return answer


def test_reading_calls_are_repeated_while_unavailable(daemon, client):
    daemon.answers["Predict"] = _busy(2)
    assert client.predict("a", input_tokens=1).cost_model == "here"
    assert daemon.called() == ["Predict"] * 3


@pytest.mark.parametrize(
    ("rpc", "call"),
    [
        ("Measure", lambda client: list(client.measure("a", input_tokens=1))),
        ("CreateProfileJob", Client.create_profile_job),
        ("CreateSchedule", lambda client: client.create_schedule(cron="0 3 * * *")),
        ("FitCostModel", Client.fit_cost_model),
    ],
)
def test_calls_that_must_not_run_twice_are_not_repeated(daemon, client, rpc, call):
    daemon.answers[rpc] = _busy(9)
    with pytest.raises(TokenpaceError) as caught:
        call(client)
    assert caught.value.unreachable
    assert daemon.called() == [rpc]


def test_one_attempt_never_repeats(daemon):
    daemon.answers["Predict"] = _busy(1)
    with Client(daemon.address, attempts=1) as client, pytest.raises(TokenpaceError):
        client.predict("a", input_tokens=1)
    assert daemon.called() == ["Predict"]


def test_the_timeout_bounds_a_call(daemon):
    daemon.answers["Predict"] = lambda *_: time.sleep(1) or latency_pb2.PredictResponse()
    with Client(daemon.address, timeout=0.2) as client, pytest.raises(TokenpaceError) as caught:
        client.predict("a", input_tokens=1)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_an_argument_that_does_not_fit_is_named_before_anything_is_sent(daemon, client):
    with pytest.raises(ArgumentError) as caught:
        client.predict("a", input_tokens=2**31)
    assert caught.value.field == "input_tokens"
    with pytest.raises(TypeError, match="batchsize"):
        client.predict("a", input_tokens=1, batchsize=4)
    with pytest.raises(TypeError, match="input_tokens"):
        client.predict("a")
    assert daemon.called() == []
