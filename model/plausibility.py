"""What cannot be right, or looks wrong, with rows that were measured end to end.

Weights and keys that a decode step reads take at least their bytes over the device's
bandwidth; a prompt's multiplications at least their FLOPs over its peak. What is measured
faster was counted otherwise (tokens by chunks, a prompt that was cached already, drafts of
speculative decoding, fewer sequences at one time than were said), or carries a wrong label.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.estimate import Phase
from model.operations import OperationKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from model.calibration import LeftOut, Point
    from model.hardware import DataSheet
    from model.inference import OperationCost

_TOLERANCE = 0.8
"""Share of a bound that a measurement may take: data sheets and counts of bytes are no exacter."""
_SLOW = 5.0
"""Measured over predicted, beyond which waiting is likelier than work."""
_CONTRADICTION = {"tpot": 1.3, "ttft": 2.0}
"""Largest over smallest of one setting. Repeats of the deployments in ``evaluation/deployments.py``
differ by 0.3% in TPOT and 1.7% in TTFT at the median."""
_OUTLIER = 4.0
"""Predicted deviations that a row may lie off what all others say of it."""
_FEWEST = 4
_READ = frozenset(
    {
        OperationKind.LINEAR,
        OperationKind.LINEAR_TRANSPOSED,
        OperationKind.LINEAR_PER_TENSOR,
        OperationKind.BATCHED_LINEAR,
        OperationKind.ATTENTION,
        OperationKind.STATIC_ATTENTION,
        OperationKind.PAGED_ATTENTION,
        OperationKind.MLA,
        OperationKind.EXPERTS,
    }
)
_NAMES = {"ttft": "TTFT", "tpot": "TPOT"}


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that looks wrong.

    Attributes:
        code: stable name.
        text: what it means and the remedy.
        rows: by their place, counted from 0.
    """

    code: str
    text: str
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A row as it is judged.

    Attributes:
        point: the deployment and its load.
        figures: milliseconds of "ttft" and "tpot", those that were measured.
        sheet: of its device; None where its rates are not known.
        engine_version: empty where not known.
    """

    point: Point
    figures: Mapping[str, float]
    sheet: DataSheet | None
    engine_version: str = ""


def impossible(rows: Sequence[Measured]) -> list[Remark]:
    """Returns what cannot be right: at most one remark of each bound, told by the worst row."""
    slow_enough = (
        _beyond(
            "FASTER_THAN_BANDWIDTH",
            [(row.figures.get("tpot"), _reading_ms(row)) for row in rows],
            "a TPOT of {measured:.3g} ms is less than the {bound:.3g} ms in which the device reads"
            " weights and KV cache of one step: tokens were counted in chunks, fewer sequences ran"
            " together, or a label is wrong",
        ),
        _beyond(
            "FASTER_THAN_COMPUTE",
            [(row.figures.get("ttft"), _multiplying_ms(row)) for row in rows],
            "a TTFT of {measured:.3g} ms is less than the {bound:.3g} ms in which the device can"
            " process such a prompt: a warm prefix cache is the likely reason; turn it off, or say"
            " cached_prefix_tokens",
        ),
    )
    return [remark for found in slow_enough for remark in found] + _contradictions(rows)


def doubtful(rows: Sequence[Measured], left_out: Mapping[str, LeftOut]) -> list[Remark]:
    """Returns what looks wrong, and may be right.

    Args:
        rows: as judged.
        left_out: of the figures "ttft" and "tpot", its rows in the order of those that hold it.
    """
    found = list(_slow(rows))
    saturated = tuple(
        index
        for index, row in enumerate(rows)
        if any(notice.code == "SATURATED" for notice in row.point.inference.notices)
    )
    if saturated:
        text = "more requests are in flight than memory lets run together: TTFT holds their wait"
        found.append(Remark("SATURATED", text, saturated))
    too_large = tuple(i for i, row in enumerate(rows) if row.point.inference.memory.fits is False)
    if too_large:
        text = "memory has no room for these; are device, precision and parallel sizes right?"
        found.append(Remark("DOES_NOT_FIT", text, too_large))
    for figure, errors in left_out.items():
        holding = [index for index, row in enumerate(rows) if figure in row.figures]
        far = tuple(
            index for index, score in zip(holding, errors.scores, strict=True) if score > _OUTLIER
        )
        if far:
            text = f"{_NAMES[figure]} is far from what all other rows say; look at these again"
            found.append(Remark("OUTLIER", text, far))
    versions: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        versions[row.point.deployment.engine].add(row.engine_version or "unknown")
    for engine, named in versions.items():
        if len(named) > 1:
            text = (
                f"{engine} in versions {', '.join(sorted(named))}: another version is another"
                " engine; make a calibration for each"
            )
            of_engine = [i for i, r in enumerate(rows) if r.point.deployment.engine == engine]
            found.append(Remark("ENGINE_VERSIONS_MIXED", text, tuple(of_engine)))
    if len(rows) < _FEWEST:
        text = f"{len(rows)} rows tell little; {_FEWEST} to 16 at different loads tell more"
        found.append(Remark("FEW_ROWS", text, tuple(range(len(rows)))))
    return found


def _beyond(code: str, cases: Sequence[tuple[float | None, float]], text: str) -> list[Remark]:
    """Returns the remark on measurements below their bounds, both in milliseconds."""
    found = [
        (measured / bound, index)
        for index, (measured, bound) in enumerate(cases)
        if measured is not None and measured < _TOLERANCE * bound
    ]
    if not found:
        return []
    measured, bound = cases[min(found)[1]]
    told = text.format(measured=measured, bound=bound)
    return [Remark(code, told, tuple(index for _, index in found))]


def _reading_ms(row: Measured) -> float:
    """Returns the time to read what a decode step reads; 0 where caches may hold it."""
    if row.sheet is None:
        return 0.0
    traffic = _sum(row.point.inference.breakdown, Phase.DECODE, "bytes")
    if traffic < 2 * row.sheet.last_level_cache_bytes:
        return 0.0
    return traffic / row.sheet.bandwidth_bytes_per_second * 1e3


def _multiplying_ms(row: Measured) -> float:
    """Returns the time of a prompt's multiplications, pipeline stages taken as all at work."""
    if row.sheet is None:
        return 0.0
    question = row.point.question
    rate = row.sheet.effective_peak(question.precision) * question.parallelism.pipeline
    return _sum(row.point.inference.breakdown, Phase.PREFILL, "flops") / rate * 1e3


