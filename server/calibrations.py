"""Calibrations: made of users' rows, kept in the store, applied to predictions.

The rows are what is kept. A calibration is fitted on them when it is first asked for, and
again once a device it stands for has another cost model: it corrects the predictions of now.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import structlog

from model.calibration import Correction, Observed
from model.calibration_report import score_of
from model.errors import InvalidFieldError
from model.inference import with_latencies
from model.notices import Notice
from model.plausibility import doubtful, impossible
from server.calibration_rows import FIGURES, Base, checked, point_of
from server.errors import (
    Violation,
    already_exists,
    failed_precondition,
    invalid_argument,
    not_found,
)
from server.records import CalibrationRecord
from server.store.errors import NameTakenError
from tokenpace.v1 import catalog_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.architecture import Architecture
    from model.estimate import MeasuredCostModel
    from model.inference import Inference
    from server.calibration_rows import CheckedRow
    from server.devices import Device
    from server.predictor import Resolution
    from server.store import Store

MAX_ROWS = 2_000
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHOWN_ROWS = 5

_log = structlog.get_logger(__name__)


class _Predictor(Base, Protocol):
    def cost_model(self, device: Device, engine: str) -> MeasuredCostModel | None:
        """Returns the fitted cost model that an engine on a device is answered for by, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitted:
    """A calibration that can be applied.

    Attributes:
        corrections: of "ttft" and "tpot", those that rows hold.
        models: architectures of its rows.
        bases: devices and engines of its rows, and the cost model of each that it was fitted
            against.
        devices, engines: names it applies to.
    """

    corrections: dict[str, Correction]
    models: frozenset[Architecture]
    bases: tuple[tuple[Device, str, MeasuredCostModel | None], ...]
    devices: frozenset[str]
    engines: frozenset[str]


class Calibrations:
    """All calibrations; any thread may use them.

    Args:
        store: keeps their rows.
        predictor: makes the predictions that are corrected.
    """

    def __init__(self, store: Store, predictor: _Predictor) -> None:
        self._store = store.calibrations
        self._predictor = predictor
        self._fitted: dict[str, _Fitted] = {}
        self._lock = threading.Lock()

    def create(
        self,
        name: str,
        rows: Sequence[catalog_pb2.CalibrationRow],
        *,
        accept_suspicious: bool = False,
        validate_only: bool = False,
    ) -> CalibrationRecord:
        """Fits on rows and stores them.

        Args:
            name: to keep it under.
            rows: what was measured.
            accept_suspicious: whether rows that cannot be right are fitted on, too.
            validate_only: whether nothing is stored.

        Raises:
            ServiceError: INVALID_ARGUMENT, NOT_FOUND (preset, device of a row) or
                ALREADY_EXISTS.
            InvalidFieldError: a field cannot be used; names it.
        """
        if (name or not validate_only) and not _NAME.fullmatch(name):
            raise InvalidFieldError(
                "name", "required: 1 to 64 letters, digits, dots, dashes and underscores"
            )
        if not 1 <= len(rows) <= MAX_ROWS:
            raise InvalidFieldError("rows", f"{len(rows)} rows are not in 1 to {MAX_ROWS:,}")
        # Before the work; the store has the last word.
        if not validate_only and self._store.get(name) is not None:
            raise _taken(name)
        found = checked(rows, self._predictor)
        judged = [row.measured for row in found]
        wrong = impossible(judged)
        if wrong and not accept_suspicious:
            raise invalid_argument(
                [
                    Violation(
                        f"rows[{remark.rows[0]}]",
                        f"{remark.text} ({_places(remark.rows, rows)}); leave such rows out, or"
                        " set accept_suspicious",
                    )
                    for remark in wrong
                ],
                "SUSPICIOUS_ROWS",
            )
        fitted = self._fit(found)
        left_out = {figure: it.left_out for figure, it in fitted.corrections.items()}
        record = CalibrationRecord(
            name=name,
            create_time=datetime.now(UTC),
            row_count=len(found),
            devices=tuple(sorted(fitted.devices)),
            engines=tuple(sorted(fitted.engines)),
            engine_versions=_versions(found),
            architectures=tuple(sorted({_model_name(row) for row in found})),
            scores=tuple(
                score_of(figure, _observed(found, figure), correction)
                for figure, correction in fitted.corrections.items()
            ),
            remarks=(*wrong, *doubtful(judged, left_out)),
        )
        if not validate_only:
            try:
                self._store.add(record, [row.SerializeToString() for row in rows])
            except NameTakenError:
                raise _taken(name) from None
            with self._lock:
                self._fitted[name] = fitted
            _log.info("calibration made", calibration=name, rows=len(found))
        return record

    def get(self, name: str) -> CalibrationRecord:
        """Returns a calibration.

        Raises:
            ServiceError: NOT_FOUND.
        """
        record = self._store.get(name)
        if record is None:
            raise _unknown(name, "name")
        return record

    def delete(self, name: str) -> None:
        """Removes a calibration with its rows.

        Raises:
            ServiceError: NOT_FOUND.
        """
        with self._lock:
            self._fitted.pop(name, None)
            if not self._store.delete(name):
                raise _unknown(name, "name")

    def apply(self, name: str, resolution: Resolution, inference: Inference) -> Inference:
        """Returns an answer as a calibration corrects it, with remarks.

        Args:
            name: of the calibration.
            resolution: what was asked.
            inference: the answer without correction, with its breakdown.

        Raises:
            ServiceError: NOT_FOUND; FAILED_PRECONDITION, it is for other devices or engines.
        """
        fitted = self._current(name)
        _check_fits(name, fitted, resolution)
        point = point_of(resolution, inference)
        confidence = resolution.question.confidence
        notices = []
        if point.deployment.model not in fitted.models:
            notices.append(
                Notice(
                    "CALIBRATION_OF_OTHER_ARCHITECTURES",
                    f"calibration {name} holds no row of this model: what its rows have in common"
                    " is applied, with a wider interval",
                )
            )
        ttft, tpot = inference.ttft_ms, inference.tpot_ms
        if "ttft" in fitted.corrections:
            ttft = fitted.corrections["ttft"].corrected(point, ttft, confidence)
        else:
            notices.append(_lacks(name, "TTFT"))
        if tpot is not None and "tpot" in fitted.corrections:
            tpot = fitted.corrections["tpot"].corrected(point, tpot, confidence)
        elif tpot is not None:
            notices.append(_lacks(name, "TPOT"))
        return with_latencies(inference, resolution.question, ttft, tpot, tuple(notices))

    def _current(self, name: str) -> _Fitted:
        """Returns a calibration fitted against the cost models of now."""
        with self._lock:
            known = self._fitted.get(name)
            if known is not None and all(
                self._predictor.cost_model(device, engine) is model
                for device, engine, model in known.bases
            ):
                return known
            stored = self._store.rows(name)
            if not stored:
                raise _unknown(name, "calibration")
            rows = [catalog_pb2.CalibrationRow.FromString(row) for row in stored]
            fitted = self._fitted[name] = self._fit(checked(rows, self._predictor))
            return fitted

    def _fit(self, rows: Sequence[CheckedRow]) -> _Fitted:
        used = {
            (row.resolution.device.stored_name, row.resolution.question.engine): row.resolution
            for row in rows
        }
        devices, engines = zip(*used, strict=True)
        confidence = rows[0].resolution.question.confidence
        corrections = {
            figure: Correction(observed, confidence)
            for figure in FIGURES
            if (observed := _observed(rows, figure))
        }
        return _Fitted(
            corrections=corrections,
            models=frozenset(row.point.deployment.model for row in rows),
            bases=tuple(
                (it.device, engine, self._predictor.cost_model(it.device, engine))
                for (_, engine), it in used.items()
            ),
            devices=frozenset(devices),
            engines=frozenset(engines),
        )


