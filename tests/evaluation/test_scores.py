"""Errors in a few figures, and the page they stand on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.heading import heading
from evaluation.page import Section, markdown, write
from evaluation.scores import cell, columns, of_logs, size, size_of
from evaluation.targets import FOLDS, TARGETS, reached
from model.steps import Estimate

figures = st.floats(1e-3, 1e6)


@given(figures, figures)
def test_a_prediction_twice_as_long_is_off_by_a_hundred_percent(measured, value):
    found = cell("x", measured, Estimate(value, value / 2, 2 * value))
    assert found.error == pytest.approx(value / measured - 1)
    assert found.inside == (value / 2 <= measured <= 2 * value)
    assert found.width == pytest.approx(1.0)


def test_columns_count_rows_models_errors_and_intervals():
    cells = [
        cell("a", 10.0, Estimate(11.0, 9.0, 22.0)),
        cell("a", 10.0, Estimate(12.0, 11.0, 24.0)),
        cell("b", 10.0, Estimate(6.0, 5.0, 12.0)),
    ]
    assert size(cells) == pytest.approx((70 / 3, 20.0, 36.0))
    assert columns(cells) == ["3", "2", "23.3 / 20.0 / 36.0", "+10.0%", "67%", "100%"]
    assert columns(cells, intervals=False)[-2:] == ["-", "-"]


def test_logs_of_measured_over_predicted_are_the_same_errors():
    measured, predicted = np.array([1.0, 2.0, 5.0]), np.array([2.0, 1.0, 5.5])
    errors = predicted / measured - 1
    assert of_logs(np.log(measured / predicted)) == pytest.approx(size_of(errors))


def test_a_target_names_what_is_reached():
    must = TARGETS["TPOT", FOLDS].must
    assert reached(must, must) == "yes"
    assert reached((must[0] + 0.1, must[1], must[2] + 1), must) == "median"
    assert reached((99, 99, 99), must) == "no"


def test_the_page_tells_its_command_and_what_is_missing(tmp_path):
    table = markdown(("a", "b"), [("1", "2")])
    assert table == ["| a | b |", "|---|---|", "| 1 | 2 |"]
    path = write(tmp_path, "tokenpace evaluate", [Section("First", table)], ["few-rows"])
    text = path.read_text()
    assert "Command: `tokenpace evaluate`" in text
    assert "## First\n\n| a | b |" in text
    assert "**Not finished**: few-rows." in text
    assert "Not finished" not in write(tmp_path, "x", []).read_text()


def test_a_heading_leaves_out_what_is_not_installed():
    text = heading("Title", "command", ["numpy", "no-such-distribution"])
    assert text.startswith("# Title\n")
    assert f"numpy {np.__version__}" in text
    assert "no-such-distribution" not in text


def test_a_heading_tells_the_commit_as_far_as_it_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.heading.ROOT", tmp_path)
    assert ", commit unknown.\n" in heading("Title", "command", [])
    assert ", commit 0123abc.\n" in heading("Title", "command", [], "0123abcd" * 5)
