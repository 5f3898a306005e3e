"""Predictions against latencies that engines' documents publish for A100 and H100.

Fits each engine's coefficients (``model.engines``) on the published rows, and scores them
with whole models left out: a model's rows are predicted by coefficients fitted on the
other models of that engine. Nothing is measured: ``data/published_latency.csv`` names the
document of each row.

    python benchmarks/published.py --write-page
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import heading
from benchmarks.engine_fit import (
    CONFIDENCE,
    START,
    Row,
    Scored,
    coefficient_lines,
    fit,
    plot,
    score,
    table,
)
from model.architecture import Norm
from model.blocks import Activation
from model.dimensions import architecture_of_dimensions
from model.engines import Engine, engine
from model.precision import Precision
from model.presets import preset
from model.steps import Question
from model.workload import Parallelism, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.architecture import Architecture

ROWS = Path(__file__).parent / "data" / "published_latency.csv"
PAGE = Path(__file__).with_suffix(".md")
PLOT = Path(__file__).with_suffix(".png")
COMMAND = "python benchmarks/published.py --write-page"
LIMIT = 0.12

COEFFICIENTS = {
    "gpt-fast": ("kernel_s", "bandwidth", "int8_share", "int4_share", "collective_s"),
    "fastertransformer": ("kernel_s", "bandwidth", "step_s", "collective_s"),
    "vllm": ("kernel_s", "step_s", "bandwidth", "int8_share", "int4_share", "collective_s"),
    "trtllm": ("kernel_s", "step_s", "bandwidth", "collective_s"),
}
"""What the rows of an engine tell apart; the rest keeps its round figure."""
VERSIONS = {
    "gpt-fast": "gpt-fast",
    "FasterTransformer": "fastertransformer",
    "FasterTransformer(Triton)": "fastertransformer",
    "vLLM 0.6.3": "vllm",
    "TensorRT-LLM 0.5.0": "trtllm",
}
PRECISIONS = {
    "bf16": Precision.BF16,
    "fp16": Precision.FP16,
    "BF16": Precision.BF16,
    "int8wo": Precision.INT8_WEIGHT_ONLY,
    "GPTQ-Int8": Precision.INT8_WEIGHT_ONLY,
    "int4wo-g32": Precision.INT4,
    "GPTQ-Int4": Precision.INT4,
    "AWQ": Precision.INT4,
    "fp8": Precision.FP8,
    "fp8(+fp8 kv)": Precision.FP8,
}
PRESETS = {
    "Llama-2-7B": "llama-2-7b",
    "LLaMA-7B": "llama-2-7b",
    "Llama-2-70B": "llama-2-70b",
    "LLaMA-70B": "llama-2-70b",
    "Llama-3.1-8B": "llama-3.1-8b",
    "Llama-3.1-70B": "llama-3.1-70b",
    "Llama-3.1-405B": "llama-3.1-405b",
    "Mixtral-8x7B": "mixtral-8x7b",
} | {f"Qwen2.5-{size}B-Instruct": f"qwen2.5-{size}b" for size in (0.5, 1.5, 3, 7, 14, 32, 72)}
OUTPUT_TOKENS_UNSTATED = 200
"""Where a document does not say; a single sequence's rate hardly depends on it."""


def gpt(layers: int, hidden_size: int, heads: int) -> Architecture:
    """Returns a GPT-3-like model of Megatron's vocabulary."""
    return architecture_of_dimensions(
        hidden_size=hidden_size,
        layer_count=layers,
        query_heads=heads,
        intermediate_size=4 * hidden_size,
        vocab_size=51_200,
        plain_mlp=True,
        activation=Activation.GELU,
        norm=Norm.LAYER,
        qkv_bias=True,
        attention_output_bias=True,
        mlp_bias=True,
        learned_positions=2_048,
        tied_embeddings=True,
    )


