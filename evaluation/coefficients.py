"""Engines' coefficients fitted on all rows of deployments, beside measured kernels and without.

They are what ``model.engines`` holds; those that the errors are told of never saw the
architecture that they are scored on.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from evaluation.deployments import BESIDE_KERNELS, COEFFICIENTS, REQUEST, fit_engines
from evaluation.engine_fit import coefficient_lines
from evaluation.page import Section
from evaluation.rows import NO_KERNELS

if TYPE_CHECKING:
    from evaluation.inputs import Inputs


def section(inputs: Inputs) -> Section:
    """Returns the coefficients of each engine."""
    rows = inputs.deployments
    counts = Counter(row.engine for row in rows)
    told = ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()))
    beside = fit_engines(rows, inputs.kernels)
    inputs.say("fitted coefficients beside measured kernels on all rows")
    physics = fit_engines(rows, NO_KERNELS)
    inputs.say("fitted coefficients of physics alone on all rows")
    return Section(
        "Engines' coefficients",
        [
            "Beside measured kernels:",
            "",
            *coefficient_lines(beside.values(), dict.fromkeys(beside, BESIDE_KERNELS | REQUEST)),
            "",
            "Where no kernel was measured:",
            "",
            *coefficient_lines(physics.values(), dict.fromkeys(physics, COEFFICIENTS)),
            "",
            f"Rows: {told}.",
        ],
    )
