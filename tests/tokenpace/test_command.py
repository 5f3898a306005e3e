import functools
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from reference import campaigns, sources
from tokenpace.command import main
from tokenpace.v1 import catalog_pb2, latency_pb2, profiler_pb2, types_pb2

COMMAND = (
    sys.executable,
    "-c",
    "from tokenpace.command import main; raise SystemExit(main())",
)
RESOLVED = types_pb2.Resolved(
    device="h100-sxm",
    precision=types_pb2.PRECISION_BF16,
    kv_cache_precision=types_pb2.PRECISION_FP8,
    engine="vllm",
    gpu_count=2,
    architecture=types_pb2.Architecture(name="llama-3.1-8b", parameter_count=8_030_261_248),
)
PREDICTION = latency_pb2.PredictResponse(
    ttft_ms=types_pb2.Estimate(value=23.42, lower=21.8, upper=25.3),
    tpot_ms=types_pb2.Estimate(value=5.123, lower=4.76, upper=5.53),
    memory=types_pb2.MemoryFootprint(
        fits=False, weights_bytes=90 << 30, total_bytes=90 << 30, capacity_bytes=80 << 30
    ),
    breakdown=[
        types_pb2.OperationCost(
            phase=types_pb2.PHASE_DECODE,
            name="gate_and_up_proj",
            kind="linear",
            count=32,
            latency_ms=1.2,
            share=0.25,
            bound="bandwidth",
        )
    ],
    provenance=types_pb2.PROVENANCE_MEASURED_LOCALLY,
    warnings=[types_pb2.Warning(code="DOES_NOT_FIT", text="[needs] more memory")],
    cost_model="7f3a",
    resolved=RESOLVED,
)
COST_MODEL = catalog_pb2.CostModel(
    id="7f3a",
    device="local",
    current=True,
    scores=[
        catalog_pb2.ValidationScore(
            kind="decode", precision=types_pb2.PRECISION_FP32, median_error=0.034, coverage=0.91
        )
    ],
)


def job(state, progress=0.5, budget_s=120, **fields):
    return profiler_pb2.ProfileJob(
        id="job-1",
        state=state,
        device="local",
        budget=Duration(seconds=budget_s),
        measurement_count=17,
        progress=progress,
        **fields,
    )


@pytest.fixture
def tokenpace(daemon, capsys, monkeypatch):
    """Runs the command against the daemon; returns exit code, output, errors."""
    monkeypatch.setenv("TOKENPACE_ADDRESS", daemon.address)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        code = main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def campaign(daemon):
    """A daemon whose jobs succeed after two events."""
    daemon.answers |= {
        "CreateProfileJob": profiler_pb2.CreateProfileJobResponse(
            profile_job=job(types_pb2.JOB_STATE_QUEUED, 0)
        ),
        "GetProfileJob": profiler_pb2.GetProfileJobResponse(
            profile_job=job(types_pb2.JOB_STATE_RUNNING)
        ),
        "CancelProfileJob": profiler_pb2.CancelProfileJobResponse(
            profile_job=job(types_pb2.JOB_STATE_CANCELLED)
        ),
        "WatchProfileJob": lambda *_: iter(
            [
                profiler_pb2.WatchProfileJobResponse(profile_job=job(types_pb2.JOB_STATE_RUNNING)),
                profiler_pb2.WatchProfileJobResponse(
                    profile_job=job(types_pb2.JOB_STATE_SUCCEEDED, 1, cost_model="7f3a")
                ),
            ]
        ),
        "GetCostModel": catalog_pb2.GetCostModelResponse(cost_model=COST_MODEL),
    }
    return daemon


def test_predict_prints_figures_interval_memory_source_and_warnings(daemon, tokenpace):
    daemon.answers["Predict"] = PREDICTION
    code, out, err = tokenpace("predict", "--model", "llama-3.1-8b", "--breakdown")
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "llama-3.1-8b (8.03B parameters) on 2 x h100-sxm, vllm, bf16, KV cache fp8" in lines
    assert "TTFT 23.4 ms 21.8 to 25.3" in lines
    assert "TPOT 5.12 ms 4.76 to 5.53" in lines
    assert not any(line.startswith("tokens/s") for line in lines)  # unset in the answer
    assert any(line.startswith("memory DOES NOT FIT: 90.0 GiB of 80.0 GiB") for line in lines)
    assert "source measured locally (cost model 7f3a)" in lines
    assert "warning DOES_NOT_FIT: [needs] more memory" in lines
    assert "decode gate_and_up_proj 32 1.20 25.0% 0 0 bandwidth" in lines
    assert max(map(len, out.splitlines())) <= 80


