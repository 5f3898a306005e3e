"""What a worker process imposes on itself before it loads anything heavy.

A worker may be killed, hang or eat all memory; these limits see to it that the
worker pays for it and never the daemon, and that no worker outlives its daemon.
Linux alone has all of them; elsewhere the closed connection ends the worker.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_OOM_SCORE_ADJ = Path("/proc/self/oom_score_adj")


def impose(*, parent_pid: int, memory_bytes: int = 0) -> None:
    """Imposes all limits of this module on the calling process.

    Args:
        parent_pid: process id of the daemon; this process dies with it.
        memory_bytes: memory that this process may allocate; 0 is no limit.

    Raises:
        SystemExit: the daemon is gone already.
    """
    die_with_parent(parent_pid)
    be_first_out_of_memory()
    if memory_bytes > 0:
        limit_memory(memory_bytes)


def die_with_parent(parent_pid: int) -> None:
    """Asks the kernel to kill this process as soon as its parent has ended.

    A worker deep in a C++ kernel reads no connection for seconds; the kernel's
    SIGKILL needs no cooperation. The signal is tied to the thread that started
    the worker, which is why the daemon starts workers on a thread that stays.

    Args:
        parent_pid: process id of the daemon, as the daemon itself states it.

    Raises:
        SystemExit: the parent ended before the request was in force (the kernel
            then sends nothing, as it tells of the ends to come alone).
        OSError: the kernel refused.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"PR_SET_PDEATHSIG: {os.strerror(code)}")
    if os.getppid() != parent_pid:
        raise SystemExit(f"the daemon (process {parent_pid}) is gone")


def be_first_out_of_memory(score: int = 800) -> None:
    """Makes the kernel pick this process before others when memory runs out.

    Raising one's own score needs no privilege; a sandbox may still refuse, and
    the worker is then as likely a victim as any process of its size.

    Args:
        score: -1000 (never) to 1000 (first).
    """
    try:
        _OOM_SCORE_ADJ.write_text(f"{score}\n")
    except OSError:
        return


def limit_memory(memory_bytes: int) -> None:
    """Makes allocations beyond ``memory_bytes`` fail instead of pushing others out.

    RLIMIT_DATA counts the private writable mappings: heaps and torch's tensors.
    RLIMIT_AS would count reserved addresses too, of which CUDA takes hundreds of
    gigabytes without using them, and every CUDA program would fail to start.

    Args:
        memory_bytes: limit; a lower one that is in force already stays.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error is that of an allocation that failed.

    torch raises a bare RuntimeError on the CPU, with the allocator's words, and passes on those
    of cuBLAS.
    """
    text = str(error).lower()
    words = ("out of memory", "allocate memory", "status_alloc_failed")
    return isinstance(error, MemoryError) or any(each in text for each in words)
