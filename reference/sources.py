"""Rows with their source, in one order that never changes: what an import sends."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reference import operations, tables

if TYPE_CHECKING:
    from reference.rows import Row

DEFAULT_LIMIT = 15_000
"""Rows of one kind and precision beyond which more of them buy little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Measurements of one engine on one device.

    Attributes:
        device: our name of it.
        engine: that they stand for.
        text: who measured, licence, versions, and what was left out.
        rows: the measurements.
    """

    device: str
    engine: str
    text: str
    rows: list[Row]


def package_source(device: str, engine: str, limit: int, *, launched: bool = False) -> Source:
    """Returns what aiconfigurator-core holds of an engine on a device.

    Args:
        device: one of ``tables.DEVICES``.
        engine: one of ``tables.ENGINES``.
        limit: most rows of one kind and precision.
        launched: takes linears that were timed as the host launched them, which no engine runs
            so, too.

    Raises:
        NotInstalledError: the package, or what reads its format, is missing.
    """
    rows: list[Row] = []
    versions: dict[str, None] = {}
    left_out: Counter[str] = Counter()
    folder = tables.data_folder()
    for table, found, faults in operations.rows(device, engine, folder, limit, launched=launched):
        rows += found
        left_out += faults
        versions[f"{table.engine} {table.version}"] = None
    text = (
        f"{tables.DISTRIBUTION} {tables.package_version()} ({tables.LICENCE}),"
        f" {', '.join(versions)}; at most {limit} rows a kind and precision"
        + "".join(f"; left out {count} {reason}" for reason, count in left_out.items())
    )
    return Source(device=device, engine=engine, text=text, rows=rows)