def test_predict_sends_its_options(daemon, tokenpace):
    code, _, _ = tokenpace(
        *("predict", "--model", "7e9", "--input-tokens", "9", "--output-tokens", "8"),
        *("--batch-size", "7", "--concurrency", "6", "--cached-prefix-tokens", "5"),
        *("--prefill-chunk-tokens", "4", "--tp", "2", "--pp", "3", "--dp", "4", "--ep", "8"),
        *("--device", "l4", "--engine", "vllm", "--precision", "fp8-block"),
        *("--kv-cache-precision", "int8", "--confidence", "0.5", "--breakdown"),
        *("--require-provenance", "reference-data", "--calibration", "mine"),
    )
    assert code == 0
    assert daemon.request("Predict") == latency_pb2.PredictRequest(
        model=types_pb2.ModelSpec(parameter_count=7e9),
        workload=types_pb2.Workload(
            input_tokens=9,
            output_tokens=8,
            batch_size=7,
            concurrency=6,
            cached_prefix_tokens=5,
            prefill_chunk_tokens=4,
        ),
        parallelism=types_pb2.Parallelism(tensor=2, pipeline=3, expert=8, data=4),
        device="l4",
        engine="vllm",
        precision=types_pb2.PRECISION_FP8_BLOCK,
        kv_cache_precision=types_pb2.PRECISION_INT8,
        confidence=0.5,
        include_breakdown=True,
        require_provenance=types_pb2.PROVENANCE_REFERENCE_DATA,
        calibration="mine",
    )