def _sum(breakdown: Iterable[OperationCost], phase: Phase, size: str) -> float:
    found: list[float] = [
        getattr(o, size) for o in breakdown if o.phase is phase and o.kind in _READ
    ]
    return sum(found)


def _contradictions(rows: Sequence[Measured]) -> list[Remark]:
    settings: dict[object, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        settings[row.point.deployment, row.point.question, row.engine_version].append(index)
    found = []
    for indices in settings.values():
        for figure, factor in _CONTRADICTION.items():
            values = {i: rows[i].figures[figure] for i in indices if figure in rows[i].figures}
            if values and max(values.values()) > factor * min(values.values()):
                text = (
                    f"{_NAMES[figure]} of one setting is {min(values.values()):.3g} ms and"
                    f" {max(values.values()):.3g} ms, more than {factor:g} times as much: something"
                    " that the rows do not say differs"
                )
                found.append(Remark("CONTRADICTION", text, tuple(values)))
    return found


def _slow(rows: Sequence[Measured]) -> Iterable[Remark]:
    for figure, name in _NAMES.items():
        far = []
        for index, row in enumerate(rows):
            answer = row.point.inference
            predicted = answer.ttft_ms if figure == "ttft" else answer.tpot_ms
            measured = row.figures.get(figure)
            if measured and predicted is not None and measured > _SLOW * predicted.value:
                far.append(index)
        if far:
            text = (
                f"{name} is over {_SLOW:g} times the prediction: requests were queueing, a label"
                " is wrong, or the engine did other work"
            )
            yield Remark("MUCH_SLOWER_THAN_PREDICTED", text, tuple(far))
