"""Rows of a calibration, from the API's messages to what is fitted and judged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from model.calibration import Observed, Point, deployment_of
from model.errors import InvalidFieldError
from model.plausibility import Measured
from server.errors import ServiceError, within
from tokenpace.v1 import latency_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model.inference import Inference
    from server.predictor import Resolution
    from tokenpace.v1 import catalog_pb2

FIGURES = ("ttft", "tpot")
_LONGEST = {"engine_version": 64, "source": 256}
_LARGEST_MS = 1e9


class Base(Protocol):
    """What is needed of ``server.predictor.Predictor``."""

    def resolve(self, request: latency_pb2.PredictRequest) -> Resolution:
        """Returns what a request's zeros and names mean."""

    def infer(self, resolution: Resolution) -> Inference:
        """Returns what is predicted without calibration, with its breakdown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRow:
    """A row, predicted without calibration.

    Attributes:
        resolution: what its names and zeros mean.
        point: where it stands.
        figures: milliseconds of "ttft" and "tpot", those that were measured.
        engine_version: empty where not known.
    """

    resolution: Resolution
    point: Point
    figures: Mapping[str, float]
    engine_version: str

    def observed(self, figure: str) -> Observed | None:
        """Returns the figure as it is fitted on, None where it was not measured."""
        answer = self.point.inference
        predicted = answer.ttft_ms if figure == "ttft" else answer.tpot_ms
        if figure not in self.figures or predicted is None:
            return None
        return Observed(point=self.point, predicted=predicted, measured=self.figures[figure])

    @property
    def measured(self) -> Measured:
        """The row as it is judged; a processor's rates are guesses, and judge nothing."""
        sheet = self.resolution.device.sheet
        known = bool(sheet.peaks) and sheet.bandwidth_bytes_per_second > 0
        return Measured(
            point=self.point,
            figures=self.figures,
            sheet=sheet if known else None,
            engine_version=self.engine_version,
        )


def checked(rows: Sequence[catalog_pb2.CalibrationRow], base: Base) -> list[CheckedRow]:
    """Returns the rows, each predicted without calibration.

    Raises:
        ServiceError: INVALID_ARGUMENT or NOT_FOUND (preset, device) with the field's path.
        InvalidFieldError: likewise.
    """
    found = []
    for index, row in enumerate(rows):
        place = f"rows[{index}]"
        try:
            found.append(_checked(row, base))
        except InvalidFieldError as error:
            raise error.within(place) from None
        except ServiceError as error:
            raise within(error, place) from None
    return found


def _checked(row: catalog_pb2.CalibrationRow, base: Base) -> CheckedRow:
    for name in ("device", "engine"):
        if not getattr(row, name):
            raise InvalidFieldError(name, "required: a calibration holds for no other")
    for name, most in _LONGEST.items():
        if len(getattr(row, name)) > most:
            raise InvalidFieldError(name, f"is longer than {most} characters")
    if not (row.workload.concurrency or row.workload.batch_size):
        raise InvalidFieldError(
            "workload.concurrency", "required, or batch_size where the batch was static"
        )
    figures = _figures(row)
    resolution = base.resolve(
        latency_pb2.PredictRequest(
            model=row.model,
            device=row.device,
            workload=row.workload,
            parallelism=row.parallelism,
            precision=row.precision,
            kv_cache_precision=row.kv_cache_precision,
            engine=row.engine,
        )
    )
    return CheckedRow(
        resolution=resolution,
        point=point_of(resolution, base.infer(resolution)),
        figures=figures,
        engine_version=row.engine_version,
    )


def point_of(resolution: Resolution, inference: Inference) -> Point:
    """Returns where an answer stands; ``inference`` has its breakdown."""
    question = resolution.question
    return Point(
        deployment=deployment_of(question, resolution.device.stored_name),
        question=question,
        inference=inference,
    )


def _figures(row: catalog_pb2.CalibrationRow) -> dict[str, float]:
    figures = {}
    for name in FIGURES:
        field = f"{name}_ms"
        if row.HasField(field):
            value: float = getattr(row, field)
            if not (math.isfinite(value) and 0 < value <= _LARGEST_MS):
                raise InvalidFieldError(field, f"{value:g} is not above 0 and at most 1e9")
            figures[name] = value
    if not figures:
        raise InvalidFieldError("ttft_ms", "required, or tpot_ms: the row was not measured")
    if "tpot" in figures and row.workload.output_tokens < 2:
        raise InvalidFieldError(
            "workload.output_tokens", "a TPOT needs at least 2; the first token is not of it"
        )
    return figures