def architecture_of(name: str) -> Architecture:
    """Returns the architecture that a document's name stands for."""
    if name in PRESETS:
        return preset(PRESETS[name])
    explicit = {
        "GPT-20B(44L,h6144,48 heads)": lambda: gpt(44, 6144, 48),
        "GPT-89B(48L,h12288)": lambda: gpt(48, 12288, 96),
        "GPT-175B(96L,h12288)": lambda: gpt(96, 12288, 96),
        "Megatron-530B(105L,h20480,128 heads)": lambda: gpt(105, 20480, 128),
        "13B (test-13b.json)": lambda: gpt(40, 5120, 40),
        # EleutherAI/gpt-j-6b, config.json.
        "GPT-J-6B": lambda: architecture_of_dimensions(
            hidden_size=4096,
            layer_count=28,
            query_heads=16,
            intermediate_size=16384,
            vocab_size=50400,
            plain_mlp=True,
            norm=Norm.LAYER,
            norms_per_layer=1,
            mlp_bias=True,
            head_bias=True,
        ),
        # tiiuae/falcon-180B, config.json.
        "Falcon-180B": lambda: architecture_of_dimensions(
            hidden_size=14848,
            layer_count=80,
            query_heads=232,
            kv_heads=8,
            head_dim=64,
            intermediate_size=59392,
            vocab_size=65024,
            plain_mlp=True,
            norm=Norm.LAYER,
        ),
    }
    return explicit[name]()


def read_rows() -> list[Row]:
    with ROWS.open(encoding="utf-8") as file:
        return [row_of(line) for line in csv.DictReader(file)]


def row_of(line: dict[str, str]) -> Row:
    precision = PRECISIONS[line["precision"]]
    batch, value = int(line["batch"]), float(line["value"])
    gpu, metric = line["gpu"], line["metric"]
    device = "h100-sxm" if gpu.startswith("H100") else "a100-sxm"
    if "40GB" in gpu:
        device = "a100-sxm-40gb"
    name = VERSIONS[line["engine"]]
    rate = metric == "tokens_per_s_total"
    if metric == "ttft_ms":
        figure = "TTFT"
    elif name != "gpt-fast" and (rate or "DERIVED" in line["notes"]):
        figure = "latency a token"
    else:  # gpt-fast's prompts are five tokens, of which nothing is to be seen
        figure = "TPOT"
    return Row(
        engine=name,
        model=line["model"],
        device=device,
        question=Question(
            architecture=architecture_of(line["model"]),
            workload=Workload(
                input_tokens=int(line["input_len"]),
                output_tokens=int(line["output_len"] or OUTPUT_TOKENS_UNSTATED),
                batch_size=batch,
            ),
            parallelism=Parallelism(tensor=int(line["tp"]), pipeline=int(line["pp"])),
            precision=precision,
            kv_precision=Precision.FP8 if "kv" in line["precision"] else precision.activation,
            engine=name,
            confidence=CONFIDENCE,
        ),
        figures={figure: 1e3 * batch / value if rate else value},
    )


def fit_engine(rows: Sequence[Row]) -> Engine:
    """Returns the engine of the rows with its coefficients fitted on them."""
    today = engine(rows[0].engine)
    # The rows are of older versions: what they do not tell keeps round figures.
    base = Engine(name=today.name, microbatches=today.microbatches, continuous=today.continuous)
    return fit(rows, base, {name: START[name] for name in COEFFICIENTS[base.name]})


def left_out(rows: Sequence[Row]) -> list[Scored]:
    """Returns each figure as predicted by coefficients that never saw its model."""
    result = []
    for model in dict.fromkeys(row.model for row in rows):
        others = fit_engine([row for row in rows if row.model != model])
        for row in rows:
            if row.model == model:
                result += score(row, others)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write-page", action="store_true", help="write the page and its plot")
    arguments = parser.parse_args()
    by_engine: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows():
        by_engine[row.engine].append(row)
    scored, fitted = [], []
    for rows in by_engine.values():
        fitted.append(fit_engine(rows))
        scored += left_out(rows)
    decode = [
        abs(found[0] / row.figures[name] - 1) for row, name, found in scored if name != "TTFT"
    ]
    summary = f"{len(decode)} decode rows: MAPE {np.mean(decode):.1%} (limit {LIMIT:.0%})"
    lines = [summary, "", *table(scored), "", *coefficient_lines(fitted, COEFFICIENTS)]
    print("\n".join(lines))
    if arguments.write_page:
        title = "Latencies that engines publish for A100 and H100"
        plot(scored, title, PLOT)
        intro = (
            f"{len(scored)} rows of engines' own documents (`data/published_latency.csv` names"
            " the document of each), predicted by physics and a handful of coefficients an"
            " engine. A model's rows are predicted by coefficients fitted on the engine's other"
            " models. Errors in % of the published figure; a latency a token is that of a"
            " request over its generated tokens, prefill included.\n\n![predicted against"
            f" published]({PLOT.name})"
        )
        text = heading(f"{title}, whole models left out", COMMAND)
        PAGE.write_text("\n".join([text, intro, "", *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
