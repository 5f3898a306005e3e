"""Profile jobs: campaigns in the background, one at a time on each device."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import structlog

from server.campaign_run import CampaignError, CampaignRun
from server.cancellation import Cancellation, CancelledError
from server.device_queue import DeviceQueue, QueueFullError
from server.errors import ServiceError
from server.job_board import BoardClosedError, JobBoard
from server.records import JobRecord, JobState
from server.worker_process import WORKER_COMMAND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.precision import Precision
    from server.devices import Device
    from server.state import State

_END_S = 5.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Lane:
    """What one device has to do."""

    device: Device
    queue: DeviceQueue
    waiting: deque[str] = field(default_factory=deque)
    running: str = ""
    thread: threading.Thread | None = None


class JobManager:
    """Takes jobs, runs them in their order, and takes up those of before a restart.

    Attributes:
        board: how each job stands.

    Args:
        state: store, devices, cost models and configuration.
        worker_command: starts the workers.
    """

    def __init__(self, state: State, worker_command: Sequence[str] = WORKER_COMMAND) -> None:
        self.board = JobBoard(state.store)
        self._state = state
        self._worker_command = worker_command
        self._changed = threading.Condition()
        self._draining = False
        self._called_off: set[str] = set()
        self._cancellations: dict[str, Cancellation] = {}
        self._lanes = {
            device.stored_name: _Lane(
                device,
                DeviceQueue(
                    state.configuration.max_queue, partial(state.occupancy.note_others, device)
                ),
            )
            for device in state.devices.local()
        }

    def start(self) -> None:
        """Takes up unfinished jobs and begins to run."""
        for job in self._state.store.jobs.unfinished():
            if job.id not in self._cancellations:  # else it was asked for a moment ago
                self._take_up(job)
        for lane in self._lanes.values():
            lane.thread = threading.Thread(
                target=self._work, args=(lane,), name=f"jobs-{lane.device.stored_name}", daemon=True
            )
            lane.thread.start()

    def queue(self, device: Device) -> DeviceQueue:
        """Returns who uses a local device."""
        return self._lanes[device.stored_name].queue

    def create(
        self,
        device: Device,
        *,
        budget_s: float,
        target_error: float = 0.0,
        precisions: tuple[Precision, ...] = (),
        ranks: int = 0,
        schedule_id: str = "",
    ) -> JobRecord:
        """Stores a new job; it runs as soon as the device is free.

        Args:
            device: a local one.
            budget_s: seconds for all of it.
            target_error: median error that ends it early; 0: none.
            precisions: to measure; empty: the device's default first.
            ranks: as :class:`JobRecord` has it.
            schedule_id: schedule that asks for it.

        Raises:
            QueueFullError: too many jobs wait for the device.
            BoardClosedError: the daemon is ending.
            StoreFullError, StoreUnavailableError: it cannot be stored.
        """
        lane = self._lanes[device.stored_name]
        job = JobRecord(
            id=f"job-{secrets.token_hex(6)}",
            device=device.name,
            budget_s=budget_s,
            create_time=datetime.now(UTC),
            target_error=target_error,
            precisions=precisions,
            ranks=ranks,
            schedule_id=schedule_id,
            status="waiting for the device",
        )
        with self._changed:
            if self._draining:
                raise BoardClosedError("the daemon is ending and takes no new jobs")
            most = self._state.configuration.max_queue
            if len(lane.waiting) + bool(lane.running) > most:
                raise QueueFullError(f"{most} jobs wait for {device.name} already")
            self.board.add(job)
            self._enqueue(lane, job)
        return job

    def cancel(self, job_id: str) -> JobRecord | None:
        """Ends a job and returns it; None where there is none. What has ended stays as it is."""
        with self._changed:
            job = self.board.get(job_id)
            if job is None or job.state.ended:
                return job
            self._called_off.add(job_id)
            for lane in self._lanes.values():
                if job_id in lane.waiting:
                    lane.waiting.remove(job_id)
                    self._end(job, JobState.CANCELLED)
            cancellation = self._cancellations.get(job_id)
        if cancellation is not None:
            cancellation.cancel()
        self.board.await_end(job_id, _END_S)
        return self.board.get(job_id)

    def occupant(self, device: Device) -> str:
        """Says what uses a local device or waits for it; empty: nothing does."""
        lane = self._lanes[device.stored_name]
        with self._changed:
            if lane.running:
                return f"job {lane.running} is running"
            if lane.waiting:
                return f"job {lane.waiting[0]} is queued"
        return "a live measurement is running" if lane.queue.measuring else ""

    def drain(self) -> None:
        """Ends the workers; jobs that have not ended go on at the daemon's next start."""
        with self._changed:
            self._draining = True
            cancellations = tuple(self._cancellations.values())
            self._changed.notify_all()
        for cancellation in cancellations:
            cancellation.cancel()
        self.board.close()
        for lane in self._lanes.values():
            if lane.thread is not None:
                lane.thread.join(timeout=_END_S)

    def _take_up(self, job: JobRecord) -> None:
        try:
            device = self._state.devices.get_local(job.device)
        except ServiceError:
            self._end(job, JobState.FAILED, f"{job.device} is not in this machine any more")
            return
        self.board.put(job, save=False)
        with self._changed:
            self._enqueue(self._lanes[device.stored_name], job)
        _log.info("job goes on", job=job.id, spent_s=round(job.spent_s, 1))

    def _enqueue(self, lane: _Lane, job: JobRecord) -> None:
        self._cancellations[job.id] = Cancellation()
        lane.waiting.append(job.id)
        self._changed.notify_all()

    def _work(self, lane: _Lane) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._draining or lane.waiting)
                if self._draining:
                    return
                job_id = lane.running = lane.waiting.popleft()
            try:
                self._run(lane, job_id)
            finally:
                with self._changed:
                    lane.running = ""

    def _run(self, lane: _Lane, job_id: str) -> None:
        job = self.board.get(job_id)
        assert job is not None  # noqa: S101 - nothing removes jobs
        run = CampaignRun(
            job,
            device=lane.device,
            state=self._state,
            queue_of=self.queue,
            board=self.board,
            cancellation=self._cancellations[job_id],
            worker_command=self._worker_command,
        )
        log = _log.bind(job=job_id, device=lane.device.stored_name)
        log.info("job runs", budget_s=job.budget_s, spent_s=round(job.spent_s, 1))
        try:
            job = run.run()
        except CancelledError:
            job = self.board.get(job_id) or job
            if job_id not in self._called_off:
                log.info("job goes on at the next start")
                self.board.put(job)
                return
            self._end(job, JobState.CANCELLED)
        except CampaignError as error:
            self._end(self.board.get(job_id) or job, JobState.FAILED, str(error))
        except Exception:
            log.exception("job failed by a fault of the daemon")
            text = "the daemon failed at this job; its log tells why"
            self._end(self.board.get(job_id) or job, JobState.FAILED, text)
        else:
            self._end(job, JobState.SUCCEEDED, status=job.status)

    def _end(self, job: JobRecord, state: JobState, error: str = "", status: str = "") -> None:
        ended = replace(
            job, state=state, status=status, error_message=error, end_time=datetime.now(UTC)
        )
        self.board.put(ended)
        with self._changed:
            self._cancellations.pop(job.id, None)
            self._called_off.discard(job.id)
        _log.info(
            "job ended",
            job=job.id,
            state=state.name,
            measurements=ended.measurement_count,
            **({"error": error} if error else {}),
        )
