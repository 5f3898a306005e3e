"""ProfilerService: live measurements, jobs and schedules."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from model.errors import InvalidFieldError
from model.precision import Precision
from server import job_messages
from server.cancellation import Cancellation, CancelledError
from server.conversions import Violations, precision_of
from server.device_queue import QueueFullError
from server.errors import ServiceError, not_found, resource_exhausted, unavailable
from server.job_board import BoardClosedError
from server.job_export import export
from server.job_messages import seconds_of
from server.occupancy import FORCE_REMEDY
from server.rank_devices import exchanging
from server.schedules import MAX_INTERVAL_S, MIN_INTERVAL_S, TooManySchedulesError
from server.store.paging import PageRequest
from tokenpace.v1 import profiler_pb2, profiler_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.duration_pb2 import Duration

    from server.devices import DeviceRegistry
    from server.jobs import JobManager
    from server.live_measurement import LiveMeasurements
    from server.occupancy import Occupancy
    from server.records import JobRecord
    from server.schedules import Schedules
    from server.store import Store

DEFAULT_BUDGET_S = 120.0
MIN_BUDGET_S, MAX_BUDGET_S = 1.0, 86_400.0
MAX_PRECISIONS = len(Precision)

_JOB_RETRY_S = 30.0
_DRAIN_RETRY_S = 5.0


class ProfilerService(profiler_pb2_grpc.ProfilerServiceServicer):
    """Runs real layers and models on the local devices.

    Args:
        devices: all devices.
        occupancy: who is on the local ones.
        live: answers Measure.
        jobs: runs campaigns.
        schedules: starts them again and again.
        store: keeps what they measure.
    """

    def __init__(
        self,
        devices: DeviceRegistry,
        occupancy: Occupancy,
        live: LiveMeasurements,
        jobs: JobManager,
        schedules: Schedules,
        store: Store,
    ) -> None:
        self._devices = devices
        self._occupancy = occupancy
        self._live = live
        self._jobs = jobs
        self._schedules = schedules
        self._store = store

    def Measure(  # noqa: N802 - gRPC's name
        self, request: profiler_pb2.MeasureRequest, context: grpc.ServicerContext
    ) -> Iterator[profiler_pb2.MeasureResponse]:
        """Measures one request live."""
        yield from self._live.measure(request, _cancellation(context))

    def CreateProfileJob(  # noqa: N802 - gRPC's name
        self, request: profiler_pb2.CreateProfileJobRequest, context: grpc.ServicerContext
    ) -> profiler_pb2.CreateProfileJobResponse:
        """Starts a campaign in the background."""
        device = self._devices.get_local(request.device)
        violations = Violations()
        budget_s = DEFAULT_BUDGET_S
        precisions: tuple[Precision, ...] = ()
        with violations.within(""):
            budget_s = _budget_s(request)
        with violations.within(""):
            if not 0 <= request.target_error <= 1:  # NaN fails this too
                raise InvalidFieldError("target_error", f"{request.target_error} is not in 0 to 1")
        with violations.within(""):
            precisions = _precisions(request)
        with violations.within(""):
            exchanging(device, request.ranks, self._devices)
        violations.check()
        self._occupancy.note_and_check(
            device,
            FORCE_REMEDY,
            beside_ours=self._jobs.queue(device).busy,
            force=request.force,
        )
        with _refusals():
            job = self._jobs.create(
                device,
                budget_s=budget_s,
                target_error=request.target_error,
                precisions=precisions,
                ranks=request.ranks,
            )
        return profiler_pb2.CreateProfileJobResponse(profile_job=job_messages.profile_job(job))

    def GetProfileJob(  # noqa: N802 - gRPC's name
        self, request: profiler_pb2.GetProfileJobRequest, context: grpc.ServicerContext
    ) -> profiler_pb2.GetProfileJobResponse:
        """Returns a job as it stands."""
        job = self._job(request.id)
        return profiler_pb2.GetProfileJobResponse(profile_job=job_messages.profile_job(job))

    def ListProfileJobs(  # noqa: N802 - gRPC's name
        self, request: profiler_pb2.ListProfileJobsRequest, context: grpc.ServicerContext
    ) -> profiler_pb2.ListProfileJobsResponse:
        """Lists jobs, newest first."""
        page = self._jobs.board.page(PageRequest(request.page_size, request.page_token))
        return profiler_pb2.ListProfileJobsResponse(
            profile_jobs=[job_messages.profile_job(job) for job in page.items],
            next_page_token=page.next_token,
            total_size=page.total_size,
        )

    def CancelProfileJob(  # noqa: N802 - gRPC's name
        self, request: profiler_pb2.CancelProfileJobRequest, context: grpc.ServicerContext
    ) -> profiler_pb2.CancelProfileJobResponse:
        """Ends a job; what it measured is kept."""
        job = self._jobs.cancel(_required(request.id)) or self._job(request.id)
        return profiler_pb2.CancelProfileJobResponse(profile_job=job_messages.profile_job(job))

    def WatchProfileJob(  # noqa: N802 - gRPC's name
        self, request: profiler_pb2.WatchProfileJobRequest, context: grpc.ServicerContext
    ) -> Iterator[profiler_pb2.WatchProfileJobResponse]:
        """Streams a job whenever it changes, until it has ended."""
        with _refusals():
            for job in self._jobs.board.watch(self._job(request.id), _cancellation(context)):
                yield profiler_pb2.WatchProfileJobResponse(
                    profile_job=job_messages.profile_job(job)
                )

    def ExportProfileJob(  # noqa: N802 - gRPC's name
        self, request: profiler_pb2.ExportProfileJobRequest, context: grpc.ServicerContext
    ) -> Iterator[profiler_pb2.ExportProfileJobResponse]:
        """Streams all that a job measured."""
        yield from export(self._job(request.id), self._store, self._devices)

    def CreateSchedule(  # noqa: N802 - gRPC's name
        self, request: profiler_pb2.CreateScheduleRequest, context: grpc.ServicerContext
    ) -> profiler_pb2.CreateScheduleResponse:
        """Makes the device profile itself again and again."""
        device = self._devices.get_local(request.device)
        interval_s = None
        match request.WhichOneof("when"):
            case "interval":
                interval_s = seconds_of(
                    request.interval, "interval", MIN_INTERVAL_S, MAX_INTERVAL_S
                )
            case None:
                raise InvalidFieldError(
                    "cron", 'required, or interval; such as "0 3 * * *" for every night at 3 UTC'
                )
        with _refusals():
            schedule = self._schedules.create(
                device, budget_s=_budget_s(request), cron=request.cron, interval_s=interval_s
            )
        return profiler_pb2.CreateScheduleResponse(schedule=job_messages.schedule(schedule))

    def ListSchedules(  # noqa: N802 - gRPC's name
        self, request: profiler_pb2.ListSchedulesRequest, context: grpc.ServicerContext
    ) -> profiler_pb2.ListSchedulesResponse:
        """Lists schedules with their latest runs, newest schedule first."""
        page = self._schedules.page(PageRequest(request.page_size, request.page_token))
        return profiler_pb2.ListSchedulesResponse(
            schedules=[job_messages.schedule(schedule) for schedule in page.items],
            next_page_token=page.next_token,
            total_size=page.total_size,
        )

    def DeleteSchedule(  # noqa: N802 - gRPC's name
        self, request: profiler_pb2.DeleteScheduleRequest, context: grpc.ServicerContext
    ) -> profiler_pb2.DeleteScheduleResponse:
        """Removes a schedule; a job it started goes on."""
        if not self._schedules.delete(_required(request.id)):
            message = "no schedule has that id; ListSchedules lists them"
            raise not_found("schedule", request.id, message, "id")
        return profiler_pb2.DeleteScheduleResponse()

    def _job(self, job_id: str) -> JobRecord:
        job = self._jobs.board.get(_required(job_id))
        if job is None:
            message = "no job has that id; ListProfileJobs lists them"
            raise not_found("profile job", job_id, message, "id")
        return job


def _cancellation(context: grpc.ServicerContext) -> Cancellation:
    """Returns what is cancelled as soon as the call ends, be it by its deadline or its caller."""
    cancellation = Cancellation()
    if not context.add_callback(cancellation.cancel):
        cancellation.cancel()
    return cancellation


@contextmanager
def _refusals() -> Iterator[None]:
    """Turns what the parts behind the service refuse into statuses."""
    try:
        yield
    except QueueFullError as error:
        text = f"{error}; come again later"
        raise resource_exhausted("QUEUE_FULL", text, _JOB_RETRY_S) from None
    except TooManySchedulesError as error:
        raise resource_exhausted("TOO_MANY_SCHEDULES", str(error)) from None
    except BoardClosedError as error:
        raise unavailable("DRAINING", str(error), _DRAIN_RETRY_S) from None
    except CancelledError:
        raise ServiceError(grpc.StatusCode.CANCELLED, "the caller went away") from None


def _budget_s(
    request: profiler_pb2.CreateProfileJobRequest | profiler_pb2.CreateScheduleRequest,
) -> float:
    if not request.HasField("budget"):
        return DEFAULT_BUDGET_S
    budget: Duration = request.budget
    return seconds_of(budget, "budget", MIN_BUDGET_S, MAX_BUDGET_S)


def _precisions(request: profiler_pb2.CreateProfileJobRequest) -> tuple[Precision, ...]:
    found: dict[Precision, None] = {}
    for index, number in enumerate(request.precisions):
        path = f"precisions[{index}]"
        if index >= MAX_PRECISIONS:
            raise InvalidFieldError("precisions", f"there are {MAX_PRECISIONS} at the most")
        precision = precision_of(number, path)
        if precision is None:
            raise InvalidFieldError(path, "name a precision, or none for the device's default")
        found[precision] = None
    return tuple(found)


def _required(job_or_schedule: str) -> str:
    if not job_or_schedule:
        raise InvalidFieldError("id", "is required")
    return job_or_schedule
