"""What tests of the scripts that measure the daemon and its cost models share."""

import importlib
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from model.dimensions import architecture_of_dimensions
from model.training import fit_cost_model
from profiler.timing import Effort
from reference.campaigns import TIME, Header

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BEGIN = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def script(monkeypatch):
    """Loads a script of the folder, as it finds its neighbours."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture(scope="session")
def campaign_rows(synthetic_device):
    """What a campaign measured of both engines on the CPU, or on one that is a tenth slower."""

    def make(**changes):
        return [
            row
            for engine in ("transformers", "torch")
            for row in synthetic_device(engine=engine, **changes).campaign(6, 12, 2)
        ]

    return {"first": make(), "slower": make(slowness=1.1)}


@pytest.fixture(scope="session")
def fit_once():
    """Fits once what several tests fit on."""
    known = {}

    def fit(rows, processors):
        key = (processors, repr(rows))
        if key not in known:
            known[key] = fit_cost_model(rows, processors)
        return known[key]

    return fit


@pytest.fixture
def campaign_file(tmp_path):
    """Writes rows as the file of a campaign that took so many minutes."""

    def write(name, rows, minutes=2.0):
        path = tmp_path / f"{name}.jsonl"
        header = Header(
            device="",
            environment={"device_name": "a CPU", "device_kind": "cpu"},
            memory_bytes=1 << 30,
            create_time=BEGIN.isoformat(),
            command="python -m profiler campaign",
        )
        step = timedelta(minutes=minutes) / max(1, len(rows))
        lines = [
            asdict(row) | {TIME: (BEGIN + place * step).isoformat()}
            for place, row in enumerate(rows, 1)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in [header.to_json(), *lines]))
        return path

    return write


@pytest.fixture
def held_out(script, monkeypatch, tmp_path, fit_once):
    """The script on models that are measured in a moment."""
    held_out = script("held_out")
    small = architecture_of_dimensions(
        name="small",
        hidden_size=64,
        layer_count=2,
        query_heads=4,
        kv_heads=2,
        intermediate_size=128,
        vocab_size=128,
    )
    monkeypatch.setattr(held_out, "preset", lambda name: small)
    effort = Effort(seconds=0.01, min_samples=2, max_samples=3, sample_ms=0.1)
    for name in ("EFFORT", "MATRIX_EFFORT"):
        monkeypatch.setattr(held_out, name, effort)
    sizes = {
        "LAYERS": (("small", 1), ("small", 2)),
        "WHOLES": ("small",),
        "PASSES": ((1, 1, 16), (2, 8, 8)),
        "REQUESTS": ((1, 8, 4),),
        "MATRIX": 64,
        "COPIED_BYTES": 1 << 20,
    }
    for name, value in sizes.items():
        monkeypatch.setitem(getattr(held_out, name), "cpu", value)
    monkeypatch.setattr(held_out, "fit_cost_model", fit_once)
    monkeypatch.setattr(held_out, "PAGE", tmp_path / "held_out.md")
    return held_out


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a script's main with arguments; returns its exit code and what it printed."""

    def run(script, *arguments):
        monkeypatch.setattr("sys.argv", [f"{script.__name__}.py", *map(str, arguments)])
        code = script.main()
        return code, capsys.readouterr().out

    return run
