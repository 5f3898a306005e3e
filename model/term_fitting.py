"""Fits what an engine adds to its kernels, from real layers, steps and requests.

The terms of ``model.overheads`` in one non-negative least squares on the relative error.
How far an engine that launches its kernels one by one works ahead of the device is chosen
by the errors of architectures that are held out.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import least_squares, nnls

from model.cost_model import EngineTerms
from model.estimate import Phase
from model.execution import FUSED_ENGINES
from model.kernels import kernel_of
from model.laws import KERNELS, sizes_of
from model.measurement import WHOLES
from model.overheads import GAP, LAUNCHES, SERIAL, TERMS, Overheads, columns
from model.validation import held_out_errors, score_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model.estimate import ValidationScore
    from model.kernels import AnyKernel
    from model.laws import Array
    from model.operations import OperationKind
    from model.precision import Precision
    from model.rows import Row
    from model.validation import Errors, Predictor

_CORRECTION_PRIOR = 3.0
"""Weight of "no correction", in architectures."""
_TERM_NAMES = tuple(name for names in TERMS.values() for name in names)
_KINDS = tuple(kind for kind, names in TERMS.items() for _ in names)
_LAUNCHES = np.array([name in LAUNCHES for name in _TERM_NAMES])
_SERIAL = np.array([kind in SERIAL for kind in _KINDS])
_GAP, _KERNEL = _TERM_NAMES.index(GAP), _TERM_NAMES.index(LAUNCHES[-1])
_POWERS = (2.0, 4.0, 8.0)
"""By which launches and kernels may overlap, beside 1."""
_FEWEST_ARCHITECTURES = 4
"""To be held out in turn, for launches to overlap."""
_CLEARLY = 0.9
"""Share of the sum's error below which another power is taken."""


class _Steps(NamedTuple):
    """Layers and steps as the fit reads them.

    Attributes:
        sizes: that the terms multiply, (rows, terms).
        kernels_ms: of all kernels of each, (rows,).
        measured_ms: (rows,).
    """

    sizes: Array
    kernels_ms: Array
    measured_ms: Array

    def parts_ms(self, terms: Array) -> tuple[Array, Array, Array]:
        """Returns what the host launches, the device computes, and neither overlaps, (rows,)."""
        launches, serial = self.sizes @ (terms * _LAUNCHES), self.sizes @ (terms * _SERIAL)
        return launches, self.kernels_ms + self.sizes @ terms - launches - serial, serial

    def predicted_ms(self, terms: Array, power: float) -> Array:
        """Returns what each takes by the law of ``model.overheads``, (rows,)."""
        launches, device, serial = self.parts_ms(terms)
        return serial + (launches**power + device**power) ** (1.0 / power)

    def slopes(self, terms: Array, power: float) -> Array:
        """Returns the derivatives of what is predicted by the terms, (rows, terms)."""
        launches, device, _ = self.parts_ms(terms)
        both = (launches**power + device**power) ** (1.0 / power)
        of_launches, of_device = (
            (part / both)[:, None] ** (power - 1.0) for part in (launches, device)
        )
        slopes = np.where(_LAUNCHES, of_launches, np.where(_SERIAL, 1.0, of_device))
        return np.asarray(slopes * self.sizes)


class _Terms(NamedTuple):
    """What was fitted: values of all terms, (terms,), the power, and each phase's correction."""

    values: Array
    power: float
    correction: dict[Phase, float]


