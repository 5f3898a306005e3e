import time
from dataclasses import replace
from types import SimpleNamespace

import grpc
import pytest
from google.rpc import error_details_pb2

from model.errors import InvalidFieldError, UnknownNameError
from model.estimate import Provenance, StepEstimate
from model.hardware import data_sheet
from model.huggingface import architecture_from_config
from model.operations import COLLECTIVES
from model.precision import Precision
from profiler.interface import Environment
from server import predictor as predictor_module
from server.devices import Device
from server.errors import ServiceError, not_found
from server.latency_service import LatencyService
from server.predictor import ANALYTICAL, Predictor
from tokenpace.v1 import latency_pb2, profiler_pb2, types_pb2

CPU = Environment(device_name="a CPU", device_kind="cpu", threads=2)


class Devices:
    """A CPU as "local", and every device with a data sheet."""

    def get(self, name, field="device"):
        if name in ("", "local"):
            sheet = replace(data_sheet("cpu"), memory_bytes=8 << 30)
            return Device(
                name="local", stored_name="cpu", sheet=sheet, torch_name="cpu", environment=CPU
            )
        try:
            return Device(name=name, stored_name=name, sheet=data_sheet(name))
        except UnknownNameError as error:
            raise not_found("device", name, error.message, field) from None


class CostModels:
    """Holds a fitted cost model of the local device, or none."""

    def __init__(self):
        self.fitted = None
        self.fits_again = False

    def current(self, device, engine=""):
        return self.fitted if device.local else None

    def refitting(self, device, engine=""):
        return self.fits_again and device.local


class Fitted:
    """Every run of an operation takes 1 ms; holds fp32 under ``transformers``."""

    provenance = Provenance.MEASURED_LOCALLY
    lender = ""
    disturbed = 0.0

    def prices(self, precision):
        return precision is Precision.FP32

    def holds(self, kind, precision):
        return precision is Precision.FP32 and kind not in COLLECTIVES

    def engines_of(self, kind, precision):
        return ()

    def supports(self, precision, engine):
        return precision is Precision.FP32 and engine == "transformers"

    def estimate_phases(self, parts, confidence, engine=""):
        return [self.estimate(*part, confidence, engine) for part in parts]

    def estimate(self, operations, phase, confidence, engine=""):
        times = tuple(float(o.count) for o in operations)
        return StepEstimate(
            value_ms=sum(times), lower_ms=sum(times), upper_ms=sum(times), operations_ms=times
        )


@pytest.fixture
def cost_models():
    return CostModels()


@pytest.fixture
def predictor(cost_models):
    return Predictor(Devices(), cost_models)


@pytest.fixture
def service(predictor):
    return LatencyService(predictor)


@pytest.fixture
def context():
    return SimpleNamespace(is_active=lambda: True)


def request(preset="smollm2-135m", workload=None, **fields):
    sizes = {"input_tokens": 128, "output_tokens": 32} | (workload or {})
    return latency_pb2.PredictRequest(
        **{"model": types_pb2.ModelSpec(preset=preset), "workload": types_pb2.Workload(**sizes)}
        | fields
    )


def failure(call, *arguments):
    with pytest.raises(ServiceError) as caught:
        call(*arguments)
    fields = [
        violation.field
        for detail in caught.value.details
        if isinstance(detail, error_details_pb2.BadRequest)
        for violation in detail.field_violations
    ]
    return caught.value.code.name, fields


def fit(cost_models, cost_model_id="cm-1"):
    cost_models.fitted = SimpleNamespace(record=SimpleNamespace(id=cost_model_id), model=Fitted())


class EnginesCostModels(CostModels):
    """Holds a fitted cost model for each engine."""

    def __init__(self, **fitted):
        super().__init__()
        self.of_engines = fitted

    def current(self, device, engine=""):
        return self.of_engines.get(engine)


def test_what_a_calibration_goes_by_is_the_answer_of_its_own_engine():
    class Slower(Fitted):
        def supports(self, precision, engine):
            return precision is Precision.FP32

        def estimate(self, operations, phase, confidence, engine=""):
            times = tuple(3.0 * o.count for o in operations)
            total = sum(times)
            return StepEstimate(value_ms=total, lower_ms=total, upper_ms=total, operations_ms=times)

    models = {"transformers": Fitted(), "vllm": Slower()}
    predictor = Predictor(
        Devices(),
        EnginesCostModels(
            **{
                engine: SimpleNamespace(record=SimpleNamespace(id=engine), model=model)
                for engine, model in models.items()
            }
        ),
    )
    for engine, model in models.items():
        resolution = predictor.resolve(request(engine=engine))
        answer = predictor.answer(resolution)
        assert answer.cost_model == engine
        assert predictor.infer(resolution).ttft_ms.value == answer.ttft_ms.value
        assert predictor.cost_model(resolution.device, engine) is model


