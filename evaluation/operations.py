"""Errors of single operations on published tables, whole shapes left out.

The rows are aiconfigurator-core's (0.12.0, Apache-2.0); nothing of them is kept here.
"""

from __future__ import annotations

import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation import draws, plots
from evaluation.inputs import OPERATIONS_ENGINE
from evaluation.kernels import measurements
from evaluation.page import Section, markdown
from evaluation.peers import forest, roofline
from evaluation.rows import CONFIDENCE
from evaluation.scores import of_logs, shown, size_of
from model.conformal import coverage, half_width
from model.cost_model import FittedCostModel
from model.hardware import data_sheet
from model.kernel_fitting import fit_kernel, predictor
from model.operations import OperationKind
from model.published import fit_published
from model.side_by_side import usual_processes
from model.trees import load_format
from model.validation import FOLDS, held_out_errors
from reference import sources

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from evaluation.draws import Draw
    from evaluation.inputs import Inputs
    from model.laws import Array
    from model.measurement import Measurement
    from model.rows import Row
    from model.validation import Errors, Predictor

FEW = 500
_DRAWN, _CHOSEN = "drawn", "chosen"


class Case(NamedTuple):
    """One line of the table: which rows, and what is asked of their mean error in %.

    ``engine`` is whose tables they are of; what those lack is another's. ``lender`` is the
    device whose table few points lean on in a line of their own. ``launched`` rows were timed as
    the host launched them; no import takes them.
    """

    name: str
    device: str
    kind: str
    precision: str
    must: float
    must_few: float
    wanted: Callable[[Mapping[str, float]], bool] = lambda shape: True
    engine: str = OPERATIONS_ENGINE
    lender: str = ""
    launched: bool = False

    def holds(self, row: Measurement) -> bool:
        """Returns whether it is one of the rows."""
        same = row.kind == self.kind and row.precision == self.precision
        return same and self.wanted(row.shape)

    def rows(self, inputs: Inputs, device: str = "") -> list[Row]:
        """Returns the rows, of another device than the case's own where one is named."""
        return inputs.operations(
            device or self.device, self.holds, engine=self.engine, launched=self.launched
        )


def _large(shape: Mapping[str, float]) -> bool:
    return shape["n"] >= 512 and shape["k"] >= 512


def _large_blocks(shape: Mapping[str, float]) -> bool:
    return _large(shape) and shape["m"] >= _FEWEST_OF_ONE_KERNEL


def _plain(shape: Mapping[str, float]) -> bool:
    return shape["head_dim"] == 128 and "window" not in shape


def _decode(shape: Mapping[str, float]) -> bool:
    return _plain(shape) and shape["query_tokens"] == 1


def _prefill(shape: Mapping[str, float]) -> bool:
    return _plain(shape) and shape["query_tokens"] > 1


_KIN = "h200-sxm"
"""Runs the same kernels as H100."""
_FEWEST_OF_ONE_KERNEL = 32
"""Rows: for fewer vLLM multiplies FP8 in blocks by another library's kernel."""
CASES = (
    Case("linear bf16", "h100-sxm", "linear", "bf16", 3.5, 5.0, _large, lender=_KIN),
    Case("linear fp8 block", "h100-sxm", "linear", "fp8-block", 3.5, 5.0, _large, "trtllm"),
    Case("linear fp8 block", "h100-sxm", "linear", "fp8-block", 3.5, 5.0, _large, "sglang", _KIN),
    Case(
        "linear fp8 block, as launched",
        "h100-sxm",
        "linear",
        "fp8-block",
        3.5,
        5.0,
        _large_blocks,
        launched=True,
    ),
    Case("linear bf16", "a100-sxm", "linear", "bf16", 3.5, 5.0, _large, "trtllm"),
    Case("linear bf16", "a100-sxm", "linear", "bf16", 3.5, 5.0, _large),
    Case("attention decode", "h100-sxm", "attention", "bf16", 1.5, 3.0, _decode),
    Case("attention prefill", "h100-sxm", "attention", "bf16", 3.0, 5.0, _prefill),
    Case("experts fp8 block", "h100-sxm", "experts", "fp8-block", 7.0, 9.0),
    Case("latent attention bf16", "h100-sxm", "mla", "bf16", 3.0, 5.0),
)
"""Head counts are left out whole for attention, models for experts, weight shapes for linears."""
_MOST_IN_TURN = 64
"""Of more groups several are left out together."""
_SAME_WORK = (4, 16)
"""Rows that are the same work to a matrix kernel: less than a tile, beyond those for a few."""
_LAUNCH_ALONE = 0.1
"""Of the time that a row took: a kernel whose roofline is below it ends before its launch does."""
_SPEED_DEVICE = "h100-sxm"
_SPEEDS = ((100_000, 60.0), (1_000, 5.0))
"""Measurements of a device, and the seconds that fitting on them may take."""
_LARGEST_LOAD_MS = 200


