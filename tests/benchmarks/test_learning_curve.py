"""What a longer campaign buys: prefixes by the minute, errors, and the verdict on a GPU."""

import math
import re
from types import SimpleNamespace

import pytest

from model.precision import Precision


@pytest.fixture
def learning_curve(script, held_out, monkeypatch, tmp_path, fit_once):
    found = script("learning_curve")
    monkeypatch.setattr(found, "fit_cost_model", fit_once)
    monkeypatch.setattr(found, "PAGE", tmp_path / "learning_curve.md")
    return found


def test_it_fits_on_what_stood_after_each_minute(
    learning_curve, command, campaign_file, campaign_rows
):
    chosen = campaign_file("chosen", campaign_rows["first"], minutes=1.625)
    design = campaign_file("design", campaign_rows["slower"], minutes=0.9)
    code, printed = command(learning_curve, chosen, design, "--device", "cpu", "--write-page")
    assert code == 0
    rows = len(campaign_rows["first"])
    lines = re.findall(r"^\| (chosen|design) \| (\d+) \| (\d+) \|(.*)$", printed, re.M)
    assert [line[:2] for line in lines] == [("chosen", "1"), ("chosen", "2"), ("design", "1")]
    assert [int(line[2]) for line in lines] == [int(rows / 1.625), rows, rows]
    # Both engines' layers and models can be told in the end.
    for line in lines[1:]:
        assert re.fullmatch(r"( \d+\.\d% \(\d+\.\d%\) \|){4}", line[3])
    assert "chosen over design: " in printed
    page = learning_curve.PAGE.read_text()
    assert page.startswith("# What a longer campaign buys, on a CPU\n")
    assert printed.strip() in page


def test_one_campaign_alone_is_told_by_layers(
    learning_curve, command, campaign_file, campaign_rows
):
    chosen = campaign_file("chosen", campaign_rows["first"], minutes=0.9)
    code, printed = command(learning_curve, chosen, "--layers-only", "--device", "cpu")
    assert code == 0
    head, _, line, _, verdict = printed.strip().splitlines()
    assert head == "| points | minutes | rows | layers, transformers of 4 | layers, torch of 4 |"
    assert line.startswith("| chosen | 1 |")
    assert re.fullmatch(r"All in the end: chosen \d+\.\d% \(\d+\.\d%\)\.", verdict)


def test_too_little_to_fit_on_has_no_cost_model(learning_curve, campaign_rows):
    begun, *more = campaign_rows["first"]
    rows = [(0.5, begun), *((1.5, row) for row in more)]
    first, last = learning_curve.prefixes(rows, 0)
    assert (first.minutes, first.rows, first.cost_model) == (1, 1, None)
    assert (last.minutes, last.rows) == (2, len(rows))
    assert last.cost_model.supports(Precision.FP32, "torch")


def test_errors_are_told_beside_and_beyond_a_common_factor(learning_curve, held_out):
    class Model:
        def supports(self, precision, engine):
            return engine == "torch"

    def timed(measured, predicted, engine="torch"):
        operation = SimpleNamespace(precision=Precision.FP32)
        return SimpleNamespace(
            engine=engine,
            operations=[operation],
            measured_ms=measured,
            predicted_ms=lambda model: predicted,
        )

    found = learning_curve.errors(Model(), [timed(1.0, 1.1), timed(2.0, 2.2), timed(1.0, 1.21)])
    assert found == pytest.approx((0.1, 0.0))
    for unknown in (
        learning_curve.errors(None, [timed(1.0, 1.0)]),
        learning_curve.errors(Model(), []),
        learning_curve.errors(Model(), [timed(1.0, 1.0), timed(1.0, 1.0, "transformers")]),
    ):
        assert math.isnan(unknown[0])
        assert learning_curve.shown(unknown) == "-"


@pytest.mark.parametrize(
    ("chosen", "design", "code"),
    [(0.01, 0.02, 0), (0.02, 0.01, 1), (0.02, 0.02, 1), (math.nan, 0.02, 1)],
)
def test_a_gpu_where_choosing_is_worth_nothing_ends_with_code_1(
    learning_curve, command, campaign_file, campaign_rows, monkeypatch, chosen, design, code
):
    gpu = SimpleNamespace(is_cuda=True, processors=0)
    monkeypatch.setattr(learning_curve, "open_device", lambda name: gpu)
    for name in ("layers", "whole_models"):
        timed = SimpleNamespace(engine="torch")
        monkeypatch.setattr(learning_curve, name, lambda *_, timed=timed: [timed])
    known = {"chosen": SimpleNamespace(), "design": SimpleNamespace()}
    fits = iter(known.values())
    monkeypatch.setattr(learning_curve, "fit_cost_model", lambda *_: next(fits))
    found = {id(known["chosen"]): chosen, id(known["design"]): design}
    monkeypatch.setattr(learning_curve, "errors", lambda model, _: (0.1, found[id(model)]))
    files = [campaign_file(name, campaign_rows["first"][:3], minutes=0.5) for name in known]
    assert command(learning_curve, *files, "--device", "cuda:0")[0] == code


def test_files_that_tell_no_time_are_refused(learning_curve, campaign_file, campaign_rows):
    path = campaign_file("old", campaign_rows["first"][:2])
    path.write_text(path.read_text().replace('"time"', '"when"'))
    for refused in (path, campaign_file("empty", [])):
        with pytest.raises(SystemExit, match="no file of a campaign that tells when it measured"):
            learning_curve.dated(refused)
