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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from scipy.optimize import least_squares

from benchmarks.common import heading
from model.analytical import AnalyticalCostModel
from model.architecture import Norm
from model.blocks import Activation
from model.composite import CompositeCostModel
from model.dimensions import architecture_of_dimensions
from model.engines import engine
from model.hardware import data_sheet
from model.inference import predict
from model.precision import Precision
from model.presets import preset
from model.steps import Question
from model.workload import Parallelism, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.architecture import Architecture
    from model.engines import Engine

ROWS = Path(__file__).parent / "data" / "published_latency.csv"
PAGE = Path(__file__).with_suffix(".md")
PLOT = Path(__file__).with_suffix(".png")
LIMIT = 0.12
CONFIDENCE = 0.9

COEFFICIENTS = {
    "gpt-fast": ("kernel_s", "bandwidth", "int8_share", "int4_share", "collective_s"),
    "fastertransformer": ("kernel_s", "bandwidth", "step_s", "collective_s"),
    "vllm": ("kernel_s", "step_s", "bandwidth", "int8_share", "int4_share", "collective_s"),
    "trtllm": ("kernel_s", "step_s", "bandwidth", "collective_s"),
}
"""What the rows of an engine tell apart; the rest keeps its round figure."""
ROUND = {
    "kernel_s": 3e-6,
    "step_s": 1e-3,
    "collective_s": 1e-5,
    "bandwidth": 0.8,
    "int8_share": 0.9,
    "int4_share": 0.8,
}
"""Where a fit begins, and what holds a coefficient that few rows tell of."""
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
} | {f"Qwen2.5-{size}B-Instruct": f"qwen2.5-{size}b" for size in (0.5, 1.5, 3, 7, 14, 32, 72)}
OUTPUT_TOKENS_UNSTATED = 200
"""Where a document does not say; a single sequence's rate hardly depends on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published figure, as milliseconds; ``decode`` tells TPOT from TTFT.

    The figure of a decode row is wall time over generated tokens, prefill included where
    the document's is.
    """

    engine: str
    model: str
    device: str
    precision: str
    question: Question
    decode: bool
    with_prefill: bool
    published_ms: float


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
        # mistralai/Mixtral-8x7B-v0.1, config.json.
        "Mixtral-8x7B": lambda: architecture_of_dimensions(
            hidden_size=4096,
            layer_count=32,
            query_heads=32,
            kv_heads=8,
            intermediate_size=14336,
            vocab_size=32000,
            experts=8,
            experts_per_token=2,
            expert_intermediate_size=14336,
        ),
    }
    return explicit[name]()


def read_rows() -> list[Row]:
    with ROWS.open(encoding="utf-8") as file:
        return [row_of(line) for line in csv.DictReader(file)]


def row_of(line: dict[str, str]) -> Row:
    precision = PRECISIONS[line["precision"]]
    batch, value = int(line["batch"]), float(line["value"])
    output_tokens = int(line["output_len"] or OUTPUT_TOKENS_UNSTATED)
    gpu, metric = line["gpu"], line["metric"]
    device = "h100-sxm" if gpu.startswith("H100") else "a100-sxm"
    if "40GB" in gpu:
        device = "a100-sxm-40gb"
    name = VERSIONS[line["engine"]]
    rate = metric == "tokens_per_s_total"
    return Row(
        engine=name,
        model=line["model"],
        device=device,
        precision=line["precision"],
        question=Question(
            architecture=architecture_of(line["model"]),
            workload=Workload(
                input_tokens=int(line["input_len"]), output_tokens=output_tokens, batch_size=batch
            ),
            parallelism=Parallelism(tensor=int(line["tp"]), pipeline=int(line["pp"])),
            precision=precision,
            kv_precision=Precision.FP8 if "kv" in line["precision"] else precision.activation,
            engine=name,
            confidence=CONFIDENCE,
        ),
        decode=metric != "ttft_ms",
        # gpt-fast's prompts are five tokens, of which nothing is to be seen.
        with_prefill=name != "gpt-fast" and (rate or "DERIVED" in line["notes"]),
        published_ms=1e3 * batch / value if rate else value,
    )


def predicted(row: Row, coefficients: Engine) -> tuple[float, float, float]:
    """Returns the predicted milliseconds and the ends of their interval."""
    question = row.question
    cost_model = CompositeCostModel(
        None,
        AnalyticalCostModel(data_sheet(row.device), coefficients),
        question.precision,
        question.kv_precision,
        question.engine,
    )
    answer = predict(question, cost_model)
    if not row.decode:
        return tuple(answer.ttft_ms)
    if not row.with_prefill:
        return tuple(answer.tpot_ms)
    value, lower, upper = answer.request_latency_ms
    tokens = question.workload.output_tokens
    return value / tokens, lower / tokens, upper / tokens


