"""The splits of the benchmark of few rows, on rows made from a known engine."""

from dataclasses import replace

import pytest

from evaluation.few_rows import (
    DRAWS,
    calibrated,
    cells,
    few_rows,
    other_laws,
    random_folds,
    ridge,
    unchanged,
)
from evaluation.rows import Row, answered, predicted
from evaluation.scores import size
from model.calibration import FEATURES, LAW
from model.engines import engine
from model.precision import Precision
from model.presets import preset
from model.steps import Question
from model.workload import Parallelism, Workload

TRUTH = replace(engine("vllm"), bandwidth=0.6, compute=0.4, step_s=3e-3)
LOADS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)


def row(model, load):
    question = Question(
        architecture=preset(model),
        workload=Workload(input_tokens=1024, output_tokens=256, concurrency=load),
        parallelism=Parallelism(tensor=2),
        precision=Precision.BF16,
        kv_precision=Precision.BF16,
        engine="vllm",
    )
    bare = Row(
        engine="vllm",
        model=model,
        device="h100-sxm",
        question=question,
        figures={"TTFT": 1.0, "TPOT": 1.0},
    )
    figures = {name: value for name, (value, _, _) in predicted(bare, TRUTH).items()}
    return replace(bare, figures=figures)


@pytest.fixture(scope="module")
def rows():
    found = [row("llama-3.1-8b", load) for load in LOADS]
    found += [row("qwen3-32b", load) for load in LOADS[:9]]
    found += [row("gpt2-medium", load) for load in LOADS[:3]]
    return [answered(it, engine("vllm")) for it in found]


def test_each_draw_scores_the_rows_that_were_not_given(rows):
    """10 and 9 rows of two deployments; the third has no more than are given."""
    seen = []

    def spy(given, others):
        assert not {id(it) for it in given} & {id(it) for it in others}
        seen.append((len(given), len(others)))
        return unchanged(given, others)

    found = few_rows(rows, "TPOT", 8, spy)
    assert seen == [(8, 2)] * DRAWS + [(8, 1)] * DRAWS
    assert len(found) == 3 * DRAWS


def test_each_row_is_scored_once_in_folds(rows):
    seen = []

    def spy(given, others):
        assert len(given) + len(others) == len(rows)
        seen.extend(id(it) for it in others)
        return unchanged(given, others)

    random_folds(rows, "TTFT", spy)
    assert sorted(seen) == sorted(id(it.figures["TTFT"]) for it in rows)


@pytest.mark.parametrize("correct", [calibrated, ridge])
@pytest.mark.parametrize("name", ["TPOT", "TTFT"])
def test_eight_rows_of_a_slower_engine_bring_the_error_down(rows, correct, name):
    before = size(cells((), rows[:19], name, unchanged))
    after = size(few_rows(rows, name, 8, correct))
    assert after[1] < 0.3 * before[1]


def test_laws_differ_in_one_hyper_parameter_each():
    laws = list(other_laws())
    assert len(set(laws)) == len(laws) == 2 * (4 + len(FEATURES))
    assert LAW not in laws
