"""Real deployments on H100 and H200, and engines' coefficients fitted on them.

The rows are those of aiconfigurator-core's ``silicon_sample.csv`` (0.12.0, Apache-2.0):
TTFT and TPOT of vLLM, SGLang and TensorRT-LLM under closed loads. Nothing of them is kept
here. Labels are corrected first, as ``tokenpace.benchmark_files.deployments`` says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from evaluation.engine_fit import START, fit, unfitted
from evaluation.rows import CONFIDENCE, Answered, Row, answered
from model.engines import ROUND_BESIDE_KERNELS
from model.precision import Precision
from model.presets import preset
from model.steps import Question
from model.workload import Parallelism, Workload
from reference.tables import deployments_file
from tokenpace.benchmark_files import deployments
from tokenpace.benchmark_files.reading import read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evaluation.rows import Kernels
    from model.engines import Engine
    from tokenpace.benchmark_files.rows import BenchmarkRow

_T = TypeVar("_T")
DEVICES = ("h100-sxm", "h200-sxm")
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
BESIDE_PULL = 8.0
POOLED_ROWS, ENGINE_ROWS = 400, 300
"""A fit takes so many rows, drawn at random: more tell it no more."""


def read_rows() -> list[Row]:
    """Returns the rows, equal measurements merged."""
    found = deployments.merged(read(deployments_file()).rows)
    return [row_of(row) for row in found if row.device in DEVICES]


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


def drawn(rows: Sequence[_T], count: int) -> list[_T]:
    """Returns at most so many rows in their order, drawn at random, the same in every run."""
    chosen = np.random.default_rng(0).permutation(len(rows))[:count]
    return [rows[index] for index in sorted(chosen.tolist())]


def fit_engines(rows: Sequence[Row], kernels: Kernels) -> dict[str, Engine]:
    """Returns each engine's coefficients: a pooled fit, and from there its own rows'.

    Without kernels those of physics.
    """
    engines = list(dict.fromkeys(row.engine for row in rows))
    if not kernels:
        start = {name: START[name] for name in COEFFICIENTS}
        pooled = fit(drawn(rows, POOLED_ROWS), unfitted("vllm"), start, POOLED_PULL)
        common = {name: getattr(pooled, name) for name in start}
        return {name: fit(own(rows, name), unfitted(name), common, ENGINE_PULL) for name in engines}
    quiet = [
        replace(row, figures={"TTFT": row.figures["TTFT"]})
        for row in rows
        if row.question.workload.concurrency <= QUIET
    ]
    base = replace(unfitted("vllm"), **ROUND_BESIDE_KERNELS)
    base = fit(drawn(quiet, POOLED_ROWS), base, REQUEST, POOLED_PULL, kernels)
    pooled = fit(drawn(rows, POOLED_ROWS), base, BESIDE_KERNELS, POOLED_PULL, kernels)
    request = {"request_s": pooled.request_s}
    shared = {name: getattr(pooled, name) for name in BESIDE_KERNELS}
    begin = {name: value for name, value in shared.items() if name != SHARED}
    found = {}
    for name in engines:
        its = replace(unfitted(name), **(ROUND_BESIDE_KERNELS | request | shared))
        if unqueued := own(quiet, name):
            its = fit(unqueued, its, request, POOLED_PULL, kernels)
        found[name] = fit(own(rows, name), its, begin, BESIDE_PULL, kernels)
    return found


def own(rows: Sequence[Row], name: str) -> list[Row]:
    """Returns an engine's rows, as many as a fit takes."""
    return drawn([row for row in rows if row.engine == name], ENGINE_ROWS)


def left_out(rows: Sequence[Row], kernels: Kernels, say: Callable[[str], None]) -> list[Answered]:
    """Returns each row as predicted by coefficients that never saw its architecture.

    Args:
        rows: of two architectures or more.
        kernels: measured ones of each device and engine.
        say: is told of each architecture that is done.
    """
    found: list[Answered] = []
    models = list(dict.fromkeys(row.model for row in rows))
    for count, model in enumerate(models, 1):
        engines = fit_engines([row for row in rows if row.model != model], kernels)
        held_out = [row for row in rows if row.model == model]
        # Of an engine that served no other architecture nothing is known but the others.
        any_other = next(iter(engines.values()))
        found += [answered(r, engines.get(r.engine, any_other), kernels) for r in held_out]
        say(f"left out {model} ({count} of {len(models)})")
    return found
