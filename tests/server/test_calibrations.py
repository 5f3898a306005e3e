"""Calibrations over gRPC: made, applied, listed, removed, refused."""

from types import SimpleNamespace

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from model.inference import with_latencies
from server import logs
from server.configuration import load as settings
from server.daemon import Daemon
from server.predictor import Predictor
from tokenpace.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    latency_pb2,
    latency_pb2_grpc,
    types_pb2,
)

LOADS = (1, 2, 4, 8, 16, 32)
FACTOR = 1.4


@pytest.fixture
def start(tmp_path):
    """Starts a daemon on one folder and returns its services; again: after a restart."""
    running = []

    def begin():
        for daemon, channel in running:
            channel.close()
            daemon.stop()
        running.clear()
        logs.set_up("error", "json")
        configuration, _ = settings(
            {"address": "127.0.0.1:0", "data_dir": tmp_path, "drain_seconds": 0}, {}
        )
        daemon = Daemon(configuration)
        daemon.start()
        channel = grpc.insecure_channel(daemon.address)
        running.append((daemon, channel))
        return SimpleNamespace(
            catalog=catalog_pb2_grpc.CatalogServiceStub(channel),
            latency=latency_pb2_grpc.LatencyServiceStub(channel),
        )

    yield begin
    for daemon, channel in running:
        channel.close()
        daemon.stop()
    logs.set_up()


@pytest.fixture
def services(start):
    return start()


def question(load=8, model="llama-3.1-8b", device="h100-sxm", engine="vllm", calibration="", **f):
    return latency_pb2.PredictRequest(
        model=types_pb2.ModelSpec(preset=model),
        device=device,
        engine=engine,
        workload=types_pb2.Workload(input_tokens=1024, output_tokens=256, concurrency=load),
        calibration=calibration,
        **f,
    )


def rows(services, factor=FACTOR, loads=LOADS, **fields):
    """Rows whose figures are those of the daemon times a factor."""
    found = []
    for index, load in enumerate(loads):
        asked = question(load, **fields)
        answer = services.latency.Predict(asked, timeout=30)
        found.append(
            catalog_pb2.CalibrationRow(
                model=asked.model,
                device=asked.device,
                engine=asked.engine,
                workload=asked.workload,
                engine_version="0.11.0",
                ttft_ms=answer.ttft_ms.value * factor,
                tpot_ms=answer.tpot_ms.value * factor,
                source=f"mine.csv:{index + 2}",
            )
        )
    return found


def create(services, found, name="mine", **fields):
    request = catalog_pb2.CreateCalibrationRequest(name=name, rows=found, **fields)
    return services.catalog.CreateCalibration(request, timeout=30).calibration


