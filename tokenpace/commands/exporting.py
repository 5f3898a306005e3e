"""Makes the lines of a campaign's file of what the daemon says of a job."""

from __future__ import annotations

import shlex
from datetime import UTC
from typing import TYPE_CHECKING, Any

from reference import campaigns
from tokenpace.render import text
from tokenpace.v1 import types_pb2

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from tokenpace.v1 import catalog_pb2, profiler_pb2


def line_of(event: profiler_pb2.ExportProfileJobResponse) -> dict[str, Any] | None:
    """Returns the line that stands for an event; None for one of a later version."""
    match event.WhichOneof("line"):
        case "origin":
            return _header(event.origin).to_json()
        case "measurement":
            return _row(event.measurement)
        case "state":
            return {campaigns.STATE: _state(event.state)}
    return None


def _header(origin: profiler_pb2.ProfileJobOrigin) -> campaigns.Header:
    job, environment = origin.profile_job, origin.environment
    begun = job.start_time if job.HasField("start_time") else job.create_time
    return campaigns.Header(
        device=origin.data_sheet,
        environment={
            field.name: getattr(environment, field.name)
            for field in environment.DESCRIPTOR.fields
            if field.name != "fingerprint"
        },
        memory_bytes=origin.memory_bytes,
        create_time=_time(begun),
        command=shlex.join(["tokenpace", "jobs", "export", job.id]),
    )


def _row(message: types_pb2.Measurement) -> dict[str, Any]:
    latency = message.latency_ms
    return {
        "kind": message.kind,
        "precision": text.enum(types_pb2.Precision, "PRECISION_", message.precision),
        "engine": message.engine,
        "shape": dict(message.shape),
        "latency_ms": {
            field.name: getattr(latency, field.name) for field in latency.DESCRIPTOR.fields
        },
        "group": message.group,
        "flags": list(message.flags),
        campaigns.TIME: _time(message.create_time),
        **({campaigns.SECONDS: dict(message.seconds)} if message.seconds else {}),
    }


def _state(message: catalog_pb2.Telemetry) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.has_presence and not message.HasField(field.name):
            found[field.name] = None
        else:
            found[field.name] = list(value) if field.is_repeated else value
    return {**found, campaigns.TIME: _time(message.time)}


def _time(stamp: Timestamp) -> str:
    return stamp.ToDatetime(tzinfo=UTC).isoformat(timespec="milliseconds")
