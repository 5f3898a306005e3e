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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import heading
from benchmarks.engine_fit import (
    CONFIDENCE,
    START,
    Kernels,
    Row,
    Scored,
    coefficient_lines,
    fit,
    plot,
    score,
    table,
)
from model.engines import engine
from model.measurement import Distribution, Measurement
from model.precision import Precision
from model.presets import preset
from model.published import fit_published
from model.steps import Question
from model.workload import Parallelism, Workload
from reference.sources import package_source
from tokenpace.benchmark_files import deployments

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model.engines import Engine
    from model.estimate import MeasuredCostModel
    from reference.rows import Row as TableRow
    from tokenpace.benchmark_files.rows import BenchmarkRow

COMMAND = "python benchmarks/silicon.py --write-page"
PAGE = Path(__file__).with_suffix(".md")
PLOT = Path(__file__).with_suffix(".png")
SYSTEMS = {"h100_sxm": "h100-sxm", "h200_sxm": "h200-sxm"}
COEFFICIENTS = tuple(name for name in START if name not in {"int8_share"})
POOLED_PULL, ENGINE_PULL = 1.5, 4.0
"""How firmly coefficients are held: an engine's few architectures cannot tell them all."""
BESIDE_KERNELS = {
    "elementwise": 0.2,
    "interference": 0.7,
    "queueing": 0.08,
}
"""What is left to fit where kernels were measured, and where the fit begins."""
SHARED = "queueing"
"""The one that all engines share: it tells how requests arrive."""
REQUEST = {"request_s": 60e-3}
"""What a request costs the host shows where hardly any wait for each other."""
QUIET = 8
"""Most requests in flight of rows that it is fitted on."""
FIXED = {
    "kernel_s": 2.5e-6,
    "elementwise_traffic": 0.5,
    "step_s": 0.5e-3,
    "sequence_s": 5e-6,
}
"""What the rows do not tell apart from those."""
BESIDE_PULL = 8.0
POOLED_ROWS, ENGINE_ROWS = 400, 300
"""A fit takes so many rows, drawn at random: more tell it no more."""
LIMIT = 3_000
"""Rows of one kind and precision that kernels are fitted on."""


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


def measured_kernels(devices: Iterable[str], engines: Sequence[str]) -> Kernels:
    """Returns the cost models of published kernels by device and engine."""
    found: dict[tuple[str, str], MeasuredCostModel] = {}
    for device in devices:
        for name in engines:
            source = package_source(device, name, LIMIT)
            found[device, name] = fit_published([measurement_of(row) for row in source.rows])
            print(f"fitted kernels of {name} on {device}", flush=True)
    return found


def measurement_of(row: TableRow) -> Measurement:
    """Returns a row of a table as the cost model takes it."""
    ms = row.latency_ms
    return Measurement(
        kind=row.kind,
        precision=Precision(row.precision),
        engine=row.engine,
        shape=row.shape,
        latency_ms=Distribution(median=ms, p10=ms, p90=ms, samples=1),
        group=row.group,
    )


def fit_engines(rows: Sequence[Row], kernels: Kernels) -> dict[str, Engine]:
    """Returns each engine's coefficients: a pooled fit, and from there its own rows'.

    Without kernels those of physics.
    """
    engines = list(dict.fromkeys(row.engine for row in rows))
    if not kernels:
        start = {name: START[name] for name in COEFFICIENTS}
        pooled = fit(drawn(rows, POOLED_ROWS), engine("vllm"), start, POOLED_PULL)
        common = {name: getattr(pooled, name) for name in start}
        return {name: fit(own(rows, name), engine(name), common, ENGINE_PULL) for name in engines}
    quiet = [
        replace(row, figures={"TTFT": row.figures["TTFT"]})
        for row in rows
        if row.question.workload.concurrency <= QUIET
    ]
    base = replace(engine("vllm"), beside_kernels={}, **FIXED)
    base = fit(drawn(quiet, POOLED_ROWS), base, REQUEST, POOLED_PULL, kernels)
    pooled = fit(drawn(rows, POOLED_ROWS), base, BESIDE_KERNELS, POOLED_PULL, kernels)
    request = {"request_s": pooled.request_s}
    shared = {name: getattr(pooled, name) for name in BESIDE_KERNELS}
    begin = {name: value for name, value in shared.items() if name != SHARED}
    found = {}
    for name in engines:
        its = replace(engine(name), beside_kernels={}, **FIXED, **request, **shared)
        if unqueued := own(quiet, name):
            its = fit(unqueued, its, request, POOLED_PULL, kernels)
        found[name] = fit(own(rows, name), its, begin, BESIDE_PULL, kernels)
    return found


def own(rows: Sequence[Row], name: str) -> list[Row]:
    """Returns an engine's rows, as many as a fit takes."""
    return drawn([row for row in rows if row.engine == name], ENGINE_ROWS)


def left_out(rows: Sequence[Row], kernels: Kernels) -> list[Scored]:
    """Returns each figure as predicted by coefficients that never saw its architecture."""
    scored: list[Scored] = []
    for model in dict.fromkeys(row.model for row in rows):
        engines = fit_engines([row for row in rows if row.model != model], kernels)
        for row in rows:
            if row.model == model:
                scored += score(row, engines[row.engine], kernels)
        print(f"left out {model}", flush=True)
    return scored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write-page", action="store_true", help="write the page and its plot")
    parser.add_argument("--fit-only", action="store_true", help="print the coefficients alone")
    arguments = parser.parse_args()
    rows = read_rows()
    engines = list(dict.fromkeys(row.engine for row in rows))
    kernels = measured_kernels(SYSTEMS.values(), engines)
    fitted = fit_engines(rows, kernels).values()
    counts = {name: sum(row.engine == name for row in rows) for name in {r.engine for r in rows}}
    names = dict.fromkeys(counts, BESIDE_KERNELS)
    lines = [*coefficient_lines(fitted, names), "", f"Rows: {counts}."]
    print("\n".join(lines), flush=True)
    if arguments.fit_only:
        return
    scored = left_out(rows, kernels)
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
            " `tokenpace/benchmark_files/deployments.py` says) against measured kernels (the same"
            " package's tables) with a handful of coefficients an engine, fitted on the other"
            " architectures."
            " aiconfigurator 0.12 itself, on the rows it answers: TPOT 30 / 13 / 70, TTFT"
            " 51 / 45 / 89 (MAPE / median / p90 in %); covered is the share inside the 90%"
            f" interval.\n\n![predicted against measured]({PLOT.name})"
        )
        text = heading(title, COMMAND)
        PAGE.write_text("\n".join([text, intro, "", *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