def failure(call, request):
    """Code, reason and fields of a refusal."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    error = caught.value
    bad, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
    fields, reason = [], ""
    for packed in rpc_status.from_call(error).details:
        if packed.Unpack(bad):
            fields = [(v.field, v.description) for v in bad.field_violations]
        elif packed.Unpack(info):
            reason = info.reason
    return error.code().name, reason, fields


def test_a_calibration_brings_the_error_down_and_says_so(services):
    made = create(services, rows(services))
    assert (made.name, made.row_count, list(made.devices)) == ("mine", 6, ["h100-sxm"])
    assert list(made.engine_versions) == ["vllm 0.11.0"]
    assert list(made.architectures) == ["llama-3.1-8b"]
    assert [score.figure for score in made.scores] == ["ttft", "tpot"]
    for score in made.scores:
        assert score.before.median == pytest.approx(1 - 1 / FACTOR)
        assert score.after.p90 < 0.05
        assert score.coverage == 1.0
    assert not made.remarks
    before = services.latency.Predict(question(12), timeout=30)
    after = services.latency.Predict(question(12, calibration="mine"), timeout=30)
    assert after.resolved.calibration == "mine"
    assert before.resolved.calibration == ""
    for figure in ("ttft_ms", "tpot_ms", "request_latency_ms"):
        plain, corrected = getattr(before, figure), getattr(after, figure)
        assert corrected.value == pytest.approx(plain.value * FACTOR, rel=0.05)
        assert corrected.lower < plain.value * FACTOR < corrected.upper
        assert corrected.upper / corrected.lower < plain.upper / plain.lower
    assert after.tokens_per_second.value == pytest.approx(
        before.tokens_per_second.value / FACTOR, rel=0.05
    )
    assert not after.breakdown
    detailed = question(12, calibration="mine", include_breakdown=True)
    assert services.latency.Predict(detailed, timeout=30).breakdown


def test_it_holds_over_a_restart_and_until_it_is_deleted(start):
    services = start()
    made = create(services, rows(services))
    answer = services.latency.Predict(question(12, calibration="mine"), timeout=30)
    services = start()
    found = services.catalog.GetCalibration(
        catalog_pb2.GetCalibrationRequest(name="mine"), timeout=30
    ).calibration
    assert found == made
    again = services.latency.Predict(question(12, calibration="mine"), timeout=30)
    assert again.tpot_ms.value == pytest.approx(answer.tpot_ms.value)
    gone = catalog_pb2.DeleteCalibrationRequest(name="mine")
    services.catalog.DeleteCalibration(gone, timeout=30)
    asked = question(12, calibration="mine")
    assert failure(services.latency.Predict, asked)[:2] == ("NOT_FOUND", "CALIBRATION_NOT_FOUND")
    assert failure(services.catalog.DeleteCalibration, gone)[0] == "NOT_FOUND"
    assert failure(services.catalog.GetCalibration, catalog_pb2.GetCalibrationRequest(name="mine"))[
        :2
    ] == ("NOT_FOUND", "CALIBRATION_NOT_FOUND")
    create(services, rows(services, factor=2.0))
    other = services.latency.Predict(question(12, calibration="mine"), timeout=30)
    assert other.tpot_ms.value > 1.3 * answer.tpot_ms.value


def test_it_is_fitted_anew_when_the_cost_model_changes(services, monkeypatch):
    """What it corrects is the prediction of now: half of it needs twice the factor."""
    create(services, rows(services))
    corrected = services.latency.Predict(question(12, calibration="mine"), timeout=30)
    real = Predictor.infer

    def halved(self, resolution):
        found = real(self, resolution)
        half = type(found.tpot_ms)(*(end / 2 for end in found.tpot_ms))
        return with_latencies(found, resolution.question, found.ttft_ms, half, ())

    monkeypatch.setattr(Predictor, "infer", halved)
    monkeypatch.setattr(Predictor, "cost_model", lambda self, device, engine: self)
    answer = services.latency.Predict(question(12, calibration="mine"), timeout=30)
    assert answer.tpot_ms.value == pytest.approx(2 * corrected.tpot_ms.value, rel=0.02)


def test_another_device_or_engine_is_refused_and_another_model_warned_of(services):
    create(services, rows(services))
    for fields in ({"device": "h200-sxm"}, {"engine": "sglang"}):
        code, reason, _ = failure(services.latency.Predict, question(calibration="mine", **fields))
        assert (code, reason) == ("FAILED_PRECONDITION", "CALIBRATION_MISMATCH")
    own = services.latency.Predict(question(12, calibration="mine"), timeout=30)
    other = services.latency.Predict(
        question(12, model="qwen3-32b", calibration="mine"), timeout=30
    )
    codes = [warning.code for warning in other.warnings]
    assert "CALIBRATION_OF_OTHER_ARCHITECTURES" in codes
    assert "CALIBRATION_OF_OTHER_ARCHITECTURES" not in [w.code for w in own.warnings]
    assert other.tpot_ms.upper / other.tpot_ms.lower > own.tpot_ms.upper / own.tpot_ms.lower


def test_a_figure_that_no_row_holds_is_left_as_it_is(services):
    found = rows(services)
    for row in found:
        row.ClearField("ttft_ms")
    made = create(services, found)
    assert [score.figure for score in made.scores] == ["tpot"]
    plain = services.latency.Predict(question(12), timeout=30)
    answer = services.latency.Predict(question(12, calibration="mine"), timeout=30)
    assert answer.ttft_ms == plain.ttft_ms
    assert answer.tpot_ms.value > 1.3 * plain.tpot_ms.value
    assert "CALIBRATION_WITHOUT_FIGURE" in [warning.code for warning in answer.warnings]
    prefill = question(1, calibration="mine")
    prefill.workload.output_tokens = 0
    assert not services.latency.Predict(prefill, timeout=30).HasField("tpot_ms")


def test_rows_that_cannot_be_right_need_to_be_accepted(services):
    found = rows(services)
    found[0].tpot_ms = 0.5
    request = catalog_pb2.CreateCalibrationRequest(name="mine", rows=found)
    code, reason, fields = failure(services.catalog.CreateCalibration, request)
    assert (code, reason) == ("INVALID_ARGUMENT", "SUSPICIOUS_ROWS")
    assert fields[0][0] == "rows[0]"
    assert "mine.csv:2" in fields[0][1]
    made = create(services, found, accept_suspicious=True)
    remarks = {remark.code: list(remark.rows) for remark in made.remarks}
    assert remarks["FASTER_THAN_BANDWIDTH"] == [0]


def test_a_trial_keeps_nothing(services):
    made = create(services, rows(services), name="", validate_only=True)
    assert made.scores[0].after.median < made.scores[0].before.median
    listed = services.catalog.ListCalibrations(catalog_pb2.ListCalibrationsRequest(), timeout=30)
    assert (listed.total_size, list(listed.calibrations)) == (0, [])


def test_they_are_listed_in_pages_newest_first(services):
    found = rows(services, loads=(1, 4))
    for name in ("first", "second", "third"):
        create(services, found, name=name)
    seen, token = [], ""
    while True:
        page = services.catalog.ListCalibrations(
            catalog_pb2.ListCalibrationsRequest(page_size=2, page_token=token), timeout=30
        )
        assert page.total_size == 3
        seen += [calibration.name for calibration in page.calibrations]
        token = page.next_page_token
        if not token:
            break
    assert seen == ["third", "second", "first"]


def test_a_name_is_taken_once(services):
    found = rows(services, loads=(1, 4))
    create(services, found)
    request = catalog_pb2.CreateCalibrationRequest(name="mine", rows=found)
    assert failure(services.catalog.CreateCalibration, request)[:2] == (
        "ALREADY_EXISTS",
        "CALIBRATION_EXISTS",
    )


@pytest.mark.parametrize("name", ["", "two words", "a" * 65, "../up"])
def test_a_name_is_plain(services, name):
    request = catalog_pb2.CreateCalibrationRequest(name=name, rows=rows(services, loads=(1,)))
    code, _, fields = failure(services.catalog.CreateCalibration, request)
    assert (code, [field for field, _ in fields]) == ("INVALID_ARGUMENT", ["name"])


def broken(change):
    row = catalog_pb2.CalibrationRow(
        model=types_pb2.ModelSpec(preset="llama-3.1-8b"),
        device="h100-sxm",
        engine="vllm",
        workload=types_pb2.Workload(input_tokens=8, output_tokens=8, concurrency=1),
        tpot_ms=9.0,
    )
    change(row)
    return row


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        (lambda row: row.ClearField("device"), "INVALID_ARGUMENT", "device"),
        (lambda row: row.ClearField("engine"), "INVALID_ARGUMENT", "engine"),
        (lambda row: row.ClearField("model"), "INVALID_ARGUMENT", "model"),
        (lambda row: row.ClearField("tpot_ms"), "INVALID_ARGUMENT", "ttft_ms"),
        (lambda row: setattr(row, "tpot_ms", -1.0), "INVALID_ARGUMENT", "tpot_ms"),
        (lambda row: setattr(row, "tpot_ms", float("nan")), "INVALID_ARGUMENT", "tpot_ms"),
        (lambda row: setattr(row, "ttft_ms", 1e300), "INVALID_ARGUMENT", "ttft_ms"),
        (lambda row: setattr(row, "precision", 99), "INVALID_ARGUMENT", "precision"),
        (lambda row: setattr(row, "engine", "tgi"), "INVALID_ARGUMENT", "engine"),
        (
            lambda row: setattr(row, "engine_version", "v" * 65),
            "INVALID_ARGUMENT",
            "engine_version",
        ),
        (lambda row: setattr(row, "source", "s" * 257), "INVALID_ARGUMENT", "source"),
        (lambda row: setattr(row, "device", "tpu"), "NOT_FOUND", "device"),
        (lambda row: setattr(row.model, "preset", "nope"), "NOT_FOUND", "model.preset"),
        (
            lambda row: setattr(row.workload, "concurrency", 0),
            "INVALID_ARGUMENT",
            "workload.concurrency",
        ),
        (
            lambda row: setattr(row.workload, "output_tokens", 1),
            "INVALID_ARGUMENT",
            "workload.output_tokens",
        ),
        (
            lambda row: setattr(row.workload, "input_tokens", 0),
            "INVALID_ARGUMENT",
            "workload.input_tokens",
        ),
        (
            lambda row: setattr(row.parallelism, "tensor", 3),
            "INVALID_ARGUMENT",
            "parallelism.tensor",
        ),
    ],
)
def test_a_row_at_fault_is_named_with_its_field(services, change, code, field):
    good = broken(lambda _: None)
    request = catalog_pb2.CreateCalibrationRequest(name="mine", rows=[good, broken(change)])
    found, _, fields = failure(services.catalog.CreateCalibration, request)
    assert (found, [path for path, _ in fields]) == (code, [f"rows[1].{field}"])


def test_no_row_and_too_many_are_refused(services):
    for count in (0, 2001):
        request = catalog_pb2.CreateCalibrationRequest(
            name="mine", rows=[catalog_pb2.CalibrationRow()] * count
        )
        code, _, fields = failure(services.catalog.CreateCalibration, request)
        assert (code, fields[0][0]) == ("INVALID_ARGUMENT", "rows")
