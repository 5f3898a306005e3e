"""A device of few points leans on what was learned on another that runs the same kernels."""

import sys
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest

from model import fit, side_by_side
from model.cost_model import FittedCostModel
from model.kernel_fitting import fit_kernel
from model.kernels import Kernel
from model.laws import sizes_of
from model.measurement import write_json
from model.operations import OperationKind, linear
from model.precision import Precision
from model.regime_fitting import misfit
from model.rows import usable_rows

LINEAR = OperationKind.LINEAR


def factor(n, k, *, other_kernels):
    """What a library's choice of kernels by the weights' shape makes of the latency."""
    slow = (n < 3_000) != (k < 2_000)
    return 2.0 if slow != other_kernels else 1.0


@pytest.fixture(scope="module")
def measured(synthetic_device):
    """Rows of a device, and its true milliseconds of any shapes."""

    def make(count, *, slowness=1.0, other_kernels=False, seed=0):
        device = synthetic_device(seed, precision=Precision.BF16, slowness=slowness, noise=0.01)
        shapes = np.exp(device.rng.uniform(np.log((1, 512, 512)), np.log(16384), (count, 3)))
        rows = []
        for m, n, k in shapes.astype(int).tolist():
            row = device.linear(m, n, k)
            times = factor(n, k, other_kernels=other_kernels)
            ms = replace(row.latency_ms, median=times * row.latency_ms.median)
            rows.append(replace(row, latency_ms=ms))
        return rows

    return make


def fitted(rows, lender=None):
    return fit_kernel(LINEAR, usable_rows(rows), lender=lender)


def error(kernel, rows):
    usable = usable_rows(rows)
    predicted = kernel.latency_ms(sizes_of(LINEAR, [r.operations[0] for r in usable]))
    return misfit(np.array([r.latency_ms for r in usable]), predicted)


@pytest.fixture(scope="module")
def lender(measured):
    return fitted(measured(2_500))


def test_few_points_beside_a_lender_err_by_less(measured, lender):
    few, asked = measured(60, slowness=0.6, seed=1), measured(300, slowness=0.6, seed=2)
    leaning = fitted(few, lender)
    assert leaning.lender is lender
    assert error(leaning, asked) < 0.5 * error(fitted(few), asked)


def test_a_lender_of_other_kernels_is_left_out(measured, lender):
    few = measured(300, slowness=0.6, other_kernels=True, seed=1)
    assert fitted(few, lender).lender is None


def test_many_points_need_none(measured, lender):
    assert fitted(measured(1_001, seed=1), lender).lender is None


def test_a_kernel_that_leans_is_written_with_what_it_leans_on(measured, lender):
    leaning = fitted(measured(60, slowness=0.6, seed=1), lender)
    read = Kernel.from_json(leaning.to_json())
    shapes = [linear("x", m, 4096, 1024, Precision.BF16) for m in (1, 3, 40, 5000)]
    sizes = sizes_of(LINEAR, shapes)
    assert np.array_equal(read.latency_ms(sizes), leaning.latency_ms(sizes))
    # What it did not learn itself is nobody's to borrow from it.
    assert FittedCostModel({(LINEAR, Precision.BF16): read}, {}, (), 60).lends("x").kernels == {}


def test_the_process_reads_the_lender_from_its_file(
    measured, lender, tmp_path, monkeypatch, capsysbinary
):
    file = tmp_path / "lender"
    lends = FittedCostModel({(LINEAR, Precision.BF16): lender}, {}, (), 2_500)
    file.write_bytes(lends.to_bytes())

    monkeypatch.setattr(side_by_side, "usual_processes", lambda: 1)

    def run(*flags):
        data = BytesIO()
        write_json(measured(60, slowness=0.6, seed=1), data)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=BytesIO(data.getvalue())))
        code = fit.main(["--published", *flags])
        return code, capsysbinary.readouterr()

    code, printed = run("--lender", "h100-sxm", str(file))
    assert code == 0
    leaning = FittedCostModel.from_bytes(printed.out)
    assert leaning.lender == "h100-sxm"
    assert leaning.leans(LINEAR, Precision.BF16)
    code, printed = run()
    alone = FittedCostModel.from_bytes(printed.out)
    assert alone.lender == ""
    assert not alone.leans(LINEAR, Precision.BF16)
    file.write_bytes(b"none")
    code, printed = run("--lender", "h100-sxm", str(file))
    assert code == 1
    assert b"Traceback" not in printed.err
