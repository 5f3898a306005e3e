"""Takes in the measurements that are committed with the project, after the daemon has started."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

import structlog

from model.committed import SUFFIX, CommittedFileError, measurements_of, origin_of
from model.errors import InvalidFieldError
from server.errors import ServiceError
from server.fitting import FitCancelledError, FitError
from server.imports import check_shape, imported_environment
from server.records import COMMITTED
from server.store.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from server.state import State

_DIGITS = 16
_LONGEST_SOURCE = 400

_log = structlog.get_logger(__name__)


class CommittedMeasurements:
    """Imports each file of a folder as a client would, once for each content of it.

    A file whose cost model is stored costs a look at its first line. One that cannot be used is
    left out with a warning in the log.

    Args:
        folder: of the files.
        state: store, devices and cost models.
    """

    def __init__(self, folder: Path, state: State) -> None:
        self._folder = folder
        self._state = state
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="committed", daemon=True)

    def start(self) -> None:
        """Begins in the background: no question waits for it."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it; after the next start it goes on."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        if not self._folder.is_dir():
            _log.warning("no folder of committed measurements", folder=str(self._folder))
            return
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            if self._stopping.is_set():
                return
            try:
                self._take_in(path)
            except FitCancelledError:
                _log.info("taking in committed measurements was cut off", file=str(path))
            except (
                CommittedFileError,
                FitError,
                InvalidFieldError,
                OSError,
                ServiceError,
                StoreError,
            ) as error:
                _log.warning("committed measurements left out", file=str(path), error=str(error))

    def _take_in(self, path: Path) -> None:
        content = path.read_bytes()
        origin = origin_of(content, path)
        device = self._state.devices.get(origin.device)
        if device.local:
            raise CommittedFileError(f"{device.name} names what is in this machine, not a card")
        digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
        # Another content is another source, which is then fitted.
        source = f"{COMMITTED} {origin.source[:_LONGEST_SOURCE]}, sha256 {digest}"
        environment = imported_environment(device, source, origin.engine)
        store = self._state.store
        fitted = store.cost_models.imported()
        if environment.fingerprint in {record.fingerprint for record in fitted}:
            return
        rows = measurements_of(content, path)
        for row in rows:
            check_shape(row)
        store.measurements.append_imported(
            rows, first=0, device=device.stored_name, environment=environment
        )
        self._state.cost_models.fit_reference(
            device,
            origin.engine,
            source=source,
            timeout_s=self._state.configuration.fit_timeout,
            cancelled=self._stopping,
        )
        _log.info("committed measurements taken in", device=device.name, rows=len(rows))