def test_json_is_the_response_with_empty_fields_and_nothing_else(daemon, tokenpace):
    daemon.answers["Predict"] = PREDICTION
    code, out, err = tokenpace("predict", "--model", "a", "--json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert ParseDict(content, latency_pb2.PredictResponse()) == PREDICTION
    assert content["ttftMs"] == {"value": 23.42, "lower": 21.8, "upper": 25.3}
    assert content["memory"]["kvCacheBytes"] == "0"  # no presence: included though empty
    assert "requestLatencyMs" not in content  # a message: unset stays unset


def test_measure_streams_json_one_object_a_line(daemon, tokenpace):
    events = [
        profiler_pb2.MeasureResponse(progress=profiler_pb2.Progress(fraction=0.5, text="half")),
        profiler_pb2.MeasureResponse(
            result=profiler_pb2.LiveMeasurement(prediction=PREDICTION, ttft_residual=0.1)
        ),
    ]
    daemon.answers["Measure"] = lambda *_: iter(events)
    code, out, err = tokenpace("measure", "--model", "a", "--json", "--scope", "model")
    assert code == 0
    assert [
        ParseDict(json.loads(line), profiler_pb2.MeasureResponse()) for line in out.splitlines()
    ] == events
    assert "100%" in err  # the bar goes to standard error
    assert daemon.request("Measure").scope == profiler_pb2.MEASURE_SCOPE_MODEL


def test_measure_prints_measured_beside_predicted(daemon, tokenpace):
    result = profiler_pb2.LiveMeasurement(
        ttft_ms=types_pb2.Distribution(median=24.5, p10=24, p90=25.2, samples=7),
        prediction=PREDICTION,
        ttft_residual=0.042,
        environment=types_pb2.Environment(device_name="CPU", torch_version="2.13.0"),
        warnings=[types_pb2.Warning(code="LAYERS", text="4 of 32 were run")],
    )
    daemon.answers["Measure"] = lambda *_: iter([profiler_pb2.MeasureResponse(result=result)])
    code, out, _ = tokenpace("measure", "--model", "a", "--budget", "10m")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "TTFT 24.5 ms 24.0 to 25.2 7 23.4 ms 21.8 to 25.3 +4.2%" in lines
    assert not any(line.startswith("TPOT") for line in lines)
    assert "warning LAYERS: 4 of 32 were run" in lines
    assert daemon.request("Measure").budget == Duration(seconds=600)


def test_a_trace_shows_kernels_and_what_holds_each_phase_back(daemon, tokenpace):
    kernel = profiler_pb2.TracedKernel(name="gemm", calls=32, latency_ms=4.2, share=0.84)
    decode = profiler_pb2.TracedPhase(
        phase=types_pb2.PHASE_DECODE,
        measured_ms=5.0,
        bound="bandwidth",
        bandwidth_ms=4.0,
        compute_ms=0.1,
        overhead_ms=0.5,
        communication_ms=0.3,
        roofline_share=0.82,
        kernels=[kernel],
    )
    result = profiler_pb2.LiveMeasurement(
        ttft_ms=types_pb2.Distribution(median=24.5, p10=24, p90=25.2, samples=7),
        prediction=PREDICTION,
        trace=profiler_pb2.Trace(path="/there/x.trace.json.gz", phases=[decode]),
    )
    daemon.answers["Measure"] = lambda *_: iter([profiler_pb2.MeasureResponse(result=result)])
    code, out, _ = tokenpace("measure", "--model", "a", "--trace", "--torch-compile", "--force")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    begin = lines.index("bound bandwidth")
    assert lines[begin + 1 : begin + 7] == [
        "measured 5.00 ms",
        "bandwidth 4.00 ms",
        "compute 0.100 ms",
        "overhead 0.500 ms",
        "communication 0.300 ms",
        "roofline 82%",
    ]
    assert "decode gemm 32 4.20 ms 84%" in lines
    assert "trace /there/x.trace.json.gz" in lines
    assert daemon.request("Measure").trace is True
    assert daemon.request("Measure").torch_compile is True
    assert daemon.request("Measure").force is True


def test_profile_waits_and_ends_with_the_fitted_error(campaign, tokenpace):
    code, out, err = tokenpace("profile", "--budget", "2m", "--precision", "fp32", "--ranks", "2")
    assert code == 0
    assert "decode fp32 0 0 3.4% 0.0% 0.0% 91.0%" in " ".join(out.split())
    assert "100%" in err
    request = campaign.request("CreateProfileJob")
    assert request.budget == Duration(seconds=120)
    assert request.precisions == [types_pb2.PRECISION_FP32]
    assert request.ranks == 2
    assert campaign.request("GetCostModel").id == "7f3a"
    assert "CancelProfileJob" not in campaign.called()


def test_profile_says_at_its_end_what_came_of_the_error_that_was_asked_for(campaign, tokenpace):
    told = "the asked error of 5.0% took 1,312 points"
    ended = job(types_pb2.JOB_STATE_SUCCEEDED, 1, cost_model="7f3a", status=told)
    campaign.answers["WatchProfileJob"] = lambda *_: iter(
        [profiler_pb2.WatchProfileJobResponse(profile_job=ended)]
    )
    code, out, _ = tokenpace("profile", "--target-error", "0.05")
    assert code == 0
    assert out.splitlines()[-1] == told


def test_profile_json_is_the_job_as_it_changes(campaign, tokenpace):
    code, out, _ = tokenpace("profile", "--json")
    assert code == 0
    states = [json.loads(line)["profileJob"]["state"] for line in out.splitlines()]
    assert states == ["JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED"]


def test_a_running_job_shows_the_time_that_is_left(campaign, tokenpace):
    running = job(types_pb2.JOB_STATE_RUNNING, spent=Duration(seconds=37, nanos=600_000_000))
    campaign.answers |= {
        "WatchProfileJob": lambda *_: iter(
            [profiler_pb2.WatchProfileJobResponse(profile_job=running)]
        ),
        "GetProfileJob": profiler_pb2.GetProfileJobResponse(profile_job=running),
        "ListProfileJobs": profiler_pb2.ListProfileJobsResponse(profile_jobs=[running]),
    }
    assert re.search(r"50% 1:\d\d left", tokenpace("profile")[2])
    for asked in (("jobs", "get", "job-1"), ("jobs",)):
        assert "50%, 1:22 left" in " ".join(tokenpace(*asked)[1].split())
    over = job(types_pb2.JOB_STATE_RUNNING, spent=Duration(seconds=125))
    campaign.answers["GetProfileJob"] = profiler_pb2.GetProfileJobResponse(profile_job=over)
    assert "0:00 left" in " ".join(tokenpace("jobs", "get", "job-1")[1].split())


@pytest.mark.parametrize(
    ("budget_s", "shown"),
    [(3_599, "59:59"), (3_600, "1:00:00"), (3_723, "1:02:03"), (86_400, "24:00:00")],
)
def test_the_time_left_tells_hours_from_one_on(campaign, tokenpace, budget_s, shown):
    running = job(types_pb2.JOB_STATE_RUNNING, budget_s=budget_s, spent=Duration())
    campaign.answers["GetProfileJob"] = profiler_pb2.GetProfileJobResponse(profile_job=running)
    assert f"50%, {shown} left" in " ".join(tokenpace("jobs", "get", "job-1")[1].split())


def test_a_job_that_waits_or_has_ended_has_no_time_left(campaign, tokenpace):
    assert re.search(r"100% \d:\d\d:\d\d", tokenpace("profile")[2])
    ended = job(types_pb2.JOB_STATE_SUCCEEDED, 1, spent=Duration(seconds=37))
    campaign.answers["ListProfileJobs"] = profiler_pb2.ListProfileJobsResponse(profile_jobs=[ended])
    assert "100% -" in " ".join(tokenpace("jobs")[1].split())


def test_a_job_that_fails_ends_with_its_reason(campaign, tokenpace):
    failed = job(types_pb2.JOB_STATE_FAILED, error_message="the worker was killed")
    campaign.answers["WatchProfileJob"] = lambda *_: iter(
        [profiler_pb2.WatchProfileJobResponse(profile_job=failed)]
    )
    code, _, err = tokenpace("profile")
    assert code == 1
    assert err.splitlines()[-1] == "error: job job-1 is failed: the worker was killed"


def test_ctrl_c_cancels_the_profile_job(campaign):
    watching = threading.Event()

    def endless(_, context):
        watching.set()
        while context.is_active():
            yield profiler_pb2.WatchProfileJobResponse(profile_job=job(types_pb2.JOB_STATE_RUNNING))
            time.sleep(0.05)

    campaign.answers["WatchProfileJob"] = endless
    process = start(campaign, "profile")
    assert watching.wait(20)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "error: interrupted"
    assert campaign.request("CancelProfileJob").id == "job-1"


def test_ctrl_c_before_the_job_is_known_still_cancels_it(campaign):
    asked = threading.Event()
    canned = campaign.answers["CreateProfileJob"]

    def slow(*_):
        asked.set()
        time.sleep(0.5)
        return canned

    campaign.answers["CreateProfileJob"] = slow
    process = start(campaign, "profile")
    assert asked.wait(20)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert campaign.request("CancelProfileJob").id == "job-1"


def test_ctrl_c_ends_a_measurement(daemon):
    started, ended = threading.Event(), threading.Event()

    def endless(_, context):
        context.add_callback(ended.set)
        started.set()
        while context.is_active():
            yield profiler_pb2.MeasureResponse(progress=profiler_pb2.Progress(fraction=0.1))
            time.sleep(0.05)

    daemon.answers["Measure"] = endless
    process = start(daemon, "measure", "--model", "a")
    assert started.wait(20)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert ended.wait(20)


def start(daemon, *arguments):
    return subprocess.Popen(
        [*COMMAND, *arguments, "--address", daemon.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_bar_never_mixes_with_json_on_a_terminal(campaign):
    """Standard error is a terminal here, standard output a pipe, as in `... --json | jq`."""
    terminal, end = pty.openpty()
    process = subprocess.run(
        [*COMMAND, "profile", "--json", "--address", campaign.address],
        stdout=subprocess.PIPE,
        stderr=end,
        text=True,
        timeout=30,
        check=True,
    )
    os.close(end)
    shown = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert "━" in shown
    assert len([json.loads(line) for line in process.stdout.splitlines()]) == 2


def test_a_refusal_is_one_line_with_the_field(daemon, tokenpace, refusal, bad_field):
    daemon.answers["Predict"] = refusal(
        grpc.StatusCode.INVALID_ARGUMENT, "2 fields are wrong", bad_field
    )
    code, out, err = tokenpace("predict", "--model", "a", "--input-tokens", "0")
    assert (code, out) == (1, "")
    assert err == "error: workload.input_tokens: 0 is not in 1 to 16777216\n"


def test_a_refusal_without_fields_is_its_message(daemon, tokenpace, refusal):
    daemon.answers["GetDevice"] = refusal(grpc.StatusCode.NOT_FOUND, "no device\nnamed x")
    assert tokenpace("devices", "x") == (1, "", "error: no device named x\n")


def test_unreachable_is_3(tokenpace):
    code, out, err = tokenpace("devices", "--address", "127.0.0.1:1")
    assert (code, out) == (3, "")
    assert err.startswith("error: no daemon answers")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("predict",), "--model"),
        (("predict", "--model", "a", "--no-such-option"), "--no-such-option"),
        (("predict", "--model", "a", "--input-tokens", "many"), "--input-tokens"),
        (("predict", "--model", "a", "--input-tokens", "4294967296"), "input_tokens"),
        (("predict", "--model", "a", "--precision", "fp12"), "precision"),
        (("predict", "--model", "a", "--require-provenance", "rumour"), "require_provenance"),
        (("predict", "--model", "missing.json"), "missing.json"),
        (("measure", "--model", "a", "--budget", "soon"), "budget"),
        (("measure", "--model", "a", "--scope", "half"), "scope"),
        (("profile", "--budget", "-5s"), "budget"),
        (("schedules", "create"), "--cron"),
        (("schedules", "create", "--cron", "0 3 * * *", "--interval", "1h"), "--interval"),
        (("schedules", "create", "--interval", "often"), "interval"),
        (("models", "--fit", "7f3a"), "--fit"),
        (("dance",), "dance"),
        (("jobs", "dance"), "dance"),
        (("jobs", "get"), "ID"),
        (("config", "--config", "missing.toml"), "missing.toml"),
        (("config", "--profile-on-start", "sometimes"), "profile_on_start"),
        (("config", "--data-dir", ""), "data_dir (flag --data-dir)"),
    ],
)
def test_wrong_usage_is_2_and_one_line_that_names_what_is_wrong(
    daemon, tokenpace, arguments, named
):
    code, out, err = tokenpace(*arguments)
    assert (code, out) == (2, "")
    assert named in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert daemon.called() == []


