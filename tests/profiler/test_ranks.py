"""Ranks: real processes over gloo send each other messages, and sum their parts of layers."""

import io
import signal
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import profiler.exchange
from model.dimensions import architecture_of_dimensions
from model.errors import InvalidFieldError
from model.measurement import measurement_of
from model.operations import OperationKind
from model.precision import Precision
from model.shapes import operations_of
from profiler.collectives import KINDS, measure_collectives
from profiler.exchange import exchange
from profiler.interface import ENGINE, PLAIN_ENGINE
from profiler.progress import Progress
from profiler.ranks import RankError, run_on_ranks
from profiler.standalone import DeviceInUseError, NoDeviceError, Plan
from profiler.wholes import ForwardPoint
from reference import campaigns
from tests.profiler.rank_work import die, layers_and_addresses

psutil = pytest.importorskip("psutil")

SIZES = (4096, 1 << 20)
CPUS = ("cpu", "cpu")
TINY = architecture_of_dimensions(
    hidden_size=32,
    layer_count=2,
    intermediate_size=64,
    vocab_size=128,
    query_heads=4,
    kv_heads=2,
)


def ask(path, ranks, **changes):
    values = {"device": "cpu", "precisions": (Precision.FP32,)} | changes
    plan = Plan(out=path, budget_s=0.0, begin=time.monotonic(), **values)
    return exchange(plan, ranks, Progress(io.StringIO()), SIZES)


def test_what_two_ranks_send_each_other_is_added_to_a_campaigns_file(tmp_path, monkeypatch):
    few = partial(measure_collectives, samples=2)
    monkeypatch.setattr(profiler.exchange, "measure_collectives", few)
    said = ask(tmp_path / "file.jsonl", 0)
    rows = [measurement_of(row) for row in campaigns.read(tmp_path / "file.jsonl").rows]
    assert [(row.kind, row.shape["message_bytes"]) for row in rows] == [
        (kind.value, size) for kind in KINDS for size in SIZES
    ]
    for row in rows:
        assert 0 < row.latency_ms.p10 <= row.latency_ms.median <= row.latency_ms.p90
        (operation,) = operations_of(row)
        assert operation.kind is OperationKind(row.kind)
        assert operation.shape[0] == row.shape["message_bytes"]
    assert len(said.splitlines()) == len(rows)


def test_two_ranks_time_their_shares_of_a_layer_on_loopback_and_cores_of_their_own():
    points = (ForwardPoint(1, 1, 8), ForwardPoint(2, 16, 16))
    engines = (ENGINE, PLAIN_ENGINE)
    latencies, (some, beyond, cores) = run_on_ranks(
        CPUS, 1, layers_and_addresses, TINY, points, Precision.FP32, engines
    )
    assert len(latencies) == len(engines) * len(points)
    assert all(each.samples == 6 for each in latencies)
    assert all(each.median > 0 for each in latencies)
    assert some > 0
    assert beyond == 0
    assert cores == 1


def test_a_rank_that_fails_ends_them_all_and_says_why():
    with pytest.raises(RankError, match=r"rank \d failed: .*precision"):
        run_on_ranks(CPUS, 1, measure_collectives, Precision.FP4, SIZES)


def test_a_rank_that_is_killed_ends_them_all_and_is_named():
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(RankError, match=r"rank 1 failed: .*SIGKILL"):
        run_on_ranks(CPUS, 1, die)
    after = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert before == after


WAITING = """
import os, signal, sys, time
from pathlib import Path
from profiler.ranks import run_on_ranks

def wait(rank, folder):
    # as one that is deep in a kernel
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)
    os._exit(1)

if __name__ == "__main__":
    run_on_ranks(["cpu", "cpu"], 1, wait, sys.argv[1])
"""


def test_no_rank_outlives_the_process_that_started_it(tmp_path):
    script, pids = tmp_path / "waiting.py", tmp_path / "pids"
    script.write_text(WAITING)
    pids.mkdir()
    with subprocess.Popen([sys.executable, script, pids], stderr=subprocess.DEVNULL) as starter:
        await_that(lambda: len(list(pids.iterdir())) == 2, 60)
        starter.kill()
    ranks = [int(path.name) for path in pids.iterdir()]
    await_that(lambda: not any(map(is_running, ranks)), 5)


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def await_that(is_so, seconds):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("ranks", [1, -2])
def test_too_few_ranks_are_refused(tmp_path, ranks):
    with pytest.raises(InvalidFieldError, match="use 2 or more"):
        ask(tmp_path / "file.jsonl", ranks)
    assert not (tmp_path / "file.jsonl").exists()


def test_every_gpu_that_takes_part_must_be_free(tmp_path, monkeypatch):
    path, on = tmp_path / "file.jsonl", {"cuda:2": ("12 train",)}
    monkeypatch.setattr(
        "profiler.telemetry.read", lambda name: SimpleNamespace(processes=on.get(name, ()))
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)

    def no_driver(name):
        raise RuntimeError("no driver")

    monkeypatch.setattr(torch.cuda, "set_device", no_driver)
    for ranks in (0, 3):
        with pytest.raises(DeviceInUseError, match=r"cuda:2 .*12 train; .* --force"):
            ask(path, ranks, device="cuda:0")
    # Nobody is on the two that take part, and forced it goes on beside others: up to the driver.
    for ranks, force in ((2, False), (3, True)):
        with pytest.raises(NoDeviceError, match="no driver"):
            ask(path, ranks, device="cuda:0", force=force)
