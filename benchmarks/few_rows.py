"""What a handful of a user's own rows does to the error on deployments on H100 and H200.

The rows are those of ``benchmarks/silicon.py``. Each is predicted first by engines'
coefficients that never saw its architecture; then ``model.calibration`` is given few rows of
its deployment (one architecture on one system and engine) and scored on the others, or the
rows of all other folds and scored on the fold left out. The hyper-parameters are those of
the daemon, the same for all.

    python benchmarks/few_rows.py --write-page
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import heading
from benchmarks.engine_fit import CONFIDENCE
from benchmarks.silicon import fit_engines, read_rows
from model.analytical import AnalyticalCostModel
from model.calibration import Correction, Observed, Point, deployment_of
from model.composite import CompositeCostModel
from model.hardware import data_sheet
from model.inference import predict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.engine_fit import Row
    from model.engines import Engine
    from model.steps import Estimate

    Corrector = Callable[[Sequence[Observed], Sequence[Observed]], list[Estimate]]
    """Figures of the second rows, corrected by the first."""

COMMAND = "python benchmarks/few_rows.py --write-page"
PAGE = Path(__file__).with_suffix(".md")
DRAWS = 20
FOLDS = 5
COUNTS = (4, 8, 16)
RIDGE_PENALTY = 1.0


@dataclass(frozen=True)
class Answered:
    """A row with its prediction: ``figures`` by name, None where it was not measured."""

    row: Row
    figures: dict[str, Observed]

    @property
    def deployment(self) -> tuple[str, str, str]:
        """One architecture on one system and engine."""
        return self.row.model, self.row.device, self.row.engine


@dataclass(frozen=True)
class Cell:
    """A figure of a row, corrected: its error, and whether the interval held it."""

    model: str
    error: float
    inside: bool


def answered(row: Row, coefficients: Engine) -> Answered:
    """Returns the row as the coefficients predict it."""
    question = row.question
    cost_model = CompositeCostModel(
        None,
        AnalyticalCostModel(data_sheet(row.device), coefficients),
        question.precision,
        question.kv_precision,
        question.engine,
    )
    inference = predict(question, cost_model, with_breakdown=True)
    point = Point(
        deployment=deployment_of(question, row.device), question=question, inference=inference
    )
    predicted = {"TTFT": inference.ttft_ms, "TPOT": inference.tpot_ms}
    return Answered(
        row,
        {
            name: Observed(point=point, predicted=predicted[name], measured=measured)
            for name, measured in row.figures.items()
        },
    )


def all_answered(rows: Sequence[Row]) -> list[Answered]:
    """Returns each row as predicted by coefficients that never saw its architecture."""
    found = []
    for model in dict.fromkeys(row.model for row in rows):
        engines = fit_engines([row for row in rows if row.model != model])
        found += [answered(row, engines[row.engine]) for row in rows if row.model == model]
        print(f"left out {model}", flush=True)
    return found


def calibrated(given: Sequence[Observed], others: Sequence[Observed]) -> list[Estimate]:
    """Corrects as the daemon does."""
    correction = Correction(given, CONFIDENCE)
    return [correction.corrected(row.point, row.predicted, CONFIDENCE) for row in others]


def unchanged(_: Sequence[Observed], others: Sequence[Observed]) -> list[Estimate]:
    """Corrects nothing."""
    return [row.predicted for row in others]


def ridge(given: Sequence[Observed], others: Sequence[Observed]) -> list[Estimate]:
    """Corrects by ridge regression of the log ratio on the same features; no interval."""
    features = np.array([row.point.features for row in given])
    centre = features.mean(axis=0)
    spread = features.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    known = (features - centre) / scale
    ratios = np.log([row.measured / row.predicted.value for row in given])
    penalty = RIDGE_PENALTY * np.eye(known.shape[1])
    weights = np.linalg.solve(known.T @ known + penalty, known.T @ (ratios - ratios.mean()))
    asked = (np.array([row.point.features for row in others]) - centre) / scale
    factors = np.exp(ratios.mean() + asked @ weights)
    return [
        type(row.predicted)(*(end * factor for end in row.predicted))
        for row, factor in zip(others, factors, strict=True)
    ]


def cells(given: Sequence[Answered], others: Sequence[Answered], name: str, correct: Corrector):
    """Returns what a correction by some rows makes of a figure of others."""
    known = [row.figures[name] for row in given if name in row.figures]
    asked = [row for row in others if name in row.figures]
    found = correct(known, [row.figures[name] for row in asked])
    return [
        Cell(
            model=row.row.model,
            error=value / row.row.figures[name] - 1,
            inside=lower <= row.row.figures[name] <= upper,
        )
        for row, (value, lower, upper) in zip(asked, found, strict=True)
    ]


def few_rows(rows: Sequence[Answered], name: str, count: int, correct: Corrector) -> list[Cell]:
    """Returns a figure of the other rows of each deployment, over all draws of a few."""
    deployments: dict[tuple[str, str, str], list[Answered]] = defaultdict(list)
    for row in rows:
        deployments[row.deployment].append(row)
    found: list[Cell] = []
    for own in deployments.values():
        if len(own) <= count:
            continue
        for seed in range(DRAWS):
            order = np.random.default_rng(seed).permutation(len(own))
            given = [own[index] for index in order[:count]]
            others = [own[index] for index in order[count:]]
            found += cells(given, others, name, correct)
    return found


def random_folds(rows: Sequence[Answered], name: str, correct: Corrector) -> list[Cell]:
    """Returns a figure of each row, corrected by the rows of all other folds."""
    order = np.random.default_rng(0).permutation(len(rows))
    found: list[Cell] = []
    for fold in range(FOLDS):
        held = set(order[fold::FOLDS].tolist())
        given = [row for index, row in enumerate(rows) if index not in held]
        found += cells(given, [rows[index] for index in sorted(held)], name, correct)
    return found


def line(label: str, name: str, found: Iterable[Cell], *, intervals: bool = True) -> str:
    """Returns a line of the table."""
    found = list(found)
    errors = 100 * np.abs([cell.error for cell in found])
    inside = f"{np.mean([cell.inside for cell in found]):.0%}" if intervals else "-"
    return (
        f"| {label} | {name} | {len(found):,} | {errors.mean():.1f} / {np.median(errors):.1f}"
        f" / {np.quantile(errors, 0.9):.1f} | {inside} |"
    )


def table(rows: Sequence[Answered]) -> list[str]:
    """Returns the table of all splits, DeepSeek R1 in lines of its own."""
    lines = [
        "| split | figure | scored | MAPE / median / p90 | covered |",
        "|---|---|---|---|---|",
    ]
    for name in ("TPOT", "TTFT"):
        blind = cells((), rows, name, unchanged)
        folds = random_folds(rows, name, calibrated)
        few = {count: few_rows(rows, name, count, calibrated) for count in COUNTS}
        lines.append(line("architecture left out, no row given", name, blind))
        for count, found in few.items():
            lines.append(line(f"{count} rows given", name, found))
        by_ridge = few_rows(rows, name, 8, ridge)
        lines.append(line("8 rows given, by ridge regression", name, by_ridge, intervals=False))
        lines.append(line(f"random {FOLDS} folds", name, folds))
        for label, found in (
            ("DeepSeek R1: no row given", blind),
            ("DeepSeek R1: 8 rows given", few[8]),
            ("DeepSeek R1: random folds", folds),
        ):
            lines.append(line(label, name, [c for c in found if c.model == "deepseek-r1"]))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write-page", action="store_true", help="write the page")
    arguments = parser.parse_args()
    rows = all_answered(read_rows())
    lines = table(rows)
    print("\n".join(lines))
    if arguments.write_page:
        title = "Deployments on H100 and H200, few rows of them given"
        intro = (
            "TTFT and TPOT of the deployments of [the page without any row](silicon.md), the"
            " engines' coefficients fitted on other architectures, then corrected as `tokenpace"
            " calibrate` does by few rows of the same deployment (one architecture on one system"
            f" and engine; mean over {DRAWS} draws, seeds 0 to {DRAWS - 1}, scored on its other"
            f" rows), or by the rows of the other {FOLDS - 1} folds. Errors are in %, covered is"
            " the share inside the 90% interval. The hyper-parameters are fixed and the same"
            " everywhere; halving or doubling any one moves the errors by less than a tenth."
        )
        text = "\n".join([heading(title, COMMAND), intro, "", *lines, ""])
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