def test_without_a_command_the_help_goes_to_standard_error(tokenpace):
    code, out, err = tokenpace()
    assert (code, out) == (2, "")
    assert "predict" in err


def test_help_and_version_are_answered(tokenpace):
    code, out, _ = tokenpace("--version")
    assert (code, out.split()[0]) == (0, "tokenpace")
    code, out, _ = tokenpace("predict", "--help")
    assert code == 0
    assert "--kv-cache-precision" in out


@pytest.mark.parametrize(
    ("arguments", "rpc"),
    [
        (("devices",), "ListDevices"),
        (("devices", "cpu"), "GetDevice"),
        (("architectures",), "ListArchitectures"),
        (("architectures", "a"), "GetArchitecture"),
        (("models",), "ListCostModels"),
        (("models", "7f3a"), "GetCostModel"),
        (("models", "--fit"), "FitCostModel"),
        (("measurements",), "ListMeasurements"),
        (("jobs",), "ListProfileJobs"),
        (("jobs", "list"), "ListProfileJobs"),
        (("jobs", "get", "j"), "GetProfileJob"),
        (("jobs", "cancel", "j"), "CancelProfileJob"),
        (("schedules",), "ListSchedules"),
        (("schedules", "list"), "ListSchedules"),
        (("schedules", "create", "--interval", "1h"), "CreateSchedule"),
        (("schedules", "delete", "s"), "DeleteSchedule"),
    ],
)
def test_each_command_makes_its_call_and_prints_json_or_a_table(daemon, tokenpace, arguments, rpc):
    code, out, _ = tokenpace(*arguments, "--json")
    assert code == 0
    assert isinstance(json.loads(out), dict)
    code, out, _ = tokenpace(*arguments)
    assert code == 0
    assert out.strip()
    assert daemon.called() == [rpc, rpc]


