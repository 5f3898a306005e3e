"""Corrects predictions by few rows that were measured end to end.

TTFT and TPOT apart, log(measured / predicted) is a Gaussian process over the logarithms of
what a deployment is asked and how it is spread: a constant and a local part (Matern 3/2),
each of which is in part common to all deployments and in part their own (an engine's, a
model's under an engine, a single deployment's). So a factor is learnt from the first rows,
how it changes with the load from some more, and far from all rows the correction fades to
what they have in common while the interval widens. The hyper-parameters are fixed, which is
what lets four rows do: rows of one deployment could not tell them. ``tokenpace evaluate``
scores them, and others in their place.

Rows that all others contradict (a queue that nobody mentioned) weigh less the further off
they are: their noise is raised, twice over, until they lie within a few deviations.

Intervals are conformal: leave-one-out residuals over their predicted deviation, among as many
as ``_PSEUDO_ROWS`` ideal ones, so that few lucky rows promise nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from model.conformal import half_width
from model.estimate import Phase
from model.gaussian_process import GaussianProcess
from model.precision import Precision
from model.steps import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.architecture import Architecture
    from model.inference import Inference
    from model.laws import Array
    from model.steps import Question

FEATURES = (
    "load",
    "input",
    "output",
    "tensor",
    "data",
    "expert",
    "pipeline",
    "weight_bytes",
    "cached",
    "prefills",
)
"""What the local part changes with: requests a data-parallel rank, lengths, parallel sizes,
bytes of a weight, prompt over what is new of it, and the share of a decode step that others'
prefills take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """Hyper-parameters.

    Attributes:
        constant, local: variance of the parts: common to all rows, and what an engine, a model
            under an engine and a deployment (model, engine and device) have of their own.
        noise: standard deviation of a measurement's logarithm around its deployment's law.
        trusted: deviations that a row may lie off what all others say, and weigh in full.
        octaves: over how many octaves of each feature the local part changes.
    """

    constant: tuple[float, float, float, float] = (0.0125, 0.0125, 0.0125, 0.05)
    local: tuple[float, float, float, float] = (0.025, 0.025, 0.04, 0.06)
    noise: float = 0.025
    trusted: float = 3.0
    octaves: tuple[float, ...] = (5.0, 7.5, 15.0, 5.0, 5.0, 5.0, 5.0, 2.5, 2.5, 5.0)


LAW = Law()
_REWEIGHTINGS = 2
_BASE_DEVIATION = 0.42
"""Deviation of a prediction's logarithm that those variances were chosen for."""
_LEAST_SHARE = 0.1
"""Load by prefills below which it plays no part."""
_PSEUDO_ROWS = 10
_FOLDS = 8
"""Of as many rows, or fewer, each is held out alone."""
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Whose law a row follows.

    Attributes:
        engine, device: their names.
        model: the dimensions; ``deployment_of`` leaves out what a checkpoint is called and
            which formats it is stored in.
    """

    engine: str
    device: str
    model: Architecture


def deployment_of(question: Question, device: str) -> Deployment:
    """Returns whose law a question's answer follows: R1's is V3's, both on one engine and device.

    Formats are left out, the experts' own, too: a re-quantised checkpoint is the same model.

    Args:
        question: what is asked.
        device: its name.
    """
    model = replace(
        question.architecture,
        name="",
        model_type="",
        source="",
        stored_precision=Precision.BF16,
        stored_experts=None,
    )
    return Deployment(engine=question.engine, device=device, model=model)


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where a figure is corrected: a question, answered without correction.

    Attributes:
        deployment: whose law it follows.
        question: what was asked.
        inference: the answer, with its breakdown.
    """

    deployment: Deployment
    question: Question
    inference: Inference

    @cached_property
    def features(self) -> tuple[float, ...]:
        """Logarithms to the base 2 of ``FEATURES``, in their order."""
        workload, parallelism = self.question.workload, self.question.parallelism
        load = max(1.0, (workload.concurrency or workload.batch_size) / parallelism.data)
        output = max(1, workload.output_tokens)
        prefill, decode = (self._phase_ms(phase) for phase in (Phase.PREFILL, Phase.DECODE))
        # Time that others' prefills take from a decode step, over the step.
        stolen = (load - 1) / output * prefill / decode if workload.concurrency and decode else 0.0
        sizes = {
            "load": load,
            "input": workload.input_tokens,
            "output": output,
            "tensor": parallelism.tensor,
            "data": parallelism.data,
            "expert": parallelism.expert,
            "pipeline": parallelism.pipeline,
            "weight_bytes": self.question.precision.weight_bytes,
            "cached": workload.input_tokens
            / (workload.input_tokens - workload.cached_prefix_tokens),
            "prefills": _LEAST_SHARE + stolen,
        }
        return tuple(math.log2(sizes[name]) for name in FEATURES)

    def _phase_ms(self, phase: Phase) -> float:
        return sum(row.latency_ms for row in self.inference.breakdown if row.phase is phase)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A figure that was measured.

    Attributes:
        point: where.
        predicted: what was predicted there without correction, in milliseconds.
        measured: milliseconds.
    """

    point: Point
    predicted: Estimate
    measured: float


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Rows as predicted from all others.

    Attributes:
        residuals: log(measured / predicted), (rows,).
        scores: absolute residuals over their predicted deviation, (rows,).
    """

    residuals: Array
    scores: Array


