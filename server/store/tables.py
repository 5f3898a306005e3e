"""Tables of the store.

``number`` grows with every row and is never used again: pages are cut by it, so
that rows added meanwhile move nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

from model.estimate import Provenance

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, stored without its zone, which is always UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Returns the moment in UTC without zone."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Returns the moment with its zone."""
        return None if value is None else value.replace(tzinfo=UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _number() -> Column[int]:
    # SQLite counts up columns of type INTEGER alone.
    kind = BigInteger().with_variant(Integer, "sqlite")
    return Column("number", kind, primary_key=True, autoincrement=True)


environments = Table(
    "environments",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("device_name", Text, nullable=False),
    Column("device_kind", Text, nullable=False),
    Column("device_uuid", Text, nullable=False),
    Column("driver_version", Text, nullable=False),
    Column("cuda_version", Text, nullable=False),
    Column("torch_version", Text, nullable=False),
    Column("transformers_version", Text, nullable=False),
    Column("threads", Integer, nullable=False),
    Column("platform", Text, nullable=False),
    Column("python_version", Text, nullable=False),
    Column("source", Text, nullable=False, server_default=""),
    Column("engine", Text, nullable=False, server_default=""),
)

jobs = Table(
    "jobs",
    metadata,
    _number(),
    Column("id", Text, nullable=False, unique=True),
    Column("device", Text, nullable=False),
    Column("budget_s", Float, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("state", Integer, nullable=False, index=True),
    Column("target_error", Float, nullable=False),
    Column("precisions", JSON, nullable=False),
    Column("ranks", Integer, nullable=False),
    Column("schedule_id", Text, nullable=False),
    Column("spent_s", Float, nullable=False),
    Column("measurement_count", Integer, nullable=False),
    Column("progress", Float, nullable=False),
    Column("status", Text, nullable=False),
    Column("error_message", Text, nullable=False),
    Column("cost_model", Text, nullable=False),
    Column("skipped", JSON, nullable=False),
    Column("start_time", UtcDateTime),
    Column("end_time", UtcDateTime),
    sqlite_autoincrement=True,
)

# How a job's device stood now and then.
job_states = Table(
    "job_states",
    metadata,
    _number(),
    Column("job_id", Text, ForeignKey(jobs.c.id), nullable=False, index=True),
    Column("time", UtcDateTime, nullable=False),
    Column("state", JSON, nullable=False),
    sqlite_autoincrement=True,
)

measurements = Table(
    "measurements",
    metadata,
    _number(),
    Column("job_id", Text, ForeignKey(jobs.c.id), index=True),
    Column("device", Text, nullable=False),
    Column("fingerprint", Text, ForeignKey(environments.c.fingerprint), nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("kind", Text, nullable=False, index=True),
    Column("precision", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("shape", JSON, nullable=False),
    Column("median_ms", Float, nullable=False),
    Column("p10_ms", Float, nullable=False),
    Column("p90_ms", Float, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("held_out_group", Text, nullable=False),
    Column("flags", JSON, nullable=False),
    Column("seconds", JSON(none_as_null=True)),
    Index("ix_measurements_device_fingerprint", "device", "fingerprint"),
    sqlite_autoincrement=True,
)

cost_models = Table(
    "cost_models",
    metadata,
    _number(),
    Column("id", Text, nullable=False, unique=True),
    Column("device", Text, nullable=False),
    Column("fingerprint", Text, ForeignKey(environments.c.fingerprint), nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("measurement_count", Integer, nullable=False),
    Column("current", Boolean, nullable=False),
    Column("scores", JSON, nullable=False),
    Column("precisions", JSON, nullable=False),
    Column("engines", JSON, nullable=False),
    Column(
        "provenance",
        Integer,
        nullable=False,
        server_default=str(int(Provenance.MEASURED_LOCALLY)),
    ),
    Index("ix_cost_models_device_fingerprint", "device", "fingerprint"),
    sqlite_autoincrement=True,
)

# Apart from the rest, so that a listing reads no trees.
cost_model_blobs = Table(
    "cost_model_blobs",
    metadata,
    Column("cost_model_id", Text, ForeignKey(cost_models.c.id), primary_key=True),
    Column("blob", LargeBinary, nullable=False),
)

schedules = Table(
    "schedules",
    metadata,
    _number(),
    Column("id", Text, nullable=False, unique=True),
    Column("cron", Text, nullable=False),
    Column("interval_s", Float),
    Column("device", Text, nullable=False),
    Column("budget_s", Float, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("next_run_time", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)

schedule_runs = Table(
    "schedule_runs",
    metadata,
    _number(),
    Column("schedule_id", Text, ForeignKey(schedules.c.id), nullable=False),
    Column("time", UtcDateTime, nullable=False),
    Column("outcome", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("drift", Float),
    UniqueConstraint("schedule_id", "time"),
    sqlite_autoincrement=True,
)

calibrations = Table(
    "calibrations",
    metadata,
    _number(),
    Column("name", Text, nullable=False, unique=True),
    Column("create_time", UtcDateTime, nullable=False),
    Column("row_count", Integer, nullable=False),
    Column("devices", JSON, nullable=False),
    Column("engines", JSON, nullable=False),
    Column("engine_versions", JSON, nullable=False),
    Column("architectures", JSON, nullable=False),
    Column("scores", JSON, nullable=False),
    Column("remarks", JSON, nullable=False),
    sqlite_autoincrement=True,
)

# Apart from the rest, so that a listing reads none.
calibration_rows = Table(
    "calibration_rows",
    metadata,
    _number(),
    Column("calibration", Text, ForeignKey(calibrations.c.name), nullable=False, index=True),
    Column("row", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