def fit(rows: Sequence[Row]) -> Engine:
    """Returns the engine of the rows with coefficients fitted on their log error."""
    base = engine(rows[0].engine)
    names = COEFFICIENTS[base.name]
    start = np.log([ROUND[name] for name in names])

    def coefficients(theta: np.ndarray) -> Engine:
        values = dict(zip(names, np.exp(theta).tolist(), strict=True))
        return replace(base, **values)

    def error(theta: np.ndarray) -> np.ndarray:
        candidate = coefficients(theta)
        logs = [np.log(predicted(row, candidate)[0] / row.published_ms) for row in rows]
        return np.concatenate([logs, 0.3 * (theta - start)])

    shares = [name in {"bandwidth", "int8_share", "int4_share"} for name in names]
    upper = np.where(shares, 0.0, np.inf)
    found = least_squares(
        error, start, bounds=(-np.inf, upper), loss="soft_l1", f_scale=0.1, diff_step=1e-3
    )
    return coefficients(found.x)


def left_out(rows: Sequence[Row]) -> list[tuple[Row, tuple[float, float, float]]]:
    """Returns each row with its prediction by coefficients that never saw its model."""
    result = []
    for model in dict.fromkeys(row.model for row in rows):
        others = fit([row for row in rows if row.model != model])
        result += [(row, predicted(row, others)) for row in rows if row.model == model]
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
        fitted.append(fit(rows))
        scored += left_out(rows)
    lines = [*table(scored), "", *coefficient_lines(fitted)]
    print("\n".join(lines))
    if arguments.write_page:
        plot(scored)
        text = heading(
            "Latencies that engines publish, with whole models left out",
            "python benchmarks/published.py --write-page",
        )
        intro = (
            f"{len(scored)} rows of engines' own documents for A100 and H100"
            " (`data/published_latency.csv` names the document of each), predicted by physics"
            " and a handful of coefficients an engine. A model's rows are predicted by"
            " coefficients fitted on the engine's other models. Errors in % of the published"
            " figure; decode rows as wall time over generated tokens, prefill included where"
            f" the document's is. Limit for decode: {LIMIT:.0%}.\n\n![predicted against"
            f" published]({PLOT.name})"
        )
        PAGE.write_text("\n".join([text, intro, "", *lines, ""]), encoding="utf-8")


def table(scored: Sequence[tuple[Row, tuple[float, float, float]]]) -> list[str]:
    groups: dict[tuple[str, str], list[tuple[Row, tuple[float, float, float]]]] = defaultdict(list)
    for row, found in scored:
        figure = "decode" if row.decode else "TTFT"
        groups[row.engine, figure].append((row, found))
        groups["all", figure].append((row, found))
    lines = [
        "| engine | figure | rows | models | MAPE | median | p90 | bias | in 90% interval |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, figure), pairs in groups.items():
        errors = np.array([found[0] / row.published_ms - 1 for row, found in pairs])
        inside = np.mean([found[1] <= row.published_ms <= found[2] for row, found in pairs])
        models = len({row.model for row, _ in pairs})
        lines.append(
            f"| {name} | {figure} | {len(pairs)} | {models} | {abs(errors).mean():.1%}"
            f" | {np.median(abs(errors)):.1%} | {np.quantile(abs(errors), 0.9):.1%}"
            f" | {np.median(errors):+.1%} | {inside:.0%} |"
        )
    return lines


def coefficient_lines(fitted: Sequence[Engine]) -> list[str]:
    lines = ["Coefficients fitted on all rows of an engine (`model/engines.py` holds them):", ""]
    for found in fitted:
        values = ", ".join(f"{n} {getattr(found, n):.3g}" for n in COEFFICIENTS[found.name])
        lines.append(f"- {found.name}: {values}")
    return lines


def plot(scored: Sequence[tuple[Row, tuple[float, float, float]]]) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    figure, axes = plt.subplots(figsize=(7, 6.5), layout="constrained")
    for name in dict.fromkeys(row.engine for row, _ in scored):
        for decode, marker in ((True, "o"), (False, "s")):
            pairs = [(r, p) for r, p in scored if r.engine == name and r.decode == decode]
            if pairs:
                axes.scatter(
                    [row.published_ms for row, _ in pairs],
                    [found[0] for _, found in pairs],
                    s=18,
                    marker=marker,
                    alpha=0.7,
                    label=f"{name}, {'decode' if decode else 'TTFT'}",
                )
    ends = [min(r.published_ms for r, _ in scored) / 1.5, max(r.published_ms for r, _ in scored)]
    axes.plot(ends, ends, color="0.6", linewidth=1)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="published, ms",
        ylabel="predicted with the model left out, ms",
        title="Latencies that engines publish for A100 and H100",
    )
    axes.legend(frameon=False)
    figure.savefig(PLOT, dpi=110)


if __name__ == "__main__":
    main()
