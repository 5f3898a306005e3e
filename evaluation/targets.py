"""What the end-to-end errors must come to, and what is aimed at (in %, mean / median / p90)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from evaluation.scores import Triple

LEFT_OUT, EIGHT_ROWS, FOLDS = "architecture left out", "8 rows given", "random folds"


class Target(NamedTuple):
    """Two levels of error."""

    must: Triple
    aim: Triple


TARGETS = {
    ("TPOT", LEFT_OUT): Target((22, 12, 45), (15, 8, 30)),
    ("TPOT", EIGHT_ROWS): Target((12, 6, 25), (8, 4, 16)),
    ("TPOT", FOLDS): Target((10, 4.5, 21), (6, 3, 12)),
    ("TTFT", LEFT_OUT): Target((42, 34, 80), (25, 18, 50)),
    ("TTFT", EIGHT_ROWS): Target((27, 17, 58), (18, 10, 35)),
    ("TTFT", FOLDS): Target((20, 12, 50), (12, 7, 25)),
}
LEAST_COVERAGE, LEAST_COVERAGE_OF_A_MODEL = 0.85, 0.70
"""With architectures left out: of all rows together, and of each architecture."""
FOLDS_COVERAGE = (0.87, 0.93)
"""Of random folds and of operations."""


def reached(found: Triple, target: Triple) -> str:
    """Returns "yes" where all three are, else which are."""
    names = ("mean", "median", "p90")
    met = [name for name, one, most in zip(names, found, target, strict=True) if one <= most]
    return "yes" if len(met) == len(names) else ", ".join(met) or "no"
