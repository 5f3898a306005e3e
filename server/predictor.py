"""Answers a PredictRequest; shared by Predict, BatchPredict and Measure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from model.analytical import AnalyticalCostModel, generic_cpu
from model.composite import CompositeCostModel
from model.errors import InvalidFieldError
from model.estimate import Provenance
from model.inference import predict
from model.notices import NO_MEASUREMENTS, Notice
from model.operations import all_gather, all_reduce
from model.precision import Precision
from model.steps import Question
from server.conversions import (
    REFERENCE_ENGINE,
    Violations,
    architecture_of,
    confidence_of,
    engine_name,
    parallelism_of,
    precision_of,
    provenance_of,
    workload_of,
)
from server.errors import failed_precondition, not_found
from server.predictions import prediction

if TYPE_CHECKING:
    from model.architecture import Architecture
    from model.estimate import MeasuredCostModel
    from model.inference import Inference
    from model.precision import PackedFormat
    from model.workload import Parallelism, Workload
    from server.devices import Device
    from tokenpace.v1 import latency_pb2, profiler_pb2

ANALYTICAL = "analytical"
"""What stands for a cost model's id where nothing was measured."""

_REFITTING = Notice(
    "COST_MODEL_REFITTING",
    "another version stored this device's cost model in a format of its own: it is being fitted"
    " again on the same measurements; ask again in a minute",
)

_EXCHANGES = (all_reduce, all_gather)


class _Record(Protocol):
    @property
    def id(self) -> str: ...


class _Current(Protocol):
    @property
    def record(self) -> _Record: ...
    @property
    def model(self) -> MeasuredCostModel: ...


class Devices(Protocol):
    """What is needed of ``server.devices.DeviceRegistry``."""

    def get(self, name: str, field: str = "device") -> Device:
        """Returns the device of that name."""


class CostModels(Protocol):
    """What is needed of ``server.cost_models.CostModels``."""

    def current(self, device: Device, engine: str = "") -> _Current | None:
        """Returns the cost model of an engine on a device, None where nothing was fitted yet."""

    def refitting(self, device: Device, engine: str = "") -> bool:
        """Returns whether the device's cost model is being fitted again in the background."""


class Calibrations(Protocol):
    """What is needed of ``server.calibrations.Calibrations``."""

    def apply(self, name: str, resolution: Resolution, inference: Inference) -> Inference:
        """Returns the answer as that calibration corrects it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a request's zeros and names came to mean.

    Attributes:
        device: that is answered for.
        question: for the model.
        notices: on what was substituted.
    """

    device: Device
    question: Question
    notices: tuple[Notice, ...]


