"""The cost models that Predict uses now, one a local device."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from server.fitting import FIT_COMMAND, FitCancelledError, FitError, FitTimeoutError, fit
from server.records import CostModelRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.cost_model import FittedCostModel
    from server.devices import Device, DeviceRegistry
    from server.store import Store

_POLL_S = 0.1

_log = structlog.get_logger(__name__)


class NoMeasurementsError(FitError):
    """Nothing was measured on the device in its present environment."""


@dataclass(frozen=True, slots=True)
class CurrentCostModel:
    """A cost model with what the store knows of it."""

    record: CostModelRecord
    model: FittedCostModel


class CostModels:
    """Current cost model of each local device in its present environment.

    Args:
        store: keeps them over restarts.
        devices: whose environments count.
        fit_command: reads measurements and writes a model.
    """

    def __init__(
        self, store: Store, devices: DeviceRegistry, fit_command: Sequence[str] = FIT_COMMAND
    ) -> None:
        self._store = store
        self._fit_command = fit_command
        self._current: dict[str, CurrentCostModel] = {}
        self._fitting = {device.stored_name: threading.Lock() for device in devices.local()}
        for device in devices.local():
            self._load(device)

    def current(self, device: Device) -> CurrentCostModel | None:
        """Returns the device's cost model, None where nothing was fitted yet."""
        return self._current.get(device.stored_name)

    def fit(
        self, device: Device, *, timeout_s: float, cancelled: threading.Event | None = None
    ) -> CurrentCostModel:
        """Fits a device's cost model again on all its measurements and makes it current.

        Another fit of the device is waited for.

        Args:
            device: a local one.
            timeout_s: seconds that it may take, waiting included.
            cancelled: ends it once set.

        Raises:
            NoMeasurementsError: there is nothing to fit on.
            FitCancelledError, FitTimeoutError: it was ended.
            FitError: no cost model came of it; the one before stays current.
            StoreFullError, StoreUnavailableError: likewise, it cannot be stored.
        """
        end = time.monotonic() + timeout_s
        lock = self._fitting[device.stored_name]
        while not lock.acquire(timeout=_POLL_S):
            if cancelled is not None and cancelled.is_set():
                raise FitCancelledError("fitting was cancelled")
            if time.monotonic() > end:
                raise FitTimeoutError(f"another fit of {device.name} took all the time")
        try:
            return self._fit(device, end - time.monotonic(), cancelled)
        finally:
            lock.release()

    def _fit(
        self, device: Device, timeout_s: float, cancelled: threading.Event | None
    ) -> CurrentCostModel:
        assert device.environment is not None  # noqa: S101 - only local devices have a lock
        start = time.monotonic()
        rows = self._store.measurements.of(device.stored_name, device.fingerprint)
        if not rows:
            raise NoMeasurementsError(
                f"nothing was measured on {device.name} in its present environment;"
                " run a profile job first"
            )
        blob = fit(rows, timeout_s=timeout_s, cancelled=cancelled, command=self._fit_command)
        try:
            model = _from_bytes(blob)
        except ValueError as error:
            raise FitError(f"what fitting wrote is no cost model: {error}") from error
        record = CostModelRecord(
            id=f"cm-{secrets.token_hex(6)}",
            device=device.stored_name,
            fingerprint=device.fingerprint,
            create_time=datetime.now(UTC),
            measurement_count=model.measurement_count,
            scores=tuple(model.scores),
            precisions=tuple(model.precisions),
            engines=tuple(model.engines),
        )
        self._store.cost_models.add(record, blob, device.environment)
        fitted = CurrentCostModel(record, model)
        self._current[device.stored_name] = fitted
        _log.info(
            "cost model fitted",
            cost_model=record.id,
            device=device.stored_name,
            rows=record.measurement_count,
            seconds=round(time.monotonic() - start, 3),
        )
        return fitted

    def _load(self, device: Device) -> None:
        stored = self._store.cost_models.current(device.stored_name, device.fingerprint)
        if stored is None:
            return
        record, blob = stored
        try:
            model = _from_bytes(blob)
        except ValueError as error:
            # A newer version may write them otherwise; the measurements are there.
            _log.warning(
                "stored cost model cannot be read; FitCostModel makes a new one",
                cost_model=record.id,
                error=str(error),
            )
            return
        self._current[device.stored_name] = CurrentCostModel(replace(record, current=True), model)


def _from_bytes(blob: bytes) -> FittedCostModel:
    # The trees' library takes a third of a second to load: not where there are none.
    from model.cost_model import FittedCostModel  # noqa: PLC0415

    return FittedCostModel.from_bytes(blob)
