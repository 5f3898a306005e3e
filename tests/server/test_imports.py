"""Imported measurements: stored once, refused with the field, fitted, borrowed by others."""

from contextlib import contextmanager

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from server import logs
from server.configuration import load
from server.daemon import Daemon
from tokenpace.v1 import catalog_pb2, catalog_pb2_grpc, latency_pb2, latency_pb2_grpc, types_pb2

SOURCE = "a paper (CC-BY), vLLM 0.1"


@contextmanager
def serving(tmp_path):
    logs.set_up("error", "json")
    configuration, _ = load(
        {"address": "127.0.0.1:0", "data_dir": tmp_path, "drain_seconds": 0}, {}
    )
    daemon = Daemon(configuration)
    daemon.start()
    with grpc.insecure_channel(daemon.address) as opened:
        yield opened
    daemon.stop()
    logs.set_up()


@pytest.fixture
def channel(tmp_path):
    with serving(tmp_path) as opened:
        yield opened


@pytest.fixture
def catalog(channel):
    return catalog_pb2_grpc.CatalogServiceStub(channel)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """Of a daemon that nothing is ever stored in."""
    with serving(tmp_path_factory.mktemp("empty")) as opened:
        yield catalog_pb2_grpc.CatalogServiceStub(opened)


def linear(m, n=4096, k=4096, **changes):
    values = {
        "kind": "linear",
        "precision": types_pb2.PRECISION_BF16,
        "shape": {"m": m, "n": n, "k": k},
        "latency_ms": types_pb2.Distribution(median=1e-3 + n * k * 2 / 2.5e9 + m * n * k / 4e11),
    }
    return types_pb2.Measurement(**values | changes)


def attention(tokens, query=1):
    shape = {"sequences": 1, "query_tokens": query, "kv_tokens": tokens}
    shape |= {"query_heads": 32, "kv_heads": 8, "head_dim": 128}
    latency = types_pb2.Distribution(median=5e-3 + tokens * query / 1e6)
    return types_pb2.Measurement(
        kind="attention", precision=types_pb2.PRECISION_BF16, shape=shape, latency_ms=latency
    )


ROWS = [linear(m, n, k) for m in (1, 4, 64, 512) for n in (1024, 4096, 16384) for k in (2048, 4096)]
ROWS += [attention(t) for t in (16, 512, 4096)] + [attention(t, t) for t in (16, 512, 4096)]


def request(measurements=(), first_row=0, **changes):
    values = {"device": "h100-sxm", "engine": "vllm", "source": SOURCE}
    return catalog_pb2.ImportMeasurementsRequest(
        **values | changes, measurements=measurements, first_row=first_row
    )


def send(catalog, *arguments, **changes):
    answer = catalog.ImportMeasurements(request(*arguments, **changes), timeout=30)
    return answer.measurement_count


def failure(call, message):
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=30)
    bad = error_details_pb2.BadRequest()
    packed = rpc_status.from_call(caught.value).details
    fields = [v.field for one in packed if one.Unpack(bad) for v in bad.field_violations]
    return caught.value.code().name, fields


