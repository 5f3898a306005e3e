"""Fitting as a process of its own: measurements in, a cost model or a reason out."""

import io
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from model import fit
from model.cost_model import FittedCostModel
from model.measurement import write_json
from model.training import fit_cost_model


def as_json(measurements):
    file = io.BytesIO()
    write_json(measurements, file)
    return file.getvalue()


def test_the_process_fits_as_the_function_does_and_loads_no_torch(synthetic_device):
    rows = synthetic_device(seed=4).campaign(linears=8, attentions=16, models=2)
    done = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", "-m", "model.fit"],
        input=as_json(rows),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(re.findall(r"\| +(\S+)$", done.stderr.decode(), re.MULTILINE))
    assert "sklearn" in loaded
    assert not {"torch", "transformers", "grpc"} & loaded
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
def test_the_reason_is_on_standard_error_and_the_exit_code_is_1(
    monkeypatch, capsysbinary, text, reason
):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    assert fit.main([]) == 1
    printed = capsysbinary.readouterr()
    assert reason in printed.err
    assert b"Traceback" not in printed.err
    assert printed.out == b""
