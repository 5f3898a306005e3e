"""What a handful of a user's own rows does to the error on deployments on H100 and H200.

Each row is predicted first by engines' coefficients that never saw its architecture; then
``model.calibration`` is given few rows of its deployment (one architecture on one system
and engine) and scored on the others, or the rows of all other folds and scored on the fold
left out. The hyper-parameters are those of the daemon, the same for all; how much hangs on
them is shown by halving and doubling each, and by choosing among those for each
architecture what serves the others best.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation import plots
from evaluation.page import Section, markdown
from evaluation.rows import CONFIDENCE
from evaluation.scores import cell, coverage, shown, size, width
from evaluation.targets import EIGHT_ROWS, FOLDS_COVERAGE, LEFT_OUT, TARGETS, reached
from evaluation.targets import FOLDS as RANDOM_FOLDS
from model.calibration import FEATURES, LAW, Correction, Law, Observed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from evaluation.inputs import Inputs
    from evaluation.rows import Answered
    from evaluation.scores import Cell
    from model.steps import Estimate

    Corrector = Callable[[Sequence[Observed], Sequence[Observed]], list[Estimate]]
    """Figures of the second rows, corrected by the first."""

DRAWS = 20
FOLDS = 5
COUNTS = (4, 8, 16)
RIDGE_PENALTY = 1.0
FIGURES = ("TPOT", "TTFT")


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


def cells(
    given: Sequence[Answered], others: Sequence[Answered], name: str, correct: Corrector
) -> list[Cell]:
    """Returns what a correction by some rows makes of a figure of others."""
    known = [row.figures[name] for row in given if name in row.figures]
    asked = [row for row in others if name in row.figures]
    found = correct(known, [row.figures[name] for row in asked])
    return [
        cell(row.row.model, row.row.figures[name], one)
        for row, one in zip(asked, found, strict=True)
    ]


def few_rows(rows: Sequence[Answered], name: str, count: int, correct: Corrector) -> list[Cell]:
    """Returns a figure of the other rows of each deployment, over all draws of a few."""
    deployments: dict[tuple[str, str, str], list[Answered]] = defaultdict(list)
    for row in rows:
        deployments[row.row.deployment].append(row)
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
            parts: dict[str, Any] = {name: tuple(factor * part for part in getattr(LAW, name))}
            yield replace(LAW, **parts)
        for name in ("noise", "trusted"):
            yield replace(LAW, **{name: factor * getattr(LAW, name)})
        for index in range(len(FEATURES)):
            octaves = list(LAW.octaves)
            octaves[index] *= factor
            yield replace(LAW, octaves=tuple(octaves))


def section(inputs: Inputs) -> Section:
    """Returns the table of all splits, DeepSeek R1 in lines of its own, and the learning curve."""
    lines: list[list[str]] = []
    curves: dict[str, dict[str, dict[int, float]]] = {}
    for name in FIGURES:
        splits = _splits(inputs.answers, name)
        inputs.say(f"few rows: {name}")
        lines += _lines(name, splits)
        given = {0: splits[LEFT_OUT]}
        given |= {count: found for count in COUNTS if (found := splits[_given(count)])}
        curves[name] = {
            label: {count: size(found)[index] for count, found in given.items()}
            for index, label in enumerate(("mean", "median", "90th percentile"))
        }
        lines += sensitivity(inputs.answers, name, splits[_given(8)])
        inputs.say(f"few rows: {name} by other hyper-parameters")
    title = "Deployments, few rows of them given"
    picture = plots.curves(
        curves, title, inputs.out / "few_rows.png", x="rows given", y="error on the others, %"
    )
    low, high = FOLDS_COVERAGE
    return Section(
        title,
        [
            "The same deployments, predicted by coefficients fitted on other architectures, then"
            " corrected as `tokenpace calibrate` does by few rows of the same deployment (one"
            " architecture on one system and engine; mean over"
            f" {DRAWS} draws, seeds 0 to {DRAWS - 1}, scored on its other rows), or by the rows of"
            f" the other {FOLDS - 1} folds (where {low:.0%} to {high:.0%} must be covered). The"
            " hyper-parameters are fixed and the same everywhere; they were chosen with these rows"
            " in sight, and the lines that choose them on other architectures, or halve and double"
            " each, tell what that is worth.",
            "",
            *plots.paragraphs(picture),
            *markdown(HEAD, lines),
        ],
    )


HEAD = (
    *("split", "figure", "scored", "MAPE / median / p90", "covered", "width"),
    *("must", "reached", "aim"),
)


def _given(count: int) -> str:
    return f"{count} rows given"


def _splits(rows: Sequence[Answered], name: str) -> Mapping[str, list[Cell]]:
    """Returns the scored figures of each split, by its name."""
    found = {LEFT_OUT: cells((), rows, name, unchanged)}
    found |= {_given(count): few_rows(rows, name, count, calibrated) for count in COUNTS}
    found[_RIDGE] = few_rows(rows, name, 8, ridge)
    found[RANDOM_FOLDS] = random_folds(rows, name, calibrated)
    return found


_RIDGE = "8 rows given, by ridge regression"
_SHOWN_OF_R1 = (LEFT_OUT, EIGHT_ROWS, RANDOM_FOLDS)


def _lines(name: str, splits: Mapping[str, list[Cell]]) -> list[list[str]]:
    lines = [
        line(split, name, found, intervals=split != _RIDGE)
        for split, found in splits.items()
        if found
    ]
    for split in _SHOWN_OF_R1:
        own = [one for one in splits[split] if one.model == "deepseek-r1"]
        if own:
            lines.append(line(f"DeepSeek R1: {split}", name, own))
    return lines


def sensitivity(rows: Sequence[Answered], name: str, found: list[Cell]) -> list[list[str]]:
    """Returns the lines on other hyper-parameters.

    Args:
        rows: all of them.
        name: of the figure.
        found: what the daemon's hyper-parameters make of it with 8 rows given.
    """
    if not found:
        return []
    tried = [found]
    tried += [few_rows(rows, name, 8, partial(calibrated, law=law)) for law in other_laws()]
    chosen: list[Cell] = []
    models = list(dict.fromkeys(one.model for one in found))
    if len(models) > 1:
        for model in models:
            best = min(tried, key=lambda cells: size([c for c in cells if c.model != model])[0])
            chosen += [one for one in best if one.model == model]
    sizes = [size(cells) for cells in tried]
    ranges = " / ".join(f"{min(one):.1f} to {max(one):.1f}" for one in zip(*sizes, strict=True))
    inside = [coverage(cells) for cells in tried]
    lines = [line("8 rows given, hyper-parameters chosen on other architectures", name, chosen)]
    halved = [
        "8 rows given, each hyper-parameter halved and doubled",
        name,
        f"{len(found):,}",
        ranges,
        f"{min(inside):.0%} to {max(inside):.0%}",
        *("-",) * 4,
    ]
    return [*(lines if chosen else []), halved]


def line(split: str, name: str, found: Sequence[Cell], *, intervals: bool = True) -> list[str]:
    """Returns a line of the table; splits that something is asked of have it beside."""
    target = TARGETS.get((name, split))
    errors = size(found)
    return [
        split,
        name,
        f"{len(found):,}",
        shown(errors),
        f"{coverage(found):.0%}" if intervals else "-",
        f"{width(found):.0%}" if intervals else "-",
        shown(target.must) if target else "-",
        reached(errors, target.must) if target else "-",
        shown(target.aim) if target else "-",
    ]
