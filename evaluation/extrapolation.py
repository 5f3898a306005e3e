"""Operations beyond what was measured: longer contexts, tensor-parallel sizes never seen.

What answers here is what answers a Predict: its interval widens outside the measured sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation import plots
from evaluation.kernels import alone, kernel_model
from evaluation.operations import CASES
from evaluation.page import Section, markdown
from evaluation.peers import forest, roofline
from evaluation.scores import cell, coverage, shown, size, size_of, width

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evaluation.inputs import Inputs
    from evaluation.operations import Case
    from evaluation.scores import Triple
    from model.laws import Array
    from model.rows import Row

LONGEST_KNOWN = 1_024
"""Tokens of what is fitted on."""
LARGEST_KNOWN_DEGREE, ASKED_DEGREE = 4, 8
_FEWEST = 20
"""Rows on either side without which a split says nothing."""


class Split(NamedTuple):
    """Rows to fit on and rows to predict."""

    known: Sequence[Row]
    asked: Sequence[Row]


class Scored(NamedTuple):
    """Errors in % on what was asked, the share of intervals that held and their width."""

    label: str
    device: str
    known: int
    asked: int
    ours: Triple
    forest: Triple
    roofline: Triple
    covered: float
    width: float


def longer(rows: Sequence[Row]) -> Split:
    """Returns operations on at most 1,024 tokens, and those on more.

    Tokens are rows of a linear or of experts, and the context of attention.
    """

    def tokens(row: Row) -> float:
        shape = row.measurement.shape
        return next(shape[name] for name in ("kv_tokens", "tokens", "m") if name in shape)

    return _split(rows, lambda row: tokens(row) <= LONGEST_KNOWN)


def more_ranks(rows: Sequence[Row]) -> Split:
    """Returns operations as tensor-parallel sizes up to 4 make them, and as 8 and more do.

    Of attention the head counts that are an eighth of the largest or less are asked, of
    experts the eighths of their models' widths, of linears the smaller half of all widths n.
    """
    shapes = [row.measurement.shape for row in rows]
    if "query_heads" in shapes[0]:
        most = max(shape["query_heads"] for shape in shapes)
        return _split(rows, lambda row: row.measurement.shape["query_heads"] * ASKED_DEGREE > most)
    if "intermediate_size" in shapes[0]:
        widths: dict[str, float] = {}
        for row in rows:
            group, inner = row.measurement.group, row.measurement.shape["intermediate_size"]
            widths[group] = max(inner, widths.get(group, 0.0))
        return _split(
            rows,
            lambda row: (
                row.measurement.shape["intermediate_size"] * LARGEST_KNOWN_DEGREE
                >= widths[row.measurement.group]
            ),
        )
    middle = float(np.median([shape["n"] for shape in shapes]))
    return _split(rows, lambda row: row.measurement.shape["n"] > middle)


def _split(rows: Sequence[Row], known: Callable[[Row], bool]) -> Split:
    told = [known(row) for row in rows]
    return Split(
        [row for row, first in zip(rows, told, strict=True) if first],
        [row for row, first in zip(rows, told, strict=True) if not first],
    )


SPLITS = {
    f"up to {LONGEST_KNOWN:,} tokens -> longer": longer,
    "tp 1, 2, 4 -> 8": more_ranks,
}


def scored(case: Case, split: Split) -> Scored:
    """Returns what a fit on one side makes of the other, and what the peers do."""
    found = alone(kernel_model(split.known, case.device), split.asked)
    measured = np.array([row.latency_ms for row in split.asked])
    cells = [
        cell(row.measurement.group, row.latency_ms, one)
        for row, one in zip(split.asked, found, strict=True)
    ]

    def errors(milliseconds: Array) -> Triple:
        return size_of(milliseconds / measured - 1)

    return Scored(
        label=f"{case.name}, {case.engine}",
        device=case.device,
        known=len(split.known),
        asked=len(split.asked),
        ours=size(cells),
        forest=errors(forest.fit_operations(split.known)(split.asked)),
        roofline=errors(roofline.operations_ms(split.asked, case.device)),
        covered=coverage(cells),
        width=width(cells),
    )


def section(inputs: Inputs) -> Section:
    """Returns the tables of both splits."""
    found: dict[str, list[Scored]] = {name: [] for name in SPLITS}
    for case in CASES:
        rows = case.rows(inputs)
        for name, make in SPLITS.items():
            split = make(rows)
            if min(len(split.known), len(split.asked)) >= _FEWEST:
                found[name].append(scored(case, split))
        inputs.say(f"extrapolated {case.name} of {case.engine} on {case.device}")
    found = {name: lines for name, lines in found.items() if lines}
    picture = plots.bars(
        {
            name: {
                f"{one.label}\n{one.device}": {
                    "ours": one.ours[0],
                    "random forest": one.forest[0],
                    "roofline": one.roofline[0],
                }
                for one in lines
            }
            for name, lines in found.items()
        },
        "Operations beyond what was measured: mean error",
        inputs.out / "extrapolation.png",
        unit="%",
        log=True,
    )
    text = [
        "The operations above, fitted on one part of their sizes and asked for the other. For"
        " longer contexts tokens are rows of linears and experts, and keys of attention; for"
        " tensor-parallel sizes attention is asked for head counts of an eighth of the largest"
        " and less, experts for widths under a quarter of their model's, linears for the"
        " smaller half of all widths. Few points are in the table of operations.",
        "",
        *plots.paragraphs(picture),
    ]
    head = (
        *("operations", "device", "fitted on", "asked", "error"),
        *("random forest", "roofline", "covered", "width"),
    )
    for name, lines in found.items():
        text += [f"### {name}", "", *markdown(head, [_line(one) for one in lines]), ""]
    return Section("Extrapolation", text)


def _line(one: Scored) -> list[str]:
    return [
        one.label,
        one.device,
        f"{one.known:,}",
        f"{one.asked:,}",
        shown(one.ours),
        shown(one.forest),
        shown(one.roofline),
        f"{one.covered:.0%}",
        f"{one.width:.0%}",
    ]