class Predictor:
    """Answers requests by the current cost models; safe to use from any thread.

    Args:
        devices: that can be answered for.
        cost_models: current ones.
        calibrations: that a request can name; None: there are none.
    """

    def __init__(
        self,
        devices: Devices,
        cost_models: CostModels,
        calibrations: Calibrations | None = None,
    ) -> None:
        self._devices = devices
        self._cost_models = cost_models
        self._calibrations = calibrations
        self._analytical: dict[tuple[str, str], AnalyticalCostModel] = {}
        self._composites: dict[
            tuple[str, str, Precision, Precision],
            tuple[MeasuredCostModel | None, CompositeCostModel],
        ] = {}

    def predict(self, request: latency_pb2.PredictRequest) -> latency_pb2.PredictResponse:
        """Answers a request.

        Raises:
            ServiceError: INVALID_ARGUMENT, NOT_FOUND (preset, device, calibration) or
                FAILED_PRECONDITION (provenance weaker than required, or a calibration for
                other devices or engines).
        """
        violations = Violations()
        required = None
        with violations.within(""):
            required = provenance_of(request.require_provenance, "require_provenance")
        resolution = self._resolve(request, violations)
        return self.answer(
            resolution,
            with_breakdown=request.include_breakdown,
            required=required,
            calibration=request.calibration,
        )

    def resolve(
        self, request: latency_pb2.PredictRequest | profiler_pb2.MeasureRequest
    ) -> Resolution:
        """Returns what a request's zeros and names mean.

        Raises:
            ServiceError: INVALID_ARGUMENT or NOT_FOUND (preset, device).
        """
        return self._resolve(request, Violations())

    def answer(
        self,
        resolution: Resolution,
        *,
        with_breakdown: bool = False,
        required: Provenance | None = None,
        calibration: str = "",
    ) -> latency_pb2.PredictResponse:
        """Answers what a request came to mean.

        Args:
            resolution: of the request.
            with_breakdown: whether to list the cost of each operation.
            required: weakest provenance that will do.
            calibration: name of the one that corrects it; empty: none does.

        Raises:
            ServiceError: FAILED_PRECONDITION, the provenance is weaker than required, or the
                calibration is for other devices or engines; NOT_FOUND, there is none.
        """
        current = self._cost_models.current(resolution.device, resolution.question.engine)
        composite = self._composite(resolution, current.model if current else None)
        # What a calibration goes by is in the breakdown.
        detailed = with_breakdown or bool(calibration)
        inference = predict(resolution.question, composite, with_breakdown=detailed)
        if current is None and self._cost_models.refitting(
            resolution.device, resolution.question.engine
        ):
            # There are measurements; only their cost model is not there yet.
            others = (n for n in inference.notices if n.code != NO_MEASUREMENTS)
            inference = replace(inference, notices=(_REFITTING, *others))
        if calibration:
            inference = self._calibrated(calibration, resolution, inference)
            if not with_breakdown:
                inference = replace(inference, breakdown=())
        if required is not None and inference.provenance < required:
            raise failed_precondition(
                "PROVENANCE_TOO_WEAK",
                resolution.device.name,
                f"require_provenance: the answer for {resolution.device.name} would be"
                f" {inference.provenance.name}, weaker than {required.name}; profile the device"
                " or ask for less",
                {"provenance": inference.provenance.name, "required": required.name},
            )
        used = composite.fitted is not None and (
            composite.holds_precision or composite.holds_engine
        )
        cost_model = current.record.id if current is not None and used else ANALYTICAL
        return prediction(resolution, inference, cost_model, calibration)

    def infer(self, resolution: Resolution) -> Inference:
        """Returns what is predicted without calibration, with its breakdown."""
        current = self._cost_models.current(resolution.device, resolution.question.engine)
        composite = self._composite(resolution, current.model if current else None)
        return predict(resolution.question, composite, with_breakdown=True)

    def cost_model(self, device: Device, engine: str) -> MeasuredCostModel | None:
        """Returns the fitted cost model that an engine on a device is answered for by, or None."""
        current = self._cost_models.current(device, engine)
        return current.model if current is not None else None

    def _calibrated(self, name: str, resolution: Resolution, inference: Inference) -> Inference:
        if self._calibrations is None:
            raise not_found("calibration", name, "no calibration is kept here", "calibration")
        return self._calibrations.apply(name, resolution, inference)

    def _resolve(
        self,
        request: latency_pb2.PredictRequest | profiler_pb2.MeasureRequest,
        violations: Violations,
    ) -> Resolution:
        device = self._devices.get(request.device)
        architecture: Architecture | None = None
        workload: Workload | None = None
        parallelism: Parallelism | None = None
        precision = kv_precision = None
        confidence, engine = 0.0, ""
        # One block: the first fault of the plain fields is enough, and blocks cost time.
        with violations.within(""):
            precision = precision_of(request.precision, "precision")
            kv_precision = precision_of(request.kv_cache_precision, "kv_cache_precision")
            confidence = confidence_of(request.confidence, "confidence")
            default_engine = "transformers" if device.local else REFERENCE_ENGINE
            engine = engine_name(request.engine, default_engine, "engine")
        with violations.within(""):
            architecture = architecture_of(request.model)
        with violations.within("workload"):
            if not request.HasField("workload"):
                raise InvalidFieldError("", "required; input_tokens is at least 1")
            workload = workload_of(request.workload)
        with violations.within("parallelism"):
            parallelism = parallelism_of(request.parallelism)
            if architecture is not None:
                parallelism.check(architecture)
        violations.check()
        assert architecture is not None  # noqa: S101 - each None above is a violation
        assert workload is not None  # noqa: S101
        assert parallelism is not None  # noqa: S101
        notices: tuple[Notice, ...] = ()
        stored_experts: PackedFormat | None = None
        if precision is None:
            precision, notices = _default_precision(architecture, device)
            if device.sheet.kind != "cpu" and architecture.stored_experts is not None:
                stored_experts = architecture.stored_experts
                notices += _experts_notices(stored_experts.precision, precision, device)
        return Resolution(
            device=device,
            question=Question(
                architecture=architecture,
                workload=workload,
                parallelism=parallelism,
                precision=precision,
                kv_precision=kv_precision or precision.activation,
                engine=engine,
                stored_experts=stored_experts,
                confidence=confidence,
            ),
            notices=notices,
        )

    def exchange_provenance(self, resolution: Resolution) -> Provenance:
        """Returns where the prediction has what tensor-parallel ranks exchange from."""
        question = resolution.question
        current = self._cost_models.current(resolution.device, question.engine)
        composite = self._composite(resolution, current.model if current else None)
        ranks, precision = question.parallelism.tensor, question.precision
        measured = composite.are_priced([make(1, ranks, precision) for make in _EXCHANGES])
        if composite.fitted is None or not measured:
            return Provenance.ANALYTICAL
        return composite.fitted.provenance

    def _composite(
        self, resolution: Resolution, fitted: MeasuredCostModel | None
    ) -> CompositeCostModel:
        question, device = resolution.question, resolution.device
        key = (device.name, question.engine, question.precision, question.kv_precision)
        known = self._composites.get(key)
        if known is not None and known[0] is fitted:
            return known[1]
        composite = CompositeCostModel(
            fitted,
            self.analytical(device, question.engine),
            question.precision,
            question.kv_precision,
            question.engine,
        )
        self._composites[key] = (fitted, composite)
        return composite

    def analytical(self, device: Device, engine: str) -> AnalyticalCostModel:
        """Returns what a device costs by physics alone, with the rates that it goes by."""
        key = (device.name, engine)
        if key not in self._analytical:
            sheet = device.sheet
            if sheet.kind == "cpu" and device.environment is not None:
                sheet = generic_cpu(sheet, device.environment.threads)
            self._analytical[key] = AnalyticalCostModel(sheet, engine)
        return self._analytical[key]


