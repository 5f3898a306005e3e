"""Fitting as a process of its own: measurements in, a cost model or a reason out."""

import io
import subprocess
import sys

import pytest

from model.cost_model import FittedCostModel
from model.measurement import write_json
from model.training import fit_cost_model


def as_json(measurements):
    file = io.BytesIO()
    write_json(measurements, file)
    return file.getvalue()


def run(text):
    return subprocess.run(
        [sys.executable, "-P", "-m", "model.fit"],
        input=text,
        capture_output=True,
        timeout=120,
        check=False,
    )


def test_the_process_fits_as_the_function_does(synthetic_device):
    rows = synthetic_device(seed=4).campaign(linears=8, attentions=16, models=2)
    done = run(as_json(rows))
    assert done.returncode == 0, done.stderr
    written = FittedCostModel.from_bytes(done.stdout)
    fitted = fit_cost_model(rows)
    assert [(s.kind, s.rows, s.groups) for s in written.scores] == [
        (s.kind, s.rows, s.groups) for s in fitted.scores
    ]
    # Sums differ in their last digits with the threads of a process.
    assert [s.median_error for s in written.scores] == pytest.approx(
        [s.median_error for s in fitted.scores], rel=0.05
    )
    assert written.measurement_count == len(rows)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (as_json([]), b"no measurements"),
        (b"not JSON", b"Expecting value"),
    ],
)
def test_the_reason_is_on_standard_error_and_the_exit_code_is_1(text, reason):
    done = run(text)
    assert done.returncode == 1
    assert reason in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


def test_the_process_that_fits_loads_no_torch():
    program = (
        "import sys, io, model.fit;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'grpc')))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False).returncode == 0
