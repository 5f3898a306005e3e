"""Fits engines' coefficients on end-to-end rows, and scores them with whole models left out.

What is fitted is what answers: the error is that of ``predict`` itself, the unknowns are
coefficients of ``model.engines``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from scipy.optimize import least_squares

from model.analytical import AnalyticalCostModel
from model.composite import CompositeCostModel
from model.estimate import MeasuredCostModel
from model.hardware import data_sheet
from model.inference import predict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from model.engines import Engine
    from model.steps import Question

CONFIDENCE = 0.9

START = {
    "kernel_s": 3e-6,
    "elementwise": 0.25,
    "elementwise_traffic": 0.5,
    "step_s": 1e-3,
    "sequence_s": 5e-6,
    "request_s": 30e-3,
    "collective_s": 1e-5,
    "interference": 0.5,
    "queueing": 0.05,
    "link": 0.7,
    "compute": 0.65,
    "bandwidth": 0.8,
    "attention_compute": 0.4,
    "attention_bandwidth": 0.7,
    "experts_compute": 0.4,
    "experts_bandwidth": 0.7,
    "int8_share": 0.9,
    "int4_share": 0.8,
}
"""Where a fit begins, and what holds a coefficient that few rows tell of."""
_SHARES = frozenset(
    {name for name in START if name.endswith(("_compute", "_bandwidth", "_share"))}
    | {"link", "compute", "bandwidth"}
)
_LARGEST_SHARE = 0.97
PULL = 0.3
"""Weight of that hold against one row's log error."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured end to end of one deployment under one load.

    Attributes:
        engine: its name.
        model: rows of one are left out together.
        device: its name.
        question: what Predict is asked.
        figures: milliseconds of "TTFT", "TPOT" and "latency a token" (of a request, over
            generated tokens), those that were measured.
    """

    engine: str
    model: str
    device: str
    question: Question
    figures: Mapping[str, float]

    @cached_property
    def logs(self) -> np.ndarray:
        """Log milliseconds, (figures,)."""
        return np.log(list(self.figures.values()))


Interval = tuple[float, float, float]
Scored = tuple[Row, str, Interval]
"""A figure of a row, predicted with its ends."""


Kernels = Mapping[tuple[str, str], MeasuredCostModel]
"""Fitted cost models of kernels by device and engine."""
NO_KERNELS: Kernels = MappingProxyType({})
"""Physics alone."""


def cost_model_of(
    row: Row, coefficients: Engine, kernels: Kernels = NO_KERNELS
) -> CompositeCostModel:
    """Returns what prices the row by the coefficients of an engine, beside measured kernels."""
    question = row.question
    return CompositeCostModel(
        kernels.get((row.device, row.engine)),
        AnalyticalCostModel(data_sheet(row.device), coefficients),
        question.precision,
        question.kv_precision,
        question.engine,
    )


def predicted(row: Row, coefficients: Engine, kernels: Kernels = NO_KERNELS) -> dict[str, Interval]:
    """Returns milliseconds of each of the row's figures, and the ends of their interval."""
    question = row.question
    answer = predict(question, cost_model_of(row, coefficients, kernels))
    tokens = max(1, question.workload.output_tokens)
    latency = answer.request_latency_ms
    known = {
        "TTFT": answer.ttft_ms,
        "TPOT": answer.tpot_ms,
        "latency a token": (latency.value / tokens, latency.lower / tokens, latency.upper / tokens),
    }
    return {name: tuple(known[name]) for name in row.figures}


