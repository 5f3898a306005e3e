"""Calibrations of deployments that others have measured end to end, made with an import."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING

from grpc import StatusCode

from tokenpace.benchmark_files.completion import UNKNOWN, Given, complete
from tokenpace.benchmark_files.deployments import PRESETS
from tokenpace.commands.session import progress_bar
from tokenpace.errors import TokenpaceError
from tokenpace.render import calibration as render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenpace.benchmark_files.rows import BenchmarkRow
    from tokenpace.client import Client
    from tokenpace.commands.session import Session
    from tokenpace.v1 import catalog_pb2

FEWEST_ROWS = 4
"""Rows of a deployment below which a calibration says little."""


def calibrate_deployments(
    session: Session, rows: Sequence[BenchmarkRow], device: str, engine: str
) -> None:
    """Makes one calibration of each architecture's rows on a device and engine.

    One of the same name is replaced. Rows that look wrong are left out, and said.

    Args:
        session: with the daemon.
        rows: of any deployments.
        device: whose rows count.
        engine: likewise.
    """
    by_preset: dict[str, list[BenchmarkRow]] = defaultdict(list)
    for row in rows:
        if (row.device, row.engine) == (device, engine) and row.model in PRESETS:
            by_preset[PRESETS[row.model]].append(row)
    for preset, own in sorted(by_preset.items()):
        name = f"reference-{preset}-{device}-{engine}"
        clean = [row for row in own if not row.suspicions]
        if len(clean) < len(own):
            _note(f"{name}: {len(own) - len(clean)} rows of saturated runs are left out")
        if len(clean) < FEWEST_ROWS:
            continue
        with progress_bar(name) as report:
            report(None, f"{name}: fitting on {len(clean)} rows")
            answer = _replaced(session.client, name, clean)
            report(1.0, f"{name}: fitted")
        if answer is not None:
            session.show(answer, lambda it: render.line(it.calibration))


def _replaced(
    client: Client, name: str, rows: Sequence[BenchmarkRow]
) -> catalog_pb2.CreateCalibrationResponse | None:
    """Returns the calibration; None, and an earlier one stays, where its rows are refused."""
    asked = complete(rows, Given(engine_version=UNKNOWN, presets=PRESETS))
    try:
        client.create_calibration(name, asked, accept_suspicious=True, validate_only=True)
    except TokenpaceError as error:
        if error.code is not StatusCode.INVALID_ARGUMENT:
            raise
        _note(f"{name}: not made: {error.message}")
        return None
    try:
        client.delete_calibration(name)
    except TokenpaceError as error:
        if error.code is not StatusCode.NOT_FOUND:
            raise
    return client.create_calibration(name, asked, accept_suspicious=True)


def _note(text: str) -> None:
    # Not among the answers, which may be read by a program.
    print(f"note: {text}", file=sys.stderr)
