import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from server.fitting import FitCancelledError, FitError, FitTimeoutError, fit


def command(program):
    return [sys.executable, "-c", program]


def test_the_process_reads_measurements_and_writes_the_model(point):
    program = (
        "import sys, time; from model.measurement import from_json; time.sleep(0.5);"
        "rows = from_json(sys.stdin.buffer.read());"
        "sys.stdout.write(f'{len(rows)} {rows[0].precision}')"
    )
    # More than a pipe holds, and a reader that takes its time to load.
    rows = [point(m) for m in range(2_000)]
    assert fit(rows, timeout_s=60, command=command(program)) == b"2000 bf16"


def test_a_failure_tells_the_last_words(point):
    program = "import sys; print('first', file=sys.stderr); sys.exit('too few rows')"
    with pytest.raises(FitError, match="exit code 1: too few rows"):
        fit([point()], timeout_s=60, command=command(program))


def test_a_silent_end_is_a_failure(point):
    with pytest.raises(FitError, match="wrote no cost model"):
        fit([point()], timeout_s=60, command=command("pass"))


def hang(file):
    return command(
        f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )


def runs(pid):
    """Whether the process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_timeout_leaves_nothing_running(point, tmp_path):
    with pytest.raises(FitTimeoutError):
        fit([point()], timeout_s=1.0, command=hang(tmp_path / "pid"))
    assert not runs((tmp_path / "pid").read_text())


def test_a_cancelled_fit_leaves_nothing_running(point, tmp_path):
    cancelled = threading.Event()
    threading.Timer(0.7, cancelled.set).start()
    start = time.monotonic()
    with pytest.raises(FitCancelledError):
        fit([point()], timeout_s=60, cancelled=cancelled, command=hang(tmp_path / "pid"))
    assert time.monotonic() - start < 10
    assert not runs((tmp_path / "pid").read_text())


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_a_tethered_process_ends_with_its_parent_and_stands_back(tmp_path):
    (tmp_path / "sleeper.py").write_text(
        "import os, sys, time\n"
        "print(os.getpid(), os.nice(0), sys.argv[1], flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = (
        "import os, subprocess, sys, time\n"
        "arguments = [sys.executable, '-m', 'server.tether', str(os.getpid()), 'sleeper', 'x']\n"
        "subprocess.Popen(arguments, start_new_session=True)\n"
        "time.sleep(60)\n"
    )
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, env=environ
    ) as process:
        pid, nice, argument = process.stdout.readline().split()
        assert int(nice) >= os.nice(0) + 10
        assert argument == "x"
        process.kill()
        process.wait()
        end = time.monotonic() + 2
        while runs(pid) and time.monotonic() < end:
            time.sleep(0.05)
        assert not runs(pid)


def test_the_real_regression_refuses_too_few_rows_in_plain_words(point):
    with pytest.raises(FitError, match="exit code 1") as caught:
        fit([point()], timeout_s=60)
    assert "Traceback" not in str(caught.value)
    assert "Error" not in str(caught.value)
