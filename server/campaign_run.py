"""One run of a profile job: workers that measure, and the fit of what they measured."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from model.errors import InvalidFieldError
from model.precision import Precision
from profiler.interface import (
    MOST_LOST,
    CampaignRequest,
    DeviceLostError,
    Environment,
    Failed,
    FailureCode,
    Finished,
    Measured,
    Observed,
    Paused,
    Progressed,
    Skipped,
    Started,
    reserve_s,
)
from server.cancellation import CancelledError
from server.devices import CPU
from server.exchange_run import ExchangeError, ExchangeRun
from server.fitting import FitCancelledError, FitError
from server.rank_devices import exchanging
from server.records import JobState
from server.store.errors import StoreError
from server.worker_process import WORKER_COMMAND, WorkerEndedError, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from model.measurement import Measurement
    from profiler.interface import WorkerEvent
    from profiler.telemetry import Telemetry
    from server.cancellation import Cancellation
    from server.device_queue import CampaignTurn, DeviceQueue
    from server.devices import Device
    from server.job_board import JobBoard
    from server.records import JobRecord
    from server.state import State

_SAVE_S = 1.0
_WORKER_OVERRUN_S = 5.0
# A job ends by its budget + 10 s; ending processes and storing the end take the rest.
_FIT_OVERRUN_S = 8.0
_MAX_SKIPPED = 100
_EXCHANGE_SHARE = 0.5
"""Of what is left to measure in, that messages between ranks may take: once in an environment."""

_log = structlog.get_logger(__name__)


class CampaignError(Exception):
    """The job failed; the text says why. What was measured is kept."""


def worker_memory_bytes(state: State) -> int:
    """Returns the memory that a worker may allocate: a share of what is free now."""
    telemetry = state.devices.telemetry(state.devices.get(CPU))
    if telemetry is None:
        return 0
    free = telemetry.memory_total_bytes - telemetry.memory_used_bytes
    return int(state.configuration.worker_memory_fraction * free)


class CampaignRun:
    """Runs a job, from where it stands to its end.

    Args:
        job: as it stands; ``spent_s`` of its budget is used up.
        device: a local one.
        state: store, devices and cost models.
        queue_of: returns the queue of a local device.
        board: shows how the job stands.
        cancellation: of the job.
        worker_command: starts the worker.
    """

    def __init__(
        self,
        job: JobRecord,
        *,
        device: Device,
        state: State,
        queue_of: Callable[[Device], DeviceQueue],
        board: JobBoard,
        cancellation: Cancellation,
        worker_command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._job = job
        self._device = device
        self._state = state
        self._queue_of = queue_of
        self._board = board
        self._cancellation = cancellation
        self._worker_command = worker_command
        self._spent_before = job.spent_s
        self._began = time.monotonic()
        self._saved = 0.0
        self._conclusion = ""
        self._finished = False
        self._environment: Environment | None = None
        self._avoided: tuple[str, ...] = ()

    def run(self) -> JobRecord:
        """Waits for the device, measures, fits and returns the job as succeeded.

        Raises:
            CancelledError: the job was called off.
            CampaignError: it failed.
        """
        with self._queue_of(self._device).campaign(self._cancellation) as turn:
            self._began = time.monotonic()
            self._update(
                state=JobState.RUNNING,
                start_time=self._job.start_time or datetime.now(UTC),
                status="starting the worker",
            )
            self._exchange()
            self._measure(turn)
            self._check_measured()
            return self._fit()

    def _exchange(self) -> None:
        """Measures what ranks send each other; the campaign goes on where that fails."""
        limit = _EXCHANGE_SHARE * (self._left() - reserve_s(self._job.budget_s))
        try:
            devices = exchanging(self._device, self._job.ranks, self._state.devices)
            if not devices:
                return
            exchange = ExchangeRun(
                devices=devices,
                precision=self._first_precision(),
                state=self._state,
                queue_of=self._queue_of,
                worker_command=self._worker_command,
            )
            if exchange.is_done(self._measured()):
                return
            self._update(status=f"measuring what {len(devices)} ranks send each other")
            exchange.run(limit, self._cancellation, worker_memory_bytes(self._state), self._take)
        except (ExchangeError, InvalidFieldError) as error:
            self._take(Skipped(reason=f"messages between ranks: {error}"))

    def _first_precision(self) -> Precision:
        """Returns that of the activations which are measured first."""
        default = Precision.FP32 if self._device.stored_name == CPU else Precision.BF16
        return self._job.precisions[0].activation if self._job.precisions else default

    def _measured(self) -> tuple[Measurement, ...]:
        """Returns what was measured in the device's environment so far."""
        return self._state.store.measurements.of(self._device.stored_name, self._device.fingerprint)

    def _measure(self, turn: CampaignTurn) -> None:
        """Measures until the time is over, by another worker behind each that lost the device."""
        while True:
            try:
                self._measure_by_one_worker(turn)
            except DeviceLostError as error:
                self._avoided += (error.group,)
                if len(self._avoided) > MOST_LOST:
                    raise CampaignError(str(error)) from error
                _log.warning("device lost", job=self._job.id, group=error.group)
                self._take(Skipped(reason=str(error)))
            else:
                return

    def _measure_by_one_worker(self, turn: CampaignTurn) -> None:
        reserve = reserve_s(self._job.budget_s)
        measuring = self._left() - reserve
        if measuring <= 0:
            return  # resumed, with nothing left but the fit
        # The point at hand may take a moment longer than was foreseen.
        lifetime = measuring + min(_WORKER_OVERRUN_S, reserve / 2)
        done = self._measured()
        end = time.monotonic() + lifetime
        try:
            with (
                WorkerProcess(
                    lifetime_s=lifetime,
                    memory_bytes=worker_memory_bytes(self._state),
                    command=self._worker_command,
                ) as worker,
                self._cancellation.calling(worker.end_soon),
                turn.working(worker.send),
            ):
                worker.send(self._request(measuring + reserve, reserve, done))
                self._listen(worker, turn, end)
        except WorkerEndedError as error:
            self._cancellation.check()
            if time.monotonic() < end:
                raise CampaignError(str(error)) from error
        except OSError as error:
            raise CampaignError(f"the worker cannot be started: {error}") from error

    def _request(
        self, budget_s: float, reserve: float, done: tuple[Measurement, ...]
    ) -> CampaignRequest:
        return CampaignRequest(
            device=self._device.torch_name,
            budget_s=budget_s,
            reserve_s=reserve,
            target_error=self._job.target_error,
            precisions=self._job.precisions,
            done=done,
            avoided=self._avoided,
            whole_budget_s=self._job.budget_s,
        )

    def _listen(self, worker: WorkerProcess, turn: CampaignTurn, end: float) -> None:
        while (left := end - time.monotonic()) > 0:
            event = worker.receive(min(_SAVE_S, left))
            self._cancellation.check()
            match event:
                case None:
                    self._update()
                case Paused():
                    turn.paused()
                    self._update(status="paused for a live measurement")
                case Finished(text=text):
                    self._conclusion = text
                    self._finished = True
                    return
                case Failed(code=FailureCode.BUDGET):
                    return
                case Failed(code=FailureCode.DEVICE_LOST, group=group, message=message):
                    raise DeviceLostError(group, message)
                case Failed(message=message):
                    raise CampaignError(message)
                case _:
                    self._take(event)

    def _take(self, event: WorkerEvent) -> None:
        job = self._job
        match event:
            case Started(environment=environment):
                self._environment = environment
                self._update(status="measuring")
                if difference := self._difference():
                    _log.warning("environment changed", job=job.id, difference=difference)
            case Progressed(fraction=fraction, text=text):
                self._update(progress=max(job.progress, self._progress(fraction)), status=text)
            case Measured(measurement=measurement, seconds=seconds):
                self._store(measurement, seconds)
                self._update(measurement_count=job.measurement_count + 1)
            case Observed(state=state):
                self._note(state)
            case Skipped(reason=reason):
                if reason not in job.skipped and len(job.skipped) < _MAX_SKIPPED:
                    self._update(skipped=(*job.skipped, reason))

    def _note(self, state: Telemetry) -> None:
        try:
            self._state.store.job_states.append(self._job.id, state)
        except StoreError as error:
            # A picture lacks a point; what is measured next fails the job where there is no room.
            _log.warning("state of the device not stored", job=self._job.id, error=str(error))

    def _store(self, measurement: Measurement, seconds: Mapping[str, float] | None) -> None:
        if self._environment is None:
            raise CampaignError("the worker measured before it told its environment")
        try:
            self._state.store.measurements.append(
                [measurement],
                device=self._device.stored_name,
                environment=self._environment,
                job_id=self._job.id,
                seconds=seconds,
            )
        except StoreError as error:
            raise CampaignError(
                f"{error}; the {self._job.measurement_count} measurements before are kept"
            ) from error

    def _check_measured(self) -> None:
        if difference := self._difference():
            raise CampaignError(
                f"measured in another environment than the daemon was started in ({difference});"
                " what was measured is kept: restart the daemon and fit again"
            )
        if not self._finished and not self._job.measurement_count:
            raise CampaignError(
                f"the budget of {self._job.budget_s:g} s was over before anything was measured;"
                " give it more (loading torch alone takes seconds)"
            )

    def _fit(self) -> JobRecord:
        self._cancellation.check()
        self._update(save=True, status="fitting the cost model")
        try:
            fitted = self._state.cost_models.fit(
                self._device,
                timeout_s=max(0.0, self._left()) + _FIT_OVERRUN_S,
                cancelled=self._cancellation.event,
            )
        except FitCancelledError as error:
            raise CancelledError(str(error)) from error
        except (FitError, StoreError, OSError) as error:
            raise CampaignError(f"no cost model was fitted: {error}") from error
        return replace(
            self._job,
            state=JobState.SUCCEEDED,
            spent_s=self._spent(),
            progress=1.0,
            status=self._conclusion,
            cost_model=fitted.record.id,
        )

    def _difference(self) -> str:
        """Says in what the worker's environment is another than the daemon's; empty: in nothing."""
        ours, theirs = self._device.environment, self._environment
        if ours is None or theirs is None:
            return ""
        return ", ".join(
            f"{field.name} {getattr(ours, field.name)!r} is now {getattr(theirs, field.name)!r}"
            for field in fields(Environment)
            if getattr(ours, field.name) != getattr(theirs, field.name)
        )

    def _progress(self, fraction: float) -> float:
        """Returns the share of the whole job of the worker's share of its own part."""
        budget = self._job.budget_s
        before = min(1.0, self._spent_before / budget)
        until = 1.0 - reserve_s(budget) / budget
        return before + max(0.0, until - before) * min(1.0, max(0.0, fraction))

    def _spent(self) -> float:
        return self._spent_before + time.monotonic() - self._began

    def _left(self) -> float:
        return self._job.budget_s - self._spent()

    def _update(self, *, save: bool = False, **changes: Any) -> None:  # noqa: ANN401 - fields of a job
        """Shows how the job stands; stored once a second, so that a crash costs no more."""
        before, now = self._job.state, time.monotonic()
        self._job = replace(self._job, spent_s=self._spent(), **changes)
        save = save or before is not self._job.state or now - self._saved >= _SAVE_S
        if save:
            self._saved = now
        self._board.put(self._job, save=save)
