"""The roofline: the larger of arithmetic at the peak rate and traffic at the full bandwidth.

Both of the data sheet (Williams et al., "Roofline", CACM 2009); nothing is fitted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evaluation.rows import predicted
from model.engines import Engine
from model.hardware import data_sheet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.rows import Row
    from model.laws import Array
    from model.rows import Row as OperationRow
    from model.steps import Estimate

_IDEAL = Engine(
    name="roofline",
    kernel_s=0.0,
    elementwise=0.0,
    elementwise_traffic=0.0,
    step_s=0.0,
    request_s=0.0,
    collective_s=0.0,
    link=1.0,
    compute=1.0,
    bandwidth=1.0,
    attention_compute=1.0,
    attention_bandwidth=1.0,
    linear_attention_compute=1.0,
    experts_compute=1.0,
    experts_bandwidth=1.0,
    int8_share=1.0,
    int4_share=1.0,
)
"""An engine that adds nothing and reaches every rate."""


def operations_ms(rows: Sequence[OperationRow], device: str) -> Array:
    """Returns milliseconds of operations measured alone, (rows,)."""
    sheet = data_sheet(device)

    def milliseconds(row: OperationRow) -> float:
        operation = row.operations[0]
        compute = operation.flops / sheet.effective_peak(operation.multiplied_in)
        return 1e3 * max(compute, operation.bytes / sheet.bandwidth_bytes_per_second)

    return np.array([milliseconds(row) for row in rows])


def deployment_ms(row: Row) -> dict[str, Estimate]:
    """Returns milliseconds of a deployment's figures: our composition of ideal kernels."""
    return predicted(row, _IDEAL)
