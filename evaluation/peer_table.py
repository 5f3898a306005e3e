"""What peers predict of the deployments, beside ours on the very rows that they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation import plots
from evaluation.deployment_table import errors_of, peer_errors
from evaluation.page import Section, markdown
from evaluation.peers.aiconfigurator import STATED
from evaluation.peers.asked import AICONFIGURATOR, FIGURES
from evaluation.scores import shown, size, size_of

if TYPE_CHECKING:
    from evaluation.inputs import Inputs


def section(inputs: Inputs) -> Section:
    """Returns the tables: all rows, and by architecture."""
    peers = inputs.peers
    places = list(enumerate(inputs.answers))
    rows = []
    panels: dict[str, dict[str, dict[str, float]]] = {name: {} for name in FIGURES}
    for name in FIGURES:
        for peer, answers in peers.answers.items():
            held = [(at, one) for at, one in places if at in answers and name in one.figures]
            if not held:
                continue
            ours = size([one.cell(name) for _, one in held])
            theirs = size_of(errors_of(held, answers, name))
            rows.append(
                [
                    peer,
                    name,
                    f"{len(held) / len(places):.0%}",
                    shown(theirs),
                    shown(ours),
                ]
            )
            panels[name][peer] = {"theirs, median": theirs[1], "ours on the same rows": ours[1]}
    told = ", ".join(f"{name} {shown(STATED[name])}" for name in FIGURES)
    lines = [
        "Ours never saw the architecture; nor did the random forest (on the raw sizes of"
        " architecture, deployment and load). aiconfigurator and the roofline have nothing fitted"
        " here, though aiconfigurator's corrections of vLLM are calibrated on such deployments."
        " The roofline is our composition with kernels at the data sheet's rates and no overhead.",
        "",
        f"Stated of aiconfigurator 0.12 when this project set its aims: {told}, 91 to 96% of the"
        " rows answered. Here it is asked with corrected labels, and a prompt is one step.",
        "",
        *plots.paragraphs(
            plots.bars(
                panels,
                "Peers and ours on the same deployments",
                inputs.out / "peers.png",
                unit="median error, %",
                log=True,
            )
        ),
        *markdown(("peer", "figure", "answered", "peer's error", "ours on those rows"), rows),
        "",
        *_by_architecture(inputs),
    ]
    if peers.reasons:
        lines += ["", "Rows without an answer of aiconfigurator:", ""]
        lines += [f"- {count}: {reason}" for reason, count in sorted(peers.reasons.items())]
    return Section("Peers", lines)


def _by_architecture(inputs: Inputs) -> list[str]:
    theirs = inputs.peers.answers[AICONFIGURATOR]
    rows = []
    for model in sorted({one.row.model for one in inputs.answers}):
        for name in FIGURES:
            held = [
                (at, one)
                for at, one in enumerate(inputs.answers)
                if one.row.model == model and at in theirs and name in one.figures
            ]
            if held:
                ours = size([one.cell(name) for _, one in held])
                rows.append(
                    [model, name, f"{len(held)}", peer_errors(held, theirs, name), shown(ours)]
                )
    return markdown(("architecture", "figure", "rows", AICONFIGURATOR, "ours"), rows)
