"""Fits cost models again that another version has stored in a format of its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from server.fitting import FitCancelledError, FitError
from server.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.records import CostModelRecord

_log = structlog.get_logger(__name__)


class Refits:
    """Fits in the background, one after the other; safe to use from any thread.

    Args:
        fit: makes another cost model of the measurements behind a record, and current;
            ends once the event is set.
    """

    def __init__(self, fit: Callable[[CostModelRecord, threading.Event], object]) -> None:
        self._fit = fit
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="refits")
        self._stopping = threading.Event()
        self._under_way: set[str] = set()

    def begin(self, record: CostModelRecord) -> None:
        """Fits again what stands behind the record of an unreadable cost model."""
        if not self._stopping.is_set():
            self._under_way.add(record.id)
            self._executor.submit(self._run, record)

    def under_way(self, record: CostModelRecord) -> bool:
        """Returns whether another cost model is to take the place of this one."""
        return record.id in self._under_way

    def stop(self) -> None:
        """Ends them; after the next start they begin anew."""
        self._stopping.set()
        self._executor.shutdown(cancel_futures=True)

    def _run(self, record: CostModelRecord) -> None:
        try:
            self._fit(record, self._stopping)
        except FitCancelledError:
            _log.info("fitting again was cut off", cost_model=record.id)
        except (FitError, StoreError, OSError) as error:
            _log.warning("cannot be fitted again", cost_model=record.id, error=str(error))
        finally:
            self._under_way.discard(record.id)