def test_options_of_a_group_count_for_its_subcommands(daemon, tokenpace):
    code, out, _ = tokenpace("jobs", "--json", "list")
    assert code == 0
    assert json.loads(out)["profileJobs"] == []
    assert tokenpace("jobs", "--address", "127.0.0.1:1", "list")[0] == 3
    assert (
        tokenpace("jobs", "--address", "127.0.0.1:1", "list", "--address", daemon.address)[0] == 0
    )


def test_jobs_watch_follows_and_leaves_the_job_alone(campaign, tokenpace):
    code, out, _ = tokenpace("jobs", "watch", "job-1")
    assert code == 0
    assert "succeeded" in out
    assert campaign.request("WatchProfileJob").id == "job-1"
    assert "CancelProfileJob" not in campaign.called()


@pytest.fixture
def exported(daemon):
    """A daemon with a job that was measured; returns its origin, a measurement and a state."""
    begun = Timestamp(seconds=1_767_322_800)
    origin = profiler_pb2.ProfileJobOrigin(
        profile_job=job(types_pb2.JOB_STATE_SUCCEEDED, 1, start_time=begun),
        environment=types_pb2.Environment(
            fingerprint="1f", device_name="NVIDIA H200", device_kind="cuda", threads=0
        ),
        data_sheet="h200-sxm",
        memory_bytes=150_000_000_000,
    )
    row = types_pb2.Measurement(
        kind="linear",
        precision=types_pb2.PRECISION_INT8_WEIGHT_ONLY,
        engine="torch",
        shape={"m": 1.0, "n": 64.0, "k": 32.0},
        latency_ms=types_pb2.Distribution(median=1.5, p10=1.25, p90=2.0, samples=7),
        create_time=Timestamp(seconds=begun.seconds + 1, nanos=500_000_000),
        flags=["throttled"],
        group="64x32",
        seconds={"timing": 0.5, "building": 0.25, "choosing": 0.125},
    )
    state = catalog_pb2.Telemetry(
        time=begun, clock_mhz=1980.0, throttle_reasons=["power cap"], memory_used_bytes=12
    )
    line = profiler_pb2.ExportProfileJobResponse
    lines = [line(origin=origin), line(state=state), line(measurement=row)]
    daemon.answers["ExportProfileJob"] = lambda *_: iter(lines)
    return lines


