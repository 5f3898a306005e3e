"""All that a profile job measured, and how its device stood meanwhile."""

from __future__ import annotations

from heapq import merge
from typing import TYPE_CHECKING

from server import job_messages, messages
from server.errors import failed_precondition
from tokenpace.v1 import profiler_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from profiler.interface import Environment
    from server.devices import DeviceRegistry
    from server.records import JobRecord
    from server.store import Store

_Line = profiler_pb2.ExportProfileJobResponse


def export(job: JobRecord, store: Store, devices: DeviceRegistry) -> Iterator[_Line]:
    """Yields a job's origin, then measurements and states in the order of their times.

    What a job that went on after an upgrade had measured in another environment is left out.

    Raises:
        ServiceError: FAILED_PRECONDITION, it has measured nothing.
    """
    environment = store.environments.of_job(job.id)
    if environment is None:
        raise failed_precondition(
            "NO_MEASUREMENTS", job.id, f"job {job.id} has measured nothing; give one more time"
        )
    yield _Line(origin=_origin(job, environment, devices))
    for _, line in merge(
        _measurements(job, environment, store), _states(job, store), key=lambda dated: dated[0]
    ):
        yield line


def _origin(
    job: JobRecord, environment: Environment, devices: DeviceRegistry
) -> profiler_pb2.ProfileJobOrigin:
    message = profiler_pb2.ProfileJobOrigin(
        profile_job=job_messages.profile_job(job), environment=messages.environment(environment)
    )
    for device in devices.local():
        known = device.environment
        if known is not None and (known.device_name, known.device_uuid) == (
            environment.device_name,
            environment.device_uuid,
        ):
            message.data_sheet = device.data_sheet
            message.memory_bytes = device.sheet.memory_bytes
    return message


def _measurements(
    job: JobRecord, environment: Environment, store: Store
) -> Iterator[tuple[datetime, _Line]]:
    for record in store.measurements.stream_job(job.id, environment.fingerprint):
        yield record.create_time, _Line(measurement=messages.measurement(record))


def _states(job: JobRecord, store: Store) -> Iterator[tuple[datetime, _Line]]:
    for state in store.job_states.of(job.id):
        yield state.time, _Line(state=messages.telemetry(state))
