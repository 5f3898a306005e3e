import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from profiler import telemetry
from profiler.interface import Environment
from profiler.telemetry import LocalDevice
from server import live_request
from server.cancellation import Cancellation
from server.devices import DeviceRegistry
from server.predictor import Predictor
from server.profiling import Profiling
from server.rpc_server import RpcServer
from tokenpace.v1 import profiler_pb2 as pb
from tokenpace.v1 import profiler_pb2_grpc, types_pb2
from tokenpace.v1.latency_pb2 import PredictRequest

BEYOND_ALL_IDS = 1 << 22
"""The kernel gives no process a number from here on."""


@pytest.fixture
def serve(state, scripted):
    """Serves the profiler service with workers that behave as told."""
    served = []

    def start(behaviour="five", devices=state.devices, **changes):
        configuration = replace(state.configuration, address="127.0.0.1:0", **changes)
        own = replace(state, configuration=configuration, devices=devices)
        profiling = Profiling(own, Predictor(devices, state.cost_models), scripted(behaviour))
        server = RpcServer(
            configuration,
            {
                "tokenpace.v1.ProfilerService": lambda server: (
                    profiler_pb2_grpc.add_ProfilerServiceServicer_to_server(
                        profiling.service, server
                    )
                )
            },
        )
        server.start()
        profiling.start()
        channel = grpc.insecure_channel(server.address)
        stub = profiler_pb2_grpc.ProfilerServiceStub(channel)
        served.append((server, profiling, channel))
        return SimpleNamespace(stub=stub, profiling=profiling, server=server)

    yield start
    for server, profiling, channel in served:
        channel.close()
        profiling.drain()
        server.stop(0)


@pytest.fixture
def cores(state, monkeypatch):
    """Gives the machine so many cores, and a rank one thread."""
    cpu = state.devices.get("local")
    one = replace(cpu, environment=replace(cpu.environment, threads=1))
    monkeypatch.setattr(state.devices, "get_local", lambda *_: one)

    def give(count):
        monkeypatch.setattr(telemetry, "core_count", lambda: count)

    return give


def seconds(value):
    message = Duration()
    message.FromMilliseconds(round(value * 1000))
    return message


def measure_request(**changes):
    values = {
        "model": types_pb2.ModelSpec(preset="smollm2-135m"),
        "workload": types_pb2.Workload(input_tokens=32, output_tokens=8),
    }
    return pb.MeasureRequest(**values | changes)


