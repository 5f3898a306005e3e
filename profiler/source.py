"""The commit of the source as a command's option names it."""

from __future__ import annotations

import argparse
import re

_HASH = re.compile(r"[0-9a-f]{40}")


def commit_argument(text: str) -> str:
    """Returns the commit that a command's option names.

    Raises:
        ArgumentTypeError: it is no full hash.
    """
    commit = text.lower()
    if not _HASH.fullmatch(commit):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no full hash of 40 hexadecimal digits; `git rev-parse HEAD` tells it"
        )
    return commit
