"""The `tokenpace` command's way in; needs the base install alone to say what is missing."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLI_PACKAGES = frozenset({"typer", "rich"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
        arguments: without the program's name; None reads the process's own.

    Returns:
        0 done, 1 the daemon said no, 2 wrong usage, 3 unreachable, 130 interrupted.
    """
    # gRPC's own log would stand between the lines of the command's; read at its import.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        # By name, at this moment: the packages of the extra may be missing.
        app = importlib.import_module("tokenpace.commands.app")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _CLI_PACKAGES:
            raise
        print(
            f"error: the tokenpace command needs {error.name}: "
            "install the extra `cli`: pip install 'tokenpace[cli]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130
    code: int = app.run(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main())
