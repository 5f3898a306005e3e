"""Work that is shared among processes comes back whole, and ends with who asked for it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model.side_by_side import side_by_side, usual_processes

SLEEPERS = """
import os, time
from model.side_by_side import side_by_side

def work(seconds):
    # Where Python keeps no buffer a print is two writes, and two processes' lines get mixed.
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(seconds)

list(side_by_side(work, [0.4] * 40, 2))
"""
CHECKED = """
import os
from model.side_by_side import side_by_side

held = {"base": 10}

def work(task):
    if task == 7:
        raise ValueError
    if task < 0:
        os._exit(1)
    return os.getpid(), held["base"] * task

done = dict(side_by_side(work, [3, 1, 2, 5, 4], 2))
assert {task: value for task, (_, value) in done.items()} == {n: 10 * n for n in range(1, 6)}
assert os.getpid() not in {process for process, _ in done.values()}
for task in (7, -1):
    try:
        list(side_by_side(work, [6, task, 8], 2))
    except (ValueError, RuntimeError) as error:
        print(type(error).__name__)
"""


def test_one_process_does_all_in_order():
    assert list(side_by_side(lambda task: (os.getpid(), task), [2, 1], 1)) == [
        (2, (os.getpid(), 2)),
        (1, (os.getpid(), 1)),
    ]
    assert list(side_by_side(str, [], 4)) == []


def test_several_processes_share_what_the_work_holds_and_tell_what_went_wrong():
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHECKED], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, b"ValueError\nBrokenProcessPool"), (
        done.stderr
    )


def test_they_end_with_the_process_that_asked():
    process = subprocess.Popen([sys.executable, "-P", "-c", SLEEPERS], stdout=subprocess.PIPE)
    with process:
        workers = {int(process.stdout.readline()) for _ in range(2)}
        assert process.pid not in workers
        process.send_signal(signal.SIGKILL)
    end = time.monotonic() + 10
    left = workers
    while left and time.monotonic() < end:
        left = {pid for pid in left if is_running(pid)}
        time.sleep(0.05)
    assert not left


def is_running(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_fit_is_shared_by_a_few():
    assert 1 <= usual_processes() <= 4


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
