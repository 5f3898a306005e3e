"""Which commit the source is of that runs: told by git, or by who copied it without."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from model.errors import InvalidFieldError

ROOT = Path(__file__).parents[1]
"""Folder of this source."""
DIRTY = "-dirty"
"""Behind a commit that files differ from."""
_GIT_S = 10.0


def commit_of(given: str, folder: Path) -> str:
    """Returns the commit of the source in a folder: what git tells of it, else what was given.

    Args:
        given: 40 hexadecimal digits; empty where nobody knows.
        folder: of the source, a checkout or a copy of one.

    Returns:
        The commit, ``DIRTY`` behind where git tells that files differ; empty where nobody knows.

    Raises:
        InvalidFieldError: git tells another commit than was given; names ``commit``.
    """
    told = _by_git(folder)
    if given and told and told.removesuffix(DIRTY) != given:
        raise InvalidFieldError(
            "commit",
            f"{given} is not the checkout's, {told}; leave it out, as git tells it here, or check"
            " that commit out",
        )
    return told or given


def _by_git(folder: Path) -> str:
    """Returns the checkout's commit; empty where this is none, or git is missing."""
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():
        return ""
    command = (git, "describe", "--always", f"--dirty={DIRTY}", "--abbrev=40", "--exclude=*")
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_GIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
