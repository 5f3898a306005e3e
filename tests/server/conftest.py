import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from model.measurement import Distribution, Measurement
from model.precision import Precision
from profiler.interface import Environment
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
