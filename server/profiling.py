"""Everything of the daemon that runs workers, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from server.device_queue import QueueFullError
from server.devices import CPU
from server.errors import ServiceError
from server.jobs import JobManager
from server.live_measurement import LiveMeasurements
from server.profiler_service import ProfilerService
from server.schedules import Schedules
from server.store.errors import StoreError
from server.worker_process import WORKER_COMMAND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.predictor import Predictor
    from server.state import State

_log = structlog.get_logger(__name__)


class Profiling:
    """Jobs, schedules and live measurements of one daemon.

    Attributes:
        jobs: runs campaigns.
        schedules: starts them again and again.
        service: answers for all of it.

    Args:
        state: what the services share.
        predictor: makes the prediction beside a live measurement.
        worker_command: starts the workers.
    """

    def __init__(
        self,
        state: State,
        predictor: Predictor,
        worker_command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._state = state
        self.jobs = JobManager(state, worker_command)
        self.schedules = Schedules(state, self.jobs)
        live = LiveMeasurements(state, predictor, self.jobs, worker_command)
        self.service = ProfilerService(
            state.devices, state.occupancy, live, self.jobs, self.schedules, state.store
        )

    def start(self) -> None:
        """Goes on with what was cut off, and profiles on start if that is configured."""
        self.jobs.start()
        self.schedules.start()
        self._profile_on_start()

    def drain(self) -> None:
        """Starts nothing any more and ends the campaigns; they go on at the next start."""
        self.schedules.stop()
        self.jobs.drain()

    def _profile_on_start(self) -> None:
        configuration = self._state.configuration
        if configuration.profile_on_start == "off":
            return
        quick = configuration.profile_on_start == "quick"
        budget_s = configuration.quick_budget if quick else configuration.full_budget
        devices = self._state.devices.local()
        # Where there is a GPU the processor has to keep up with it.
        for device in [known for known in devices if known.name != CPU] or devices:
            models = self._state.cost_models
            if quick and (models.local(device) is not None or models.refitting(device)):
                continue
            if occupant := self.jobs.occupant(device):
                _log.info("not profiled on start", device=device.name, reason=occupant)
                continue
            try:
                self._state.occupancy.note_and_check(
                    device, "`tokenpace profile --force` goes ahead"
                )
                job = self.jobs.create(device, budget_s=budget_s)
            except (QueueFullError, ServiceError, StoreError) as error:
                _log.warning("not profiled on start", device=device.name, reason=str(error))
            else:
                _log.info("profiles on start", device=device.name, job=job.id)
