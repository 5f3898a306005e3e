"""Calibrations: their error before and after, and what looks wrong with their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from tokenpace.render import text
from tokenpace.render.catalog import more

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from tokenpace.v1 import catalog_pb2

_SHOWN = 5


def made(
    it: catalog_pb2.Calibration, sources: Sequence[str], notes: Iterable[str]
) -> RenderableType:
    """Returns what came of a calibration.

    Args:
        it: the calibration.
        sources: where each of its rows stands.
        notes: what reading the files left out or found.
    """
    lines = [Text.assemble(("note", "yellow"), f": {note}") for note in notes]
    return Group(_pairs(it), Text(), _scores(it.scores), *lines, *_remarks(it.remarks, sources))


def calibration(it: catalog_pb2.Calibration) -> RenderableType:
    """Returns all that is known of a calibration."""
    return Group(_pairs(it), Text(), _scores(it.scores), *_remarks(it.remarks, ()))


def line(it: catalog_pb2.Calibration) -> RenderableType:
    """Returns a calibration as one line, with the median errors before and after."""
    errors = [f"{score.figure.upper()} error {_medians(score)}" for score in it.scores]
    if it.remarks:
        errors.append(f"{len(it.remarks)} remark{'s' if len(it.remarks) > 1 else ''}")
    return Text(f"{it.name}: {', '.join([f'{it.row_count} rows', *errors])}")


def calibrations(answer: catalog_pb2.ListCalibrationsResponse) -> RenderableType:
    """Returns one line for each calibration, with the median error before and after."""
    if not answer.calibrations:
        return Text("no calibration yet; make one with: tokenpace calibrate FILE --name NAME")
    figures = ("TTFT error", "TPOT error")
    rows = text.table(
        "name", "models", "device", "engine", "rows", *figures, right=("rows", *figures)
    )
    for it in answer.calibrations:
        by_figure = {score.figure: score for score in it.scores}
        rows.add_row(
            it.name,
            ", ".join(it.architectures),
            ", ".join(it.devices),
            ", ".join(it.engine_versions or it.engines),
            f"{it.row_count}",
            *(_medians(by_figure.get(figure)) for figure in ("ttft", "tpot")),
        )
    return Group(rows, *more(answer.calibrations, answer.total_size, answer.next_page_token))


def _pairs(it: catalog_pb2.Calibration) -> Table:
    return text.pairs(
        [
            ("calibration", it.name or "(not kept)"),
            ("rows", f"{it.row_count}"),
            ("models", ", ".join(it.architectures)),
            ("devices", ", ".join(it.devices)),
            ("engines", ", ".join(it.engine_versions or it.engines)),
            ("made", text.time(it, "create_time")),
        ]
    )


def _scores(scores: Iterable[catalog_pb2.CalibrationScore]) -> Table:
    """Returns errors as mean / median / 90th percentile, each row predicted from the others."""
    rows = text.table(
        "",
        "rows",
        "error before",
        "error after",
        "in 90% interval",
        right=("rows", "error before", "error after", "in 90% interval"),
    )
    for score in scores:
        known = score.HasField("after")
        rows.add_row(
            score.figure.upper(),
            f"{score.rows}",
            _errors(score.before),
            _errors(score.after) if known else text.NONE,
            text.percent(score.coverage) if known else text.NONE,
        )
    rows.caption = "mean / median / 90th percentile; after: each row as predicted from all others"
    rows.caption_justify = "left"
    return rows


def _errors(summary: catalog_pb2.ErrorSummary) -> str:
    return " / ".join(text.percent(it) for it in (summary.mean, summary.median, summary.p90))


def _medians(score: catalog_pb2.CalibrationScore | None) -> str:
    if score is None:
        return text.NONE
    after = text.percent(score.after.median) if score.HasField("after") else text.NONE
    return f"{text.percent(score.before.median)} -> {after}"


def _remarks(
    remarks: Iterable[catalog_pb2.CalibrationRemark], sources: Sequence[str]
) -> Iterator[Text]:
    for it in remarks:
        places = [sources[row] if row < len(sources) else f"row {row}" for row in it.rows[:_SHOWN]]
        if len(it.rows) > _SHOWN:
            places.append(f"{len(it.rows) - _SHOWN} more")
        where = f" ({', '.join(places)})" if places else ""
        yield Text.assemble((f"remark {it.code}", "yellow"), f": {it.text}{where}")