class Scored(NamedTuple):
    """A line of the table before it is text: errors in %, the interval's share and width.

    ``how`` is how few points were come by, empty where all were taken; ``lender`` is the device
    whose table stands beside them, empty where none does.
    ``noise`` is that of the measurements themselves, None where it cannot be told.
    """

    case: Case
    points: int
    groups: int
    how: str
    lender: str
    ours: tuple[float, float, float]
    forest: tuple[float, float, float]
    roofline: tuple[float, float, float]
    covered: float
    width: float
    noise: float | None

    @property
    def label(self) -> str:
        """What a picture calls it."""
        few = f", {self.fitted_on}" if self.how else ""
        return f"{self.case.name}, {self.case.device}, {self.case.engine}{few}"

    @property
    def fitted_on(self) -> str:
        """How many points, how they were come by, and what stands beside them."""
        how = f" {self.how}" if self.how else ""
        lent = f" and {self.lender}" if self.lender else ""
        return f"{self.points:,}{how}{lent}"


def section(inputs: Inputs) -> Section:
    """Returns the table of all cases, and how long fitting takes."""
    found = []
    for case in CASES:
        rows = case.rows(inputs)
        found.append(scored(case, rows))
        if len(rows) > FEW:
            found.append(scored(case, rows, _DRAWN))
            if case.kind == OperationKind.LINEAR:
                found.append(scored(case, rows, _CHOSEN))
        if case.lender and len(rows) > FEW:
            found.append(scored(case, rows, _DRAWN, case.rows(inputs, case.lender)))
        inputs.say(f"{case.name} of {case.engine} on {case.device}: {len(rows):,} points")
    picture = plots.bars(
        {
            "mean error on shapes left out": {
                one.label: {
                    "ours": one.ours[0],
                    "random forest": one.forest[0],
                    "roofline": one.roofline[0],
                }
                for one in found
            }
        },
        "Operations, whole shapes left out",
        inputs.out / "operations.png",
        unit="%",
        log=True,
    )
    head = (
        *("operations", "device", "engine", "points", "groups", "error", "must (mean)"),
        *("reached", "random forest", "roofline", "covered", "width", "noise"),
    )
    lines = [
        "aiconfigurator-core's tables, fitted by what a device's own measurements are fitted by;"
        " whole groups left out (head counts of attention and models of experts in turn, weight"
        f" shapes of linears in {FOLDS} folds). The random forest is fitted on the same points of"
        f" the same groups. {FEW} points are drawn at random, or chosen as a campaign chooses its"
        " own: each for what it tells beyond those before it, no latency looked at before it is"
        " taken (linears alone: other folds are too many to choose for each). Points and a device"
        " are those beside the table of that device, which runs the same kernels and whose rows of"
        " the groups left out are left out, too (a daemon that has imported it fits so)."
        f" Noise is how far linears of {_SAME_WORK[0]} to {_SAME_WORK[1]} rows, which are the same"
        " work to a kernel, lie from the median of their weight shape: what nobody can predict."
        " vLLM's own FP8 in blocks is the table of the design's figures; no import takes it, as"
        " each of its products waited for the host that launched it. Its noise is that of products"
        " that end before their launch does (by the roofline within a tenth of their time) around"
        " the median of those of as many rows, whose launch was the same work.",
        "",
        *plots.paragraphs(picture),
        *markdown(head, [_line(one) for one in found]),
    ]
    if inputs.limit is None:
        inputs.say("fit times")
        speeds = (
            "fitting on",
            f"takes ({usual_processes()} processes)",
            "loading the result",
            "its size",
        )
        lines += [
            "",
            *markdown(speeds, fit_times(measurements(_SPEED_DEVICE, OPERATIONS_ENGINE, _MANY))),
        ]
    return Section("Single operations, whole shapes left out", lines)


_MANY = sources.DEFAULT_LIMIT


def scored(case: Case, rows: Sequence[Row], how: str = "", lent: Sequence[Row] = ()) -> Scored:
    """Returns the errors of a case, ours and the peers' on the same groups left out.

    Args:
        case: the rows' own.
        rows: all of them.
        how: :data:`FEW` of each fold's rows are come by that are fitted on; empty takes all.
        lent: rows of the case's lender that ours may lean on.
    """
    draw = _draw(case, how)
    groups = len({row.measurement.group for row in rows})
    folds = groups if groups <= _MOST_IN_TURN else FOLDS
    ours = _logs(held_out_errors(rows, _fit(case, draw, lent), folds))
    by_forest = _logs(held_out_errors(rows, draws.on(draw, forest.fit_operations), folds))
    by_roofline = np.log([row.latency_ms for row in rows]) - np.log(
        roofline.operations_ms(rows, case.device)
    )
    logs = np.concatenate(ours)
    return Scored(
        case=case,
        points=FEW if how else len(rows),
        groups=len(ours),
        how=how,
        lender=case.lender if lent else "",
        ours=of_logs(logs),
        forest=of_logs(np.concatenate(by_forest)),
        roofline=of_logs(by_roofline),
        covered=coverage([np.abs(group) for group in ours], CONFIDENCE),
        width=float(np.expm1(half_width(np.sort(np.abs(logs)), CONFIDENCE))),
        noise=_noise(case, rows, by_roofline),
    )


