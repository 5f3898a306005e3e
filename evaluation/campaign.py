"""What a campaign measured, as a page: rooflines, errors, clocks over time."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from evaluation import overhead, plots
from evaluation.heading import heading
from evaluation.page import Section, markdown
from evaluation.requirements import CAMPAIGN
from model.errors import NotEnoughMeasurementsError, UnknownNameError
from model.hardware import data_sheet
from model.measurement import WHOLES, measurement_of
from model.published import fit_published
from model.rows import in_order, usable_rows
from model.training import fit_cost_model
from reference import campaigns
from reference.errors import MeasurementFileError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from model.cost_model import FittedCostModel
    from model.hardware import DataSheet
    from model.measurement import Measurement
    from reference.campaigns import Header

NAME = "campaign.md"
_STATES = {"clock_mhz": "clock, MHz", "power_watts": "power, W", "temperature_celsius": "heat, °C"}


def write(file: Path, out: Path, command: str) -> Path:
    """Writes the page of a campaign, and returns its path.

    Args:
        file: that ``python -m profiler campaign`` or ``tokenpace jobs export`` wrote.
        out: folder of the page and its pictures; exists.
        command: that makes the page.

    Raises:
        MeasurementFileError: it is no such file, or holds no measurement.
        OSError: it cannot be read, or the page not be written.
    """
    held = campaigns.read(file)
    if held is None or not held.rows:
        raise MeasurementFileError([f"{file}: holds no measurement; run the campaign for longer"])
    measured = [measurement_of(row) for row in held.rows]
    sheet = _sheet(held.header)
    sections = [
        _made(held.header, measured, overhead.sentence(held.rows)),
        _errors(measured, sheet),
        _rooflines(measured, sheet, out),
        *_states(held, out),
    ]
    title = f"A campaign on {held.header.device_name}"
    parts = [heading(title, command, CAMPAIGN.values()), *(section.text for section in sections)]
    path = out / NAME
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def _sheet(header: Header) -> DataSheet | None:
    try:
        return data_sheet(header.device) if header.device else None
    except UnknownNameError:  # of another version
        return None


def _made(header: Header, measured: Sequence[Measurement], spent: str) -> Section:
    """Returns what was measured, where, and how far repeated timings lie apart."""
    by_kind: dict[tuple[str, str], list[Measurement]] = defaultdict(list)
    for one in measured:
        by_kind[one.kind, one.precision.value].append(one)
    lines = [
        [
            kind,
            precision,
            f"{len(rows):,}",
            f"{len({row.group for row in rows}):,}",
            f"{np.median([_spread(row) for row in rows]):.1%}",
            f"{sum(bool(row.flags) for row in rows):,}",
        ]
        for (kind, precision), rows in sorted(by_kind.items())
    ]
    environment = ", ".join(
        f"{name} {value}" for name, value in header.environment.items() if value
    )
    # A daemon's job knows those of its environment alone.
    versions = ", ".join(f"{name} {value}" for name, value in header.versions.items())
    with_what = ". ".join(filter(None, (environment, versions)))
    return Section(
        "What was measured",
        [
            f"Begun {header.create_time} at commit {header.commit or 'unknown'}; the file was"
            f" written by `{header.command}`. {with_what}.",
            "",
            "*Spread* is the median of how far a point's repeated timings lie apart (90th less"
            " 10th percentile over the median), *disturbed* the points that others slowed down.",
            "",
            *([spent, ""] if spent else []),
            *markdown(("kind", "precision", "points", "groups", "spread", "disturbed"), lines),
        ],
    )


def _spread(row: Measurement) -> float:
    latency = row.latency_ms
    return (latency.p90 - latency.p10) / latency.median


def _errors(measured: Sequence[Measurement], sheet: DataSheet | None) -> Section:
    """Returns the errors of a fit on shapes and architectures that it never saw."""
    title = "How far the cost model is off on what it never saw"
    try:
        model = _fit(measured, sheet.processors if sheet is not None else 0)
    except NotEnoughMeasurementsError as error:
        return Section(title, [f"Nothing can be fitted: {error}."])
    lines = [
        [
            score.name,
            score.precision.value,
            f"{score.rows:,}",
            f"{score.groups:,}",
            f"{score.mean_error:.1%}",
            f"{score.median_error:.1%}",
            f"{score.p90_error:.1%}",
            f"{score.coverage:.0%}",
        ]
        for score in model.scores
    ]
    columns = ("kind", "precision", "rows", "groups", "mean", "median", "p90", "covered")
    text = "Whole groups left out in turn; *covered* is the share inside the 90% interval."
    return Section(title, [text, "", *markdown(columns, lines)])


def _fit(measured: Sequence[Measurement], processors: int) -> FittedCostModel:
    try:
        return fit_cost_model(measured, processors)
    except NotEnoughMeasurementsError:
        return fit_published(measured, processors)


def _rooflines(measured: Sequence[Measurement], sheet: DataSheet | None, out: Path) -> Section:
    """Returns what operations reach beside what the data sheet allows."""
    panels: dict[str, plots.Roofline] = {}
    alone = [row for row in usable_rows(measured) if row.measurement.kind not in WHOLES]
    for precision in in_order(row.measurement.precision for row in alone):
        points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for row in alone:
            (operation,) = row.operations
            if row.measurement.precision is precision and operation.flops and operation.bytes:
                rate = operation.flops / row.latency_ms / 1e9
                points[row.measurement.kind].append((operation.flops / operation.bytes, rate))
        if points:
            panels[precision.value] = plots.Roofline(
                points,
                sheet.effective_peak(precision) / 1e12 if sheet is not None else 0.0,
                sheet.bandwidth_bytes_per_second / 1e12 if sheet is not None else 0.0,
            )
    if not panels:
        return Section("Rooflines", ["No operation was measured alone."])
    allowed = "the data sheet's" if sheet is not None else "unknown: the device has no data sheet"
    picture = plots.rooflines(panels, "What operations reach", out / "roofline.png")
    text = f"Each point is one operation; lines are the bandwidth and the peak rate, {allowed}."
    return Section("Rooflines", [text, "", picture])


def _states(held: campaigns.CampaignFile, out: Path) -> list[Section]:
    """Returns clocks, power and heat over time, where they could be read."""
    series = {"now and then": _dated(held.states), "behind a measurement": _dated(held.rows)}
    begun = min((time for lines in series.values() for time, _ in lines), default=None)
    panels: dict[str, dict[str, dict[int, float]]] = defaultdict(dict)
    for name, label in _STATES.items():
        for what, lines in series.items():
            found = {
                round((time - begun).total_seconds()): value
                for time, line in lines
                if begun is not None and isinstance(value := line.get(name), int | float)
            }
            if found:
                panels[label][what] = found
    if not panels:
        return []
    reasons = in_order(str(r) for s in held.states for r in _list(s.get("throttle_reasons")))
    text = f"Clocks were held down by: {', '.join(reasons)}." if reasons else "No clock was held."
    picture = plots.lines(panels, "The device meanwhile", out / "states.png", x="seconds")
    return [Section("The device meanwhile", [text, "", picture])]


def _dated(
    lines: Sequence[Mapping[str, object]],
) -> list[tuple[datetime, Mapping[str, object]]]:
    """Returns lines with when they were written; those of old files that do not tell left out."""
    return [
        (datetime.fromisoformat(str(line[campaigns.TIME])), line)
        for line in lines
        if campaigns.TIME in line
    ]


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []
