"""Labels of deployments, and the fit of coefficients on rows made from known ones."""

from dataclasses import fields, replace

import pytest

from evaluation.deployments import row_of
from evaluation.engine_fit import START, fit, unfitted
from evaluation.rows import Row, answered, predicted
from model.engines import Engine, engine
from model.precision import Precision
from model.presets import preset
from model.steps import Question
from model.workload import Parallelism, Workload
from tokenpace.benchmark_files import deployments
from tokenpace.benchmark_files.deployments import Degrees, concurrency_of, degrees_of


def line(tensor, data, expert, *, dump="2026-04-06", name="x_tp8_ep8_1", **others):
    return {
        "id": name,
        "silicon_data_source": f"source_file={dump}.csv; silicon_concurrency=64",
        "tp_size": tensor,
        "attention_dp_size": data,
        "moe_tp_size": "1",
        "moe_ep_size": expert,
        "batch_size": "2",
        "model_path": "deepseek-ai/DeepSeek-R1",
        "gemm_quant_mode": "fp8",
        "moe_quant_mode": "fp8",
        "precision": "fp8",
    } | others


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (line("64", "1", "8"), line("8", "1", "8", dump="2026-03-25", name="x_tp8_0_ep8_0_1")),
        (line("1", "64", "8"), line("1", "8", "8", dump="2026-03-25", name="x_tp8_0_ep8_0_1")),
        (
            line("4", "4", "16", backend="vllm"),
            line("4", "1", "4", dump="2026-03-25", backend="vllm", name="x_tp4_0_ep4_0_1"),
        ),
        (
            line("64", "1", "8", silicon_data_source="db-dump/2026-04-27; config_id=181"),
            line("8", "1", "8", dump="2026-03-25", name="x_tp8_0_ep8_0_1"),
        ),
    ],
)
def test_labels_of_one_measurement_come_to_the_same_in_both_dumps(wrong, right):
    assert degrees_of(wrong) == degrees_of(right)


def test_a_dense_model_has_no_experts_to_spread():
    assert degrees_of(line("2", "", "0", name="x_tp2_epnone_1")) == Degrees(2, 1, 1)
    assert degrees_of(line("1", "1", "8", dump="2026-03-25")) == Degrees(1, 1, 1)


def test_ranks_of_experts_beyond_the_tensor_size_are_data_parallel():
    untold = line("2", "", "1", dump="2026-01-23", name="x_tp2_epnone_13", moe_tp_size="4")
    assert degrees_of(untold) == Degrees(2, 2, 1)
    untold = line("2", "", "2", dump="2026-01-23", name="x_tp2_epnone_16", moe_tp_size="1")
    assert degrees_of(untold) == Degrees(2, 1, 2)


def test_the_load_is_the_concurrency_and_else_the_batch():
    assert concurrency_of(line("8", "1", "1")) == 64
    assert concurrency_of(line("8", "1", "1", silicon_data_source="a file")) == 2


def question_of(*args, **others):
    return row_of(
        deployments.row(
            line(
                *args,
                system="h200_sxm",
                backend="sglang",
                isl="1024",
                osl="1024",
                silicon_ttft_ms="90",
                silicon_tpot_ms="9",
            )
            | others,
            "x",
        )
    ).question


def test_a_blank_precision_is_the_models_own_and_deepseeks_fp8_is_in_blocks():
    def precision(**others):
        question = question_of("8", "1", "1", **others)
        assert question.stored_experts is None
        return question.precision

    assert precision() is Precision.FP8_BLOCK
    llama = {"model_path": "meta-llama/Llama-3.1-8B-Instruct"}
    assert precision(**llama, precision="") is Precision.BF16
    assert precision(**llama) is Precision.FP8
    assert precision(**llama, gemm_quant_mode="fp8_block") is Precision.FP8_BLOCK
    assert precision(model_path="zhipuai/GLM-5", moe_quant_mode="fp8_block") is Precision.FP8_BLOCK
    assert precision(model_path="Qwen/Qwen3-235B-A22B-FP8") is Precision.FP8_BLOCK


@pytest.mark.parametrize(
    ("model", "name", "preset_name"),
    [
        ("openai/gpt-oss-120b", "fp4", "gpt-oss-120b"),
        ("moonshotai/Kimi-K2.5", "int4", "kimi-k2.5"),
    ],
)
def test_four_bits_are_those_of_the_experts_alone(model, name, preset_name):
    found = question_of("8", "1", "1", model_path=model, precision=name)
    assert found.precision is Precision.BF16
    assert found.stored_experts == preset(preset_name).stored_experts
    assert found.stored_experts.precision == name


def test_tensorrt_llm_keeps_the_cache_of_fp8_models_in_fp8():
    assert question_of("8", "1", "1").kv_precision is Precision.BF16
    assert question_of("8", "1", "1", backend="trtllm").kv_precision is Precision.FP8
    assert question_of("8", "1", "1", backend="trtllm", precision="").kv_precision is Precision.BF16


def rows_made_with(coefficients):
    rows = []
    for name, concurrency, tensor in (
        ("llama-3.1-8b", 1, 1),
        ("llama-3.1-8b", 32, 1),
        ("qwen3-32b", 8, 2),
        ("qwen3-30b-a3b", 4, 2),
        ("qwen3-30b-a3b", 64, 4),
    ):
        row = Row(
            engine="vllm",
            model=name,
            device="h100-sxm",
            question=Question(
                architecture=preset(name),
                workload=Workload(input_tokens=1024, output_tokens=256, concurrency=concurrency),
                parallelism=Parallelism(tensor=tensor),
                precision=Precision.BF16,
                kv_precision=Precision.BF16,
                engine="vllm",
            ),
            figures={"TTFT": 1.0, "TPOT": 1.0},
        )
        figures = {figure: value for figure, (value, _, _) in predicted(row, coefficients).items()}
        rows.append(replace(row, figures=figures))
    return rows


def test_the_fit_finds_the_coefficients_that_made_the_rows():
    truth = replace(engine("vllm"), bandwidth=0.6, compute=0.4, step_s=4e-3)
    names = ("bandwidth", "compute", "step_s")
    found = fit(rows_made_with(truth), engine("vllm"), {n: START[n] for n in names}, pull=1e-3)
    for name in names:
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=0.03)


def test_nothing_that_rows_tell_is_left_in_an_unfitted_engine():
    """Else a row held out would have told it: coefficients in use were fitted on all."""
    kept = {"name", "linear_attention_compute", "spread", "microbatches", "continuous"}
    for name in ("vllm", "sglang", "trtllm", "gpt-fast"):
        found, round_figures = unfitted(name), Engine(name=name)
        for field in fields(Engine):
            if field.name in kept:
                assert getattr(found, field.name) == getattr(engine(name), field.name)
            else:
                assert getattr(found, field.name) == getattr(round_figures, field.name)


def test_what_made_the_rows_predicts_them():
    truth = engine("vllm")
    for row in rows_made_with(truth):
        found = answered(row, truth)
        assert set(found.figures) == {"TTFT", "TPOT"}
        for name in found.figures:
            cell = found.cell(name)
            assert cell.inside
            assert cell.error == pytest.approx(0.0)
            assert cell.width > 0.1