def fit(
    rows: Sequence[Row],
    base: Engine,
    start: Mapping[str, float],
    pull: float = PULL,
    kernels: Kernels = NO_KERNELS,
) -> Engine:
    """Returns an engine with coefficients fitted on the log error of the rows.

    Args:
        rows: at least one.
        base: whose other coefficients hold.
        start: coefficients to fit, and where they begin.
        pull: how firmly they are held there.
        kernels: measured ones, where there are some.
    """
    names = list(start)
    begin = np.log([start[name] for name in names])
    upper = np.array([np.log(_LARGEST_SHARE) if name in _SHARES else np.inf for name in names])
    begin = np.minimum(begin, upper - 1e-3)

    def coefficients(theta: np.ndarray) -> Engine:
        return replace(base, **dict(zip(names, np.exp(theta).tolist(), strict=True)))

    def error(theta: np.ndarray) -> np.ndarray:
        candidate = coefficients(theta)
        logs = [
            np.log([value for value, _, _ in predicted(row, candidate, kernels).values()])
            - row.logs
            for row in rows
        ]
        return np.concatenate([*logs, pull * (theta - begin)])

    found = least_squares(
        error,
        begin,
        bounds=(-np.inf, upper),
        loss="soft_l1",
        f_scale=0.15,
        diff_step=1e-3,
        max_nfev=20,
    )
    return coefficients(found.x)


def score(row: Row, coefficients: Engine, kernels: Kernels = MappingProxyType({})) -> list[Scored]:
    """Returns each figure of the row as predicted."""
    return [(row, name, found) for name, found in predicted(row, coefficients, kernels).items()]


def table(scored: Iterable[Scored], *, by_model: bool = False) -> list[str]:
    """Returns a Markdown table of errors by engine and figure, of each model too if asked."""
    groups: dict[tuple[str, str, str], list[tuple[float, bool, str]]] = defaultdict(list)
    for row, name, (value, lower, upper) in scored:
        measured = row.figures[name]
        cell = (value / measured - 1, lower <= measured <= upper, row.model)
        groups["all", "all", name].append(cell)
        groups[row.engine, "all", name].append(cell)
        if by_model:
            groups[row.engine, row.model, name].append(cell)
            groups["all", row.model, name].append(cell)
    lines = [
        "| engine | model | figure | rows | models | MAPE / median / p90 | bias | covered |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (engine, model, name), cells in sorted(groups.items()):
        errors = np.array([error for error, _, _ in cells])
        size = 100 * abs(errors)
        inside = np.mean([hit for _, hit, _ in cells])
        lines.append(
            f"| {engine} | {model} | {name} | {len(cells)} | {len({m for _, _, m in cells})}"
            f" | {size.mean():.1f} / {np.median(size):.1f} / {np.quantile(size, 0.9):.1f}"
            f" | {np.median(errors):+.1%} | {inside:.0%} |"
        )
    return lines


def coefficient_lines(fitted: Iterable[Engine], names: Mapping[str, Iterable[str]]) -> list[str]:
    """Returns what was fitted on all rows of each engine, as ``model/engines.py`` holds it."""
    lines = ["Coefficients fitted on all rows of an engine:", ""]
    for found in fitted:
        values = ", ".join(f"{name} {getattr(found, name):.3g}" for name in names[found.name])
        lines.append(f"- {found.name}: {values}")
    return lines


def plot(scored: Sequence[Scored], title: str, path: Path) -> None:
    """Writes predicted against measured as a picture."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415

    figures = list(dict.fromkeys(name for _, name, _ in scored))
    canvas, axes = plt.subplots(
        1, len(figures), figsize=(5.5 * len(figures), 5.2), layout="constrained", squeeze=False
    )
    for axis, name in zip(axes[0], figures, strict=True):
        cells = [(row, row.figures[name], v[0]) for row, figure, v in scored if figure == name]
        for engine in dict.fromkeys(row.engine for row, _, _ in cells):
            own = [(measured, value) for row, measured, value in cells if row.engine == engine]
            axis.scatter(*zip(*own, strict=True), s=9, alpha=0.5, label=engine)
        ends = [min(m for _, m, _ in cells), max(m for _, m, _ in cells)]
        axis.plot(ends, ends, color="0.4", linewidth=1)
        axis.set(
            xscale="log",
            yscale="log",
            title=name,
            xlabel="measured, ms",
            ylabel="predicted with the model left out, ms",
        )
        for one in (axis.xaxis, axis.yaxis):
            # Labels of a single decade's minor ticks run into each other.
            one.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            one.set_major_formatter("{x:g}")
            one.set_minor_formatter(NullFormatter())
        axis.legend(frameon=False)
    canvas.suptitle(title)
    canvas.savefig(path, dpi=100)
    plt.close(canvas)
