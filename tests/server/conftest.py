import contextlib
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from model.measurement import Distribution, Measurement
from model.precision import Precision
from profiler.interface import Environment
from server.configuration import Configuration
from server.cost_models import CostModels
from server.devices import DeviceRegistry
from server.occupancy import Occupancy
from server.state import State
from server.store import Store

START = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path) as opened:
        yield opened


@pytest.fixture
def environment():
    return Environment(device_name="a CPU", device_kind="cpu", torch_version="2.13.0", threads=2)


@pytest.fixture
def point():
    def make(m=1.0, **changes):
        values = {
            "kind": "linear",
            "precision": Precision.BF16,
            "engine": "torch",
            "shape": {"m": float(m), "n": 64.0, "k": 64.0},
            "latency_ms": Distribution(median=1.5, p10=1.25, p90=2.0, samples=7),
            "group": "64x64",
            "flags": ("throttled",),
        }
        return Measurement(**values | changes)

    return make


@pytest.fixture
def at():
    """A moment so many seconds after a fixed one."""
    return lambda seconds=0.0: START + timedelta(seconds=seconds)


@pytest.fixture
def scripted():
    """The command of a worker that behaves as it is told."""

    def command(behaviour):
        return [sys.executable, str(Path(__file__).with_name("scripted_worker.py")), behaviour]

    return command


# Stands for the regression, which takes seconds: a cost model that holds nothing but its count.
FIT = """
import sys
from model.cost_model import FittedCostModel
from model.measurement import from_json
rows = from_json(sys.stdin.buffer.read())
sys.stdout.buffer.write(FittedCostModel({}, {}, (), len(rows)).to_bytes())
"""


@pytest.fixture
def fit_command():
    return [sys.executable, "-c", FIT]


@pytest.fixture
def state(store, tmp_path, fit_command):
    """What the services of a daemon share, with a quick fit."""
    devices = DeviceRegistry()
    return State(
        configuration=Configuration(data_dir=tmp_path, max_queue=2, tick=0.05),
        store=store,
        devices=devices,
        occupancy=Occupancy(devices),
        cost_models=CostModels(store, devices, fit_command),
    )


@pytest.fixture
def eventually():
    """Waits until a condition holds and returns its value; scripted workers sleep for longer."""

    def wait(condition, timeout_s=30.0):
        end = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < end, "did not come true"
            time.sleep(0.01)
        return value

    return wait


@pytest.fixture
def workers():
    """Returns the process ids of the scripted workers that run."""

    def running():
        found = []
        for process in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any("scripted_worker" in part for part in process.cmdline()):
                    found.append(process.pid)
        return found

    return running
