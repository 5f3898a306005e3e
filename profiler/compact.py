"""Makes the file of committed measurements out of a campaign's: ``model.committed`` tells of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.committed import SUFFIX, Origin, write
from model.hardware import recognise
from model.measurement import measurement_of
from reference import campaigns
from reference.errors import MeasurementFileError

if TYPE_CHECKING:
    from pathlib import Path

    from reference.campaigns import Header

_PACKAGES = ("cuda", "torch", "transformers", "python")
"""Whose versions the environment has, each as ``NAME_version``."""


class NotCommittableError(Exception):
    """A campaign that is not to be committed; the text says why and the remedy."""


def compact(path: Path, folder: Path) -> Path:
    """Writes a campaign's measurements for the project to hold, and returns where.

    Args:
        path: of the campaign's file.
        folder: that the file goes to, under the name of the card; one of before is replaced.

    Raises:
        NotCommittableError: it was measured on a CPU, on a card without a data sheet or by files
            that no commit holds; or it holds no measurement, or is no campaign's.
        OSError: one of the files cannot be read or written.
    """
    try:
        file = campaigns.read(path)
        rows = [measurement_of(row) for row in file.rows] if file is not None else []
    except (MeasurementFileError, ValueError) as error:
        raise NotCommittableError(str(error)) from error
    if file is None or not rows:
        raise NotCommittableError(
            f"{path} holds no measurement; give `python -m profiler campaign` more time"
        )
    origin = _origin(path, file.header, campaigns.engine_of(file.rows))
    content = write(origin, rows)
    out = folder / f"{origin.device}{SUFFIX}"
    out.write_bytes(content)
    return out


def _origin(path: Path, header: Header, engine: str) -> Origin:
    environment, name = header.environment, header.device_name
    if environment.get("device_kind") == "cpu":
        raise NotCommittableError(
            f"{path} was measured on a CPU, {name}, which no name stands for elsewhere; measure a"
            " GPU (a CPU is measured where it is, by `tokenpace profile`)"
        )
    sheet = recognise(name, header.memory_bytes)
    device = header.device or (sheet.name if sheet is not None else "")
    if not device:
        raise NotCommittableError(
            f"{path} was measured on {name}, which no data sheet is known of; add the card's to"
            " model/data/devices.json and run this again"
        )
    if not header.commit or header.commit.endswith("-dirty"):
        state = "files that were not committed" if header.commit else "a source of unknown commit"
        raise NotCommittableError(
            f"{path} was measured by {state}, so nobody can measure it again; run `python -m"
            " profiler campaign` in a clean checkout, or in a copy of one with --commit HASH (what"
            " `tokenpace jobs export` writes of a daemon's job never names a commit)"
        )
    versions = {
        package: str(version)
        for package in _PACKAGES
        if (version := environment.get(f"{package}_version"))
    }
    return Origin(
        device=device,
        engine=engine,
        source=header.description,
        device_name=name,
        memory_bytes=header.memory_bytes,
        driver_version=str(environment.get("driver_version", "")),
        versions={**versions, **header.versions},
        commit=header.commit,
        create_time=header.create_time,
        command=header.command,
    )