def _draw(case: Case, how: str) -> Draw:
    if how == _CHOSEN:
        return draws.chosen(OperationKind(case.kind), FEW, data_sheet(case.device).processors)
    return draws.at_random(FEW) if how else draws.every


def _fit(case: Case, draw: Draw, lent: Sequence[Row]) -> Callable[[list[Row]], Predictor]:
    kind, processors = OperationKind(case.kind), data_sheet(case.device).processors

    def fit(training: list[Row]) -> Predictor:
        lender = None
        if lent:
            known = {row.measurement.group for row in training}
            also = [row for row in lent if row.measurement.group in known]
            lender = fit_kernel(kind, also, data_sheet(case.lender).processors)
        return predictor(fit_kernel(kind, draw(training), processors, lender))

    return fit


def _noise(case: Case, rows: Sequence[Row], by_roofline: Array) -> float | None:
    if case.kind != OperationKind.LINEAR:
        return None
    if not case.launched:
        return noise(rows)
    reached = np.exp(-by_roofline)
    return launch_noise(
        [row for row, share in zip(rows, reached, strict=True) if share < _LAUNCH_ALONE]
    )


def noise(rows: Sequence[Row]) -> float | None:
    """Returns how far linears lie from others that are the same work, in % (mean).

    Args:
        rows: linears; None is returned where none has another that is the same work.
    """
    few, most = _SAME_WORK
    alike = [row for row in rows if few <= row.measurement.shape["m"] <= most]
    return _apart(alike, lambda row: row.measurement.group)


def launch_noise(rows: Sequence[Row]) -> float | None:
    """Returns how far rows lie from others whose host had the same to do, in % (mean).

    Args:
        rows: linears that ended before their launch did. Of as many rows one takes as long as
            another, whatever its weights. None is returned where none has another.
    """
    return _apart(rows, lambda row: row.measurement.shape["m"])


def _apart(rows: Sequence[Row], same: Callable[[Row], Hashable]) -> float | None:
    """Returns how far latencies lie from the median of those that are the same, in % (mean)."""
    times: dict[Hashable, list[float]] = defaultdict(list)
    for row in rows:
        times[same(row)].append(row.latency_ms)
    # A prediction of the median would be off by so much of what was measured.
    errors = [np.median(each) / np.array(each) - 1 for each in times.values() if len(each) > 1]
    return size_of(np.concatenate(errors))[0] if errors else None


def _logs(errors: Errors) -> list[Array]:
    return [np.array([error for _, error in group]) for group in errors]


def _line(one: Scored) -> list[str]:
    must = one.case.must_few if one.how else one.case.must
    return [
        one.case.name,
        one.case.device,
        one.case.engine,
        one.fitted_on,
        f"{one.groups}",
        shown(one.ours),
        f"{must:g}",
        "yes" if one.ours[0] <= must else "no",
        shown(one.forest),
        shown(one.roofline),
        f"{one.covered:.0%}",
        f"{one.width:.0%}",
        "" if one.noise is None else f"{one.noise:.1f}%",
    ]


def _fitted(rows: Sequence[Measurement]) -> tuple[float, bytes]:
    """Returns the seconds that a fit takes, its libraries loaded, and the cost model's bytes."""
    start = time.perf_counter()
    processors = data_sheet(_SPEED_DEVICE).processors
    blob = fit_published(rows, processors, processes=usual_processes()).to_bytes()
    return time.perf_counter() - start, blob


def fit_times(rows: Sequence[Measurement]) -> list[list[str]]:
    """Returns the lines on how long fitting and loading take.

    Args:
        rows: of one device, as many as the largest fit takes.
    """
    pick = np.random.default_rng(0)
    lines = []
    load_format()
    for count, limit in _SPEEDS:
        chosen = [rows[i] for i in pick.choice(len(rows), min(count, len(rows)), replace=False)]
        # As a daemon does, in a process of its own: what the tables before hold is no part of it.
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            took, blob = process.submit(_fitted, chosen).result()
        start = time.perf_counter()
        FittedCostModel.from_bytes(blob)
        loaded = 1e3 * (time.perf_counter() - start)
        lines.append(
            [
                f"{len(chosen):,} rows",
                f"{took:.1f} s (limit {limit:g})",
                f"{loaded:.0f} ms (limit {_LARGEST_LOAD_MS})",
                f"{len(blob) / 1e6:.1f} MB",
            ]
        )
    return lines
