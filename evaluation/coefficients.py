"""Engines' coefficients beside measured kernels, fitted on all rows of deployments.

They are what ``model.engines`` holds; those that the errors are told of never saw the
architecture that they are scored on.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from evaluation.deployments import BESIDE_KERNELS, REQUEST, fit_engines
from evaluation.engine_fit import coefficient_lines
from evaluation.page import Section

if TYPE_CHECKING:
    from evaluation.inputs import Inputs


def section(inputs: Inputs) -> Section:
    """Returns the coefficients of each engine."""
    fitted = fit_engines(inputs.deployments, inputs.kernels)
    counts = Counter(row.engine for row in inputs.deployments)
    rows = ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()))
    inputs.say("fitted coefficients on all rows")
    return Section(
        "Engines' coefficients",
        [
            *coefficient_lines(fitted.values(), dict.fromkeys(fitted, BESIDE_KERNELS | REQUEST)),
            "",
            f"Rows: {rows}.",
        ],
    )
