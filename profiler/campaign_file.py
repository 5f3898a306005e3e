"""Writes the file of a campaign without a daemon, so that a kill costs one measurement at most.

``reference.campaigns`` tells the format and reads it.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from model.measurement import measurement_of
from reference import campaigns
from reference.errors import MeasurementFileError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from model.measurement import Measurement
    from profiler.telemetry import Telemetry
    from reference.campaigns import Header


class CampaignFileError(Exception):
    """The file cannot be gone on with; the text says why and the remedy."""


class CampaignFile:
    """A file that measurements are added to, one by one; held by one process at a time.

    Attributes:
        measured: what the file held when it was opened.
        avoided: groups of points that took the device with them.

    Args:
        path: of the file; made where there is none.
        header: of this campaign; an older file keeps its own.

    Raises:
        CampaignFileError: the file is another device's or environment's, another process
            writes it, or it is no campaign's.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self.measured, self.avoided = self._take_up(path, header)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def append(
        self,
        measurement: Measurement,
        seconds: Mapping[str, float] | None = None,
        clock_mhz: float | None = None,
    ) -> None:
        """Adds a measurement and brings it to the disk.

        Args:
            measurement: to add.
            seconds: since the one before by what they went to; None where it is not known.
            clock_mhz: of a GPU when it had just been made; None where it cannot be read.

        Raises:
            OSError: it cannot be written; what was written of it counts as cut off.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        spent = {campaigns.SECONDS: dict(seconds)} if seconds else {}
        clock = {campaigns.CLOCK: clock_mhz} if clock_mhz else {}
        self._write({**asdict(measurement), campaigns.TIME: now, **spent, **clock})

    def note(self, state: Telemetry) -> None:
        """Adds how the device stands.

        Raises:
            OSError: it cannot be written.
        """
        self._write({campaigns.STATE: {**asdict(state), campaigns.TIME: state.time.isoformat()}})

    def avoid(self, group: str) -> None:
        """Adds that a point of this group took the device with it.

        Raises:
            OSError: it cannot be written.
        """
        self._write({campaigns.AVOIDED: group})
        self.avoided += (group,)

    def _take_up(
        self, path: Path, header: Header
    ) -> tuple[tuple[Measurement, ...], tuple[str, ...]]:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CampaignFileError(
                f"{path} is written by another campaign; wait for it, or name another file"
            ) from error
        try:
            held = campaigns.read(path)
            measured = tuple(measurement_of(row) for row in held.rows) if held else ()
        except (MeasurementFileError, ValueError) as error:
            raise CampaignFileError(str(error)) from error
        if held is None:
            os.ftruncate(self._descriptor, 0)
            self._write(header.to_json())
            return (), ()
        if difference := _difference(held.header, header):
            raise CampaignFileError(
                f"{path} was measured elsewhere: {difference}; name another file, or go on where"
                " it was begun"
            )
        os.ftruncate(self._descriptor, held.complete_bytes)
        return measured, tuple(held.avoided)

    def _write(self, line: dict[str, object]) -> None:
        data = json.dumps(line).encode() + b"\n"
        if os.write(self._descriptor, data) < len(data):
            raise OSError("the disk is full; what was measured before is kept")
        os.fsync(self._descriptor)


def _difference(before: Header, now: Header) -> str:
    """Says in what a file's environment is another than the present one; empty: in nothing."""
    names = dict.fromkeys((*before.environment, *now.environment))
    old, new = ({n: h.environment.get(n, "") for n in names} for h in (before, now))
    return ", ".join(f"{n} was {old[n]!r} and is {new[n]!r}" for n in names if old[n] != new[n])
