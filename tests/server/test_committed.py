"""Committed measurements: taken in once, behind what users import, never in the daemon's way."""

import sys
import time
from dataclasses import replace

import pytest
import structlog.testing

from model import committed
from model.committed import FOLDER, SUFFIX, Origin
from model.estimate import Provenance
from model.hardware import data_sheet
from model.precision import Precision
from server.committed import CommittedMeasurements
from server.cost_models import CostModels
from server.imports import imported_environment

ORIGIN = Origin(
    device="h200-sxm",
    engine="transformers",
    source="campaign of 2026-01-02 on NVIDIA H200",
    device_name="NVIDIA H200",
    memory_bytes=150_754_820_096,
    driver_version="580.1",
    versions={"torch": "2.11.0"},
    commit="0" * 40,
    create_time="2026-01-02T00:00:00+00:00",
    command="python -m profiler campaign",
)
FIT = """
import sys
from model.cost_model import FittedCostModel
from model.estimate import Provenance
from model.measurement import from_json
rows = from_json(sys.stdin.buffer.read())
model = FittedCostModel({}, {}, (), len(rows), Provenance.REFERENCE_DATA)
sys.stdout.buffer.write(model.to_bytes())
"""
SLOW = "import time; time.sleep(600)"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "reference"
    made.mkdir()
    return made


@pytest.fixture
def state_with(state):
    """What services share, with a fit of its own and no cost model loaded."""

    def make(program=FIT):
        models = CostModels(state.store, state.devices, [sys.executable, "-c", program])
        return replace(state, cost_models=models)

    return make


@pytest.fixture
def put(folder, point):
    """Puts a card's file into the folder."""

    def write(count=3, **changes):
        origin = replace(ORIGIN, **changes)
        rows = [point(m) for m in range(1, count + 1)]
        path = folder / f"{origin.device}{SUFFIX}"
        path.write_bytes(committed.write(origin, rows))
        return path

    return write


def taken_in(folder, state):
    """Takes all in and returns what was logged."""
    with structlog.testing.capture_logs() as logged:
        work = CommittedMeasurements(folder, state)
        work.start()
        work._thread.join(60)
        work.stop()
    return [(line["log_level"], line["event"], line) for line in logged]


def warnings(logged):
    return [line["error"] for level, _, line in logged if level == "warning"]


def test_the_projects_own_files_can_be_read():
    for path in FOLDER.glob(f"*{SUFFIX}"):
        content = path.read_bytes()
        origin = committed.origin_of(content, path)
        assert path.name == f"{data_sheet(origin.device).name}{SUFFIX}"
        assert committed.measurements_of(content, path)
    assert FOLDER.is_dir()


def test_a_card_answers_by_its_file_and_a_second_start_changes_nothing(folder, put, state_with):
    put()
    state = state_with()
    logged = taken_in(folder, state)
    assert [event for _, event, _ in logged][-1] == "committed measurements taken in"
    card = state.devices.get("h200-sxm")
    fitted = state.cost_models.current(card).record
    assert (fitted.measurement_count, fitted.engines) == (3, ("transformers",))
    assert fitted.provenance is Provenance.REFERENCE_DATA
    again = state_with(SLOW)
    begin = time.monotonic()
    assert taken_in(folder, again) == []
    assert time.monotonic() - begin < 30
    assert again.cost_models.current(card).record == fitted


def test_a_file_of_another_content_takes_the_place_of_the_one_before(folder, put, state_with):
    put(count=3)
    state = state_with()
    taken_in(folder, state)
    put(count=2)
    taken_in(folder, state)
    card = state.devices.get("h200-sxm")
    assert state.cost_models.current(card).record.measurement_count == 2


@pytest.mark.parametrize("first", [True, False])
def test_what_a_user_imports_is_before_it(folder, put, state_with, point, first):
    state = state_with()
    card = state.devices.get("h200-sxm")
    put(count=3)
    if not first:
        taken_in(folder, state)
    own = imported_environment(card, "mine", "transformers")
    state.store.measurements.append([point(9)], device="h200-sxm", environment=own)
    mine = state.cost_models.fit_reference(card, "transformers", source="mine", timeout_s=60)
    if first:
        taken_in(folder, state)
    assert len(state.store.cost_models.imported()) == 2
    assert state.cost_models.current(card, "transformers").record == mine.record
    # FitCostModel without a source, too.
    assert state.store.environments.newest_imported("h200-sxm", "transformers") == own


def test_what_was_cut_off_goes_on_after_the_next_start(folder, put, state_with, eventually):
    put()
    state = state_with(SLOW)
    work = CommittedMeasurements(folder, state)
    work.start()
    eventually(lambda: _count(state) == 3)
    begin = time.monotonic()
    work.stop()
    assert time.monotonic() - begin < 30
    again = state_with()
    taken_in(folder, again)
    assert _count(again) == 3
    assert again.cost_models.current(again.devices.get("h200-sxm")) is not None


def _count(state):
    environments = state.store.environments
    held = environments.newest_imported("h200-sxm", "transformers")
    return held and state.store.measurements.count("h200-sxm", held.fingerprint)


def test_what_cannot_be_used_is_a_warning_and_the_others_are_taken_in(
    folder, put, state_with, point
):
    damaged = put(device="a100-sxm")
    damaged.write_bytes(damaged.read_bytes()[:-20])
    put(device="x1")
    put(device="cpu")
    shapeless = folder / f"b200-sxm{SUFFIX}"
    shapeless.write_bytes(
        committed.write(replace(ORIGIN, device="b200-sxm"), [point(shape={"m": 1.0})])
    )
    put()
    state = state_with()
    logged = taken_in(folder, state)
    said = warnings(logged)
    assert len(said) == 4
    for part in ("is damaged", "cpu names what is in", "shape.", "no device is called 'x1'"):
        assert any(part in error for error in said), (part, said)
    assert [level for level, event, _ in logged if event.endswith("taken in")] == ["info"]
    assert {record.device for record in state.store.cost_models.imported()} == {"h200-sxm"}


def test_a_fit_that_fails_and_a_folder_that_is_missing_are_warnings(folder, put, state_with):
    put()
    (error,) = warnings(taken_in(folder, state_with("import sys; sys.exit('no')")))
    assert error.endswith("no")
    ((level, event, _),) = taken_in(folder / "absent", state_with())
    assert (level, event) == ("warning", "no folder of committed measurements")


def test_precisions_and_flags_stay(folder, put, state_with):
    put(count=1)
    state = state_with()
    taken_in(folder, state)
    held = state.store.environments.newest_imported("h200-sxm", "transformers")
    (row,) = state.store.measurements.of("h200-sxm", held.fingerprint)
    assert (row.precision, row.flags, row.latency_ms.samples) == (
        Precision.BF16,
        ("throttled",),
        7,
    )
    assert held.source.startswith("committed with tokenpace: campaign of 2026-01-02 on NVIDIA H200")