def failure(call, request, timeout=30):
    """Code, message and details of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        answer = call(request, timeout=timeout)
        if hasattr(answer, "__iter__"):
            list(answer)
    error = caught.value
    status = rpc_status.from_call(error)
    found = SimpleNamespace(code=error.code(), message=error.details(), fields=[], reason=None)
    for detail in status.details if status is not None else ():
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.PreconditionFailure,
            error_details_pb2.RetryInfo,
            error_details_pb2.ResourceInfo,
        ):
            if detail.Is(kind.DESCRIPTOR):
                message = kind.FromString(detail.value)
                setattr(found, kind.DESCRIPTOR.name, message)
    if hasattr(found, "BadRequest"):
        found.fields = [violation.field for violation in found.BadRequest.field_violations]
    if hasattr(found, "ErrorInfo"):
        found.reason = found.ErrorInfo.reason
    return found


# --- Measure -------------------------------------------------------------------


def test_measure_streams_progress_and_the_result_beside_the_prediction(serve, state, workers):
    events = list(serve("live").stub.Measure(measure_request(), timeout=20))
    assert [event.WhichOneof("event") for event in events] == ["progress"] * 2 + ["result"]
    assert events[1].progress == pb.Progress(fraction=0.5, text="half")
    result = events[-1].result
    assert (result.ttft_ms.median, result.ttft_ms.samples) == (20.0, 5)
    assert result.prediction.ttft_ms.value > 0
    assert result.ttft_residual == pytest.approx(20 / result.prediction.ttft_ms.value - 1)
    assert result.tpot_residual == pytest.approx(20 / result.prediction.tpot_ms.value - 1)
    assert result.energy_per_token_joules == 0.25
    assert result.environment.fingerprint == state.devices.get("local").fingerprint
    assert [(w.code, w.text) for w in result.warnings] == [("MEASUREMENT_NOTE", "a note")]
    assert not workers()


def test_a_trace_tells_what_holds_a_pass_back_and_where_it_lies(serve, tmp_path):
    old = [tmp_path / "traces" / f"2020010{i}-x.trace.json.gz" for i in range(10)]
    old += [tmp_path / "traces" / f"2020011{i}-x.trace.json.gz" for i in range(10)]
    old[0].parent.mkdir()
    for path in old:
        path.touch()
    request = measure_request(trace=True)
    result = list(serve("live").stub.Measure(request, timeout=20))[-1].result
    path = Path(result.trace.path)
    assert path.read_text() == "a trace"
    assert sorted(path.parent.iterdir()) == [*old[1:], path]
    prefill, decode = result.trace.phases
    assert (prefill.phase, decode.phase) == (types_pb2.PHASE_PREFILL, types_pb2.PHASE_DECODE)
    for phase in (prefill, decode):
        assert phase.measured_ms == 20.0
        assert phase.overhead_ms == pytest.approx(20 * (1 - 8 / 10))
        assert phase.traced_ms == 10.0
        assert phase.roofline_share == pytest.approx((phase.bandwidth_ms + phase.compute_ms) / 20)
        assert [(k.name, k.calls, k.latency_ms, k.share) for k in phase.kernels] == [
            ("matmul", 4, 8.0, 0.8)
        ]
        assert phase.communication_ms == 0
    # Weights are read once for few tokens; the parts are those of the smallest model here.
    assert decode.bandwidth_ms > decode.compute_ms
    assert decode.bound in {"bandwidth", "overhead"}


def test_without_a_trace_asked_for_none_is_told_or_kept(serve, tmp_path):
    result = list(serve("live").stub.Measure(measure_request(), timeout=20))[-1].result
    assert not result.HasField("trace")
    assert not (tmp_path / "traces").exists()


def test_a_folder_that_takes_no_trace_is_told_before_anything_is_measured(serve, tmp_path):
    (tmp_path / "traces").write_text("a file")
    found = failure(serve("live").stub.Measure, measure_request(trace=True))
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_TRACE")


def test_measure_without_output_has_no_tpot(serve):
    request = measure_request(workload=types_pb2.Workload(input_tokens=32))
    result = list(serve("live").stub.Measure(request, timeout=20))[-1].result
    assert not result.HasField("tpot_ms")
    assert result.tpot_residual == 0
    assert not result.HasField("energy_per_token_joules")


def test_the_worker_is_told_what_is_asked(serve, cores):
    cores(3)
    request = measure_request(
        scope=pb.MEASURE_SCOPE_MODEL,
        precision=types_pb2.PRECISION_BF16,
        parallelism=types_pb2.Parallelism(tensor=3),
        budget=seconds(9),
        engine="torch",
        trace=True,
        torch_compile=True,
    )
    found = failure(serve("told").stub.Measure, request)
    assert found.message == "not measured: torch model 3 cpu+cpu+cpu bf16 9 32 traced compiled"


def test_a_trace_of_ranks_tells_what_they_exchange(serve, cores):
    cores(3)
    request = measure_request(parallelism=types_pb2.Parallelism(tensor=3), trace=True)
    result = list(serve("live").stub.Measure(request, timeout=20))[-1].result
    for phase in result.trace.phases:
        assert phase.communication_ms == pytest.approx(20 * 1 / 10)
        assert phase.overhead_ms == pytest.approx(20 * 2 / 10)


def test_where_cores_are_too_few_for_the_ranks_that_is_told(serve, cores):
    cores(2)
    request = measure_request(parallelism=types_pb2.Parallelism(tensor=3))
    found = failure(serve("told").stub.Measure, request)
    assert " 3 3 ranks of 1 threads need more than the 2 cores " in found.message


def test_what_ranks_exchange_is_added_where_one_runs_alone(serve, state, cores):
    cores(1)
    parallelism = types_pb2.Parallelism(tensor=3)
    asked = measure_request(parallelism=parallelism, trace=True)
    result = list(serve("live").stub.Measure(asked))[-1].result
    assert not result.prediction.breakdown
    note, warning = result.warnings
    assert (note.text, warning.code) == ("a note", "EXCHANGES_PREDICTED")
    assert "as predicted by the data sheet" in warning.text
    request = PredictRequest(
        model=types_pb2.ModelSpec(preset="smollm2-135m"),
        workload=types_pb2.Workload(input_tokens=32, output_tokens=8),
        parallelism=parallelism,
        include_breakdown=True,
    )
    rows = Predictor(state.devices, state.cost_models).predict(request).breakdown
    for traced, spread, residual, predicted in zip(
        result.trace.phases,
        (result.ttft_ms, result.tpot_ms),
        (result.ttft_residual, result.tpot_residual),
        (result.prediction.ttft_ms, result.prediction.tpot_ms),
        strict=True,
    ):
        names = {"all_reduce", "all_gather"}
        added = sum(r.latency_ms for r in rows if r.phase == traced.phase and r.name in names)
        assert added > 0
        assert spread.median == pytest.approx(20 + added)
        assert (spread.p10, spread.p90) == pytest.approx((19 + added, 21 + added))
        assert traced.measured_ms == spread.median
        assert traced.communication_ms == pytest.approx(added)
        assert traced.overhead_ms == pytest.approx(20 * 2 / 10)
        assert residual == pytest.approx(spread.median / predicted.value - 1)


@pytest.mark.parametrize("preset", ["qwen1.5-moe-a2.7b", "deepseek-v2-lite"])
def test_experts_and_latent_attention_reach_the_worker(serve, preset):
    request = measure_request(
        model=types_pb2.ModelSpec(preset=preset), precision=types_pb2.PRECISION_BF16
    )
    found = failure(serve("told").stub.Measure, request)
    assert found.message == "not measured: transformers layer 1  bf16 30 32"


@pytest.mark.parametrize(
    ("changes", "code", "reason", "field"),
    [
        ({"engine": "vllm"}, "UNIMPLEMENTED", "ENGINE_NOT_MEASURED", "engine"),
        ({"engine": "no"}, "INVALID_ARGUMENT", "INVALID_FIELD", "engine"),
        ({"device": "h100-sxm"}, "FAILED_PRECONDITION", "DEVICE_NOT_LOCAL", "device"),
        ({"device": "abacus"}, "NOT_FOUND", "DEVICE_NOT_FOUND", ""),
        ({"scope": 7}, "INVALID_ARGUMENT", "INVALID_FIELD", "scope"),
        ({"budget": Duration(seconds=3601)}, "INVALID_ARGUMENT", "INVALID_FIELD", "budget"),
        ({"budget": Duration()}, "INVALID_ARGUMENT", "INVALID_FIELD", "budget"),
        ({"budget": Duration(nanos=-1)}, "INVALID_ARGUMENT", "INVALID_FIELD", "budget"),
        ({"budget": Duration(nanos=2**31 - 1)}, "INVALID_ARGUMENT", "INVALID_FIELD", "budget"),
        (
            {"budget": Duration(seconds=1, nanos=-1)},
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "budget",
        ),
        ({"confidence": 0.3}, "INVALID_ARGUMENT", "INVALID_FIELD", "confidence"),
        (
            {"kv_cache_precision": types_pb2.PRECISION_FP8},
            "UNIMPLEMENTED",
            "KV_CACHE_PRECISION_NOT_MEASURED",
            "kv_cache_precision",
        ),
        (
            {
                "model": types_pb2.ModelSpec(preset="qwen3-30b-a3b"),
                "precision": types_pb2.PRECISION_INT8_WEIGHT_ONLY,
            },
            "UNIMPLEMENTED",
            "ARCHITECTURE_NOT_MEASURED",
            "precision",
        ),
        (
            {"model": types_pb2.ModelSpec(preset="qwen3.5-27b")},
            "UNIMPLEMENTED",
            "ARCHITECTURE_NOT_MEASURED",
            "model",
        ),
        (
            {"model": types_pb2.ModelSpec(preset="deepseek-v3.2")},
            "UNIMPLEMENTED",
            "ARCHITECTURE_NOT_MEASURED",
            "model",
        ),
        (
            {"model": types_pb2.ModelSpec(preset="gpt-oss-20b"), "engine": "torch"},
            "UNIMPLEMENTED",
            "ARCHITECTURE_NOT_MEASURED",
            "model",
        ),
        ({"torch_compile": True}, "INVALID_ARGUMENT", "INVALID_FIELD", "torch_compile"),
        (
            {"workload": types_pb2.Workload(input_tokens=8, concurrency=4)},
            "UNIMPLEMENTED",
            "CONCURRENCY_NOT_MEASURED",
            "workload.concurrency",
        ),
        (
            {"workload": types_pb2.Workload(input_tokens=8, cached_prefix_tokens=4)},
            "UNIMPLEMENTED",
            "PREFIX_AND_CHUNKS_NOT_MEASURED",
            "workload.cached_prefix_tokens",
        ),
        (
            {"parallelism": types_pb2.Parallelism(data=2)},
            "UNIMPLEMENTED",
            "PARALLELISM_NOT_MEASURED",
            "parallelism.data",
        ),
        (
            {"parallelism": types_pb2.Parallelism(pipeline=2)},
            "UNIMPLEMENTED",
            "PARALLELISM_NOT_MEASURED",
            "parallelism.pipeline",
        ),
        (
            {
                "model": types_pb2.ModelSpec(preset="qwen3-30b-a3b"),
                "parallelism": types_pb2.Parallelism(tensor=2, expert=2),
            },
            "UNIMPLEMENTED",
            "PARALLELISM_NOT_MEASURED",
            "parallelism.expert",
        ),
        (
            {"parallelism": types_pb2.Parallelism(tensor=7)},
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "parallelism.tensor",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_a_worker_starts(
    serve, changes, code, reason, field
):
    found = failure(serve("crash").stub.Measure, measure_request(**changes))
    assert (found.code.name, found.reason) == (code, reason)
    assert found.message.startswith(field)
    if code == "INVALID_ARGUMENT":
        assert found.fields == [field]


def test_what_does_not_fit_is_refused_with_the_bytes(serve):
    request = measure_request(
        model=types_pb2.ModelSpec(parameter_count=1e13), scope=pb.MEASURE_SCOPE_MODEL
    )
    found = failure(serve("crash").stub.Measure, request)
    assert (found.code.name, found.reason) == ("FAILED_PRECONDITION", "NOT_ENOUGH_MEMORY")
    (violation,) = found.PreconditionFailure.violations
    assert violation.type == "NOT_ENOUGH_MEMORY"
    figures = found.ErrorInfo.metadata
    # in fp32
    assert int(figures["needed_bytes"]) == pytest.approx(4e13, rel=0.1)
    assert figures["needed_bytes"] in found.message
    assert figures["free_bytes"] in found.message


def test_what_does_not_fit_beside_others_is_refused(serve, state, monkeypatch):
    telemetry = SimpleNamespace(
        processes=(), memory_total_bytes=2_000_000_000, memory_used_bytes=1_900_000_000
    )
    monkeypatch.setattr(type(state.devices), "telemetry", staticmethod(lambda *_: telemetry))
    found = failure(serve("live").stub.Measure, measure_request(scope=pb.MEASURE_SCOPE_MODEL))
    assert (found.code.name, found.reason) == ("FAILED_PRECONDITION", "NOT_ENOUGH_MEMORY")
    assert found.ErrorInfo.metadata["free_bytes"] == "100000000"


@pytest.fixture
def occupied(state, monkeypatch):
    """Another process is on every device."""
    telemetry = SimpleNamespace(
        processes=("12 train",), memory_total_bytes=1 << 40, memory_used_bytes=0
    )
    monkeypatch.setattr(type(state.devices), "telemetry", staticmethod(lambda *_: telemetry))


def test_other_processes_on_the_device_are_told(serve, occupied):
    found = failure(serve("live").stub.Measure, measure_request())
    assert (found.code.name, found.reason) == ("FAILED_PRECONDITION", "DEVICE_IN_USE")
    assert "12 train" in found.message
    assert "force" in found.message
    (violation,) = found.PreconditionFailure.violations
    assert "12 train" in violation.description


def test_a_device_in_use_is_measured_where_that_is_asked_for(serve, occupied):
    events = list(serve("live").stub.Measure(measure_request(force=True), timeout=20))
    assert events[-1].result.ttft_ms.median == 20.0


def test_memory_that_others_have_is_not_free_for_a_forced_measurement(serve, state, monkeypatch):
    telemetry = SimpleNamespace(
        processes=("12 train",), memory_total_bytes=2_000_000_000, memory_used_bytes=1_900_000_000
    )
    monkeypatch.setattr(type(state.devices), "telemetry", staticmethod(lambda *_: telemetry))
    request = measure_request(scope=pb.MEASURE_SCOPE_MODEL, force=True)
    found = failure(serve("crash").stub.Measure, request)
    assert found.reason == "NOT_ENOUGH_MEMORY"
    assert found.ErrorInfo.metadata["free_bytes"] == "100000000"


def test_a_device_in_use_is_profiled_where_that_is_asked_for_alone(serve, occupied):
    stub = serve("sleep").stub
    found = failure(stub.CreateProfileJob, pb.CreateProfileJobRequest(device="cpu"))
    assert (found.code.name, found.reason) == ("FAILED_PRECONDITION", "DEVICE_IN_USE")
    assert "12 train" in found.message
    assert "force" in found.message
    forced = pb.CreateProfileJobRequest(device="cpu", force=True)
    job = stub.CreateProfileJob(forced, timeout=30).profile_job
    stub.CancelProfileJob(pb.CancelProfileJobRequest(id=job.id), timeout=30)


def test_a_few_layers_need_less_than_the_model(state):
    def plan(scope):
        request = measure_request(
            model=types_pb2.ModelSpec(preset="llama-3.1-8b"),
            scope=scope,
            parallelism=types_pb2.Parallelism(tensor=8),
        )
        predictor = Predictor(state.devices, state.cost_models)
        return live_request.live_plan(request, state.devices, predictor)

    few, whole = plan(pb.MEASURE_SCOPE_LAYER), plan(pb.MEASURE_SCOPE_MODEL)
    assert few.needed_bytes < whole.needed_bytes
    # a rank's eighth of 8.03e9 parameters in fp32
    assert whole.needed_bytes == pytest.approx(8.03e9 / 8 * 4, rel=0.1)


@pytest.mark.parametrize(
    ("behaviour", "code", "text"),
    [
        ("crash", "ABORTED", "exit code 3; its last output: the last words"),
        ("killed", "ABORTED", "SIGKILL (out of memory?)"),
        ("fault", "ABORTED", "as told"),
        ("memory", "FAILED_PRECONDITION", "as told"),
        ("unsupported", "UNIMPLEMENTED", "as told"),
        ("budget", "DEADLINE_EXCEEDED", "(as told)"),
        ("nothing", "ABORTED", "without a result"),
    ],
)
def test_what_becomes_of_a_worker_that_cannot(serve, behaviour, code, text, workers):
    found = failure(serve(behaviour).stub.Measure, measure_request())
    assert found.code.name == code
    assert text in found.message
    assert not workers()


@pytest.mark.parametrize("behaviour", ["sleep", "deaf"])
def test_a_budget_that_is_over_ends_the_worker(serve, behaviour, workers):
    stub = serve(behaviour).stub
    begin = time.monotonic()
    found = failure(stub.Measure, measure_request(budget=seconds(0.5)))
    assert time.monotonic() - begin < 20  # they sleep for a minute
    assert found.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert found.message.startswith("budget: 0.5 s were over before the result")
    assert not workers()


def test_a_deadline_ends_the_worker(serve, eventually, workers):
    call = serve("stubborn").stub.Measure(measure_request(), timeout=1)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: not workers())


def test_cancelling_ends_the_worker_and_frees_the_device(serve, eventually, state, workers):
    served = serve("sleep")
    call = served.stub.Measure(measure_request())
    next(call)
    assert len(workers()) == 1
    call.cancel()
    eventually(lambda: not workers())
    queue = served.profiling.jobs.queue(state.devices.get("local"))
    eventually(lambda: not queue.busy)


def test_measures_queue_and_too_many_are_refused(serve, eventually, state, workers):
    served = serve("sleep", max_queue=1)
    queue = served.profiling.jobs.queue(state.devices.get("local"))
    first = served.stub.Measure(measure_request())
    next(first)
    second = served.stub.Measure(measure_request())
    waiting = next(second)
    assert waiting.progress.text == "waiting for local"
    eventually(lambda: queue.waiting == 1)
    third = failure(served.stub.Measure, measure_request())
    assert (third.code.name, third.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
    assert third.RetryInfo.retry_delay.seconds > 0
    first.cancel()
    assert next(second).progress.text == "the worker has started"
    second.cancel()
    eventually(lambda: not workers())


def test_ranks_hold_all_their_devices_and_no_other(serve, monkeypatch, eventually, workers):
    gpus = [
        LocalDevice(
            torch_name=f"cuda:{index}",
            display_name=name,
            memory_bytes=1 << 40,
            last_level_cache_bytes=0,
            environment=Environment(device_name=name, device_kind="cuda"),
        )
        for index, name in enumerate(["one", "another", "one", "one"])
    ]
    cpu = telemetry.local_devices()[-1]
    monkeypatch.setattr(telemetry, "local_devices", lambda: (*gpus, cpu))
    monkeypatch.setattr(DeviceRegistry, "telemetry", staticmethod(lambda *_: None))
    devices = DeviceRegistry()
    served = serve("sleep", devices)
    queues = [served.profiling.jobs.queue(device) for device in devices.local()]

    def measure(device):
        ranks = types_pb2.Parallelism(tensor=3)
        return served.stub.Measure(measure_request(device=device, parallelism=ranks))

    first = measure("local:2")
    assert next(first).progress.text == "the worker has started"
    assert [queue.busy for queue in queues] == [True, False, True, True, False]
    # Whichever is asked for, they are taken in one order: it waits for the first, holding none.
    second = measure("local")
    assert next(second).progress.text == "waiting for local"
    eventually(lambda: queues[0].waiting == 1)
    assert queues[2].waiting == 0
    first.cancel()
    eventually(lambda: next(second).progress.text == "the worker has started")
    second.cancel()
    eventually(lambda: not any(queue.busy for queue in queues))
    assert not workers()


def test_waiting_in_line_does_not_count_against_the_budget(serve, state, monkeypatch):
    waited_s = 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + waited_s)
    monkeypatch.setattr("server.live_measurement.time", clock)
    served = serve("live")
    with served.profiling.jobs.queue(state.devices.get("local")).measurement(Cancellation()):
        events = served.stub.Measure(measure_request(budget=seconds(30)), timeout=60)
        assert next(events).progress.text == "waiting for local"
        waited_s = 3_600.0
    assert list(events)[-1].WhichOneof("event") == "result"


def test_a_measure_goes_ahead_of_a_campaign(serve, eventually):
    stub = serve("both").stub
    job = stub.CreateProfileJob(pb.CreateProfileJobRequest(budget=seconds(30))).profile_job

    def measured():
        return stub.GetProfileJob(pb.GetProfileJobRequest(id=job.id)).profile_job.measurement_count

    before = eventually(measured)
    events = list(stub.Measure(measure_request(), timeout=30))
    assert events[-1].WhichOneof("event") == "result"
    eventually(lambda: measured() > before + 2)
    ended = stub.CancelProfileJob(pb.CancelProfileJobRequest(id=job.id)).profile_job
    assert ended.state == types_pb2.JOB_STATE_CANCELLED


def test_a_campaigns_worker_under_an_id_of_the_host_is_no_other(
    serve, state, monkeypatch, eventually
):
    """As in a container; such an id is no process's here."""
    ours, other, listed = f"{BEYOND_ALL_IDS + 1} ?", f"{BEYOND_ALL_IDS + 2} ?", []

    def telemetry(device, own=()):
        return SimpleNamespace(
            processes=tuple(listed), memory_total_bytes=1 << 40, memory_used_bytes=0
        )

    monkeypatch.setattr(type(state.devices), "telemetry", staticmethod(telemetry))
    stub = serve("both").stub

    def campaign(**changes):
        request = pb.CreateProfileJobRequest(budget=seconds(60), **changes)
        job = stub.CreateProfileJob(request, timeout=30).profile_job
        get = pb.GetProfileJobRequest(id=job.id)
        eventually(lambda: stub.GetProfileJob(get).profile_job.measurement_count)
        listed.append(ours)
        return job.id

    first = campaign()
    assert list(stub.Measure(measure_request(), timeout=30))[-1].HasField("result")
    stub.CancelProfileJob(pb.CancelProfileJobRequest(id=first), timeout=30)
    listed[:] = [other]
    second = campaign(force=True)
    found = failure(stub.Measure, measure_request())
    assert found.reason == "DEVICE_IN_USE"
    assert other in found.message
    assert ours not in found.message
    stub.CancelProfileJob(pb.CancelProfileJobRequest(id=second), timeout=30)