class Correction:
    """Correction of one figure.

    Args:
        rows: what was measured, at least one.
        confidence: of the intervals that the rows were predicted with.
        law: hyper-parameters.
    """

    def __init__(self, rows: Sequence[Observed], confidence: float, law: Law = LAW) -> None:
        self._law = law
        self._octaves = np.array(law.octaves)
        points = [row.point for row in rows]
        self._labels = _Labels([point.deployment for point in points])
        self._features = np.array([point.features for point in points]) / self._octaves
        self._amplitude = _amplitude(rows, confidence)
        self._noise = law.noise * self._amplitude
        targets = np.log([row.measured / row.predicted.value for row in rows])
        covariance = self._covariance(self._features, self._labels.codes)
        noise = self._doubted(covariance, targets)
        self._process = GaussianProcess(covariance, noise, targets)
        residuals, variances = self._process.left_out()
        deviations = np.sqrt(np.maximum(variances - noise**2, 0.0) + self._noise**2)
        self.left_out = LeftOut(residuals, np.abs(residuals) / deviations)
        self._held_out = (
            self._held_out_scores(covariance, targets) if len(rows) > 1 else self.left_out.scores
        )
        self._scores = np.sort(np.concatenate([self._held_out, _PSEUDO_SCORES]))

    def corrected(self, point: Point, predicted: Estimate, confidence: float) -> Estimate:
        """Returns a figure with its correction.

        Args:
            point: where.
            predicted: the figure without correction.
            confidence: probability that the interval holds, 0.5 to 0.999.
        """
        features = np.array([point.features]) / self._octaves
        cross = self._covariance(features, self._labels.of([point.deployment]))
        own = np.array([self._amplitude**2 * (sum(self._law.constant) + sum(self._law.local))])
        shift = float(self._process.mean(cross)[0])
        deviation = math.hypot(float(self._process.deviation(cross, own)[0]), self._noise)
        width = half_width(self._scores, confidence) * deviation
        value = predicted.value * math.exp(shift)
        return Estimate(value, value * math.exp(-width), value * math.exp(width))

    def coverage(self, confidence: float) -> float:
        """Returns the share of rows inside the interval that all others give them."""
        scores = self._held_out
        inside = 0
        for index, score in enumerate(scores):
            others = np.sort(np.concatenate([np.delete(scores, index), _PSEUDO_SCORES]))
            inside += score <= half_width(others, confidence)
        return inside / len(scores)

    def _doubted(self, covariance: Array, targets: Array) -> Array:
        """Returns the noise of each row, more where it is far off what all others say."""
        noise = np.full(len(targets), self._noise)
        for _ in range(_REWEIGHTINGS):
            residuals, variances = GaussianProcess(covariance, noise, targets).left_out()
            excess = np.abs(residuals) - self._law.trusted * np.sqrt(variances)
            noise = np.hypot(noise, np.maximum(excess, 0.0))
        return noise

    def _held_out_scores(self, covariance: Array, targets: Array) -> Array:
        """Returns the scores of rows as those of other folds alone predict them.

        Left out of the closed form, a row still tells which of its neighbours to doubt, which
        one that is yet to come does not.
        """
        order = np.random.default_rng(0).permutation(len(targets))
        scores = np.empty(len(targets))
        for first in range(min(_FOLDS, len(targets))):
            fold = order[first::_FOLDS]
            rest = np.setdiff1d(order, fold)
            among = covariance[np.ix_(rest, rest)]
            noise = self._doubted(among, targets[rest])
            process = GaussianProcess(among, noise, targets[rest])
            cross = covariance[np.ix_(fold, rest)]
            deviations = np.hypot(process.deviation(cross, covariance[fold, fold]), self._noise)
            scores[fold] = np.abs(targets[fold] - process.mean(cross)) / deviations
        return scores

    def _covariance(self, features: Array, codes: Array) -> Array:
        """Returns the covariance of points with the rows, (points, rows)."""
        engine, device, model = (
            codes[:, None, column] == self._labels.codes[None, :, column] for column in range(3)
        )
        shared = (engine, engine & model, engine & model & device)
        constant, local = (
            parts[0] + sum(part * match for part, match in zip(parts[1:], shared, strict=True))
            for parts in (self._law.constant, self._law.local)
        )
        distances = math.sqrt(3) * _distances(features, self._features)
        found: Array = self._amplitude**2 * (
            constant + local * (1 + distances) * np.exp(-distances)
        )
        return found


