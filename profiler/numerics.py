"""Whether a kernel computes what it is timed for: its error against 32 bits."""

from __future__ import annotations

import torch

from model.precision import Precision

CHECKED = 64
"""Columns of a result that are looked at: all of them would take as long as a campaign has."""
_TOLERANCES = {
    Precision.FP32: 3e-3,
    Precision.BF16: 1e-2,
    Precision.FP16: 3e-3,
    Precision.INT8_WEIGHT_ONLY: 2e-2,
    Precision.INT8: 3e-2,
    Precision.FP8: 6e-2,
    Precision.FP8_BLOCK: 6e-2,
    Precision.INT4: 0.15,
}
"""Relative errors, a third to a half above what the formats' own rounding makes: bf16 and E4M3 keep
8 and 4 bits, int8 half a 127th of a row's largest, int4 half a fifteenth of what 128 weights span.
fp32 may be multiplied in TF32."""


class InaccurateError(RuntimeError):
    """A kernel is further off than its format rounds; the text says by how much."""


def check(found: torch.Tensor, exact: torch.Tensor, precision: Precision) -> None:
    """Compares a result with that of 32 bits.

    Args:
        found: (m, n).
        exact: its first ``CHECKED`` columns, or fewer where it has fewer.
        precision: that was multiplied in.

    Raises:
        InaccurateError: the norm of the difference is too large a part of the exact one's.
    """
    apart = found[:, : exact.shape[1]].float() - exact
    error = float(torch.linalg.vector_norm(apart) / torch.linalg.vector_norm(exact))
    allowed = _TOLERANCES[precision]
    if not error <= allowed:  # no number is too far off, too
        raise InaccurateError(
            f"{precision}: off by {error:.1%} of what 32 bits give, where {allowed:.1%} is allowed"
        )
