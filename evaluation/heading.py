"""The first lines of a page of results: date, commit, hardware, versions and the command."""

from __future__ import annotations

import contextlib
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from model.source import DIRTY, ROOT, commit_of

if TYPE_CHECKING:
    from collections.abc import Iterable

_DIGITS = 7
"""Of a commit, as git itself shortens those of a repository of this size."""


def heading(title: str, command: str, packages: Iterable[str], commit: str = "") -> str:
    """Returns the lines, a line feed at their end.

    Args:
        title: of the page.
        command: that made it.
        packages: distributions whose versions count; those not installed are left out.
        commit: as :func:`model.source.commit_of` is given it.

    Raises:
        InvalidFieldError: the checkout is of another commit; names ``commit``.
    """
    # A page that is written in parts makes its own checkout differ.
    known = commit_of(commit, ROOT).removesuffix(DIRTY)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = "".join(f", {name} {found}" for name in packages if (found := _version(name)))
    return f"""# {title}

{datetime.now(UTC):%Y-%m-%d}, commit {known[:_DIGITS] or "unknown"}.
Hardware: {_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB.
Versions: Python {platform.python_version()}{versions}.
Command: `{command}`
"""


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
