"""What a handful of a user's own rows does to the error on deployments on H100 and H200.

The rows are those of ``benchmarks/silicon.py``. Each is predicted first by engines'
coefficients that never saw its architecture; then ``model.calibration`` is given few rows of
its deployment (one architecture on one system and engine) and scored on the others, or the
rows of all other folds and scored on the fold left out. The hyper-parameters are those of
the daemon, the same for all; how much hangs on them is shown by halving and doubling each,
and by choosing among those for each architecture what serves the others best.

    python benchmarks/few_rows.py --write-page
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import heading
from benchmarks.engine_fit import CONFIDENCE, NO_KERNELS, cost_model_of
from benchmarks.silicon import SYSTEMS, fit_engines, measured_kernels, read_rows
from model.calibration import FEATURES, LAW, Correction, Law, Observed, Point, deployment_of
from model.inference import predict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from benchmarks.engine_fit import Kernels, Row
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


def answered(row: Row, coefficients: Engine, kernels: Kernels = NO_KERNELS) -> Answered:
    """Returns the row as the coefficients, beside measured kernels, predict it."""
    question = row.question
    inference = predict(question, cost_model_of(row, coefficients, kernels), with_breakdown=True)
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


def all_answered(rows: Sequence[Row], kernels: Kernels) -> list[Answered]:
    """Returns each row as predicted by coefficients that never saw its architecture."""
    found = []
    for model in dict.fromkeys(row.model for row in rows):
        engines = fit_engines([row for row in rows if row.model != model], kernels)
        found += [answered(row, engines[row.engine], kernels) for row in rows if row.model == model]
        print(f"left out {model}", flush=True)
    return found


def calibrated(
    given: Sequence[Observed], others: Sequence[Observed], law: Law = LAW
) -> list[Estimate]:
    """Corrects as the daemon does, or by other hyper-parameters."""
    correction = Correction(given, CONFIDENCE, law)
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


def other_laws() -> Iterator[Law]:
    """Yields laws with one hyper-parameter halved or doubled."""
    for factor in (0.5, 2.0):
        for name in ("constant", "local"):
            yield replace(LAW, **{name: tuple(factor * part for part in getattr(LAW, name))})
        for name in ("noise", "trusted"):
            yield replace(LAW, **{name: factor * getattr(LAW, name)})
        for index in range(len(FEATURES)):
            octaves = list(LAW.octaves)
            octaves[index] *= factor
            yield replace(LAW, octaves=tuple(octaves))


def sensitivity(rows: Sequence[Answered], name: str, found: list[Cell]) -> list[str]:
    """Returns the lines on other hyper-parameters.

    Args:
        rows: all of them.
        name: of the figure.
        found: what the daemon's hyper-parameters make of it with 8 rows given.
    """
    tried = [found]
    tried += [few_rows(rows, name, 8, partial(calibrated, law=law)) for law in other_laws()]
    chosen: list[Cell] = []
    for model in dict.fromkeys(cell.model for cell in found):
        best = min(tried, key=lambda cells: size([c for c in cells if c.model != model])[0])
        chosen += [cell for cell in best if cell.model == model]
    sizes = [size(cells) for cells in tried]
    ranges = " / ".join(f"{min(one):.1f} to {max(one):.1f}" for one in zip(*sizes, strict=True))
    inside = [np.mean([cell.inside for cell in cells]) for cells in tried]
    return [
        line("8 rows given, hyper-parameters chosen on other architectures", name, chosen),
        f"| 8 rows given, each hyper-parameter halved and doubled | {name} | {len(found):,}"
        f" | {ranges} | {min(inside):.0%} to {max(inside):.0%} |",
    ]


def size(found: Iterable[Cell]) -> tuple[float, float, float]:
    """Returns mean, median and 90th percentile of the absolute errors in percent."""
    errors = 100 * np.abs([cell.error for cell in found])
    return float(errors.mean()), float(np.median(errors)), float(np.quantile(errors, 0.9))


def line(label: str, name: str, found: Iterable[Cell], *, intervals: bool = True) -> str:
    """Returns a line of the table."""
    found = list(found)
    inside = f"{np.mean([cell.inside for cell in found]):.0%}" if intervals else "-"
    errors = " / ".join(f"{one:.1f}" for one in size(found))
    return f"| {label} | {name} | {len(found):,} | {errors} | {inside} |"


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
        lines += sensitivity(rows, name, few[8])
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
    found = read_rows()
    rows = all_answered(found, measured_kernels(SYSTEMS.values(), list({r.engine for r in found})))
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
            " everywhere; they were chosen with these rows in sight, and the lines that choose"
            " them on other architectures, or halve and double each, tell what that is worth."
        )
        text = "\n".join([heading(title, COMMAND), intro, "", *lines, ""])
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
