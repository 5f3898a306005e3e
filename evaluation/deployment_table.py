"""TTFT and TPOT of deployments, whole architectures left out: pooled, by engine, model, regime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation import plots
from evaluation.page import Section, markdown
from evaluation.peers.asked import AICONFIGURATOR, FIGURES
from evaluation.regimes import MOST_RUNNING, MOST_WAITING, Regime, regime_of
from evaluation.rows import cells_of
from evaluation.scores import COLUMNS, columns, coverage, shown, size, size_of
from evaluation.targets import (
    LEAST_COVERAGE,
    LEAST_COVERAGE_OF_A_MODEL,
    LEFT_OUT,
    TARGETS,
    reached,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from evaluation.inputs import Inputs
    from evaluation.peers.asked import Milliseconds
    from evaluation.rows import Answered

_EVERY = "all"


def section(inputs: Inputs) -> Section:
    """Returns the tables and their pictures."""
    answers = inputs.answers
    peer = inputs.peers.answers[AICONFIGURATOR]
    regimes = [regime_of(answer) for answer in answers]
    title = "Deployments, whole architectures left out"
    return Section(
        title,
        [
            "TTFT and TPOT of real deployments on H100 and H200 (aiconfigurator-core 0.12.0,"
            " Apache-2.0, `silicon_sample.csv`: mode agg, equal measurements merged, labels"
            " corrected as `tokenpace/benchmark_files/deployments.py` says) against measured"
            " kernels (the same package's tables) with a handful of coefficients an engine, fitted"
            " on the other architectures. How wide intervals are at least (an engine's `spread`,"
            " and queueing in `model/inference.py`) was chosen with all rows in sight.",
            "",
            *plots.paragraphs(
                _scatter(inputs, title), _errors(inputs, regimes), _coverage(inputs, regimes)
            ),
            f"{len(answers)} rows, all of them answered. aiconfigurator answers"
            f" {len(peer) / len(answers):.0%}:",
            "",
            *_summary(answers, peer),
            "",
            "### By the load",
            "",
            f"*Unqueued*: at most {MOST_RUNNING} requests in flight on a data-parallel rank, and at"
            f" most {MOST_WAITING:.0%} of the predicted TTFT is not the request's own prefill."
            " *Saturated*: more in flight than the KV cache holds. *Loaded*: the rest.",
            "",
            *_by_regime(answers, regimes, peer),
            "",
            "### By engine",
            "",
            *markdown(
                ("engine", "figure", *COLUMNS), list(_groups(answers, lambda one: one.row.engine))
            ),
            "",
            "### By architecture",
            "",
            *markdown(
                ("architecture", "figure", *COLUMNS),
                list(_groups(answers, lambda one: one.row.model)),
            ),
            "",
            *_verdict(answers),
            "",
            "### By architecture and engine",
            "",
            *markdown(
                ("architecture", "figure", *COLUMNS),
                list(_groups(answers, lambda one: f"{one.row.model}, {one.row.engine}")),
            ),
        ],
    )


def _groups(answers: Sequence[Answered], key: Callable[[Answered], str]) -> Iterator[list[str]]:
    for group in (_EVERY, *sorted({key(one) for one in answers})):
        for name in FIGURES:
            cells = cells_of((one for one in answers if group in (_EVERY, key(one))), name)
            if cells:
                yield [group, name, *columns(cells)]


def _summary(answers: Sequence[Answered], peer: Milliseconds) -> list[str]:
    rows = []
    for name in FIGURES:
        for label, wanted in ((_EVERY, ""), ("DeepSeek R1", "deepseek-r1")):
            held = [
                (place, one)
                for place, one in enumerate(answers)
                if name in one.figures and wanted in ("", one.row.model)
            ]
            if not held:
                continue
            cells = [one.cell(name) for _, one in held]
            both = [(place, one) for place, one in held if place in peer]
            target = TARGETS[name, LEFT_OUT]
            whole = label == _EVERY
            rows.append(
                [
                    label,
                    name,
                    *columns(cells),
                    shown(target.must) if whole else "-",
                    reached(size(cells), target.must) if whole else "-",
                    shown(target.aim) if whole else "-",
                    peer_errors(both, peer, name),
                    shown(size([one.cell(name) for _, one in both])) if both else "-",
                ]
            )
    head = (
        *("architectures", "figure", *COLUMNS, "must", "reached", "aim"),
        *("aiconfigurator", "ours where it answers"),
    )
    return markdown(head, rows)


def errors_of(held: Iterable[tuple[int, Answered]], peer: Milliseconds, name: str) -> list[float]:
    """Returns a peer's relative errors on the rows that it answered.

    Args:
        held: answers and their place.
        peer: what it says, by place.
        name: of the figure.
    """
    return [
        peer[place][name] / one.figures[name].measured - 1
        for place, one in held
        if place in peer and name in one.figures
    ]


def peer_errors(held: Iterable[tuple[int, Answered]], peer: Milliseconds, name: str) -> str:
    """Returns the same as text, "-" where it answered nothing."""
    errors = errors_of(held, peer, name)
    return shown(size_of(errors)) if errors else "-"


def _by_regime(
    answers: Sequence[Answered], regimes: Sequence[Regime], peer: Milliseconds
) -> list[str]:
    rows = []
    for name in reversed(FIGURES):
        for regime in Regime:
            held = [
                (place, one)
                for place, one in enumerate(answers)
                if regimes[place] is regime and name in one.figures
            ]
            if held:
                cells = [one.cell(name) for _, one in held]
                rows.append([regime, name, *columns(cells), peer_errors(held, peer, name)])
    return markdown(("load", "figure", *COLUMNS, "aiconfigurator"), rows)


def _verdict(answers: Sequence[Answered]) -> Iterator[str]:
    """Yields what the intervals must hold, and where they do not."""
    for name in FIGURES:
        cells = cells_of(answers, name)
        low = [
            f"{model} {share:.0%}"
            for model in sorted({one.model for one in cells})
            if (share := coverage([one for one in cells if one.model == model]))
            < LEAST_COVERAGE_OF_A_MODEL
        ]
        pooled = coverage(cells)
        yield (
            f"{name}: intervals hold {pooled:.0%} (must: {LEAST_COVERAGE:.0%};"
            f" {'reached' if pooled >= LEAST_COVERAGE else 'not reached'}); under"
            f" {LEAST_COVERAGE_OF_A_MODEL:.0%} of an architecture: {', '.join(low) or 'none'}."
        )


def _scatter(inputs: Inputs, title: str) -> str:
    panels = {
        name: [
            plots.Point(
                one.row.engine, one.figures[name].measured, one.figures[name].predicted.value
            )
            for one in inputs.answers
            if name in one.figures
        ]
        for name in FIGURES
    }
    return plots.scatter(panels, title, inputs.out / "deployments.png")


def _errors(inputs: Inputs, regimes: Sequence[Regime]) -> str:
    peer = inputs.peers.answers[AICONFIGURATOR]
    panels: dict[str, dict[str, dict[str, float]]] = {name: {} for name in FIGURES}
    for name in FIGURES:
        for regime in Regime:
            held = [
                (place, one)
                for place, one in enumerate(inputs.answers)
                if regimes[place] is regime and name in one.figures
            ]
            if not held:
                continue
            _, median, p90 = size([one.cell(name) for _, one in held])
            heights = {"ours, median": median, "ours, p90": p90}
            if theirs := errors_of(held, peer, name):
                _, median, p90 = size_of(theirs)
                heights |= {"aiconfigurator, median": median, "aiconfigurator, p90": p90}
            panels[name][f"{regime}\n{len(held)} rows"] = heights
    return plots.bars(panels, "Error by load", inputs.out / "regimes.png", unit="%", log=True)


def _coverage(inputs: Inputs, regimes: Sequence[Regime]) -> str:
    panels: dict[str, dict[str, dict[str, float]]] = {"by load": {}, "by architecture": {}}
    for name in FIGURES:
        held = [
            (one.cell(name), regimes[place])
            for place, one in enumerate(inputs.answers)
            if name in one.figures
        ]
        for group in Regime:
            cells = [one for one, regime in held if regime is group]
            if cells:
                panels["by load"].setdefault(group, {})[name] = 100 * coverage(cells)
        for model in sorted({one.model for one, _ in held}):
            cells = [one for one, _ in held if one.model == model]
            panels["by architecture"].setdefault(model, {})[name] = 100 * coverage(cells)
    return plots.bars(
        panels,
        "Share of measurements inside the 90% interval",
        inputs.out / "coverage.png",
        unit="%",
        line=90.0,
    )
