"""All peers asked for the same deployments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.peers import aiconfigurator, forest, roofline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evaluation.rows import Row

AICONFIGURATOR, FOREST, ROOFLINE = "aiconfigurator", "random forest", "roofline"
FIGURES = ("TPOT", "TTFT")

Milliseconds = Mapping[int, Mapping[str, float]]
"""By the row's place and the figure's name; rows without an answer are left out."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What peers answered.

    Attributes:
        answers: by the peer's name.
        reasons: why aiconfigurator did not answer, and for how many rows.
    """

    answers: Mapping[str, Milliseconds]
    reasons: Mapping[str, int]


def ask(rows: Sequence[Row], say: Callable[[str], None]) -> Asked:
    """Asks all peers.

    Args:
        rows: deployments of two architectures or more.
        say: is told of each peer that has answered.
    """
    theirs, reasons = aiconfigurator.deployments_ms(rows, say)
    forests = {name: forest.deployments_ms(rows, name) for name in FIGURES}
    say("asked random forests")
    return Asked(
        {
            AICONFIGURATOR: theirs,
            FOREST: {
                index: {name: found[index] for name, found in forests.items() if index in found}
                for index in range(len(rows))
            },
            ROOFLINE: {
                index: {name: one.value for name, one in roofline.deployment_ms(row).items()}
                for index, row in enumerate(rows)
            },
        },
        reasons,
    )
