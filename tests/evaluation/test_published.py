"""The engines' coefficients against the rows that they are said to be fitted on."""

import functools
import re
from dataclasses import replace

import numpy as np
import pytest

from evaluation.published import COEFFICIENTS, fit_engine, read_rows
from evaluation.rows import predicted
from model.engines import engine

ROWS = read_rows()


def errors(rows, coefficients):
    found = []
    for row in rows:
        for name, (value, _, _) in predicted(row, coefficients).items():
            found.append(value / row.figures[name] - 1)
    return np.array(found)


def test_every_published_row_is_read():
    assert len(ROWS) == 229
    assert sum("TTFT" not in row.figures for row in ROWS) == 209


def rows_of(name):
    return [row for row in ROWS if row.engine == name]


@functools.cache
def fitted(name):
    return fit_engine(rows_of(name))


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_an_engine_misses_its_published_rows_by_little(name):
    assert abs(errors(rows_of(name), fitted(name))).mean() <= 0.12


@pytest.mark.parametrize("name", ["gpt-fast", "fastertransformer"])
def test_the_coefficients_in_use_are_those_that_the_fit_finds(name):
    rows = rows_of(name)
    found = fitted(name)
    for coefficient in COEFFICIENTS[name]:
        held = getattr(engine(name), coefficient)
        assert held == pytest.approx(getattr(found, coefficient), rel=0.01)
    assert int(re.match(r"\d+", engine(name).fitted_on)[0]) == len(rows)


def test_worse_coefficients_are_told_from_better_ones():
    slow = replace(engine("gpt-fast"), bandwidth=0.4)
    assert abs(errors(rows_of("gpt-fast"), slow)).mean() > 0.3
