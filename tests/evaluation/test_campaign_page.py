"""The page of a campaign without a daemon: what it was, its errors, its rooflines, its clocks."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from evaluation import requirements
from evaluation.__main__ import main
from model.precision import Precision
from reference.campaigns import STATE, Header

HEADER = Header(
    device="h200-sxm",
    environment={"device_name": "NVIDIA H200", "torch_version": "2.11.0", "device_uuid": ""},
    memory_bytes=150_000_000_000,
    create_time="2026-01-02T00:00:00+00:00",
    command="python -m profiler campaign",
    versions={"numpy": "2.4"},
)


@pytest.fixture(autouse=True)
def drawing():
    if remedy := requirements.missing(requirements.CAMPAIGN):
        pytest.skip(remedy)


@pytest.fixture
def measured(synthetic_device):
    device = synthetic_device(precision=Precision.BF16)
    return [asdict(row) for row in device.campaign(linears=12, attentions=20, models=3)]


def state(second, **changes):
    read = {"time": f"2026-01-02T00:00:{second:02}+00:00", "clock_mhz": 1980.0 - second}
    return {STATE: read | {"power_watts": None, "throttle_reasons": []} | changes}


@pytest.fixture
def page(tmp_path, capsys):
    """Writes a file of lines, runs the command, and returns its exit code, text and page."""

    def make(lines, name="campaign.jsonl"):
        file, out = tmp_path / name, tmp_path / "page"
        text = "".join(json.dumps(line) + "\n" for line in [HEADER.to_json(), *lines])
        file.write_text(text)
        code = main(["--campaign", str(file), "--out", str(out)])
        printed = capsys.readouterr()
        path = out / "campaign.md"
        return code, printed.out + printed.err, path.read_text() if path.exists() else ""

    return make


def test_it_tells_what_was_measured_and_how_far_the_fit_is_off(page, measured, tmp_path):
    code, printed, text = page([*measured, state(0), state(5, throttle_reasons=["power cap"])])
    assert code == 0
    assert "campaign.md" in printed
    assert text.startswith("# A campaign on NVIDIA H200\n")
    assert (
        "Begun 2026-01-02T00:00:00+00:00 at commit unknown;"
        " the file was written by `python -m profiler campaign`. "
    ) in text
    assert "torch_version 2.11.0" in text
    assert "device_uuid" not in text
    assert "| linear | bf16 |" in text.partition("## How far")[0]
    assert "| decode | bf16 |" in text.partition("## How far")[2]
    assert "held down by: power cap" in text
    for picture in ("roofline.png", "states.png"):
        assert (tmp_path / "page" / picture).stat().st_size > 1_000


def test_clocks_are_drawn_as_they_were_between_measurements_and_behind_each(
    page, measured, monkeypatch
):
    from evaluation import plots  # matplotlib may be missing

    drawn, real = [], plots.lines

    def lines(panels, *rest, **named):
        drawn.append(panels)
        return real(panels, *rest, **named)

    monkeypatch.setattr(plots, "lines", lines)
    rows = [
        row | {"time": f"2026-01-02T00:00:{second:02}+00:00", "clock_mhz": 1755.0}
        for second, row in enumerate(measured[:8], 3)
    ]
    assert page([state(2), *rows, *measured[8:], state(30)])[0] == 0
    (panels,) = drawn
    assert panels == {
        "clock, MHz": {
            "now and then": {0: 1978.0, 28: 1950.0},
            "behind a measurement": dict.fromkeys(range(1, 9), 1755.0),
        }
    }


def test_it_tells_what_the_time_of_the_campaign_went_to(page, measured):
    """Lines of a file that was begun by another version say nothing of it."""
    spent = [
        {"timing": 6.0, "building": 2.0, "choosing": 9.0},
        {"timing": 1.0, "building": 1.0, "choosing": 1.0},
    ]
    lines = [row | {"seconds": each} for row, each in zip(measured, spent, strict=False)]
    _, _, text = page([*lines, *measured[2:]])
    told = (
        "Of 20 seconds up to the last measurement: 35% timing, 15% building and capturing what is"
        " timed, 50% choosing points, fitting and starting."
    )
    assert told in text.partition("## How far")[0]
    _, _, text = page(measured)
    assert "up to the last measurement" not in text


def test_damaged_seconds_are_named(page, measured):
    code, printed, _ = page([measured[0] | {"seconds": {"timing": "long"}}])
    assert code == 2
    assert ":2: seconds is damaged; remove the line" in printed


def test_what_is_missing_is_said_and_not_drawn(page, measured):
    code, _, text = page([row for row in measured if row["kind"] == "decode"])
    assert code == 0
    assert "Nothing can be fitted: " in text
    assert "No operation was measured alone." in text
    assert "The device meanwhile" not in text


# Python runs this before anything else; what it hides is as if it were not installed.
HIDING = """
import sys
from importlib.machinery import PathFinder
HIDDEN = ("aiconfigurator_core", "pyarrow", "onnx", "onnxruntime", "torch", "grpc", "sqlalchemy")
find = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in HIDDEN else find(name, path, target)
PathFinder.find_spec = find_spec
from evaluation.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_it_needs_none_of_what_the_tables_alone_do(measured, tmp_path):
    file = tmp_path / "campaign.jsonl"
    lines = [HEADER.to_json(), *measured, state(0)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-c", HIDING, "--out", str(tmp_path / "page")]
    made = subprocess.run(
        [*command, "--campaign", str(file)], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert "| decode | bf16 |" in (tmp_path / "page" / "campaign.md").read_text()
    tables = subprocess.run(command, capture_output=True, text=True, check=False)
    assert tables.returncode == 2
    assert "needs onnx, onnxruntime, pyarrow, aiconfigurator-core: " in tables.stderr


def test_what_it_needs_is_asked_for_before_anything_is_made(page, measured, monkeypatch):
    monkeypatch.setitem(requirements.CAMPAIGN, "no_such_module", "no-such-package")
    code, printed, text = page(measured)
    assert (code, text) == (2, "")
    assert "evaluating needs no-such-package: pip install no-such-package\n" in printed


def test_a_file_without_measurements_is_refused(page):
    code, printed, text = page([state(0)])
    assert (code, text) == (2, "")
    assert "holds no measurement; run the campaign for longer" in printed


def test_damaged_lines_are_named(page, measured):
    code, printed, _ = page([*measured, {STATE: {"time": "noon"}}, {STATE: []}])
    assert code == 2
    for number in (len(measured) + 2, len(measured) + 3):
        assert f":{number}: {STATE} is damaged; remove the line" in printed


def test_what_is_no_file_is_refused(capsys, tmp_path):
    assert main(["--campaign", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "--campaign" in capsys.readouterr().err