# --- answers ------------------------------------------------------------------


def test_an_analytical_answer_says_what_it_is(predictor):
    answer = predictor.predict(request())
    assert 0 < answer.ttft_ms.lower < answer.ttft_ms.value < answer.ttft_ms.upper
    assert answer.HasField("tpot_ms")
    assert answer.cost_model == ANALYTICAL
    assert answer.provenance == types_pb2.PROVENANCE_ANALYTICAL
    assert "NO_MEASUREMENTS" in [warning.code for warning in answer.warnings]
    assert answer.memory.fits
    assert answer.memory.capacity_bytes == 8 << 30


def test_what_a_device_without_known_memory_holds_is_left_open(predictor, monkeypatch):
    blank = Device(
        name="local", stored_name="cpu", sheet=data_sheet("cpu"), torch_name="cpu", environment=CPU
    )
    monkeypatch.setattr(predictor, "_devices", SimpleNamespace(get=lambda name: blank))
    assert not predictor.predict(request()).memory.HasField("fits")


def test_zeros_on_the_local_processor(predictor):
    resolved = predictor.predict(request()).resolved
    assert resolved.device == "local"
    assert resolved.precision == types_pb2.PRECISION_FP32
    assert resolved.kv_cache_precision == types_pb2.PRECISION_FP32
    assert resolved.engine == "transformers"
    assert resolved.gpu_count == 1
    assert resolved.architecture.name == "smollm2-135m"


def test_zeros_on_a_gpu_elsewhere(predictor):
    parallelism = types_pb2.Parallelism(tensor=3, data=2)
    resolved = predictor.predict(request(device="h100-sxm", parallelism=parallelism)).resolved
    assert resolved.precision == types_pb2.PRECISION_BF16
    assert resolved.engine == "vllm"
    assert resolved.gpu_count == 6


def test_packed_precisions_keep_a_plain_cache(predictor):
    answer = predictor.predict(request(device="h100-sxm", precision=types_pb2.PRECISION_FP8))
    assert answer.resolved.kv_cache_precision == types_pb2.PRECISION_BF16


@pytest.mark.parametrize(
    ("device", "precision", "codes"),
    [
        ("h100-sxm", types_pb2.PRECISION_FP8, set()),
        ("a100-sxm", types_pb2.PRECISION_BF16, {"PRECISION_SUBSTITUTED"}),
        ("local", types_pb2.PRECISION_FP32, set()),
    ],
)
def test_a_stored_precision_wins_where_the_device_has_it(predictor, device, precision, codes):
    config = {"model_type": "llama", "quantization_config": {"quant_method": "fp8"}}
    assert architecture_from_config(config).stored_precision is Precision.FP8
    spec = types_pb2.ModelSpec()
    spec.huggingface_config.update(config)
    answer = predictor.predict(request(device=device, model=spec))
    assert answer.resolved.precision == precision
    assert {w.code for w in answer.warnings} & {"PRECISION_SUBSTITUTED"} == codes


@pytest.mark.parametrize(
    ("device", "precision", "experts", "codes"),
    [
        (
            "h100-sxm",
            types_pb2.PRECISION_BF16,
            types_pb2.PRECISION_FP4,
            {"EXPERTS_PRECISION", "PRECISION_SUBSTITUTED"},
        ),
        ("b200-sxm", types_pb2.PRECISION_BF16, types_pb2.PRECISION_FP4, {"EXPERTS_PRECISION"}),
        ("local", types_pb2.PRECISION_FP32, types_pb2.PRECISION_UNSPECIFIED, set()),
    ],
)
def test_experts_keep_the_format_of_the_checkpoint(predictor, device, precision, experts, codes):
    spec = types_pb2.ModelSpec(preset="gpt-oss-120b")
    answer = predictor.predict(request(device=device, model=spec))
    assert answer.resolved.precision == precision
    assert answer.resolved.experts_precision == experts
    known = {"EXPERTS_PRECISION", "PRECISION_SUBSTITUTED"}
    assert {w.code for w in answer.warnings} & known == codes
    if device != "local":
        assert answer.memory.weights_bytes == pytest.approx(60.8 * 2**30, rel=0.01)


