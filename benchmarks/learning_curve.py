"""What a longer campaign buys, and what the cost model's choice of points does.

Cost models fitted on what stood after 1, 2, 5 and 8 minutes of two campaigns, one of which took
its points as the design has them, beside layers and whole models that neither saw:

    python -m profiler campaign --budget 8m --out chosen.jsonl
    python -m profiler campaign --budget 8m --out design.jsonl --design-only
    PYTHONPATH=.:benchmarks python benchmarks/learning_curve.py chosen.jsonl design.jsonl

The first campaign alone tells what its minutes bought; --layers-only leaves whole models out.
It installs nothing. On a GPU it ends with code 1 where choosing is worth nothing; a processor that
others share is another one during each campaign, which hides what choosing does.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from held_out import campaign_device, layers, whole_models

from evaluation.heading import heading
from model.errors import NotEnoughMeasurementsError
from model.measurement import measurement_of
from model.source import ROOT
from model.training import fit_cost_model
from profiler.device import open_device
from profiler.identity import default_device
from reference import campaigns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from held_out import Timed

    from model.cost_model import FittedCostModel
    from model.measurement import Measurement

PAGE = ROOT / "benchmarks" / "learning_curve.md"
MINUTES = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30)


class Prefix(NamedTuple):
    """What a campaign knew after some minutes: None where that was too little to fit on."""

    minutes: int
    rows: int
    cost_model: FittedCostModel | None


def dated(path: Path) -> list[tuple[float, Measurement]]:
    """Returns a campaign's rows, with the minutes since it was begun."""
    held = campaigns.read(path)
    if held is None or not held.rows or not all(campaigns.TIME in row for row in held.rows):
        raise SystemExit(f"{path} is no file of a campaign that tells when it measured")
    begin = datetime.fromisoformat(held.header.create_time)
    times = [datetime.fromisoformat(row[campaigns.TIME]) for row in held.rows]
    minutes = [(time - begin).total_seconds() / 60 for time in times]
    return list(zip(minutes, map(measurement_of, held.rows), strict=True))


def prefixes(rows: Sequence[tuple[float, Measurement]], processors: int) -> list[Prefix]:
    """Returns what was known after each of the minutes that the campaign took, and in the end."""
    last = rows[-1][0]
    found = []
    for minutes in [*(m for m in MINUTES if m < last), int(np.ceil(last))]:
        known = [row for when, row in rows if when <= minutes]
        try:
            cost_model = fit_cost_model(known, processors)
        except NotEnoughMeasurementsError:
            cost_model = None
        found.append(Prefix(minutes, len(known), cost_model))
    return found


def errors(cost_model: FittedCostModel | None, timed: Sequence[Timed]) -> tuple[float, float]:
    """Returns the median of |predicted / measured - 1|, and of what is beyond a common factor.

    That factor is how fast the device was while the campaign ran. NaN where not all can be
    predicted.
    """
    if cost_model is None or not timed:
        return float("nan"), float("nan")
    engines = {it.engine for it in timed}
    if not all(cost_model.supports(timed[0].operations[0].precision, e) for e in engines):
        return float("nan"), float("nan")
    ratios = np.array([it.predicted_ms(cost_model) / it.measured_ms for it in timed])
    plain, beyond = (np.median(np.abs(r - 1)) for r in (ratios, ratios / np.median(ratios)))
    return float(plain), float(beyond)


def shown(pair: tuple[float, float]) -> str:
    return "-" if np.isnan(pair[0]) else f"{pair[0]:.1%} ({pair[1]:.1%})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chosen", type=Path)
    parser.add_argument("design", type=Path, nargs="?", help="a campaign with --design-only")
    parser.add_argument("--layers-only", action="store_true", help="measure no whole models")
    parser.add_argument("--device", default="", help="cpu or cuda:0; the GPU if there is one")
    parser.add_argument("--write-page", action="store_true")
    options = parser.parse_args()
    device = open_device(options.device or default_device())
    kind = "cuda" if device.is_cuda else "cpu"
    files = {"chosen": options.chosen, "design": options.design}
    curves = {how: prefixes(dated(file), device.processors) for how, file in files.items() if file}
    longest = curves["chosen"][-1].cost_model
    if longest is None:
        raise SystemExit(f"{options.chosen} holds too little to fit on")
    timed: dict[str, list[Timed]] = defaultdict(list)
    measures = (
        {"layers": layers} if options.layers_only else {"layers": layers, "whole": whole_models}
    )
    for what, measure in measures.items():
        for it in measure(longest, device, kind):
            timed[f"{what}, {it.engine}"].append(it)
    names = [f"{name} of {len(each)}" for name, each in timed.items()]
    lines = [
        f"| points | minutes | rows | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
    ]
    for how, curve in curves.items():
        for prefix in curve:
            cells = [shown(errors(prefix.cost_model, each)) for each in timed.values()]
            lines.append(f"| {how} | {prefix.minutes} | {prefix.rows} | {' | '.join(cells)} |")
    every = [it for each in timed.values() for it in each]
    ends = {how: errors(curve[-1].cost_model, every) for how, curve in curves.items()}
    verdict = f"All in the end: chosen {shown(ends['chosen'])}"
    if "design" in ends:
        verdict += (
            f", by the design alone {shown(ends['design'])}; in brackets, chosen over design:"
        )
        verdict += f" {ends['chosen'][1] / ends['design'][1]:.2f}"
    verdict += "."
    print("\n".join([*lines, "", verdict]))
    if options.write_page:
        given = [Path(argument).name for argument in sys.argv[1:]]
        title = heading(
            f"What a longer campaign buys, on {campaign_device(options.chosen)}",
            f"PYTHONPATH=.:benchmarks python benchmarks/learning_curve.py {' '.join(given)}",
            ("torch", "transformers", "scikit-learn", "numpy"),
        )
        text = (
            "Median error on layers and steps of published models that no campaign saw; in brackets"
            " beyond a factor common to all: how fast the device was meanwhile."
        )
        if options.design:
            text += (
                " Both campaigns begin with the same points, so what differs there is no choice's"
                " doing."
            )
        PAGE.write_text("\n".join([f"{title}\n{text}", "", *lines, "", verdict, ""]))
    # Neither is below the other where one of them predicts nothing.
    is_worth_it = "design" not in ends or ends["chosen"][1] < ends["design"][1]
    return 1 if device.is_cuda and not is_worth_it else 0


if __name__ == "__main__":
    sys.exit(main())
