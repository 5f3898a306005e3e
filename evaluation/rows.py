"""Deployments that were measured end to end, and what Predict says of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from evaluation.scores import cell
from model.analytical import AnalyticalCostModel
from model.calibration import Observed, Point, deployment_of
from model.composite import CompositeCostModel
from model.estimate import MeasuredCostModel
from model.hardware import data_sheet
from model.inference import predict
from model.steps import Estimate

if TYPE_CHECKING:
    from evaluation.scores import Cell
    from model.engines import Engine
    from model.inference import Inference
    from model.laws import Array
    from model.steps import Question

CONFIDENCE = 0.9


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
    def logs(self) -> Array:
        """Log milliseconds, (figures,)."""
        return np.log(list(self.figures.values()))

    @property
    def deployment(self) -> tuple[str, str, str]:
        """One architecture on one system and engine."""
        return self.model, self.device, self.engine


Kernels = Mapping[tuple[str, str], MeasuredCostModel]
"""Fitted cost models of kernels by device and engine."""
NO_KERNELS: Kernels = MappingProxyType({})
"""Physics alone."""


@dataclass(frozen=True)
class Answered:
    """A row with its prediction, figure by figure of those that were measured."""

    row: Row
    inference: Inference
    figures: Mapping[str, Observed]

    def cell(self, name: str) -> Cell:
        """Returns what the prediction of a figure comes to."""
        found = self.figures[name]
        return cell(self.row.model, found.measured, found.predicted)


def cells_of(answers: Iterable[Answered], name: str) -> list[Cell]:
    """Returns what the predictions of a figure come to, of those rows that have it."""
    return [one.cell(name) for one in answers if name in one.figures]


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


def predicted(row: Row, coefficients: Engine, kernels: Kernels = NO_KERNELS) -> dict[str, Estimate]:
    """Returns milliseconds of each of the row's figures, and the ends of their interval."""
    return _figures(row, predict(row.question, cost_model_of(row, coefficients, kernels)))


def answered(row: Row, coefficients: Engine, kernels: Kernels = NO_KERNELS) -> Answered:
    """Returns the row as the coefficients, beside measured kernels, predict it."""
    question = row.question
    cost_model = cost_model_of(row, coefficients, kernels)
    inference = predict(question, cost_model, with_breakdown=True)
    point = Point(
        deployment=deployment_of(question, row.device), question=question, inference=inference
    )
    figures = {
        name: Observed(point=point, predicted=found, measured=row.figures[name])
        for name, found in _figures(row, inference).items()
    }
    return Answered(row, inference, figures)


def _figures(row: Row, inference: Inference) -> dict[str, Estimate]:
    tokens = max(1, row.question.workload.output_tokens)
    known = {
        "TTFT": inference.ttft_ms,
        "TPOT": inference.tpot_ms,
        "latency a token": Estimate(*(end / tokens for end in inference.request_latency_ms)),
    }
    return {name: found for name in row.figures if (found := known[name]) is not None}
