"""A campaign without a daemon: what it needs, what it keeps, how it ends and goes on."""

import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import profiler.campaign
from model.errors import InvalidFieldError
from model.precision import Precision
from profiler import nvml, telemetry
from profiler.__main__ import main
from profiler.design import Space
from profiler.identity import driver_version, header_of, identify
from profiler.interface import DeviceLostError
from profiler.progress import Progress
from profiler.standalone import (
    DeviceInUseError,
    NoDeviceError,
    NothingMeasuredError,
    Plan,
    check_unused,
    run,
)
from profiler.summary import summary
from reference import campaigns

TINY = Space(
    hidden=(64, 256),
    ranks=(1, 2),
    vocab=(128, 512),
    kv_tokens=64,
    model_bytes=(4e5, 1e6),
    flops=1e8,
    bytes=1e6,
)
ROOT = Path(__file__).parents[2]
LOADING_S = 180
"""torch takes seconds to load, more on a machine that is busy."""
MISSING = (
    "onnx",
    "onnxruntime",
    "pynvml",
    "psutil",
    "grpc",
    "sqlalchemy",
    "torchao",
    "structlog",
    "rich",
)
# Python runs this before anything else; what it hides is not installed for all who ask.
HIDING = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    if name.partition(".")[0] not in {MISSING}:
        return find(name, path, target)
    with open("asked", "a") as file:
        print(name, file=file)