def _distances(first: Array, second: Array) -> Array:
    """Returns Euclidean distances, (first, second)."""
    squares = np.sum(first**2, axis=1)[:, None] + np.sum(second**2, axis=1)[None]
    found: Array = np.sqrt(np.maximum(squares - 2 * first @ second.T, 0.0))
    return found


class _Labels:
    """Numbers in place of engines, devices and models: comparing dimensions takes long.

    Args:
        deployments: of the rows; what others have that these have not is -1.
    """

    def __init__(self, deployments: Sequence[Deployment]) -> None:
        self._known: tuple[dict[object, int], ...] = ({}, {}, {})
        for it in deployments:
            for known, label in zip(self._known, (it.engine, it.device, it.model), strict=True):
                known.setdefault(label, len(known))
        self.codes = self.of(deployments)

    def of(self, deployments: Sequence[Deployment]) -> Array:
        """Returns the numbers, (deployments, 3)."""
        return np.array(
            [
                [
                    known.get(label, -1)
                    for known, label in zip(
                        self._known, (it.engine, it.device, it.model), strict=True
                    )
                ]
                for it in deployments
            ]
        )


def _amplitude(rows: Sequence[Observed], confidence: float) -> float:
    """Returns how uncertain the predictions say they are, over what the variances stand for.

    What was measured on the device itself is trusted more than physics alone.
    """
    quantile = _NORMAL.inv_cdf(0.5 + confidence / 2)
    widths = [math.log(row.predicted.upper / row.predicted.lower) / 2 for row in rows]
    return max(_LEAST_AMPLITUDE, float(np.median(widths)) / quantile / _BASE_DEVIATION)


_LEAST_AMPLITUDE = 0.1
_PSEUDO_SCORES = np.array(
    [_NORMAL.inv_cdf(0.5 + 0.5 * (rank + 0.5) / _PSEUDO_ROWS) for rank in range(_PSEUDO_ROWS)]
)
"""Absolute scores that rows of the very law would have."""