def test_an_exported_job_is_the_file_of_a_campaign(daemon, exported, tokenpace, tmp_path):
    path = tmp_path / ("a folder" + 80 * "_") / "job.jsonl"
    path.parent.mkdir()
    code, out, _ = tokenpace("jobs", "export", "job-1", str(path))
    assert code == 0
    assert "1 measurements" in " ".join(out.split())
    assert shlex.split(out.splitlines()[-1]) == ["tokenpace", "evaluate", "--campaign", str(path)]
    assert daemon.request("ExportProfileJob").id == "job-1"
    held = campaigns.read(path)
    assert (held.header.device, held.header.device_name) == ("h200-sxm", "NVIDIA H200")
    assert held.header.environment["device_kind"] == "cuda"
    assert "fingerprint" not in held.header.environment
    assert held.header.memory_bytes == 150_000_000_000
    assert held.header.create_time == "2026-01-02T03:00:00.000+00:00"
    assert held.header.command == "tokenpace jobs export job-1"
    (row,) = held.rows
    assert row == {
        "kind": "linear",
        "precision": "int8-weight-only",
        "engine": "torch",
        "shape": {"m": 1.0, "n": 64.0, "k": 32.0},
        "latency_ms": {"median": 1.5, "p10": 1.25, "p90": 2.0, "samples": 7},
        "group": "64x32",
        "flags": ["throttled"],
        "time": "2026-01-02T03:00:01.500+00:00",
        "seconds": {"timing": 0.5, "building": 0.25, "choosing": 0.125},
    }
    (state,) = held.states
    assert state["clock_mhz"] == 1980.0
    assert state["power_watts"] is None
    assert state["throttle_reasons"] == ["power cap"]
    assert state["time"] == "2026-01-02T03:00:00.000+00:00"