PathFinder.find_spec = find_spec
"""


def plan(path, budget_s=60.0, **changes):
    values = {"device": "cpu", "precisions": (Precision.FP32,), "space": TINY}
    return Plan(out=path, budget_s=budget_s, begin=time.monotonic(), **values | changes)


def measure(path, **changes):
    """Runs a campaign; returns its summary and what it said on the way."""
    said = io.StringIO()
    return run(plan(path, **changes), Progress(said)), said.getvalue()


def rows_of(path):
    found = campaigns.read(path)
    return found.rows if found else []


def points_of(rows):
    """The attentions: weight matrices may come again, with other rows."""
    return [str(sorted(r["shape"].items())) for r in rows if r["kind"] == "attention"]


def test_a_second_run_goes_on_where_the_first_ended(tmp_path, stopping):
    stopping(2)
    path = tmp_path / "campaign.jsonl"
    text, said = measure(path, budget_s=300.0)
    first = rows_of(path)
    assert f"{len(first)} points, {len(first)} of them new" in text
    assert "left  starting" in said
    spent = [row[campaigns.SECONDS] for row in first]
    assert all(sum(each[what] for each in spent) > 0 for what in ("timing", "building"))
    assert spent[0]["choosing"] > 0
    header, *lines = map(json.loads, path.read_text().splitlines())
    assert "format" in header
    assert [campaigns.STATE in line for line in (lines[0], lines[-1])] == [True, True]
    text, said = measure(path, budget_s=300.0)
    both = rows_of(path)
    assert both[: len(first)] == first
    assert f"{len(both)} points, {len(both) - len(first)} of them new" in text
    assert f"holds {len(first)} points; going on" in said
    again = Counter(points_of(both)) - Counter(dict.fromkeys(points_of(both), 1))
    assert sum(again.values()) <= 0.2 * len(both)  # a design of so small a space has some twice
    assert set(points_of(both[len(first) :])) - set(points_of(first))


def test_each_measurement_is_kept_with_its_clock(tmp_path, stopping, monkeypatch):
    stopping(1)
    path = tmp_path / "campaign.jsonl"
    clocks = itertools.count(1980.0, -1.0)
    monkeypatch.setattr("profiler.telemetry.clock_mhz", lambda name: next(clocks))
    measure(path, budget_s=300.0)
    rows = rows_of(path)
    assert [row[campaigns.CLOCK] for row in rows] == [1980.0 - index for index in range(len(rows))]


def test_behind_a_point_that_took_the_device_with_it_another_process_goes_on(
    tmp_path, monkeypatch, capsys
):
    path, began, started = tmp_path / "campaign.jsonl", [], []

    def losing(self):
        began.append((self._avoided, self._measures_others))
        yield from ()
        raise DeviceLostError(f"point {len(began)}", "an illegal memory access")

    def become(program, command):
        assert [program, "-m", "profiler"] == [sys.executable, *command[1:3]]
        started.append(command[3:])
        raise SystemExit(0)

    monkeypatch.setattr(profiler.campaign.Campaign, "run", losing)
    monkeypatch.setattr(os, "execv", become)
    monkeypatch.setattr("profiler.__main__._BEGIN", time.monotonic() - 300.0)
    command = ["campaign", "--budget", "600s", "--device", "cpu", "--out", str(path)]
    for lost in range(1, 4):
        with pytest.raises(SystemExit):
            main(command)
        assert f"point {lost} took the device with it: an illegal" in capsys.readouterr().err
        command = started[-1]
        left = [word for before, word in itertools.pairwise(command) if before == "--budget"][-1]
        monkeypatch.setattr("profiler.__main__._BEGIN", time.monotonic())
        assert 250.0 < float(left.removesuffix("s")) <= 300.0
    assert main(command) == 1
    assert "as others did before it" in capsys.readouterr().err
    avoided, measures_others = zip(*began, strict=True)
    assert list(avoided) == [frozenset(f"point {n}" for n in range(1, k)) for k in range(1, 5)]
    # 300 seconds alone would stay with dense models.
    assert all(measures_others)
    # Another campaign may lose the device anew.
    with pytest.raises(SystemExit):
        main(["campaign", "--budget", "90s", "--device", "cpu", "--out", str(path)])


def test_it_ends_by_its_budget_whatever_a_point_takes(tmp_path, monkeypatch):
    def endless(self):
        yield from ()
        time.sleep(60)

    monkeypatch.setattr(profiler.campaign.Campaign, "run", endless)
    begin = time.monotonic()
    with pytest.raises(NothingMeasuredError, match=r"the budget of 0\.8 s was over"):
        run(plan(tmp_path / "campaign.jsonl", budget_s=0.8), Progress(io.StringIO()))
    assert time.monotonic() - begin < 20.0


def test_the_summary_tells_points_errors_and_what_was_left_out(synthetic_device):
    from model.training import fit_cost_model

    rows = synthetic_device().campaign(linears=12, attentions=20, models=3)
    told = summary(rows, 3, {"too large": 2, "vast": 1}, fit_cost_model(rows))
    kinds = Counter(row.kind for row in rows)
    assert f"{len(rows)} points, 3 of them new" in told
    assert f"{kinds['decode']} decode" in told
    assert re.search(r"fp32 decode: \d+\.\d%, \d+\.\d% \(\d+ points\)", told)
    assert "3 points were left out or made smaller:\n  too large (2 times)\n  vast" in told
    assert "no error can be told: too few" in summary(rows, 0, {}, "too few")


def test_progress_is_written_over_on_a_terminal_and_plain_elsewhere():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    clock = iter([0.0, 0.0, 5.0, 11.0, 11.0])
    plain, live = io.StringIO(), Terminal()
    progress = Progress(plain, lambda: next(clock))
    for _ in range(3):
        progress.show(0.5, 61.4, "measuring")
    assert plain.getvalue() == " 50%  1:01 left  measuring\n" * 2
    progress = Progress(live)
    progress.show(0.5, 61.4, "measuring " * 50)
    progress.show(0.51, 5.0, "less")
    progress.say("said")
    parts = live.getvalue().split("\r")
    assert len(parts) == 3
    assert parts[2].startswith(" 51%  0:05 left  less ")
    assert parts[2].endswith(" \nsaid\n")
    assert len(parts[1]) == len(parts[2]) - len("\nsaid\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--budget", "8"], "'8' is no duration"),
        (["--budget", "0s"], "'0s' is no duration"),
        (["--budget", "25h"], "up to 24h"),
        (["--precisions", "bf16,fp61"], "'fp61' is not a valid Precision; use some of fp32"),
        (["--error", "5"], "'5' is no share between 0 and 1"),
        (["--error", "five"], "'five' is no share"),
        ([], "--out"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_loaded(arguments, said, tmp_path, capsys):
    out = ["--out", str(tmp_path / "campaign.jsonl")] if arguments else []
    with pytest.raises(SystemExit) as caught:
        main(["campaign", *arguments, *out])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_the_device_cannot_do_is_refused(tmp_path):
    path = tmp_path / "campaign.jsonl"
    with pytest.raises(InvalidFieldError, match="precision"):
        measure(path, precisions=(Precision.FP32, Precision.FP4))
    with pytest.raises(NoDeviceError, match=r"no device 'cuda:99'; it sees cpu"):
        measure(path, device="cuda:99")
    assert not path.exists()


def test_the_header_tells_device_versions_and_command():
    header = header_of(identify("cpu"), ["campaign", "--out", "a b"])
    here = telemetry.current_environment("cpu")
    assert header.device == ""
    assert header.device_name == here.device_name
    assert header.environment["torch_version"] == torch.__version__
    assert header.command == "python -m profiler campaign --out 'a b'"
    assert header.memory_bytes > 0
    assert "numpy" in header.versions
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", header.commit)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\nGCC version:",
            "550.54.15",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.105.08  Release Build",
            "580.105.08",
        ),
        ("something else", ""),
    ],
)
def test_the_kernel_tells_the_version_of_its_driver(tmp_path, text, version):
    file = tmp_path / "version"
    file.write_text(text)
    assert driver_version(file) == version
    assert driver_version(tmp_path / "none") == ""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_the_same_one_with_and_without_nvml(monkeypatch):
    if not nvml.gpus():
        pytest.skip("needs the driver's library")
    by_nvml = identify("cuda:0")
    monkeypatch.setattr(nvml, "gpus", tuple)
    by_torch = identify("cuda:0")
    assert replace(by_torch, memory_bytes=by_nvml.memory_bytes) == by_nvml
    assert by_torch.memory_bytes == pytest.approx(by_nvml.memory_bytes, rel=0.05)


@contextmanager
def started(path, hidden):
    """A campaign in a process that finds only what a GPU machine has."""
    (hidden / "sitecustomize.py").write_text(HIDING)
    command = [sys.executable, "-m", "profiler", "campaign", "--device", "cpu", "--budget", "5m"]
    process = subprocess.Popen(
        [*command, "--out", str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(hidden), str(ROOT)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=hidden,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until_rows(process, path, count):
    end = time.monotonic() + LOADING_S
    while not path.exists() or len(rows_of(path)) < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_needs_no_daemons_packages_and_a_signal_keeps_what_was_measured(tmp_path):
    path, hidden = tmp_path / "campaign.jsonl", tmp_path / "hidden"
    hidden.mkdir()
    with started(path, hidden) as process:
        until_rows(process, path, 6)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=LOADING_S)
    assert process.returncode == 143, said
    assert "keeps what was measured" in said
    first = rows_of(path)
    with started(path, hidden) as process:
        until_rows(process, path, len(first) + 1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LOADING_S)
    assert process.returncode == 130, said
    assert f"holds {len(first)} points; going on" in said
    both = rows_of(path)
    assert both[: len(first)] == first
    assert len(both) > len(first)
    assert {"psutil", "pynvml"} <= set((hidden / "asked").read_text().split())


def test_a_gpu_that_others_compute_on_is_refused_unless_forced(tmp_path, monkeypatch):
    asked = plan(tmp_path / "file.jsonl", device="cuda:0")
    busy = SimpleNamespace(processes=("12 train",))
    monkeypatch.setattr("profiler.telemetry.read", lambda name: busy)
    with pytest.raises(DeviceInUseError, match=r"12 train; .* --force"):
        run(asked, Progress(io.StringIO()))
    check_unused("cuda:0", force=True)
    check_unused("cpu", force=False)

    def no_driver(name):
        raise ValueError("no NVML")

    monkeypatch.setattr("profiler.telemetry.read", no_driver)
    check_unused("cuda:0", force=False)
