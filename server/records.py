"""Rows of the store as the rest of the daemon sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from model.estimate import Provenance

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from model.calibration_report import CalibrationScore
    from model.estimate import ValidationScore
    from model.measurement import Measurement
    from model.plausibility import Remark
    from model.precision import Precision

COMMITTED = "committed with tokenpace:"
"""How the source of measurements begins that came with the project; users' come before them."""


class JobState(IntEnum):
    """State of a profile job; numbers as in the API."""

    QUEUED = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5

    @property
    def ended(self) -> bool:
        """Whether the job has ended for good."""
        return self >= JobState.SUCCEEDED


class ScheduleOutcome(IntEnum):
    """How a run of a schedule went; numbers as in the API."""

    STARTED = 1
    SUCCEEDED = 2
    FAILED = 3
    SKIPPED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A profile job.

    Attributes:
        id: unique id.
        device: name it was asked for.
        budget_s: seconds for all of it.
        create_time: when it was asked for.
        state: where it stands.
        target_error: cross-validated median error that ends it early; 0: none.
        precisions: to measure, in this order; empty: the device's default first.
        ranks: whose messages to each other are measured, too; 0: all GPUs of the device's kind,
            none on the CPU.
        schedule_id: schedule that started it; empty otherwise.
        spent_s: seconds of the budget used up so far, kept over restarts.
        measurement_count: rows committed. Counted by the store as rows are
            added; ``Jobs.update`` leaves it alone.
        progress: 0 to 1.
        status: what it is doing, for a person; at its end what came of the error that was asked
            for, empty where none was.
        error_message: why it failed; empty otherwise.
        cost_model: id of the cost model it fitted; empty until then.
        skipped: points left out or made smaller, with the reason.
        start_time, end_time: None until then.
    """

    id: str
    device: str
    budget_s: float
    create_time: datetime
    state: JobState = JobState.QUEUED
    target_error: float = 0.0
    precisions: tuple[Precision, ...] = ()
    ranks: int = 0
    schedule_id: str = ""
    spent_s: float = 0.0
    measurement_count: int = 0
    progress: float = 0.0
    status: str = ""
    error_message: str = ""
    cost_model: str = ""
    skipped: tuple[str, ...] = ()
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementRecord:
    """A measurement with what the store knows of it.

    Attributes:
        id: number in the store, growing.
        job_id: job that made it; empty for imported rows.
        device: canonical name of the device it was made on.
        fingerprint: of the environment it was made in.
        create_time: when it was stored.
        measurement: the point itself.
        seconds: what the time since its job's measurement before went to, by name; empty where
            it is not known.
    """

    id: int
    job_id: str
    device: str
    fingerprint: str
    create_time: datetime
    measurement: Measurement
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModelRecord:
    """A fitted cost model without its trees.

    Attributes:
        id: unique id.
        device: canonical name of the device it stands for.
        fingerprint: of the environment it was measured in.
        create_time: when it was fitted.
        measurement_count: rows it was fitted on.
        current: whether it is the latest of that environment; of several of them
            ``CostModels.in_use`` tells which Predict answers by.
        scores: cross-validated error by kind.
        precisions, engines: what it holds.
        provenance: whose measurements it was fitted on.
    """

    id: str
    device: str
    fingerprint: str
    create_time: datetime
    measurement_count: int
    scores: tuple[ValidationScore, ...]
    precisions: tuple[Precision, ...]
    engines: tuple[str, ...]
    current: bool = True
    provenance: Provenance = Provenance.MEASURED_LOCALLY


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRun:
    """One run of a schedule; at most one a due time.

    Attributes:
        time: when it was due.
        outcome: how it went.
        reason: why it was skipped or failed; empty otherwise.
        job_id: job it started; empty when skipped.
        drift: median absolute error of the cost model before the run on what
            the run measured; None where there was none to compare.
    """

    time: datetime
    outcome: ScheduleOutcome
    reason: str = ""
    job_id: str = ""
    drift: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRecord:
    """A rule by which a device profiles itself; exactly one of cron and interval_s is set.

    Attributes:
        id: unique id.
        device: name it was asked for.
        budget_s: seconds of each job.
        create_time: when it was made.
        next_run_time: when it is due next.
        cron: five fields in UTC; empty with an interval.
        interval_s: seconds between starts; None with cron.
        runs: latest runs, newest first, at most 20; read from the store, never written.
    """

    id: str
    device: str
    budget_s: float
    create_time: datetime
    next_run_time: datetime
    cron: str = ""
    interval_s: float | None = None
    runs: tuple[ScheduleRun, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRecord:
    """A calibration without its rows; fields as in the API's message.

    Attributes:
        name: unique name.
        create_time: when it was made.
        row_count: rows it is fitted on.
        devices: stored names of the devices of its rows.
        engines, engine_versions, architectures: of its rows.
        scores: error before and after, by figure.
        remarks: what looks wrong with the rows.
    """

    name: str
    create_time: datetime
    row_count: int
    devices: tuple[str, ...]
    engines: tuple[str, ...]
    engine_versions: tuple[str, ...]
    architectures: tuple[str, ...]
    scores: tuple[CalibrationScore, ...]
    remarks: tuple[Remark, ...]