class _Reader:
    """Makes steps of rows, of each of which the kernels are priced once.

    Args:
        rows: all that will be asked for.
        kernels: that price what ran in them.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        kernels: Mapping[tuple[OperationKind, Precision], AnyKernel],
    ) -> None:
        self._known = {id(row): (_sizes(row), _kernels_ms(row, kernels)) for row in rows}

    def steps(self, rows: Sequence[Row]) -> _Steps:
        """Returns the steps of rows, at least one."""
        sizes, kernels_ms = zip(*(self._known[id(row)] for row in rows), strict=True)
        measured = [row.latency_ms for row in rows]
        return _Steps(np.array(sizes), np.array(kernels_ms), np.array(measured))


def fit_terms(
    rows: Sequence[Row],
    kernels: Mapping[tuple[OperationKind, Precision], AnyKernel],
    precision: Precision,
    engine: str,
) -> tuple[EngineTerms, list[ValidationScore]]:
    """Returns the terms of an engine in a precision, and their errors.

    Args:
        rows: layers and steps of that engine and precision, some of each.
        kernels: that price what ran in them.
        precision: of weights and activations.
        engine: name.
    """
    reader = _Reader(rows, kernels)
    power, errors = _chosen(rows, reader, engine)
    fitted = _fit(rows, reader, power)
    scores: dict[Phase, tuple[float, ...]] = {}
    for phase in Phase:
        whole = [abs(e) for group in errors for r, e in group if r.measurement.kind == phase.value]
        if not whole:
            # A single architecture leaves nothing to hold out: its own misfit, doubled.
            steps = reader.steps([r for r in rows if r.measurement.kind == phase.value])
            misfit = np.log(steps.measured_ms / steps.predicted_ms(fitted.values, power))
            whole = (2 * np.abs(misfit)).tolist()
        scores[phase] = tuple(sorted(float(e) for e in whole))
    reports = []
    for kind in WHOLES:
        chosen = [[(r, e) for r, e in group if r.measurement.kind == kind] for group in errors]
        reports += score_of(kind, precision, chosen, engine)
    overheads = Overheads(dict(zip(_TERM_NAMES, fitted.values.tolist(), strict=True)), power)
    return EngineTerms(overheads=overheads, correction=fitted.correction, scores=scores), reports


def _chosen(rows: Sequence[Row], reader: _Reader, engine: str) -> tuple[float, Errors]:
    """Returns the power by which launches overlap, with the errors of what was held out."""

    def errors_of(power: float) -> Errors:
        return held_out_errors(rows, lambda training: _predictor(training, reader, power))

    power, errors = 1.0, errors_of(1.0)
    if engine in FUSED_ENGINES or len(errors) < _FEWEST_ARCHITECTURES:
        return power, errors  # graphs are launched as a whole; of too few nothing can be told
    least = _CLEARLY * _size(errors)
    for candidate in _POWERS:
        found = errors_of(candidate)
        if (size := _size(found)) < least:
            power, errors, least = candidate, found, size
    return power, errors


def _size(errors: Errors) -> float:
    return float(np.mean([abs(error) for group in errors for _, error in group]))


def _predictor(training: Sequence[Row], reader: _Reader, power: float) -> Predictor:
    fitted = _fit(training, reader, power)

    def predict(held: Sequence[Row]) -> Array:
        factors = np.exp([fitted.correction[row.phase] for row in held])
        return reader.steps(held).predicted_ms(fitted.values, power) * factors

    return predict


def _fit(rows: Sequence[Row], reader: _Reader, power: float) -> _Terms:
    """Fits all terms at once, and what they leave over of each phase."""
    steps = reader.steps(rows)
    values = _sum_terms(steps) if power == 1.0 else _overlapping_terms(steps, power)
    logs = np.log(steps.measured_ms / steps.predicted_ms(values, power)).tolist()
    left = list(zip(rows, logs, strict=True))
    return _Terms(values, power, {phase: _correction(left, phase) for phase in Phase})


def _sum_terms(steps: _Steps) -> Array:
    """Returns the terms, (terms,), where nothing overlaps: by non-negative least squares."""
    scaled = steps.sizes / steps.measured_ms[:, None]
    scaled[:, _GAP] = 0.0
    scale = np.where(scaled.any(axis=0), np.abs(scaled).max(axis=0), 1.0)
    target = np.maximum(steps.measured_ms - steps.kernels_ms, 0.0) / steps.measured_ms
    found, _ = nnls(scaled / scale, target)
    return np.asarray(found / scale)


def _overlapping_terms(steps: _Steps, power: float) -> Array:
    """Returns the terms, (terms,), where launches and kernels overlap."""
    start = _sum_terms(steps)
    # A start without launches would stay there. What none of the steps is shorter than is close.
    launched = steps.sizes[:, _KERNEL]
    start[_LAUNCHES] = 0.0
    start[_KERNEL] = np.min(steps.measured_ms[launched > 0] / launched[launched > 0])
    found = least_squares(
        lambda terms: steps.predicted_ms(terms, power) / steps.measured_ms - 1.0,
        start,
        lambda terms: steps.slopes(terms, power) / steps.measured_ms[:, None],
        bounds=(0.0, np.inf),
        x_scale="jac",
    )
    return np.asarray(found.x)


def _correction(left: Sequence[tuple[Row, float]], phase: Phase) -> float:
    """Returns the log ratio that steps of the phase share, shrunk to none by few architectures.

    Args:
        left: rows, each with log(measured / predicted).
        phase: whose whole steps count.
    """
    by_group: dict[str, list[float]] = defaultdict(list)
    for row, ratio in left:
        if row.measurement.kind == phase.value:
            by_group[row.measurement.group].append(ratio)
    if not by_group:
        return 0.0
    count = len(by_group)
    middle = float(np.median([np.mean(ratios) for ratios in by_group.values()]))
    return middle * count / (count + _CORRECTION_PRIOR)


def _sizes(row: Row) -> Array:
    sizes = np.zeros(len(_TERM_NAMES))
    for operation in row.operations:
        if operation.kind in TERMS:
            names = TERMS[operation.kind]
            for name, size in zip(names, columns(operation), strict=True):
                sizes[_TERM_NAMES.index(name)] += size * operation.count
    return sizes


def _kernels_ms(row: Row, kernels: Mapping[tuple[OperationKind, Precision], AnyKernel]) -> float:
    total = 0.0
    for kind in KERNELS:
        chosen = [o for o in row.operations if o.kind is kind]
        if chosen:
            kernel = kernel_of(kernels, kind, chosen[0].precision)
            latency = kernel.latency_ms(sizes_of(kind, chosen))
            total += float(latency @ np.array([o.count for o in chosen]))
    return total