def test_an_export_writes_over_no_file_and_leaves_no_half_of_one(
    daemon, exported, tokenpace, tmp_path, refusal
):
    path = tmp_path / "job.jsonl"
    path.write_text("mine")
    code, _, err = tokenpace("jobs", "export", "job-1", str(path))
    assert (code, path.read_text()) == (2, "mine")
    assert "is there already; name another file" in " ".join(err.split())
    assert tokenpace("jobs", "export", "job-1", str(tmp_path / "no" / "file"))[0] == 2
    path.unlink()

    def cut_off(_, context):
        yield from exported
        refusal(grpc.StatusCode.DATA_LOSS, "the store is damaged")(_, context)

    daemon.answers["ExportProfileJob"] = cut_off
    code, _, err = tokenpace("jobs", "export", "job-1", str(path))
    assert code == 1
    assert "the store is damaged" in err
    assert not path.exists()


def test_config_prints_values_and_origins(tokenpace, tmp_path, monkeypatch):
    file = tmp_path / "tokenpace.toml"
    file.write_text('log_level = "debug"\nprofile_on_start = "full"\n')
    monkeypatch.setenv("TOKENPACE_PROFILE_ON_START", "quick")
    code, out, _ = tokenpace("config", "--config", str(file), "--address", "[::1]:0", "--json")
    assert code == 0
    content = json.loads(out)
    assert content["address"] == {"value": "[::1]:0", "origin": "flag --address"}
    assert content["profile_on_start"]["value"] == "quick"
    assert content["profile_on_start"]["origin"] == "environment TOKENPACE_PROFILE_ON_START"
    assert content["log_level"] == {"value": "debug", "origin": f"file {file}"}
    code, out, _ = tokenpace("config")
    assert code == 0
    assert "profile_on_start" in out


@pytest.mark.parametrize(
    ("blocked", "arguments", "remedy"),
    [
        ("typer", ("devices",), "tokenpace[cli]"),
        ("rich", ("devices",), "tokenpace[cli]"),
        ("sqlalchemy", ("serve", "--address", "127.0.0.1:0"), "tokenpace[server,profiler]"),
        ("platformdirs", ("config",), "tokenpace[server,profiler]"),
    ],
)
def test_a_missing_extra_is_named(blocked, arguments, remedy):
    program = (
        f"import sys; sys.modules[{blocked!r}] = None\n"
        "from tokenpace.command import main; raise SystemExit(main())"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 2
    assert process.stdout == ""
    assert remedy in process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_the_client_needs_the_base_install_alone():
    program = (
        "import sys\n"
        "for name in ('typer', 'rich', 'numpy', 'torch', 'sqlalchemy', 'structlog'):\n"
        "    sys.modules[name] = None\n"
        "from tokenpace.client import Client\n"
        "with Client() as client: print(client.address)"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert process.stdout == "127.0.0.1:50051\n"


# --- published measurements -----------------------------------------------------


def test_an_import_makes_calibrations_of_its_deployments_unless_told_not_to(
    daemon, tokenpace, monkeypatch
):
    pytest.importorskip(
        "aiconfigurator_core",
        reason="aiconfigurator-core (the extra `reference`) is not installed",
    )
    monkeypatch.setattr(sources, "package_source", functools.cache(sources.package_source))
    held = catalog_pb2.ImportMeasurementsResponse(measurement_count=1 << 30)
    daemon.answers["ImportMeasurements"] = held
    what = ("reference", "import", "--device", "h200-sxm", "--engine", "sglang", "--rows", "100")
    code, _, error = tokenpace(*what, "--operations-only")
    assert (code, "CreateCalibration" in daemon.called()) == (0, False), error
    assert daemon.request("FitCostModel").source == daemon.request("ImportMeasurements").source
    code, _, error = tokenpace(*what)
    assert code == 0, error
    asked = {
        it.name: it
        for rpc, it in daemon.requests
        if rpc == "CreateCalibration" and not it.validate_only
    }
    assert "reference-deepseek-r1-h200-sxm-sglang" in asked
    for name, it in asked.items():
        assert name == f"reference-{it.rows[0].model.preset}-h200-sxm-sglang"
        assert len(it.rows) >= 4
        assert {(row.device, row.engine, row.model.preset) for row in it.rows} == {
            ("h200-sxm", "sglang", it.rows[0].model.preset)
        }
        assert all(row.ttft_ms > 0 and row.tpot_ms > 0 for row in it.rows)