def test_a_precision_that_is_asked_for_is_that_of_all_matrices(predictor):
    spec = types_pb2.ModelSpec(preset="gpt-oss-120b")
    answer = predictor.predict(
        request(device="h100-sxm", model=spec, precision=types_pb2.PRECISION_BF16)
    )
    assert answer.resolved.experts_precision == types_pb2.PRECISION_UNSPECIFIED
    assert answer.memory.weights_bytes == pytest.approx(2 * 116.8e9, rel=0.01)


@pytest.mark.parametrize("name", ["qwen3-next-80b-a3b", "deepseek-v3.2"])
def test_linear_and_sparse_attention_come_back_as_explicit_dimensions(predictor, name):
    ranks = types_pb2.Parallelism(tensor=8)
    first = predictor.predict(
        request(device="h200-sxm", model=types_pb2.ModelSpec(preset=name), parallelism=ranks)
    )
    architecture = first.resolved.architecture
    assert architecture.HasField("linear_attention") == (name == "qwen3-next-80b-a3b")
    assert architecture.HasField("sparse_attention") == (name == "deepseek-v3.2")
    again = predictor.predict(
        request(
            device="h200-sxm",
            model=types_pb2.ModelSpec(architecture=architecture),
            parallelism=ranks,
            precision=first.resolved.precision,
        )
    )
    assert again.tpot_ms == first.tpot_ms
    assert again.memory == first.memory


def test_prefill_alone_leaves_tpot_and_throughput_unset(predictor):
    answer = predictor.predict(request(workload={"output_tokens": 0}))
    for field in ("tpot_ms", "tokens_per_second", "tokens_per_second_per_gpu"):
        assert not answer.HasField(field)


def test_a_breakdown_comes_when_it_is_asked_for(predictor):
    assert not predictor.predict(request()).breakdown
    rows = predictor.predict(request(include_breakdown=True)).breakdown
    assert {row.phase for row in rows} == {types_pb2.PHASE_PREFILL, types_pb2.PHASE_DECODE}
    assert "q_proj" in {row.name for row in rows}


def test_a_fitted_cost_model_answers_as_soon_as_it_is_there(predictor, cost_models):
    predictor.predict(request())
    fit(cost_models)
    answer = predictor.predict(request())
    assert answer.cost_model == "cm-1"
    assert answer.provenance == types_pb2.PROVENANCE_MEASURED_LOCALLY
    assert answer.tpot_ms.value == 30 * 9 + 3
    fit(cost_models, "cm-2")
    assert predictor.predict(request()).cost_model == "cm-2"


def test_an_answer_says_that_the_cost_model_is_being_fitted_again(predictor, cost_models):
    def codes(device):
        return {warning.code for warning in predictor.predict(request(device=device)).warnings}

    remarks = {"COST_MODEL_REFITTING", "NO_MEASUREMENTS"}
    assert codes("local") & remarks == {"NO_MEASUREMENTS"}
    cost_models.fits_again = True
    assert codes("local") & remarks == {"COST_MODEL_REFITTING"}
    assert codes("h100-sxm") & remarks == {"NO_MEASUREMENTS"}


def test_what_the_cost_model_does_not_hold_is_analytical(predictor, cost_models):
    fit(cost_models)
    answer = predictor.predict(request(precision=types_pb2.PRECISION_FP16))
    assert answer.cost_model == ANALYTICAL
    assert answer.provenance == types_pb2.PROVENANCE_ANALYTICAL


def test_provenance_can_be_required(predictor, cost_models):
    asked = request(require_provenance=types_pb2.PROVENANCE_MEASURED_LOCALLY)
    assert failure(predictor.predict, asked)[0] == "FAILED_PRECONDITION"
    fit(cost_models)
    assert predictor.predict(asked).provenance == types_pb2.PROVENANCE_MEASURED_LOCALLY


def test_figures_beyond_64_bits_are_cut(predictor):
    sizes = {"input_tokens": 16_777_216, "output_tokens": 16_777_216, "batch_size": 1_048_576}
    answer = predictor.predict(request("llama-3.1-405b", sizes, include_breakdown=True))
    assert answer.memory.kv_cache_bytes == 2**63 - 1
    assert not answer.memory.fits
    chunked = request(
        "llama-3.1-405b",
        sizes | {"prefill_chunk_tokens": 1, "batch_size": 0},
        include_breakdown=True,
    )
    assert max(row.count for row in predictor.predict(chunked).breakdown) == 126 * 16_777_216


