"""Predictions against real deployments on H100 and H200, whole architectures left out.

The rows are those of aiconfigurator-core's ``silicon_sample.csv`` (0.12.0, Apache-2.0):
TTFT and TPOT of vLLM, SGLang and TensorRT-LLM under closed loads. Nothing of them is kept
here; ``pip install aiconfigurator-core==0.12.0`` brings them.

Labels are corrected first, as ``tokenpace.benchmark_files.deployments`` says.

    python benchmarks/silicon.py --write-page
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
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
from model.engines import engine
from model.precision import Precision
from model.presets import preset
from model.steps import Question
from model.workload import Parallelism, Workload
from tokenpace.benchmark_files.deployments import PRESETS, concurrency_of, degrees_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model.engines import Engine
    from model.precision import PackedFormat

COMMAND = "python benchmarks/silicon.py --write-page"
PAGE = Path(__file__).with_suffix(".md")
PLOT = Path(__file__).with_suffix(".png")
SYSTEMS = {"h100_sxm": "h100-sxm", "h200_sxm": "h200-sxm"}
COEFFICIENTS = tuple(name for name in START if name not in {"int8_share"})
POOLED_PULL, ENGINE_PULL = 1.5, 4.0
"""How firmly coefficients are held: an engine's few architectures cannot tell them all."""
POOLED_ROWS, ENGINE_ROWS = 400, 300
"""A fit takes so many rows, drawn at random: more tell it no more."""


def sample_path() -> Path:
    """Returns where the installed package keeps the rows."""
    found = importlib.util.find_spec("aiconfigurator_core")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("needs the rows: pip install aiconfigurator-core==0.12.0")
    return Path(found.submodule_search_locations[0]) / "systems" / "silicon_sample.csv"


def formats_of(line: Mapping[str, str]) -> tuple[Precision, PackedFormat | None]:
    """Returns the precision, and that of experts in one of their own.

    A blank one is the model's own. The 4 bits of gpt-oss (labelled nvfp4, which no engine
    runs on Hopper) and of Kimi K2.5 are those of their checkpoints, whose experts alone
    are packed.
    """
    name = line["precision"]
    if not name:
        return Precision.BF16, None
    architecture = preset(PRESETS[line["model_path"]])
    stored, packed = architecture.stored_precision, architecture.stored_experts
    if name == "fp8":
        modes = line["gemm_quant_mode"], line["moe_quant_mode"]
        blocks = stored is Precision.FP8_BLOCK or "fp8_block" in modes
        return (Precision.FP8_BLOCK if blocks else Precision.FP8), None
    if packed is not None and packed.precision == name:
        return stored, packed
    return Precision(name), None


def read_rows() -> list[Row]:
    """Returns the rows, equal measurements merged."""
    rows: dict[tuple[object, ...], Row] = {}
    with sample_path().open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line["mode"] != "agg" or line["system"] not in SYSTEMS:
                continue
            figures = {
                "TTFT": float(line["silicon_ttft_ms"]),
                "TPOT": float(line["silicon_tpot_ms"]),
            }
            # Some of the dumps keep two decimals of what others keep in full.
            rounded = tuple(f"{value:.2f}" for value in figures.values())
            row = row_of(line, figures)
            key = (row.model, row.device, row.engine, row.question.workload, *rounded)
            rows.setdefault(key, row)
    return list(rows.values())


def row_of(line: Mapping[str, str], figures: dict[str, float]) -> Row:
    """Returns one deployment under one load."""
    architecture = preset(PRESETS[line["model_path"]])
    degrees, (precision, stored_experts) = degrees_of(line), formats_of(line)
    return Row(
        engine=line["backend"],
        model=architecture.name,
        device=SYSTEMS[line["system"]],
        question=Question(
            architecture=architecture,
            workload=Workload(
                input_tokens=int(line["isl"]),
                output_tokens=int(line["osl"]),
                concurrency=concurrency_of(line),
            ),
            parallelism=Parallelism(
                tensor=degrees.tensor,
                data=degrees.data,
                expert=degrees.expert if architecture.experts else 1,
            ),
            precision=precision,
            kv_precision=precision.activation,
            engine=line["backend"],
            stored_experts=stored_experts,
            confidence=CONFIDENCE,
        ),
        figures=figures,
    )


def drawn(rows: Sequence[Row], count: int) -> list[Row]:
    """Returns at most so many rows, drawn at random, the same in every run."""
    order = np.random.default_rng(0).permutation(len(rows))[:count]
    return [rows[index] for index in order]


def fit_engines(rows: Sequence[Row]) -> dict[str, Engine]:
    """Returns each engine's coefficients: a pooled fit, and from there its own rows'."""
    start = {name: START[name] for name in COEFFICIENTS}
    pooled = fit(drawn(rows, POOLED_ROWS), engine("vllm"), start, POOLED_PULL)
    common = {name: getattr(pooled, name) for name in COEFFICIENTS}
    found = {}
    for name in dict.fromkeys(row.engine for row in rows):
        own = [row for row in rows if row.engine == name]
        found[name] = fit(drawn(own, ENGINE_ROWS), engine(name), common, ENGINE_PULL)
    return found


def left_out(rows: Sequence[Row]) -> list[Scored]:
    """Returns each figure as predicted by coefficients that never saw its architecture."""
    scored: list[Scored] = []
    for model in dict.fromkeys(row.model for row in rows):
        engines = fit_engines([row for row in rows if row.model != model])
        for row in rows:
            if row.model == model:
                scored += score(row, engines[row.engine])
        print(f"left out {model}", flush=True)
    return scored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write-page", action="store_true", help="write the page and its plot")
    parser.add_argument("--fit-only", action="store_true", help="print the coefficients alone")
    arguments = parser.parse_args()
    rows = read_rows()
    fitted = fit_engines(rows).values()
    counts = {name: sum(row.engine == name for row in rows) for name in {r.engine for r in rows}}
    names = dict.fromkeys(counts, COEFFICIENTS)
    lines = [*coefficient_lines(fitted, names), "", f"Rows: {counts}."]
    print("\n".join(lines), flush=True)
    if arguments.fit_only:
        return
    scored = left_out(rows)
    lines = [
        f"{len(rows)} rows, all of them.",
        "",
        *table(scored, by_model=True),
        "",
        *lines,
    ]
    print("\n".join(lines))
    if arguments.write_page:
        title = "Deployments on H100 and H200, whole architectures left out"
        plot(scored, title, PLOT)
        intro = (
            "TTFT and TPOT of real deployments (aiconfigurator-core 0.12.0, Apache-2.0,"
            " `silicon_sample.csv`: mode agg, equal measurements merged, labels corrected as"
            " `tokenpace/benchmark_files/deployments.py` says) against physics with a handful of"
            " coefficients an engine, fitted on the other architectures. No operation was measured"
            " for it."
            " aiconfigurator 0.12 itself, on the rows it answers: TPOT 30 / 13 / 70, TTFT"
            " 51 / 45 / 89 (MAPE / median / p90 in %); covered is the share inside the 90%"
            f" interval.\n\n![predicted against measured]({PLOT.name})"
        )
        text = heading(title, COMMAND)
        PAGE.write_text("\n".join([text, intro, "", *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
