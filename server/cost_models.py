"""The cost models that Predict uses now, and how they are fitted."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import threading
import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from model.estimate import Provenance
from model.hardware import data_sheet
from model.measurement import LENDER, PROCESSORS, PUBLISHED
from server.fitting import (
    FIT_COMMAND,
    FitCancelledError,
    FitError,
    FitTimeoutError,
    NothingToFitError,
    fit,
)
from server.imports import imported_environment
from server.records import CostModelRecord
from server.reference_cost_models import (
    BorrowedCostModel,
    CurrentCostModel,
    ReferenceCostModels,
    cost_model_of,
    readable,
)
from server.refits import Refits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from model.hardware import DataSheet
    from profiler.interface import Environment
    from server.devices import Device, DeviceRegistry
    from server.store import Store

_POLL_S = 0.1

_log = structlog.get_logger(__name__)


class NoMeasurementsError(FitError):
    """Nothing was measured on the device in its present environment."""


class CostModels:
    """Current cost models: of each local device in its present environment, and of reference data.

    Those of reference data are read when they are first asked for: they are large. One that
    another version has stored in a format of its own is fitted again in the background.

    Args:
        store: keeps them over restarts.
        devices: whose environments count.
        fit_command: reads measurements and writes a model.
        refit_timeout_s: seconds that a fit in the background may take.
    """

    def __init__(
        self,
        store: Store,
        devices: DeviceRegistry,
        fit_command: Sequence[str] = FIT_COMMAND,
        refit_timeout_s: float = 300.0,
    ) -> None:
        self._store = store
        self._devices = devices
        self._fit_command = fit_command
        self._refit_timeout_s = refit_timeout_s
        self._local = {device.stored_name: device for device in devices.local()}
        self._current: dict[str, CurrentCostModel] = {}
        self._outdated: dict[str, CostModelRecord] = {}
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._refits = Refits(self._fit_again)
        self._references = ReferenceCostModels(store, self._refits.begin)
        for device in self._local.values():
            self._load(device)

    def stop(self) -> None:
        """Ends what is fitted in the background; it is begun anew after the next start."""
        self._refits.stop()

    def local(self, device: Device) -> CurrentCostModel | None:
        """Returns a local device's cost model, None where nothing was fitted yet."""
        return self._current.get(device.stored_name)

    def current(
        self, device: Device, engine: str = ""
    ) -> CurrentCostModel | BorrowedCostModel | None:
        """Returns the device's cost model, None where nothing was fitted yet.

        Args:
            device: any.
            engine: of one that is not here: whose kernels are preferred.
        """
        if device.local:
            return self.local(device)
        return self._references.current(device, engine)

    def refitting(self, device: Device, engine: str = "") -> bool:
        """Returns whether the device's cost model is being fitted again in the background."""
        record = (
            self._outdated.get(device.stored_name)
            if device.local
            else self._references.chosen(device, engine)
        )
        return record is not None and self._refits.under_way(record)

    def in_use(self, record: CostModelRecord) -> bool:
        """Returns whether Predict answers by that cost model now, for any engine."""
        named = (it for it in self._devices.all() if it.stored_name == record.device)
        device = next(named, None)
        if device is None:
            return False  # a card that is gone
        if not device.local:
            return self._references.uses(device, record)
        current = self.local(device)
        return current is not None and current.record.id == record.id

    def described(self, device: Device) -> tuple[CostModelRecord, Provenance] | None:
        """Returns the record of the device's cost model, and what it is to the device.

        None where nothing was fitted that could stand for it.
        """
        if not device.local:
            return self._references.described(device)
        current = self.local(device)
        return (current.record, current.record.provenance) if current is not None else None

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
        assert device.environment is not None  # noqa: S101 - local devices have one
        return self._fit_local(device.stored_name, device.environment, timeout_s, cancelled)

    def fit_reference(
        self,
        device: Device,
        engine: str,
        *,
        source: str = "",
        timeout_s: float,
        cancelled: threading.Event | None = None,
    ) -> CurrentCostModel:
        """Fits rows that were imported for a device that is not here, and an engine.

        Args:
            device: not a local one.
            engine: whose kernels the rows stand for.
            source: whose rows; empty: those imported last.
            timeout_s: as in :meth:`fit`.
            cancelled: as there.

        Raises:
            NoMeasurementsError and others: as :meth:`fit` does.
        """
        environment = (
            self._store.environments.get(imported_environment(device, source, engine).fingerprint)
            if source
            else self._store.environments.newest_imported(device.stored_name, engine)
        )
        if environment is None:
            raise NoMeasurementsError(
                f"no measurements of {engine} on {device.name} were imported"
                f"{' from that source' if source else ''};"
                " `tokenpace reference import` brings some"
            )
        return self._fit_imported(device.stored_name, environment, timeout_s, cancelled)

    def _fit_again(self, record: CostModelRecord, cancelled: threading.Event) -> CurrentCostModel:
        environment = self._store.environments.get(record.fingerprint)
        assert environment is not None  # noqa: S101 - stored with the cost model
        imported = record.provenance is Provenance.REFERENCE_DATA
        fit = self._fit_imported if imported else self._fit_local
        return fit(record.device, environment, self._refit_timeout_s, cancelled)

    def _fit_local(
        self,
        device: str,
        environment: Environment,
        timeout_s: float,
        cancelled: threading.Event | None,
    ) -> CurrentCostModel:
        with self._turn(device, timeout_s, cancelled) as left_s:
            sheet = self._local[device].sheet
            fitted = self._fit(device, environment, left_s, cancelled, sheet=sheet)
            self._current[device] = fitted
            return fitted

    def _fit_imported(
        self,
        device: str,
        environment: Environment,
        timeout_s: float,
        cancelled: threading.Event | None,
    ) -> CurrentCostModel:
        with self._turn(device, timeout_s, cancelled) as left_s:
            fitted = self._fit(
                device, environment, left_s, cancelled, PUBLISHED, sheet=data_sheet(device)
            )
            self._references.forget()
            return fitted

    @contextlib.contextmanager
    def _turn(
        self, device: str, timeout_s: float, cancelled: threading.Event | None
    ) -> Iterator[float]:
        """Waits until no other fit of the device runs; yields the seconds that are left."""
        end = time.monotonic() + timeout_s
        lock = self._locks[device]
        while not lock.acquire(timeout=_POLL_S):
            if cancelled is not None and cancelled.is_set():
                raise FitCancelledError("fitting was cancelled")
            if time.monotonic() > end:
                raise FitTimeoutError(f"another fit of {device} took all the time")
        try:
            yield end - time.monotonic()
        finally:
            lock.release()

    def _fit(
        self,
        device: str,
        environment: Environment,
        timeout_s: float,
        cancelled: threading.Event | None,
        *flags: str,
        sheet: DataSheet,
    ) -> CurrentCostModel:
        start = time.monotonic()
        fingerprint = environment.fingerprint
        rows = self._store.measurements.stream(device, fingerprint)
        command = [*self._fit_command, *flags]
        if sheet.processors:
            command += [PROCESSORS, str(sheet.processors)]
        try:
            with _file_of(self._references.lender(device, sheet)) as lender:
                command += lender
                blob = fit(rows, timeout_s=timeout_s, cancelled=cancelled, command=command)
        except NothingToFitError as error:
            raise NoMeasurementsError(
                f"nothing was measured on {device} in its present environment;"
                " run a profile job first"
            ) from error
        try:
            model = cost_model_of(blob)
        except ValueError as error:
            raise FitError(f"what fitting wrote is no cost model: {error}") from error
        record = CostModelRecord(
            id=f"cm-{secrets.token_hex(6)}",
            device=device,
            fingerprint=fingerprint,
            create_time=datetime.now(UTC),
            measurement_count=model.measurement_count,
            scores=tuple(model.scores),
            precisions=tuple(model.precisions),
            engines=tuple(dict.fromkeys(filter(None, (environment.engine, *model.engines)))),
            provenance=model.provenance,
        )
        self._store.cost_models.add(record, blob, environment)
        _log.info(
            "cost model fitted",
            cost_model=record.id,
            device=device,
            rows=record.measurement_count,
            seconds=round(time.monotonic() - start, 3),
        )
        return CurrentCostModel(record, model)

    def _load(self, device: Device) -> None:
        stored = self._store.cost_models.current(device.stored_name, device.fingerprint)
        if stored is None:
            return
        model = readable(*stored)
        if model is not None:
            self._current[device.stored_name] = model
        else:
            self._outdated[device.stored_name] = stored[0]
            self._refits.begin(stored[0])


@contextlib.contextmanager
def _file_of(lender: tuple[str, bytes] | None) -> Iterator[list[str]]:
    """Yields what tells the fit of a lender, whose cost model is in a file meanwhile."""
    if lender is None:
        yield []
        return
    name, blob = lender
    with tempfile.NamedTemporaryFile(prefix="tokenpace-") as file:
        file.write(blob)
        file.flush()
        yield [LENDER, name, file.name]
