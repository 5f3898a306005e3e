"""The file of a campaign: a header, then a measurement a line.

``profiler`` writes it without a daemon, ``tokenpace jobs export`` of a daemon's job. Each line
is a JSON object; some tell how the device stood meanwhile. ``profiler`` writes a line whole
and brings it to the disk before the next one is measured; what a kill cut off has no end of line
and counts as never written.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from reference.errors import MeasurementFileError
from reference.plain import PRECISIONS
from reference.rows import LONGEST_MS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FORMAT = "tokenpace campaign"
VERSION = 1
STATE = "telemetry"
"""Key of a line that is no measurement."""
AVOIDED = "avoided"
"""Key of a line that names the group of a point which took the device with it."""
TIME = "time"
"""Key of when a measurement or a state was written; files of old have it with states alone."""
SECONDS = "seconds"
"""Key of what the time since the measurement before went to; files of old lack it."""
CLOCK = "clock_mhz"
"""Key of a GPU's clock when a measurement had just been made; where it could be read."""
_BEGINNING = json.dumps({"format": FORMAT})[:-1].encode()
_LARGEST_BYTES = 256 << 20
_LONGEST_NAME = 80
_LONGEST_VERSION = 40
_TEXTS = ("kind", "precision", "engine", "group")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """First line of the file.

    Attributes:
        device: name of the data sheet that the device was recognised by; empty where none is.
        environment: that was measured in; fields of ``profiler.interface.Environment``.
        memory_bytes: of the device.
        create_time: when the campaign was begun, ISO 8601 in UTC.
        command: that wrote the file.
        commit: of the source that measured, "-dirty" behind where git tells that files differ;
            empty where nobody told.
        versions: of the packages that measured, by name.
    """

    device: str
    environment: Mapping[str, str | int]
    memory_bytes: int
    create_time: str
    command: str
    commit: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def device_name(self) -> str:
        """Name of the device as its driver or processor states it."""
        return str(self.environment.get("device_name", ""))

    @property
    def description(self) -> str:
        """What was measured with what, in a line of some 300 characters at most."""
        environment = self.environment
        parts = [
            f"campaign of {self.create_time[:10]} on {self.device_name[:_LONGEST_NAME]}",
            *(
                f"{label} {str(value)[:_LONGEST_VERSION]}"
                for label, value in (
                    ("driver", environment.get("driver_version")),
                    ("torch", environment.get("torch_version")),
                    ("transformers", environment.get("transformers_version")),
                    ("commit", self.commit),
                )
                if value
            ),
        ]
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Returns the line as an object."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"format": FORMAT, "version": VERSION, **fields}


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignFile:
    """What such a file holds.

    Attributes:
        header: its first line.
        rows: measurements in the order they were made, as JSON objects, with when (ISO 8601) and
            at what clock.
        avoided: groups of points that took the device with them.
        states: how the device stood now and then: ``time`` (ISO 8601), and what could be read of
            ``profiler.telemetry.Telemetry``.
        complete_bytes: length of all whole lines; what follows was cut off.
    """

    header: Header
    rows: list[dict[str, Any]]
    states: list[dict[str, Any]]
    avoided: list[str]
    complete_bytes: int


def read(path: Path) -> CampaignFile | None:
    """Returns what a file holds; None where it has no whole line.

    Raises:
        MeasurementFileError: it is no such file, or a line is damaged; names line and remedy.
        OSError: it cannot be read.
    """
    if path.stat().st_size > _LARGEST_BYTES:
        raise MeasurementFileError([f"{path}: is larger than {_LARGEST_BYTES >> 20} MiB"])
    content = path.read_bytes()
    complete = content.rfind(b"\n") + 1
    lines = content[:complete].splitlines()
    if not lines:
        if content[: len(_BEGINNING)] != _BEGINNING[: len(content)]:
            raise MeasurementFileError([f"{path}: is no campaign's file; name another one"])
        return None
    header = _header(lines[0], path)
    problems: list[str] = []
    rows, states, avoided = [], [], []
    for number, line in enumerate(lines[1:], 2):
        row = _object(line)
        if STATE in row:
            state = row[STATE]
            if not (isinstance(state, dict) and _is_time(state.get(TIME))):
                problems.append(f"{path}:{number}: {STATE} is damaged; remove the line")
            states.append(state)
            continue
        if AVOIDED in row:
            avoided.append(str(row[AVOIDED]))
            continue
        if fault := _fault(row):
            problems.append(f"{path}:{number}: {fault}; remove the line")
        rows.append(row)
    if problems:
        raise MeasurementFileError(problems)
    return CampaignFile(
        header=header, rows=rows, states=states, avoided=avoided, complete_bytes=complete
    )


def engine_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the engine that a file's measurements stand for; there is one at least."""
    # Whole layers tell whose code ran; kernels are any engine's.
    return str(next((row["engine"] for row in rows if row["kind"] == "layer"), rows[0]["engine"]))


def _header(line: bytes, path: Path) -> Header:
    read = _object(line)
    if read.get("format") != FORMAT:
        raise MeasurementFileError([f"{path}:1: is no campaign's file; name another one"])
    if read.get("version") != VERSION:
        raise MeasurementFileError(
            [
                f"{path}:1: version {read.get('version')!r} is not {VERSION}; use the tokenpace"
                " that wrote it"
            ]
        )
    environment, versions = read.get("environment"), read.get("versions")
    memory = read.get("memory_bytes")
    texts = {name: read.get(name) for name in ("device", "create_time", "command", "commit")}
    whole = (
        isinstance(environment, dict)
        and isinstance(environment.get("device_name"), str)
        and isinstance(versions, dict)
        and isinstance(memory, int)
        and all(isinstance(text, str) for text in texts.values())
    )
    if not whole:
        raise MeasurementFileError([f"{path}:1: the header is damaged; measure again"])
    return Header(
        environment=environment or {},
        versions=versions or {},
        memory_bytes=memory or 0,
        **{name: str(text) for name, text in texts.items()},
    )


def _fault(row: Mapping[str, Any]) -> str:
    """Says what is wrong with a measurement; empty: nothing."""
    for name in _TEXTS:
        if not isinstance(row.get(name), str):
            return f"{name} is missing"
    if row["precision"] not in PRECISIONS:
        return f"precision is {row['precision'][:40]!r}; it is one of {', '.join(PRECISIONS)}"
    shape, latency, flags = row.get("shape"), row.get("latency_ms"), row.get("flags")
    if not (isinstance(shape, dict) and all(map(_is_number, shape.values()))):
        return "shape is damaged"
    if not (isinstance(flags, list) and all(isinstance(flag, str) for flag in flags)):
        return "flags are damaged"
    for name, is_whole in ((TIME, _is_time), (SECONDS, _is_seconds), (CLOCK, _is_number)):
        if name in row and not is_whole(row[name]):
            return f"{name} is damaged"
    return _latency_fault(latency)


def _latency_fault(latency: object) -> str:
    times = ("median", "p10", "p90")
    if not (
        isinstance(latency, dict)
        and all(_is_number(latency.get(name)) and latency[name] > 0 for name in (*times, "samples"))
        and isinstance(latency["samples"], int)
    ):
        return "latency_ms is damaged"
    for name in times:
        if latency[name] > LONGEST_MS:
            return f"latency_ms.{name} is {latency[name]:g}, more than an hour ({LONGEST_MS:.0f})"
    return ""


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _is_seconds(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _object(line: bytes) -> dict[str, Any]:
    try:
        read = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}
