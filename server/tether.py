"""Runs a module as a process that ends with the daemon, however the daemon ends.

``python -m server.tether PARENT_PID MODULE [ARGUMENTS]``. The process also
stands back behind the daemon, for the processor as for memory.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import threading
import time
from pathlib import Path

_POLL_S = 0.25
_NICE = 10
_OOM_SCORE = "500"


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    # Nobody is left to take the result; a native library may hold the main thread.
    os._exit(1)


def main() -> None:
    """Runs the module named on the command line."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
