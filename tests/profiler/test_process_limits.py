"""Limits that a process imposes on itself, so each in a process of its own."""

import os
import subprocess
import sys
import time

import pytest

psutil = pytest.importorskip("psutil")

# Starts a child that is tied to it, tells the child's process id and lives on.
PARENT = """
import os, subprocess, sys, time
child = (
    "import sys, time; from profiler.process_limits import impose;"
    f"impose(parent_pid={os.getpid()}); print('tied', flush=True); time.sleep(60)"
)
process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
time.sleep(60)
"""


def run(program):
    return subprocess.run(
        [sys.executable, "-c", f"from profiler import process_limits\n{program}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_process_ends_with_its_parent_however_that_ends():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
    ) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    end = time.monotonic() + 20
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "outlived its parent"
        time.sleep(0.01)


def test_a_process_whose_parent_is_gone_already_ends_at_once():
    done = run("process_limits.die_with_parent(1)")
    assert done.returncode == 1
    assert "the daemon (process 1) is gone" in done.stderr


def test_memory_beyond_the_limit_is_refused_and_below_it_is_not():
    done = run(
        f"process_limits.impose(parent_pid={os.getpid()}, memory_bytes=1 << 30)\n"
        "bytearray(200 << 20)\n"
        "try:\n    bytearray(2 << 30)\nexcept MemoryError:\n    print('refused')"
    )
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


def test_reserved_addresses_do_not_count():
    # As CUDA reserves them: hundreds of gigabytes that nobody may touch.
    done = run(
        f"process_limits.impose(parent_pid={os.getpid()}, memory_bytes=1 << 30)\n"
        "import mmap\n"
        "mmap.mmap(-1, 256 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0)\n"
        "print('reserved')"
    )
    assert done.stdout == "reserved\n", done.stderr


def test_a_hard_limit_that_is_lower_stays():
    done = run(
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
        "process_limits.limit_memory(4 << 30)\n"
        "print(resource.getrlimit(resource.RLIMIT_DATA)[0] == 1 << 30)"
    )
    assert done.stdout == "True\n", done.stderr


def test_a_refused_oom_score_is_no_reason_to_end():
    done = run(
        "from pathlib import Path\n"
        "process_limits._OOM_SCORE_ADJ = Path('/proc/self/no-such-file/x')\n"
        "process_limits.be_first_out_of_memory()\nprint('goes on')"
    )
    assert done.stdout == "goes on\n", done.stderr
