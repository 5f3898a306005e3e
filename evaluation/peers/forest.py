"""A random forest on raw sizes, as Vidur predicts operations (Agrawal et al., MLSys 2024).

Sizes go in and milliseconds come out as they are: no physics, no logarithms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.ensemble import RandomForestRegressor

from model.dimensions import RANGES, dimensions_of
from model.hardware import data_sheet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from evaluation.rows import Row
    from model.laws import Array
    from model.rows import Row as OperationRow
    from model.validation import Predictor

_TREES = 100


def fit_operations(rows: Sequence[OperationRow]) -> Predictor:
    """Returns what predicts milliseconds of operations of the same kind, (rows,).

    Args:
        rows: to fit on, all of one kind.
    """
    forest = _forest(
        np.array([row.operations[0].shape for row in rows]),
        np.array([row.latency_ms for row in rows]),
    )
    return lambda asked: forest(np.array([row.operations[0].shape for row in asked]))


def deployments_ms(rows: Sequence[Row], name: str) -> Mapping[int, float]:
    """Returns a figure of each row as a forest on the other architectures' rows predicts it.

    Args:
        rows: of two architectures or more.
        name: of the figure; rows without it are left out.

    Returns:
        Milliseconds by the row's place.
    """
    found: dict[int, float] = {}
    held = [index for index, row in enumerate(rows) if name in row.figures]
    for model in dict.fromkeys(rows[index].model for index in held):
        others = [rows[index] for index in held if rows[index].model != model]
        asked = [index for index in held if rows[index].model == model]
        forest = _forest(
            np.array([_sizes(row) for row in others]),
            np.array([row.figures[name] for row in others]),
        )
        values = forest(np.array([_sizes(rows[index]) for index in asked]))
        found.update(zip(asked, values.tolist(), strict=True))
    return found


def _forest(sizes: Array, milliseconds: Array) -> Callable[[Array], Array]:
    forest = RandomForestRegressor(n_estimators=_TREES, random_state=0, n_jobs=-1)
    forest.fit(sizes, milliseconds)
    # Groups that are left out are asked one by one: threads would cost more than they save.
    forest.n_jobs = 1

    def predict(asked: Array) -> Array:
        found: Array = forest.predict(asked)
        return found

    return predict


_ENGINES = ("vllm", "sglang", "trtllm")


def _sizes(row: Row) -> list[float]:
    """Returns the numbers that tell a deployment and its load."""
    question = row.question
    workload, parallelism = question.workload, question.parallelism
    dimensions = dict(dimensions_of(question.architecture))
    sheet = data_sheet(row.device)
    return [
        *(float(str(dimensions[name])) for name in RANGES),
        question.precision.weight_bytes,
        question.kv_precision.weight_bytes,
        workload.input_tokens,
        workload.output_tokens,
        workload.concurrency,
        parallelism.tensor,
        parallelism.data,
        parallelism.expert,
        sheet.bandwidth_bytes_per_second,
        *(float(row.engine == name) for name in _ENGINES),
    ]
