import sys
from types import SimpleNamespace

import grpc
import pytest
from google.protobuf import struct_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from model.estimate import Provenance, ValidationScore
from model.hardware import device_names
from model.precision import Precision
from model.presets import preset_names
from server import cost_models, logs
from server.configuration import load
from server.daemon import Daemon
from server.records import JobRecord
from tokenpace.v1 import catalog_pb2, catalog_pb2_grpc, types_pb2


@pytest.fixture
def daemon(tmp_path):
    logs.set_up("error", "json")
    configuration, _ = load(
        {"address": "127.0.0.1:0", "data_dir": tmp_path, "drain_seconds": 0}, {}
    )
    daemon = Daemon(configuration)
    daemon.start()
    yield daemon
    daemon.stop()
    logs.set_up()


@pytest.fixture
def catalog(daemon):
    with grpc.insecure_channel(daemon.address) as channel:
        yield catalog_pb2_grpc.CatalogServiceStub(channel)


@pytest.fixture
def cpu(daemon):
    return daemon.state.devices.get("cpu")


def failure(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    error = caught.value
    bad = error_details_pb2.BadRequest()
    fields = [
        violation.field
        for packed in rpc_status.from_call(error).details
        if packed.Unpack(bad)
        for violation in bad.field_violations
    ]
    return error.code().name, fields


def test_devices_are_listed_in_pages_the_local_ones_first(catalog):
    seen, token = [], ""
    while True:
        page = catalog.ListDevices(
            catalog_pb2.ListDevicesRequest(page_size=5, page_token=token), timeout=30
        )
        seen += page.devices
        token = page.next_page_token
        if not token:
            break
    names = [device.name for device in seen]
    assert page.total_size == len(names) == len(set(names))
    assert names[0] == "local"
    assert set(names) >= set(device_names())
    kinds = [device.local for device in seen]
    assert kinds == sorted(kinds, reverse=True)


def test_the_cpu_comes_with_telemetry_and_environment(catalog, cpu):
    device = catalog.GetDevice(catalog_pb2.GetDeviceRequest(name="cpu"), timeout=30).device
    assert device.telemetry.memory_total_bytes == device.memory_bytes > 0
    assert device.environment.fingerprint == cpu.fingerprint
    assert (device.local, device.kind, device.source) == (True, "cpu", "measured")
    assert device.provenance == types_pb2.PROVENANCE_ANALYTICAL
    assert device.cost_model == ""


def test_a_data_sheet_device_has_peaks_and_its_source(catalog):
    device = catalog.GetDevice(catalog_pb2.GetDeviceRequest(name="h100-sxm"), timeout=30).device
    peaks = {peak.precision: peak.flops_per_second for peak in device.peaks}
    assert peaks[types_pb2.PRECISION_FP8] > peaks[types_pb2.PRECISION_BF16] > 1e14
    assert device.source.startswith("http")
    assert not device.HasField("telemetry")
    assert not device.HasField("environment")


def test_presets_are_listed_by_name_and_found_one_by_one(catalog):
    page = catalog.ListArchitectures(
        catalog_pb2.ListArchitecturesRequest(page_size=1000), timeout=30
    )
    names = [architecture.name for architecture in page.architectures]
    assert names == sorted(names) == list(preset_names())
    model = types_pb2.ModelSpec(preset=names[0])
    found = catalog.GetArchitecture(
        catalog_pb2.GetArchitectureRequest(model=model), timeout=30
    ).architecture
    assert found == page.architectures[0]
    assert found.parameter_count > 0


@pytest.mark.parametrize(
    ("method", "request_", "code", "fields"),
    [
        ("GetDevice", catalog_pb2.GetDeviceRequest(), "INVALID_ARGUMENT", ["name"]),
        ("GetDevice", catalog_pb2.GetDeviceRequest(name="h1"), "NOT_FOUND", ["name"]),
        ("GetCostModel", catalog_pb2.GetCostModelRequest(), "INVALID_ARGUMENT", ["id"]),
        ("GetCostModel", catalog_pb2.GetCostModelRequest(id="x"), "NOT_FOUND", ["id"]),
        (
            "ListDevices",
            catalog_pb2.ListDevicesRequest(page_size=-1),
            "INVALID_ARGUMENT",
            ["page_size"],
        ),
        (
            "ListArchitectures",
            catalog_pb2.ListArchitecturesRequest(page_token="x"),  # noqa: S106 - of a page
            "INVALID_ARGUMENT",
            ["page_token"],
        ),
        (
            "ListMeasurements",
            catalog_pb2.ListMeasurementsRequest(page_size=1001),
            "INVALID_ARGUMENT",
            ["page_size"],
        ),
        (
            "ListMeasurements",
            catalog_pb2.ListMeasurementsRequest(device="nowhere"),
            "NOT_FOUND",
            ["device"],
        ),
        (
            "ListCostModels",
            catalog_pb2.ListCostModelsRequest(page_token="é"),  # noqa: S106 - of a page
            "INVALID_ARGUMENT",
            ["page_token"],
        ),
        ("FitCostModel", catalog_pb2.FitCostModelRequest(device="x"), "NOT_FOUND", ["device"]),
        (
            "FitCostModel",
            catalog_pb2.FitCostModelRequest(device="h100-sxm"),
            "FAILED_PRECONDITION",
            [],
        ),
        (
            "FitCostModel",
            catalog_pb2.FitCostModelRequest(device="cpu"),
            "FAILED_PRECONDITION",
            [],
        ),
    ],
)
def test_bad_questions_name_the_field(catalog, method, request_, code, fields):
    assert failure(getattr(catalog, method), request_) == (code, fields)


def test_a_model_without_a_spec_names_the_field(catalog):
    code, fields = failure(catalog.GetArchitecture, catalog_pb2.GetArchitectureRequest())
    assert code == "INVALID_ARGUMENT"
    assert fields[0].startswith("model")
    config = struct_pb2.Struct()
    config.update({"model_type": "bert"})
    request = catalog_pb2.GetArchitectureRequest(
        model=types_pb2.ModelSpec(huggingface_config=config)
    )
    code, fields = failure(catalog.GetArchitecture, request)
    assert code == "INVALID_ARGUMENT"
    assert fields == ["model.huggingface_config.model_type"]


def test_measurements_are_listed_with_filters(catalog, daemon, cpu, point, at):
    store = daemon.state.store
    store.jobs.add(JobRecord(id="job", device="cpu", budget_s=1.0, create_time=at()))
    store.measurements.append(
        [point(m) for m in range(3)], device="cpu", environment=cpu.environment, job_id="job"
    )
    request = catalog_pb2.ListMeasurementsRequest(
        page_size=2, device="cpu", job_id="job", kind="linear"
    )
    page = catalog.ListMeasurements(request, timeout=30)
    assert (page.total_size, len(page.measurements)) == (3, 2)
    first = page.measurements[0]
    assert dict(first.shape) == {"m": 2.0, "n": 64.0, "k": 64.0}
    assert (first.precision, first.engine) == (types_pb2.PRECISION_BF16, "torch")
    assert (first.latency_ms.median, first.latency_ms.samples) == (1.5, 7)
    assert (first.fingerprint, first.job_id) == (cpu.fingerprint, "job")
    assert list(first.flags) == ["throttled"]
    request.page_token = page.next_page_token
    rest = catalog.ListMeasurements(request, timeout=30)
    assert [row.id for row in rest.measurements] == [1]
    request = catalog_pb2.ListMeasurementsRequest(kind="none")
    assert catalog.ListMeasurements(request, timeout=30).total_size == 0
    device = catalog.GetDevice(catalog_pb2.GetDeviceRequest(name="cpu"), timeout=30).device
    assert device.measurement_count == 3


@pytest.fixture
def fits(daemon, monkeypatch):
    """Makes FitCostModel run a program in place of the regression."""

    def install(program):
        score = ValidationScore(
            kind="linear",
            precision=Precision.BF16,
            rows=5,
            groups=2,
            mean_error=0.05,
            median_error=0.04,
            p90_error=0.1,
            coverage=0.9,
        )
        model = SimpleNamespace(
            measurement_count=5,
            scores=(score,),
            precisions=(Precision.BF16,),
            engines=("torch",),
            provenance=Provenance.MEASURED_LOCALLY,
        )
        monkeypatch.setattr(cost_models, "cost_model_of", lambda blob: model)
        command = [sys.executable, "-c", program]
        # The very object that the services hold.
        monkeypatch.setattr(daemon.state.cost_models, "_fit_command", command)

    return install


def test_a_fitted_cost_model_is_current_listed_and_found(catalog, daemon, cpu, point, fits):
    daemon.state.store.measurements.append([point()], device="cpu", environment=cpu.environment)
    fits("print('trees')")
    first = catalog.FitCostModel(catalog_pb2.FitCostModelRequest(device="cpu"), timeout=30)
    second = catalog.FitCostModel(catalog_pb2.FitCostModelRequest(device="cpu"), timeout=30)
    page = catalog.ListCostModels(catalog_pb2.ListCostModelsRequest(device="cpu"), timeout=30)
    assert [model.id for model in page.cost_models] == [
        second.cost_model.id,
        first.cost_model.id,
    ]
    assert [model.current for model in page.cost_models] == [True, False]
    found = catalog.GetCostModel(
        catalog_pb2.GetCostModelRequest(id=second.cost_model.id), timeout=30
    ).cost_model
    assert found == second.cost_model
    assert found.provenance == types_pb2.PROVENANCE_MEASURED_LOCALLY
    assert (found.scores[0].coverage, found.scores[0].precision) == (0.9, 2)
    device = catalog.GetDevice(catalog_pb2.GetDeviceRequest(name="cpu"), timeout=30).device
    assert device.cost_model == found.id
    assert device.provenance == types_pb2.PROVENANCE_MEASURED_LOCALLY


@pytest.mark.parametrize(
    ("program", "timeout", "code"),
    [
        ("import sys; sys.exit('too few rows')", 30, "FAILED_PRECONDITION"),
        ("import time; time.sleep(60)", 0.5, "DEADLINE_EXCEEDED"),
    ],
)
def test_a_fit_that_fails_says_why(catalog, daemon, cpu, point, fits, program, timeout, code):
    daemon.state.store.measurements.append([point()], device="cpu", environment=cpu.environment)
    fits(program)
    with pytest.raises(grpc.RpcError) as caught:
        catalog.FitCostModel(catalog_pb2.FitCostModelRequest(device="cpu"), timeout=timeout)
    assert caught.value.code().name == code
