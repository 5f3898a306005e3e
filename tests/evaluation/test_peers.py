"""Peers on deployments: what they are given, and what they must not know."""

from dataclasses import replace

import pytest

from evaluation.peers import aiconfigurator, forest, roofline
from evaluation.peers.asked import AICONFIGURATOR, FOREST, ROOFLINE, ask
from evaluation.regimes import Regime, regime_of, waiting_share
from evaluation.rows import Row, answered
from model.engines import engine
from model.precision import Precision
from model.presets import preset
from model.steps import Question
from model.workload import Parallelism, Workload
from tokenpace.benchmark_files.deployments import PRESETS


def row(model="llama-3.1-8b", *, concurrency=8, tokens=1024, tensor=1, **figures):
    return Row(
        engine="vllm",
        model=model,
        device="h100-sxm",
        question=Question(
            architecture=preset(model),
            workload=Workload(input_tokens=tokens, output_tokens=256, concurrency=concurrency),
            parallelism=Parallelism(tensor=tensor),
            precision=Precision.BF16,
            kv_precision=Precision.BF16,
            engine="vllm",
        ),
        figures=figures or {"TTFT": 100.0, "TPOT": 10.0},
    )


def test_a_forest_never_saw_the_architecture():
    """All of one model take 10 ms and all of another 1,000: each is told the other's."""
    rows = [row(concurrency=load, TPOT=10.0) for load in (1, 2, 4)]
    rows += [row("qwen3-32b", concurrency=load, TPOT=1000.0) for load in (1, 2, 4)]
    rows += [row("qwen3-32b", TTFT=5.0)]
    found = forest.deployments_ms(rows, "TPOT")
    assert found == {0: 1000.0, 1: 1000.0, 2: 1000.0, 3: 10.0, 4: 10.0, 5: 10.0}


@pytest.mark.parametrize(
    "other",
    [
        row("qwen3-32b"),
        row(concurrency=9),
        row(tokens=2048),
        row(tensor=2),
        replace(row(), device="h200-sxm"),
        replace(row(), engine="sglang"),
        replace(row(), question=replace(row().question, precision=Precision.FP8)),
        replace(row(), question=replace(row().question, kv_precision=Precision.FP8)),
    ],
)
def test_a_forest_is_told_all_that_tells_deployments_apart(other):
    assert forest._sizes(other) != forest._sizes(row())


def test_a_roofline_is_faster_than_an_engine_and_no_faster_than_the_weights_can_be_read():
    it = row(concurrency=1)
    found = roofline.deployment_ms(it)
    ours = answered(it, engine("vllm")).figures
    assert found["TPOT"].value < ours["TPOT"].predicted.value
    assert found["TTFT"].value < ours["TTFT"].predicted.value
    read_ms = 2 * (preset("llama-3.1-8b").parameter_count() - 128_256 * 4096) / 3.35e12 * 1e3
    assert read_ms < found["TPOT"].value < 1.3 * read_ms


def test_every_deployment_has_a_configuration_in_the_package():
    assert set(PRESETS.values()) <= set(aiconfigurator.CHECKPOINTS)


def test_formats_go_from_the_questions_own_to_the_checkpoints():
    question = replace(row().question, precision=Precision.FP8, kv_precision=Precision.FP8)
    assert aiconfigurator.formats_of(question) == [
        ("fp8", "fp8", ""),
        ("fp8", "bfloat16", "bfloat16"),
        ("", "fp8", ""),
        ("", "bfloat16", "bfloat16"),
    ]
    packed = preset("gpt-oss-120b").stored_experts
    question = replace(row().question, stored_experts=packed)
    assert aiconfigurator.formats_of(question)[0].weights == ""


@pytest.mark.usefixtures("package")
def test_peers_answer_the_same_rows():
    rows = [row(concurrency=1), row(concurrency=32), row("qwen3-32b", tensor=2), row("gpt2")]
    said = []
    asked = ask(rows, said.append)
    theirs = asked.answers[AICONFIGURATOR]
    assert sorted(theirs) == [0, 1, 2]
    assert asked.reasons == {"gpt2 on vllm: no configuration in the package": 1}
    assert theirs[0]["TPOT"] < theirs[1]["TPOT"]
    # Within a factor of two of what reading 16 GB takes.
    assert 4.8 < theirs[0]["TPOT"] < 9.6
    assert sorted(asked.answers[FOREST]) == sorted(asked.answers[ROOFLINE]) == [0, 1, 2, 3]
    assert len(said) == 2


def test_a_package_of_another_release_leaves_all_rows_unanswered(monkeypatch):
    monkeypatch.setattr(aiconfigurator, "PACKAGE", "evaluation")
    found, reasons = aiconfigurator.deployments_ms([row(), row()], print)
    assert found == {}
    ((reason, count),) = reasons.items()
    assert "cannot be loaded" in reason
    assert count == 2


@pytest.mark.parametrize(
    ("concurrency", "tokens", "regime"),
    [
        (1, 1024, Regime.UNQUEUED),
        (4, 1024, Regime.UNQUEUED),
        (5, 1024, Regime.LOADED),
        (64, 1024, Regime.LOADED),
        (4096, 16_384, Regime.SATURATED),
    ],
)
def test_a_regime_is_told_by_how_many_wait(concurrency, tokens, regime):
    it = answered(row(concurrency=concurrency, tokens=tokens), engine("vllm"))
    assert regime_of(it) is regime


def test_nobody_waits_alone():
    alone, crowd = (
        waiting_share(answered(row(concurrency=load), engine("vllm"))) for load in (1, 64)
    )
    assert alone == pytest.approx(0.0)
    assert 0.0 < crowd < 1.0
