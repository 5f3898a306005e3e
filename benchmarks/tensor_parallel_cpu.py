"""How far predictions of tensor-parallel layers are off, on two processes of one thread each.

A campaign with one thread beside a process that reads memory as the other rank does, what two
processes send each other, and a cost model fitted on both; then real layers of whole models, cut
into two ranks that sum over gloo.

    python benchmarks/tensor_parallel_cpu.py [--budget 110] [--write-page]

Ends with code 1 where the median error is over its limit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from common import ROOT, page_heading

from model.estimate import Phase
from model.execution import layer_operations, projections_of
from model.measurement import measurement_of
from model.operations import all_reduce
from model.precision import Precision
from model.presets import preset
from model.training import fit_cost_model
from profiler import processor
from profiler.interface import ENGINE
from profiler.modules import with_depth
from profiler.ranks import run_on_ranks
from profiler.tensor_parallel import layer_latencies
from profiler.wholes import ForwardPoint
from reference import campaigns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.architecture import Architecture
    from model.cost_model import FittedCostModel

RANKS = 2
MODELS = ("qwen2.5-0.5b", "qwen3-0.6b", "tinyllama-1.1b", "llama-3.2-1b")
LAYERS = 4
POINTS = (
    ForwardPoint(1, 1, 128),
    ForwardPoint(4, 1, 512),
    ForwardPoint(1, 1, 1024),
    ForwardPoint(1, 32, 32),
    ForwardPoint(1, 128, 128),
    ForwardPoint(2, 256, 256),
)
WIDTH, MATRICES = 2048, 32
"""Half a gigabyte in fp32."""
LIMIT = 0.15
PAGE = ROOT / "benchmarks" / "tensor_parallel_cpu.md"


def fitted(budget_s: int) -> FittedCostModel:
    """Returns the cost model of a campaign with one thread and of two ranks' messages.

    Two ranks share the machine's memory, each on its cores, and read their weights at one time: a
    campaign beside another one, which computes half of the time, was a tenth too quick.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "campaign.jsonl"
        process = profiler("campaign", "--budget", f"{budget_s}s", "--out", str(path))
        os.sched_setaffinity(process.pid, processor.cores_of(0, RANKS, 1))
        beside = multiprocessing.get_context("spawn").Process(target=read_memory, daemon=True)
        beside.start()
        try:
            run(process)
        finally:
            beside.kill()
            beside.join()
        run(profiler("collectives", "--ranks", str(RANKS), "--out", str(path)))
        held = campaigns.read(path)
    assert held is not None
    return fit_cost_model([measurement_of(row) for row in held.rows])


def read_memory() -> None:
    """Multiplies one row with weights that no cache holds, on the other rank's cores, for ever."""
    os.sched_setaffinity(0, processor.cores_of(1, RANKS, 1))
    torch.set_num_threads(1)
    row = torch.randn(1, WIDTH)
    weights = [torch.randn(WIDTH, WIDTH) for _ in range(MATRICES)]
    while True:
        for matrix in weights:
            torch.mm(row, matrix)


def profiler(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "profiler", *arguments]
    fixed = ["--device", "cpu", "--precisions", "fp32"]
    return subprocess.Popen([*command, *fixed], cwd=ROOT, stdout=subprocess.DEVNULL)


def run(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        raise SystemExit(f"{process.args!r} ended with exit code {process.returncode}")


def predicted_ms(
    cost_model: FittedCostModel, architecture: Architecture, point: ForwardPoint
) -> tuple[float, float]:
    """Returns the milliseconds of one rank's layer, sums included, and those of the sums alone."""
    operations = layer_operations(
        architecture.hidden_size,
        architecture.layers[0].layer.shard(RANKS),
        point.step,
        Precision.FP32,
        Precision.FP32,
        projections_of(architecture, ENGINE),
    )
    elements = sum(alike.tokens for alike in point.step) * architecture.hidden_size
    operations.append(all_reduce(elements, RANKS, Precision.FP32, 2))
    phase = Phase.DECODE if point.query_tokens == 1 else Phase.PREFILL
    estimate = cost_model.estimate(operations, phase, 0.9, ENGINE)
    return estimate.value_ms, estimate.operations_ms[-1]


def measured_ms() -> list[list[float]]:
    """Returns the median milliseconds of a layer in each pass, (models, passes)."""
    found = []
    for name in MODELS:
        architecture = with_depth(preset(name), LAYERS)
        passes = run_on_ranks(
            ["cpu"] * RANKS, 1, layer_latencies, architecture, POINTS, Precision.FP32
        )
        found.append([latency.median for latency in passes])
    return found


def rows(cost_model: FittedCostModel, latencies: np.ndarray) -> Iterator[tuple[str, float]]:
    """Yields a line of the page and the signed error of each pass."""
    for name, measured in zip(MODELS, latencies, strict=True):
        architecture = with_depth(preset(name), LAYERS)
        for point, latency in zip(POINTS, measured, strict=True):
            whole, sums = predicted_ms(cost_model, architecture, point)
            error = whole / latency - 1
            shape = f"{point.sequences} x {point.query_tokens} over {point.kv_tokens}"
            line = (
                f"| {name} | {shape} | {latency:.3f} | {whole:.3f} | {sums:.3f}"
                f" | {100 * error:+.1f}% |"
            )
            print(line, flush=True)
            yield line, error


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", type=int, default=110, help="seconds of the campaign")
    parser.add_argument("--write-page", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    # On both sides of the campaign: a machine's speed drifts by more in minutes than the errors
    # that are looked for.
    before, cost_model, after = measured_ms(), fitted(options.budget), measured_ms()
    drift = 100 * float(np.median(np.abs(np.divide(after, before) - 1)))
    found = list(rows(cost_model, np.mean([before, after], axis=0)))
    errors = np.abs([error for _, error in found])
    median = float(np.median(errors))
    summary = (
        f"Median error {100 * median:.1f}% (limit {100 * LIMIT:.0f}%), 90th percentile"
        f" {100 * float(np.percentile(errors, 90)):.1f}%, of {len(errors)} passes. Between the two"
        f" times that they were measured they moved by {drift:.1f}% at the median."
    )
    print(summary)
    if options.write_page:
        heading = page_heading(
            "Tensor-parallel layers on two processes",
            f"python benchmarks/tensor_parallel_cpu.py --budget {options.budget} --write-page",
        )
        table = [
            "| model | sequences x query over context | measured ms | predicted ms | of it sums"
            " | error |",
            "| --- | --- | --- | --- | --- | --- |",
            *(line for line, _ in found),
        ]
        intro = (
            f"One layer of {LAYERS} in fp32, cut into {RANKS} ranks of one thread that sum over"
            " gloo, each on a core of its own; the slowest rank counts. Each pass was measured"
            " before the campaign and behind it, and the mean counts. The campaign ran with one"
            " thread beside a process that reads memory as the other rank does."
        )
        PAGE.write_text("\n".join([heading, intro, "", *table, "", summary, ""]))
    return int(median > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