def _default_precision(
    architecture: Architecture, device: Device
) -> tuple[Precision, tuple[Notice, ...]]:
    """Returns fp32 on the CPU; on a GPU the stored format where it has it, else bf16."""
    if device.sheet.kind == "cpu":
        return Precision.FP32, ()
    stored = architecture.stored_precision
    if stored.activation is stored:  # no packed format: bf16 is what such models are served in
        return Precision.BF16, ()
    if device.sheet.compute_precision(stored) is stored.compute:
        return stored, ()
    notice = Notice(
        "PRECISION_SUBSTITUTED",
        f"the checkpoint is in {stored}, which {device.sheet.name} has no multipliers for;"
        " bf16 is answered for",
    )
    return Precision.BF16, (notice,)


def _experts_notices(experts: Precision, others: Precision, device: Device) -> tuple[Notice, ...]:
    """Returns the remarks on experts that are held in a format of their own."""
    held = Notice(
        "EXPERTS_PRECISION",
        f"routed experts are held in {experts} as the checkpoint has them, all else in {others};"
        " name a precision to have all in that",
    )
    compute = device.sheet.compute_precision(experts)
    if compute is experts.compute:
        return (held,)
    return (
        held,
        Notice(
            "PRECISION_SUBSTITUTED",
            f"{device.sheet.name} has no {experts} multipliers: experts are held in {experts} and"
            f" multiplied in {compute}",
        ),
    )