def _observed(rows: Sequence[CheckedRow], figure: str) -> list[Observed]:
    return [found for row in rows if (found := row.observed(figure)) is not None]


def _check_fits(name: str, fitted: _Fitted, resolution: Resolution) -> None:
    for what, asked, known in (
        ("device", resolution.device.stored_name, fitted.devices),
        ("engine", resolution.question.engine, fitted.engines),
    ):
        if asked not in known:
            made_for = ", ".join(sorted(known))
            raise failed_precondition(
                "CALIBRATION_MISMATCH",
                name,
                f"calibration: {name} was made for the {what} {made_for}, and {asked} is asked"
                " for; name another calibration, or none",
                {"field": what, "asked": asked, "made_for": made_for},
            )


def _lacks(name: str, figure: str) -> Notice:
    return Notice(
        "CALIBRATION_WITHOUT_FIGURE",
        f"calibration {name} holds no {figure}, which is not corrected",
    )


def _versions(rows: Sequence[CheckedRow]) -> tuple[str, ...]:
    named = {
        f"{row.resolution.question.engine} {row.engine_version}"
        for row in rows
        if row.engine_version
    }
    return tuple(sorted(named))


def _model_name(row: CheckedRow) -> str:
    architecture = row.resolution.question.architecture
    return architecture.name or architecture.model_type


def _places(found: Sequence[int], rows: Sequence[catalog_pb2.CalibrationRow]) -> str:
    shown = [rows[index].source or f"row {index}" for index in found[:_SHOWN_ROWS]]
    left = len(found) - len(shown)
    return ", ".join([*shown, f"{left} more"] if left else shown)


def _taken(name: str) -> Exception:
    return already_exists(
        "calibration",
        name,
        f"there is a calibration {name} already; choose another name or delete it first",
        "name",
    )


def _unknown(name: str, field: str) -> Exception:
    message = "no calibration has that name; ListCalibrations lists them"
    return not_found("calibration", name, message, field)
