"""What a campaign without a daemon ends with, for a person."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model.cost_model import FittedCostModel
    from model.measurement import Measurement


def summary(
    measured: Sequence[Measurement],
    fresh: int,
    skipped: Mapping[str, int],
    fitted: FittedCostModel | str,
    goal: str = "",
) -> str:
    """Returns some lines: points by precision and kind, errors, what was left out.

    Args:
        measured: all that is in the file.
        fresh: of these, by this run.
        skipped: points left out or made smaller in this run, by reason.
        fitted: on all of them, or why none could be.
        goal: what came of the error that was asked for; empty where none was.
    """
    lines = [f"{len(measured)} points, {fresh} of them new"]
    counts = Counter((m.precision.value, m.kind) for m in measured)
    for precision in dict.fromkeys(precision for precision, _ in counts):
        kinds = (f"{n} {kind}" for (held, kind), n in counts.items() if held == precision)
        lines.append(f"  {precision}: {', '.join(kinds)}")
    if isinstance(fitted, str):
        lines.append(f"no error can be told: {fitted}")
    else:
        lines.append("error on shapes and models held out (median, p90):")
        lines += [
            f"  {s.precision.value} {s.name}: {s.median_error:.1%}, {s.p90_error:.1%}"
            f" ({s.rows} points)"
            for s in fitted.scores
        ]
    if goal:
        lines.append(goal)
    if skipped:
        lines.append(f"{sum(skipped.values())} points were left out or made smaller:")
        lines += [
            f"  {reason}" + (f" ({n} times)" if n > 1 else "") for reason, n in skipped.items()
        ]
    return "\n".join(lines)
