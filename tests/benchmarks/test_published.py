"""The engines' coefficients against the rows that they are said to be fitted on."""

import re
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.published import COEFFICIENTS, fit, predicted, read_rows
from model.engines import engine

ROWS = read_rows()


def errors(rows, coefficients):
    return np.array([predicted(row, coefficients)[0] / row.published_ms - 1 for row in rows])


def test_every_published_row_is_read():
    assert len(ROWS) == 229
    assert sum(row.decode for row in ROWS) == 209


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_an_engine_misses_its_published_rows_by_little(name):
    rows = [row for row in ROWS if row.engine == name]
    assert abs(errors(rows, engine(name))).mean() <= 0.12
    assert int(re.match(r"\d+", engine(name).fitted_on)[0]) == len(rows)


def test_the_coefficients_are_those_that_the_fit_finds():
    rows = [row for row in ROWS if row.engine == "gpt-fast"]
    found = fit(rows)
    for name in COEFFICIENTS["gpt-fast"]:
        assert getattr(engine("gpt-fast"), name) == pytest.approx(getattr(found, name), rel=0.02)


def test_worse_coefficients_are_told_from_better_ones():
    rows = [row for row in ROWS if row.engine == "vllm"]
    slow = replace(engine("vllm"), bandwidth=0.4)
    assert abs(errors(rows, slow)).mean() > 0.3