def test_rows_are_stored_once_however_often_they_are_sent(catalog):
    assert send(catalog) == 0
    assert send(catalog, ROWS[:10]) == 10
    assert send(catalog, ROWS[:10]) == 10
    assert send(catalog, ROWS[5:15], 5) == 15
    assert send(catalog, engine="sglang") == 0
    held = catalog.ListMeasurements(
        catalog_pb2.ListMeasurementsRequest(device="h100-sxm", page_size=100), timeout=30
    )
    assert held.total_size == 15
    assert {row.engine for row in held.measurements} == {"vllm"}
    assert held.measurements[0].group


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"device": ""}, "device"),
        ({"device": "cpu"}, "device"),
        ({"engine": "vroom"}, "engine"),
        ({"source": ""}, "source"),
        ({"source": "x" * 501}, "source"),
        ({"first_row": -1}, "first_row"),
        ({"first_row": 3}, "first_row"),
        ({"measurements": [linear(1, kind="layer")]}, "measurements[0].shape.k"),
        ({"measurements": [linear(1), linear(1, kind="novel")]}, "measurements[1].kind"),
        ({"measurements": [linear(1, shape={"m": 1, "k": 1})]}, "measurements[0].shape.n"),
        ({"measurements": [linear(0.5)]}, "measurements[0].shape.m"),
        ({"measurements": [linear(1, precision=0)]}, "measurements[0].precision"),
        ({"measurements": [linear(1, latency_ms=None)]}, "measurements[0].latency_ms.median"),
        (
            {"measurements": [linear(1, latency_ms=types_pb2.Distribution(median=1e300))]},
            "measurements[0].latency_ms.median",
        ),
        (
            {"measurements": [linear(1, latency_ms=types_pb2.Distribution(median=1, p90=-1))]},
            "measurements[0].latency_ms.p90",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused_and_named(empty, changes, field):
    assert failure(empty.ImportMeasurements, request(**changes)) == ("INVALID_ARGUMENT", [field])
    assert send(empty) == 0


def test_an_unknown_size_is_named_with_those_of_its_kind(empty):
    shape = {"m": 1, "n": 64, "k": 64, "batch": 2}
    with pytest.raises(grpc.RpcError) as caught:
        send(empty, [linear(1, shape=shape)])
    said = "measurements[0].shape.batch: is no size of this kind; the sizes of linear are m, n, k"
    assert said in caught.value.details()


def test_nothing_imported_cannot_be_fitted(empty):
    message = catalog_pb2.FitCostModelRequest(device="h100-sxm")
    assert failure(empty.FitCostModel, message)[0] == "FAILED_PRECONDITION"


def test_one_linear_makes_no_cost_model_and_the_missing_ones_are_counted(catalog):
    assert send(catalog, ROWS[:1]) == 1
    with pytest.raises(grpc.RpcError, match="1 are there, 7 are missing") as caught:
        catalog.FitCostModel(catalog_pb2.FitCostModelRequest(device="h100-sxm"), timeout=60)
    assert caught.value.code().name == "FAILED_PRECONDITION"
    listed = catalog.ListCostModels(catalog_pb2.ListCostModelsRequest(), timeout=30)
    assert listed.total_size == 0


def test_the_source_that_is_named_is_fitted_and_answers_else_the_last_one(channel, catalog):
    def fit(source=""):
        message = catalog_pb2.FitCostModelRequest(device="h100-sxm", source=source)
        return catalog.FitCostModel(message, timeout=120).cost_model.measurement_count

    send(catalog, ROWS)
    send(catalog, ROWS[:-1], source="mine")
    assert fit() == len(ROWS) - 1
    assert send(catalog) == len(ROWS)  # all are held: nothing newer comes of it
    assert fit(SOURCE) == len(ROWS)
    models = catalog.ListCostModels(catalog_pb2.ListCostModelsRequest(), timeout=30).cost_models
    question = latency_pb2.PredictRequest(device="h100-sxm")
    question.model.preset = "llama-3.1-8b"
    question.workload.input_tokens = 512
    answer = latency_pb2_grpc.LatencyServiceStub(channel).Predict(question, timeout=30)
    assert answer.cost_model == models[0].id
    assert models[0].measurement_count == len(ROWS)
    message = catalog_pb2.FitCostModelRequest(device="h100-sxm", source="nobody's")
    assert failure(catalog.FitCostModel, message)[0] == "FAILED_PRECONDITION"


def test_of_several_sources_that_one_is_in_use_which_predict_takes(channel, catalog):
    def fit(source, engine="vllm"):
        send(catalog, ROWS, source=source, engine=engine)
        message = catalog_pb2.FitCostModelRequest(device="h100-sxm", engine=engine, source=source)
        fitted = catalog.FitCostModel(message, timeout=120).cost_model
        assert fitted.current
        return fitted.id

    other_engine = fit("first", "sglang")
    second, third = fit("second"), fit("third")
    listed = catalog.ListCostModels(catalog_pb2.ListCostModelsRequest(), timeout=30).cost_models
    assert [it.id for it in listed if it.current] == [third, other_engine]
    by_id = catalog_pb2.GetCostModelRequest(id=second)
    assert not catalog.GetCostModel(by_id, timeout=30).cost_model.current
    question = latency_pb2.PredictRequest(device="h100-sxm")
    question.model.preset = "llama-3.1-8b"
    question.workload.input_tokens = 512
    stub = latency_pb2_grpc.LatencyServiceStub(channel)
    for engine, used in (("vllm", third), ("sglang", other_engine), ("trtllm", third)):
        question.engine = engine
        assert stub.Predict(question, timeout=30).cost_model == used


def test_a_device_answers_by_what_was_imported_and_its_neighbour_borrows_it(channel, catalog):
    send(catalog, ROWS)
    fitted = catalog.FitCostModel(
        catalog_pb2.FitCostModelRequest(device="h100-sxm", engine="vllm"), timeout=120
    ).cost_model
    assert fitted.provenance == types_pb2.PROVENANCE_REFERENCE_DATA
    assert (fitted.device, list(fitted.engines)) == ("h100-sxm", ["vllm"])

    def ask(device, engine="vllm"):
        question = latency_pb2.PredictRequest(device=device, engine=engine)
        question.model.preset = "llama-3.1-8b"
        question.workload.input_tokens = 512
        question.workload.output_tokens = 64
        return latency_pb2_grpc.LatencyServiceStub(channel).Predict(question, timeout=30)

    own, other, borrowed = ask("h100-sxm"), ask("h100-sxm", "sglang"), ask("h100-pcie")
    assert own.provenance == other.provenance == types_pb2.PROVENANCE_REFERENCE_DATA
    assert own.cost_model == other.cost_model == borrowed.cost_model == fitted.id
    assert borrowed.provenance == types_pb2.PROVENANCE_TRANSFERRED
    assert borrowed.tpot_ms.value > own.tpot_ms.value
    assert ask("l4").provenance == types_pb2.PROVENANCE_ANALYTICAL
    names = ("h100-sxm", "h100-pcie", "l4")
    devices = [
        catalog.GetDevice(catalog_pb2.GetDeviceRequest(name=n), timeout=30).device for n in names
    ]
    assert [device.provenance for device in devices] == [
        types_pb2.PROVENANCE_REFERENCE_DATA,
        types_pb2.PROVENANCE_TRANSFERRED,
        types_pb2.PROVENANCE_ANALYTICAL,
    ]