def test_more_streams_than_there_are_threads_for_are_refused(serve, eventually, workers):
    stub = serve("sleep", max_streams=1).stub
    first = stub.Measure(measure_request())
    next(first)
    found = failure(stub.Measure, measure_request())
    assert (found.code.name, found.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS")
    # short calls are still answered
    assert stub.ListProfileJobs(pb.ListProfileJobsRequest(), timeout=5).total_size == 0
    first.cancel()
    eventually(lambda: not workers())


# --- jobs ----------------------------------------------------------------------


def test_a_job_from_its_creation_to_its_end(serve, state):
    stub = serve("five").stub
    job = stub.CreateProfileJob(
        pb.CreateProfileJobRequest(device="cpu", budget=seconds(30), target_error=0.1)
    ).profile_job
    assert job.state == types_pb2.JOB_STATE_QUEUED
    assert job.budget == seconds(30)
    assert not job.HasField("spent")
    *_, last = stub.WatchProfileJob(pb.WatchProfileJobRequest(id=job.id), timeout=20)
    done = last.profile_job
    assert done.state == types_pb2.JOB_STATE_SUCCEEDED
    assert (done.measurement_count, done.progress) == (5, 1.0)
    assert done.skipped == ["too large"]
    assert done.cost_model == state.cost_models.current(state.devices.get("cpu")).record.id
    assert done.HasField("start_time")
    assert done.end_time.ToDatetime() >= done.start_time.ToDatetime()
    assert 0.0 < done.spent.ToTimedelta().total_seconds() < 30.0
    assert stub.GetProfileJob(pb.GetProfileJobRequest(id=job.id)).profile_job == done
    listed = stub.ListProfileJobs(pb.ListProfileJobsRequest())
    assert (list(listed.profile_jobs), listed.total_size) == ([done], 1)


def test_a_job_without_settings_takes_the_defaults(serve):
    stub = serve("sleep").stub
    job = stub.CreateProfileJob(pb.CreateProfileJobRequest()).profile_job
    assert (job.device, job.budget.seconds) == ("local", 120)
    assert not job.HasField("end_time")
    stub.CancelProfileJob(pb.CancelProfileJobRequest(id=job.id))


@pytest.mark.parametrize(
    ("changes", "code", "fields"),
    [
        ({"budget": seconds(0.5)}, "INVALID_ARGUMENT", ["budget"]),
        ({"budget": seconds(86_401)}, "INVALID_ARGUMENT", ["budget"]),
        ({"target_error": float("nan")}, "INVALID_ARGUMENT", ["target_error"]),
        ({"target_error": 1.5}, "INVALID_ARGUMENT", ["target_error"]),
        ({"ranks": -1}, "INVALID_ARGUMENT", ["ranks"]),
        ({"ranks": 4_096}, "INVALID_ARGUMENT", ["ranks"]),
        ({"precisions": [99]}, "INVALID_ARGUMENT", ["precisions[0]"]),
        ({"precisions": [1, 0]}, "INVALID_ARGUMENT", ["precisions[1]"]),
        ({"precisions": [1] * 40}, "INVALID_ARGUMENT", ["precisions"]),
        (
            {"budget": Duration(seconds=-5), "target_error": -1},
            "INVALID_ARGUMENT",
            ["budget", "target_error"],
        ),
        ({"device": "h100-sxm"}, "FAILED_PRECONDITION", []),
        ({"device": "abacus"}, "NOT_FOUND", ["device"]),
    ],
)
def test_a_bad_job_is_refused(serve, changes, code, fields):
    stub = serve().stub
    found = failure(stub.CreateProfileJob, pb.CreateProfileJobRequest(**changes))
    assert (found.code.name, found.fields) == (code, fields)
    assert stub.ListProfileJobs(pb.ListProfileJobsRequest()).total_size == 0


def test_too_many_jobs_are_refused(serve, eventually):
    stub = serve("sleep", max_queue=1).stub
    for _ in range(2):
        stub.CreateProfileJob(pb.CreateProfileJobRequest())
    found = failure(stub.CreateProfileJob, pb.CreateProfileJobRequest())
    assert (found.code.name, found.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
    assert found.RetryInfo.retry_delay.seconds > 0


def test_a_job_is_exported_with_its_device_s_states_in_the_order_of_time(serve, state):
    stub = serve("watched").stub
    job = stub.CreateProfileJob(pb.CreateProfileJobRequest(budget=seconds(30))).profile_job
    *_, last = stub.WatchProfileJob(pb.WatchProfileJobRequest(id=job.id), timeout=20)
    lines = list(stub.ExportProfileJob(pb.ExportProfileJobRequest(id=job.id)))
    kinds = [line.WhichOneof("line") for line in lines]
    assert kinds[:2] == ["origin", "state"]
    assert sorted(kinds[2:]) == ["measurement"] * 3 + ["state"]
    times = [
        (line.state.time if kind == "state" else line.measurement.create_time).ToDatetime()
        for kind, line in zip(kinds[1:], lines[1:], strict=True)
    ]
    assert times == sorted(times)
    origin = lines[0].origin
    cpu = state.devices.get("cpu")
    assert origin.profile_job == last.profile_job
    assert origin.environment.fingerprint == cpu.fingerprint
    assert (origin.data_sheet, origin.memory_bytes) == ("", cpu.sheet.memory_bytes)
    measured = [line.measurement for line in lines if line.HasField("measurement")]
    assert [row.shape["m"] for row in measured] == [0.0, 1.0, 2.0]
    assert [row.seconds["timing"] for row in measured] == [1.0, 2.0, 3.0]
    assert all(line.state.memory_used_bytes > 0 for line in lines if line.HasField("state"))


def test_a_job_that_measured_nothing_has_nothing_to_export(serve):
    stub = serve("sleep").stub
    job = stub.CreateProfileJob(pb.CreateProfileJobRequest()).profile_job
    found = failure(stub.ExportProfileJob, pb.ExportProfileJobRequest(id=job.id))
    assert (found.code.name, found.reason) == ("FAILED_PRECONDITION", "NO_MEASUREMENTS")


@pytest.mark.parametrize(
    "call", ["GetProfileJob", "CancelProfileJob", "WatchProfileJob", "ExportProfileJob"]
)
def test_an_unknown_job_is_not_found(serve, call):
    stub = serve().stub
    request = getattr(pb, f"{call}Request")
    found = failure(getattr(stub, call), request(id="job-none"))
    assert (found.code.name, found.reason) == ("NOT_FOUND", "PROFILE_JOB_NOT_FOUND")
    assert found.fields == ["id"]
    found = failure(getattr(stub, call), request())
    assert (found.code.name, found.fields) == ("INVALID_ARGUMENT", ["id"])


def test_a_watcher_is_sent_away_when_the_daemon_drains(serve):
    served = serve("sleep")
    job = served.stub.CreateProfileJob(pb.CreateProfileJobRequest()).profile_job
    threading.Timer(0.5, served.profiling.drain).start()
    found = failure(served.stub.WatchProfileJob, pb.WatchProfileJobRequest(id=job.id))
    assert (found.code.name, found.reason) == ("UNAVAILABLE", "DRAINING")
    found = failure(served.stub.CreateProfileJob, pb.CreateProfileJobRequest())
    assert (found.code.name, found.reason) == ("UNAVAILABLE", "DRAINING")


# --- profiling on start --------------------------------------------------------


def test_quick_profiling_skips_a_device_that_has_a_cost_model(serve, state, eventually):
    first = serve("five", profile_on_start="quick", quick_budget=30.0)
    (job,) = first.stub.ListProfileJobs(pb.ListProfileJobsRequest()).profile_jobs
    assert job.budget == seconds(30)
    eventually(lambda: state.cost_models.current(state.devices.get("local")))
    first.profiling.drain()
    second = serve("five", profile_on_start="quick")
    assert second.stub.ListProfileJobs(pb.ListProfileJobsRequest()).total_size == 1
    second.profiling.drain()
    third = serve("five", profile_on_start="full", full_budget=60.0)
    jobs = third.stub.ListProfileJobs(pb.ListProfileJobsRequest()).profile_jobs
    assert [job.budget.seconds for job in jobs] == [60, 30]


# --- schedules -----------------------------------------------------------------


def test_a_schedule_from_its_creation_to_its_end(serve, eventually):
    stub = serve("five").stub
    made = stub.CreateSchedule(
        pb.CreateScheduleRequest(interval=seconds(1), budget=seconds(20))
    ).schedule
    assert (made.device, made.interval.seconds, made.cron) == ("local", 1, "")
    assert made.next_run_time.ToMilliseconds() - made.create_time.ToMilliseconds() == 1000

    def run():
        (listed,) = stub.ListSchedules(pb.ListSchedulesRequest()).schedules
        return [r for r in listed.runs if r.outcome == pb.SCHEDULE_OUTCOME_SUCCEEDED]

    (done, *_) = eventually(run)
    job = stub.GetProfileJob(pb.GetProfileJobRequest(id=done.job_id)).profile_job
    assert job.schedule_id == made.id
    stub.DeleteSchedule(pb.DeleteScheduleRequest(id=made.id))
    assert stub.ListSchedules(pb.ListSchedulesRequest()).total_size == 0


def test_a_cron_schedule(serve):
    stub = serve().stub
    made = stub.CreateSchedule(pb.CreateScheduleRequest(cron="0 3 * * *")).schedule
    assert (made.cron, made.budget.seconds) == ("0 3 * * *", 120)
    assert not made.HasField("interval")
    assert made.next_run_time.ToDatetime().strftime("%H:%M:%S") == "03:00:00"


@pytest.mark.parametrize(
    ("changes", "code", "fields"),
    [
        ({}, "INVALID_ARGUMENT", ["cron"]),
        ({"cron": "every night"}, "INVALID_ARGUMENT", ["cron"]),
        ({"cron": "0 0 30 2 *"}, "INVALID_ARGUMENT", ["cron"]),
        ({"interval": seconds(0.5)}, "INVALID_ARGUMENT", ["interval"]),
        ({"interval": Duration(seconds=2**62)}, "INVALID_ARGUMENT", ["interval"]),
        ({"cron": "0 3 * * *", "budget": seconds(0.1)}, "INVALID_ARGUMENT", ["budget"]),
        ({"cron": "0 3 * * *", "device": "l4"}, "FAILED_PRECONDITION", []),
    ],
)
def test_a_bad_schedule_is_refused(serve, changes, code, fields):
    found = failure(serve().stub.CreateSchedule, pb.CreateScheduleRequest(**changes))
    assert (found.code.name, found.fields) == (code, fields)
    if fields == ["cron"]:
        assert "0 3 * * *" in found.message


def test_an_unknown_schedule_is_not_found(serve):
    stub = serve().stub
    found = failure(stub.DeleteSchedule, pb.DeleteScheduleRequest(id="schedule-none"))
    assert (found.code.name, found.reason) == ("NOT_FOUND", "SCHEDULE_NOT_FOUND")
    found = failure(stub.DeleteSchedule, pb.DeleteScheduleRequest())
    assert (found.code.name, found.fields) == ("INVALID_ARGUMENT", ["id"])
