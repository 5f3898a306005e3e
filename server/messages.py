"""API messages of what the daemon knows: devices, measurements, cost models, calibrations."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from google.protobuf.timestamp_pb2 import Timestamp

from model.estimate import Phase, Provenance
from model.precision import Precision
from tokenpace.v1 import catalog_pb2, types_pb2

if TYPE_CHECKING:
    from datetime import datetime

    from model.calibration_report import ErrorSummary
    from model.estimate import ValidationScore
    from model.measurement import Distribution
    from profiler.interface import Environment
    from profiler.telemetry import Telemetry
    from server.devices import Device
    from server.records import CalibrationRecord, CostModelRecord, MeasurementRecord

_PRECISIONS = {
    precision: cast("types_pb2.Precision", types_pb2.Precision.Value(f"PRECISION_{precision.name}"))
    for precision in Precision
}
_PROVENANCES = {
    provenance: cast(
        "types_pb2.Provenance", types_pb2.Provenance.Value(f"PROVENANCE_{provenance.name}")
    )
    for provenance in Provenance
}
PHASES = {Phase.PREFILL: types_pb2.PHASE_PREFILL, Phase.DECODE: types_pb2.PHASE_DECODE}


def precision_number(precision: Precision) -> types_pb2.Precision:
    """Returns the API's number of a precision."""
    return _PRECISIONS[precision]


def timestamp(time: datetime) -> Timestamp:
    """Returns a moment as the API writes it."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def distribution(spread: Distribution) -> types_pb2.Distribution:
    """Returns the spread of repeated timings."""
    return types_pb2.Distribution(
        median=spread.median, p10=spread.p10, p90=spread.p90, samples=spread.samples
    )


def environment(found: Environment) -> types_pb2.Environment:
    """Returns where and with what something was measured."""
    return types_pb2.Environment(
        fingerprint=found.fingerprint,
        device_name=found.device_name,
        device_kind=found.device_kind,
        device_uuid=found.device_uuid,
        driver_version=found.driver_version,
        cuda_version=found.cuda_version,
        torch_version=found.torch_version,
        transformers_version=found.transformers_version,
        threads=found.threads,
        platform=found.platform,
        python_version=found.python_version,
        source=found.source,
        engine=found.engine,
    )


def measurement(record: MeasurementRecord) -> types_pb2.Measurement:
    """Returns a stored measurement."""
    point = record.measurement
    return types_pb2.Measurement(
        id=record.id,
        job_id=record.job_id,
        device=record.device,
        fingerprint=record.fingerprint,
        kind=point.kind,
        precision=precision_number(point.precision),
        engine=point.engine,
        shape=point.shape,
        latency_ms=distribution(point.latency_ms),
        create_time=timestamp(record.create_time),
        flags=point.flags,
        group=point.group,
        seconds=record.seconds,
    )


def cost_model(record: CostModelRecord, *, in_use: bool) -> catalog_pb2.CostModel:
    """Returns a fitted cost model.

    Args:
        record: what the store knows of it.
        in_use: whether Predict answers by it now.
    """
    return catalog_pb2.CostModel(
        id=record.id,
        device=record.device,
        fingerprint=record.fingerprint,
        create_time=timestamp(record.create_time),
        measurement_count=record.measurement_count,
        current=in_use,
        scores=[_score(score) for score in record.scores],
        precisions=[precision_number(precision) for precision in record.precisions],
        engines=record.engines,
        provenance=_PROVENANCES[record.provenance],
    )


def calibration(record: CalibrationRecord) -> catalog_pb2.Calibration:
    """Returns a calibration."""
    return catalog_pb2.Calibration(
        name=record.name,
        create_time=timestamp(record.create_time),
        row_count=record.row_count,
        devices=record.devices,
        engines=record.engines,
        engine_versions=record.engine_versions,
        architectures=record.architectures,
        scores=[
            catalog_pb2.CalibrationScore(
                figure=score.figure,
                rows=score.rows,
                before=_errors(score.before),
                after=_errors(score.after) if score.after is not None else None,
                coverage=score.coverage,
            )
            for score in record.scores
        ],
        remarks=[
            catalog_pb2.CalibrationRemark(code=it.code, text=it.text, rows=it.rows)
            for it in record.remarks
        ],
    )


def _errors(summary: ErrorSummary) -> catalog_pb2.ErrorSummary:
    return catalog_pb2.ErrorSummary(mean=summary.mean, median=summary.median, p90=summary.p90)


def device(
    known: Device,
    *,
    state: Telemetry | None,
    current: CostModelRecord | None,
    provenance: Provenance | None,
    measurement_count: int,
) -> catalog_pb2.Device:
    """Returns a device.

    Args:
        known: the device.
        state: how it stands now; None where that cannot be told.
        current: its cost model, or the one it borrows; None where there is none.
        provenance: what that is to this device; None where there is none.
        measurement_count: rows measured in its present environment.
    """
    sheet = known.sheet
    return catalog_pb2.Device(
        name=known.name,
        display_name=sheet.display_name,
        local=known.local,
        kind=sheet.kind,
        memory_bytes=sheet.memory_bytes,
        bandwidth_bytes_per_second=sheet.bandwidth_bytes_per_second,
        last_level_cache_bytes=sheet.last_level_cache_bytes,
        link_bytes_per_second=sheet.link_bytes_per_second,
        link_name=sheet.link_name,
        peaks=[
            catalog_pb2.PeakRate(precision=precision_number(precision), flops_per_second=rate)
            for precision, rate in sheet.peaks.items()
        ],
        source="measured" if known.local else " ".join(sheet.sources),
        provenance=_PROVENANCES[provenance or Provenance.ANALYTICAL],
        cost_model=current.id if current is not None else "",
        measurement_count=measurement_count,
        telemetry=telemetry(state) if state is not None else None,
        environment=environment(known.environment) if known.environment is not None else None,
        data_sheet=known.data_sheet,
    )


def telemetry(state: Telemetry) -> catalog_pb2.Telemetry:
    """Returns how a device stood."""
    return catalog_pb2.Telemetry(
        time=timestamp(state.time),
        utilization=state.utilization,
        memory_used_bytes=state.memory_used_bytes,
        memory_total_bytes=state.memory_total_bytes,
        temperature_celsius=state.temperature_celsius,
        power_watts=state.power_watts,
        clock_mhz=state.clock_mhz,
        throttle_reasons=state.throttle_reasons,
        processes=state.processes,
        uncorrected_ecc_errors=state.uncorrected_ecc_errors,
        mig_enabled=state.mig_enabled,
        persistence_mode=state.persistence_mode,
    )


def _score(score: ValidationScore) -> catalog_pb2.ValidationScore:
    return catalog_pb2.ValidationScore(
        kind=score.kind,
        precision=precision_number(score.precision),
        rows=score.rows,
        groups=score.groups,
        mean_error=score.mean_error,
        median_error=score.median_error,
        p90_error=score.p90_error,
        coverage=score.coverage,
        engine=score.engine,
    )
