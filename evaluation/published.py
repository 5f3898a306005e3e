"""Predictions against latencies that engines' documents publish for A100 and H100.

Fits each engine's coefficients (``model.engines``) on the published rows, and scores them
with whole models left out: a model's rows are predicted by coefficients fitted on the
other models of that engine. Nothing is measured: ``data/published_latency.csv`` names the
document of each row.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from importlib.resources import files
from typing import TYPE_CHECKING

from evaluation import plots
from evaluation.engine_fit import START, coefficient_lines, fit, unfitted
from evaluation.page import Section, markdown
from evaluation.peers import roofline
from evaluation.rows import CONFIDENCE, Answered, Row, answered
from evaluation.scores import COLUMNS, columns, shown, size, size_of
from model.architecture import Norm
from model.dimensions import architecture_of_dimensions
from model.huggingface import architecture_from_config
from model.precision import Precision
from model.presets import preset
from model.steps import Question
from model.workload import Parallelism, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evaluation.inputs import Inputs
    from model.architecture import Architecture
    from model.engines import Engine

MUST = 12.0
"""Mean error of decode figures, in %; of five fitted terms it is 16 (DESIGN)."""

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
    """Returns a GPT-3-like model, which is GPT-2's kind, of Megatron's vocabulary."""
    config = {
        "model_type": "gpt2",
        "n_embd": hidden_size,
        "n_layer": layers,
        "n_head": heads,
        "vocab_size": 51_200,
        "n_positions": 2_048,
    }
    return architecture_from_config(config)


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
    """Returns the published rows."""
    text = (files("evaluation") / "data" / "published_latency.csv").read_text(encoding="utf-8")
    return [row_of(line) for line in csv.DictReader(text.splitlines())]


def row_of(line: dict[str, str]) -> Row:
    """Returns one published figure."""
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
    # The rows are of older versions: what they do not tell keeps round figures.
    base = unfitted(rows[0].engine)
    return fit(rows, base, {name: START[name] for name in COEFFICIENTS[base.name]})


def left_out(rows: Sequence[Row]) -> Iterator[Answered]:
    """Yields each row of an engine as predicted by coefficients that never saw its model."""
    for model in dict.fromkeys(row.model for row in rows):
        others = fit_engine([row for row in rows if row.model != model])
        for row in rows:
            if row.model == model:
                yield answered(row, others)


def section(inputs: Inputs) -> Section:
    """Returns the table by engine, and the coefficients fitted on all rows."""
    by_engine: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows():
        by_engine[row.engine].append(row)
    found: list[Answered] = []
    fitted = []
    for name, rows in by_engine.items():
        fitted.append(fit_engine(rows))
        found += left_out(rows)
        inputs.say(f"published latencies of {name}: {len(rows)} rows")
    decode = [one.cell(name) for one in found for name in one.figures if name != "TTFT"]
    ideal = [
        value.value / one.row.figures[name] - 1
        for one in found
        for name, value in roofline.deployment_ms(one.row).items()
        if name != "TTFT"
    ]
    mean = size(decode)[0]
    title = "Published latencies, whole models left out"
    picture = plots.scatter(
        {
            figure: [
                plots.Point(one.row.engine, seen.measured, seen.predicted.value)
                for one in found
                for name, seen in one.figures.items()
                if name == figure
            ]
            for figure in ("TPOT", "latency a token", "TTFT")
        },
        title,
        inputs.out / "published.png",
    )
    return Section(
        title,
        [
            f"{len(found)} rows of engines' own documents (`evaluation/data/published_latency.csv`"
            " names the document of each), predicted by physics and a handful of coefficients an"
            " engine, fitted on the engine's other models. A latency a token is that of a request"
            " over its generated tokens, prefill included.",
            "",
            f"{len(decode)} decode figures: {shown(size(decode))} (must: a mean of {MUST:g};"
            f" {'reached' if mean <= MUST else 'not reached'}). Roofline on the same rows:"
            f" {shown(size_of(ideal))}.",
            "",
            *plots.paragraphs(picture),
            *markdown(("engine", "figure", *COLUMNS), list(_lines(found))),
            "",
            *coefficient_lines(fitted, COEFFICIENTS),
        ],
    )


def _lines(found: Sequence[Answered]) -> Iterator[list[str]]:
    for engine_name in ("all", *sorted({one.row.engine for one in found})):
        for figure in ("TPOT", "latency a token", "TTFT"):
            cells = [
                one.cell(figure)
                for one in found
                if figure in one.figures and engine_name in ("all", one.row.engine)
            ]
            if cells:
                yield [engine_name, figure, *columns(cells)]