def test_measure_shares_the_reading_of_a_request(predictor):
    asked = profiler_pb2.MeasureRequest(
        model=types_pb2.ModelSpec(preset="gpt2"), workload=types_pb2.Workload(input_tokens=8)
    )
    resolution = predictor.resolve(asked)
    assert resolution.question.precision is Precision.FP32
    assert predictor.answer(resolution).resolved.architecture.name == "gpt2"


# --- bad requests -------------------------------------------------------------


def test_an_empty_request_says_all_that_is_missing(predictor):
    assert failure(predictor.predict, latency_pb2.PredictRequest()) == (
        "INVALID_ARGUMENT",
        ["model", "workload"],
    )


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"precision": 99}, "precision"),
        ({"kv_cache_precision": 99}, "kv_cache_precision"),
        ({"require_provenance": 99}, "require_provenance"),
        ({"engine": "tgi"}, "engine"),
        ({"confidence": float("nan")}, "confidence"),
        ({"workload": {"input_tokens": -1}}, "workload.input_tokens"),
        ({"workload": {"cached_prefix_tokens": 128}}, "workload.cached_prefix_tokens"),
        ({"parallelism": types_pb2.Parallelism(tensor=2)}, "parallelism.tensor"),
        ({"parallelism": types_pb2.Parallelism(pipeline=31)}, "parallelism.pipeline"),
        ({"parallelism": types_pb2.Parallelism(tensor=3, expert=3)}, "parallelism.expert"),
    ],
)
def test_a_field_at_fault_is_named(predictor, fields, path):
    assert failure(predictor.predict, request(**fields)) == ("INVALID_ARGUMENT", [path])


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"preset": "no-such-model"}, "model.preset"),
        ({"device": "tpu"}, "device"),
        ({"calibration": "mine"}, "calibration"),
    ],
)
def test_names_that_stand_for_nothing_are_not_found(predictor, fields, path):
    assert failure(predictor.predict, request(**fields)) == ("NOT_FOUND", [path])


# --- the service --------------------------------------------------------------


def test_a_batch_answers_each_in_its_place(service, context):
    batch = latency_pb2.BatchPredictRequest(
        requests=[
            request(),
            request(preset="no-such-model"),
            request(workload={"input_tokens": -1}),
            request(require_provenance=types_pb2.PROVENANCE_REFERENCE_DATA),
        ]
    )
    results = service.BatchPredict(batch, context).results
    assert results[0].response == service.Predict(request(), context)
    assert [(r.error.code, r.error.field) for r in results[1:]] == [
        (grpc.StatusCode.NOT_FOUND.value[0], "model.preset"),
        (grpc.StatusCode.INVALID_ARGUMENT.value[0], "workload.input_tokens"),
        (grpc.StatusCode.FAILED_PRECONDITION.value[0], ""),
    ]
    assert "no-such-model" in results[1].error.message


@pytest.mark.parametrize("count", [0, 10_001])
def test_a_batch_has_1_to_10_000_requests(service, context, count):
    batch = latency_pb2.BatchPredictRequest(requests=[latency_pb2.PredictRequest()] * count)
    with pytest.raises(InvalidFieldError) as caught:
        service.BatchPredict(batch, context)
    assert caught.value.field == "requests"


def test_a_batch_ends_when_its_caller_goes_away(service):
    calls = iter([True, True, False])
    gone = SimpleNamespace(is_active=lambda: next(calls))
    batch = latency_pb2.BatchPredictRequest(requests=[request()] * 1000)
    assert failure(service.BatchPredict, batch, gone)[0] == "CANCELLED"


def test_sweep_and_plan_say_what_to_use_instead(service, context):
    for call, message in (
        (service.Sweep, latency_pb2.SweepRequest()),
        (service.Plan, latency_pb2.PlanRequest()),
    ):
        with pytest.raises(ServiceError, match="BatchPredict") as caught:
            call(message, context)
        assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


def test_a_prediction_takes_no_longer_than_a_call(predictor):
    """Median, so that a busy machine does not matter; 2 ms is ten times what it takes."""
    asked = request(device="h100-sxm")
    times = []
    for _ in range(50):
        start = time.perf_counter()
        predictor.predict(asked)
        times.append(time.perf_counter() - start)
    assert sorted(times)[25] < 2e-3


def test_cost_models_are_composed_once(predictor, monkeypatch):
    made = []
    real = predictor_module.CompositeCostModel
    monkeypatch.setattr(
        predictor_module,
        "CompositeCostModel",
        lambda *arguments: made.append(arguments) or real(*arguments),
    )
    for _ in range(3):
        predictor.predict(request())
    assert len(made) == 1
