"""One device predicted from another: what ``model.transfer`` does where nothing was measured.

Its interval adds a half-width to that of the device that was measured; which one holds 90%
of the measurements is told beside.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation import plots
from evaluation.deployments import fit_engines
from evaluation.kernels import alone, kernel_model
from evaluation.page import Section, markdown
from evaluation.peers import forest, roofline
from evaluation.rows import CONFIDENCE, answered, cells_of
from evaluation.scores import COLUMNS, cell, columns, coverage, of_logs, shown, size, size_of, width
from model.hardware import data_sheet
from model.kernel_fitting import kernel_errors
from model.operations import OperationKind
from model.transfer import TransferredCostModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.inputs import Inputs
    from evaluation.scores import Triple
    from model.laws import Array
    from model.measurement import Measurement
    from model.rows import Row
    from model.steps import Estimate

PAIRS = (("a100-sxm", "h100-sxm"), ("h100-sxm", "h200-sxm"))
"""Devices that are fitted on, and those that are predicted."""
KINDS = (
    ("linear", "bf16"),
    ("linear", "fp8-block"),
    ("attention", "bf16"),
    ("mla", "bf16"),
    ("experts", "bf16"),
    ("experts", "fp8-block"),
)
_MOST = 6_000
"""Rows of one kind that either side takes: more tell no more of how devices differ."""
_FEWEST = 50


class Scored(NamedTuple):
    """A kind of operation on one device as predicted from another.

    Attributes:
        label: kind and precision.
        source, target: names of the devices.
        asked: rows of the target.
        transferred, own, forest, roofline: errors in % of the borrowed fit, of a fit on the
            target's other groups, of a forest on the source's rows, of the target's data sheet.
        covered, width: of the borrowed interval.
        added: half-width that was added to the source's interval, in logs.
        excess: by how much each row misses the source's interval, in logs; negative inside.
    """

    label: str
    source: str
    target: str
    asked: int
    transferred: Triple
    own: Triple
    forest: Triple
    roofline: Triple
    covered: float
    width: float
    added: float
    excess: Sequence[float]

    @property
    def needed(self) -> float:
        """Half-width that would have held 90% of the rows, in logs."""
        return float(np.quantile(self.excess, CONFIDENCE))


def scored(
    label: str, source: str, target: str, known: Sequence[Row], asked: Sequence[Row]
) -> Scored:
    """Returns what a fit of one device's rows makes of another's.

    Args:
        label: kind and precision.
        source: name of the device of ``known``.
        target: name of the device of ``asked``.
        known: operations of one kind and precision.
        asked: of the same.
    """
    model = kernel_model(known, source)
    transferred = TransferredCostModel(model, data_sheet(source), data_sheet(target))
    plain, found = alone(model, asked), alone(transferred, asked)
    own = kernel_errors(
        OperationKind(asked[0].measurement.kind), asked, data_sheet(target).processors
    )
    measured = np.array([row.latency_ms for row in asked])
    cells = [
        cell(row.measurement.group, row.latency_ms, one)
        for row, one in zip(asked, found, strict=True)
    ]
    misses = np.abs(np.log(measured / [one.value for one in found]))
    return Scored(
        label=label,
        source=source,
        target=target,
        asked=len(asked),
        transferred=size(cells),
        own=of_logs(np.array([error for group in own for _, error in group])),
        forest=size_of(forest.fit_operations(known)(asked) / measured - 1),
        roofline=size_of(roofline.operations_ms(asked, target) / measured - 1),
        covered=coverage(cells),
        width=width(cells),
        added=float(np.median(_half_widths(found) - _half_widths(plain))),
        excess=(misses - _half_widths(plain)).tolist(),
    )


def _half_widths(found: Sequence[Estimate]) -> Array:
    return np.log([one.upper / one.value for one in found])


def section(inputs: Inputs) -> Section:
    """Returns the tables of operations and of deployments."""
    found = []
    for source, target in PAIRS:
        for kind, precision in KINDS:
            wanted = partial(_is, kind, precision)
            known, asked = (inputs.operations(name, wanted, _MOST) for name in (source, target))
            if min(len(known), len(asked)) >= _FEWEST:
                label = f"{kind} {precision}"
                found.append(scored(label, source, target, known, asked))
                inputs.say(f"{label} of {target} from {source}")
    head = (
        *("operations", "from", "to", "rows", "borrowed", "own fit", "random forest", "roofline"),
        *("covered", "width", "half-width that holds 90%"),
    )
    picture = plots.bars(
        {
            "mean error": {
                f"{one.label}\n{one.target}": {
                    "borrowed": one.transferred[0],
                    "own fit": one.own[0],
                    "random forest": one.forest[0],
                    "roofline": one.roofline[0],
                }
                for one in found
            }
        },
        "Operations of a device from another's",
        inputs.out / "devices.png",
        unit="%",
        log=True,
    )
    return Section(
        "One device from another",
        [
            "Each operation takes the time of the device that was measured, times the ratio of"
            " the two data sheets' times; *own fit* is what the device's own measurements give"
            " with whole groups left out. The random forest knows the other device's rows. Tables"
            " of the two devices are of other versions, in places of other engines (latent"
            " attention of A100 is TensorRT-LLM's, of H100 SGLang's): kernels differ with the"
            " device.",
            "",
            *plots.paragraphs(picture),
            *markdown(head, [_line(one) for one in found]),
            "",
            *_widths(found),
            "",
            *_deployments(inputs),
        ],
    )


def _is(kind: str, precision: str, row: Measurement) -> bool:
    return (row.kind, row.precision) == (kind, precision)


def _line(one: Scored) -> list[str]:
    return [
        one.label,
        one.source,
        one.target,
        f"{one.asked:,}",
        shown(one.transferred),
        shown(one.own),
        shown(one.forest),
        shown(one.roofline),
        f"{one.covered:.0%}",
        f"{one.width:.0%}",
        f"{one.needed:+.2f}",
    ]


def _widths(found: Sequence[Scored]) -> list[str]:
    """Returns what the half-width added for a borrowed device would have to be."""
    lines = []
    for source, target in PAIRS:
        own = [one for one in found if (one.source, one.target) == (source, target)]
        if own:
            # Each kind counts alike, however many of its rows there are.
            needed = _quantile([one.excess for one in own])
            lines.append(
                f"{target} from {source}: a half-width of {own[0].added:.2f} is added; over all"
                f" kinds {needed:.2f} would hold 90%, for the worst kind"
                f" {max(one.needed for one in own):.2f}."
            )
    if len(lines) > 1:
        lines.append(f"Over both: {_quantile([one.excess for one in found]):.2f}.")
    return lines


def _quantile(groups: Sequence[Sequence[float]]) -> float:
    values = np.concatenate(groups)
    weights = np.concatenate([np.full(len(group), 1 / len(group)) for group in groups])
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(share, CONFIDENCE)])


def _deployments(inputs: Inputs) -> list[str]:
    """Returns the table of deployments whose device is left out: kernels and coefficients."""
    source, target = PAIRS[-1]
    known = [row for row in inputs.deployments if row.device == source]
    asked = [row for row in inputs.deployments if row.device == target]
    engines = {row.engine for row in known}
    asked = [row for row in asked if row.engine in engines]
    if not known or not asked:
        return []
    sheets = data_sheet(source), data_sheet(target)
    coefficients = fit_engines(known, inputs.kernels)
    borrowed = {
        (target, engine): TransferredCostModel(model, *sheets)
        for (device, engine), model in inputs.kernels.items()
        if device == source
    }
    found = {
        "both borrowed": [answered(row, coefficients[row.engine], borrowed) for row in asked],
        "coefficients borrowed": [
            answered(row, coefficients[row.engine], inputs.kernels) for row in asked
        ],
    }
    inputs.say(f"deployments on {target} from {source}")
    rows = [
        [label, name, *columns(cells_of(answers, name))]
        for name in ("TPOT", "TTFT")
        for label, answers in found.items()
    ]
    return [
        f"Deployments on {target}: engines' coefficients fitted on those on {source} (the same"
        " architectures among them), beside kernels of either device:",
        "",
        *markdown(("kernels and coefficients", "figure", *COLUMNS), rows),
    ]
