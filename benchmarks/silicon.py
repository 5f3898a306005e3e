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
from tokenpace.benchmark_files import deployments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.engines import Engine
    from tokenpace.benchmark_files.rows import BenchmarkRow

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


def read_rows() -> list[Row]:
    """Returns the rows, equal measurements merged."""
    with sample_path().open(encoding="utf-8") as file:
        lines = [
            line
            for line in csv.DictReader(file)
            if line["mode"] == "agg" and line["system"] in SYSTEMS
        ]
    found = deployments.merged(deployments.row(line, line["id"]) for line in lines)
    return [row_of(row) for row in found]


def row_of(row: BenchmarkRow) -> Row:
    """Returns one deployment under one load."""
    architecture = preset(deployments.PRESETS[row.model])
    stored_experts = None
    if row.precision == "model":
        precision, stored_experts = architecture.stored_precision, architecture.stored_experts
    else:
        precision = Precision(row.precision)
    cache = row.kv_cache_precision
    return Row(
        engine=row.engine,
        model=architecture.name,
        device=row.device,
        question=Question(
            architecture=architecture,
            workload=Workload(
                input_tokens=row.input_tokens or 0,
                output_tokens=row.output_tokens or 0,
                concurrency=row.concurrency or 0,
            ),
            parallelism=Parallelism(
                tensor=row.tensor or 1,
                data=row.data or 1,
                expert=(row.expert or 1) if architecture.experts else 1,
            ),
            precision=precision,
            kv_precision=Precision(cache) if cache else precision.activation,
            engine=row.engine,
            stored_experts=stored_experts,
            confidence=CONFIDENCE,
        ),
        figures={"TTFT": row.ttft_ms or 0.0, "TPOT": row.tpot_ms or 0.0},
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
