"""What a campaign's cost model says of models that it never saw, beside what they take.

Real layers of published models (as ranks see them), whole models as deep as memory allows, the
rates of a bare torch script, and how far a second campaign on the same device agrees:

    python -m profiler campaign --budget 8m --out first.jsonl
    python -m profiler campaign --budget 8m --out second.jsonl
    PYTHONPATH=. python benchmarks/held_out.py first.jsonl [--again second.jsonl] [--write-page]

It installs nothing. On a GPU it ends with code 1 where a limit is exceeded; a processor that
others share is held to none.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from evaluation import overhead
from evaluation.heading import heading
from model.estimate import Phase
from model.execution import layer_operations, projections_of, step_operations
from model.measurement import measurement_of
from model.presets import preset
from model.source import ROOT
from model.training import fit_cost_model
from model.workload import Parallelism
from profiler.device import dtype_of, open_device
from profiler.identity import default_device
from profiler.live import cold_depth
from profiler.models import ModelPoint
from profiler.modules import shard, with_depth
from profiler.operations import LinearPoint, measure_linear, time_graphed
from profiler.plain_models import PlainModelPoint
from profiler.points import MATRIX_EFFORT
from profiler.timing import Effort
from profiler.wholes import ForwardPoint, GeneratePoint, repeated
from reference import campaigns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from model.architecture import Architecture
    from model.cost_model import FittedCostModel
    from model.operations import Operation
    from model.precision import Precision
    from profiler.device import Device
    from profiler.wholes import WholePoint

PAGE = ROOT / "benchmarks" / "held_out.md"
EFFORT = Effort(seconds=0.5, min_samples=5)
POINTS: dict[str, type[WholePoint]] = {
    point.engine: point for point in (ModelPoint, PlainModelPoint)
}
LAYERS = {
    "cuda": (("llama-3.1-8b", 1), ("llama-3.1-70b", 8), ("qwen3-32b", 1), ("mixtral-8x7b", 1)),
    "cpu": (("smollm2-135m", 1), ("qwen2.5-0.5b", 1), ("qwen3-0.6b", 1), ("llama-3.2-1b", 2)),
}
"""Models and the tensor-parallel size whose rank's share runs."""
WHOLES = {"cuda": ("llama-3.1-8b", "qwen3-32b"), "cpu": ("smollm2-135m", "qwen2.5-0.5b")}
PASSES = {
    "cuda": ((1, 1, 1024), (16, 1, 2048), (64, 1, 4096), (1, 512, 512), (2, 2048, 2048)),
    "cpu": ((1, 1, 128), (4, 1, 512), (1, 64, 64), (2, 256, 256)),
}
REQUESTS = {"cuda": ((1, 512, 64), (16, 1024, 64)), "cpu": ((1, 64, 17), (4, 128, 17))}
MATRIX = {"cuda": 8192, "cpu": 1024}
COPIED_BYTES = {"cuda": 1 << 30, "cpu": 1 << 28}
FREE_SHARE = 0.6
LIMITS = {"layers": (0.04, 0.10), "whole models": (0.05, None), "campaigns": (0.02, None)}
"""Median and 90th percentile on a GPU."""
RATE_LIMIT = 0.05


class Timed(NamedTuple):
    """A pass or step of one model under one engine, and what it took."""

    what: str
    engine: str
    phase: Phase
    operations: Sequence[Operation]
    measured_ms: float

    def predicted_ms(self, cost_model: FittedCostModel) -> float:
        """Returns what a cost model says of it."""
        return cost_model.estimate(self.operations, self.phase, 0.9, self.engine).value_ms


class Case(NamedTuple):
    """Two figures of one thing."""

    what: str
    measured_ms: float
    predicted_ms: float

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_ms / self.measured_ms - 1


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Returns the measurements of a campaign's file."""
    held = campaigns.read(path)
    if held is None or not held.rows:
        raise SystemExit(f"{path} holds no measurement; run the campaign for longer")
    return held.rows


def fitted(rows: Sequence[dict[str, Any]], device: Device) -> FittedCostModel:
    """Returns the cost model of a campaign's measurements."""
    return fit_cost_model([measurement_of(row) for row in rows], device.processors)


def layers(cost_model: FittedCostModel, device: Device, kind: str) -> Iterator[Timed]:
    """Yields one layer of each model's rank in each pass, under each engine."""
    precision = device.default_precision
    for engine, make in POINTS.items():
        if not cost_model.supports(precision, engine):
            continue
        for name, tensor in LAYERS[kind]:
            whole = shard(preset(name), tensor)
            architecture = with_depth(whole, cold_depth(whole, precision, device))
            model = make(architecture, (), ()).build(precision, device)
            for sizes in PASSES[kind]:
                point = ForwardPoint(*sizes)
                operations = layer_operations(
                    architecture.hidden_size,
                    architecture.layers[0].layer,
                    point.step,
                    precision,
                    precision,
                    projections_of(architecture, engine),
                )
                phase = Phase.DECODE if point.query_tokens == 1 else Phase.PREFILL
                share = f", a rank of {tensor}" if tensor > 1 else ""
                passed = f"{point.sequences} x {point.query_tokens} over {point.kv_tokens}"
                took = model.layer(point, EFFORT).distribution.median
                what = f"{name}{share} | {engine} | {passed}"
                yield Timed(what, engine, phase, operations, took)
            del model


def whole_models(cost_model: FittedCostModel, device: Device, kind: str) -> Iterator[Timed]:
    """Yields prefill and decode of models as deep as memory allows, under each engine."""
    precision = device.default_precision
    for engine, make in POINTS.items():
        if not cost_model.supports(precision, engine):
            continue
        for name in WHOLES[kind]:
            architecture = that_fits(preset(name), precision, device)
            model = make(architecture, (), ()).build(precision, device)
            for sizes in REQUESTS[kind]:
                request = GeneratePoint(*sizes)
                first, steps = repeated(model.runs(request), EFFORT)
                assert steps is not None
                last = request.input_tokens + request.output_tokens // 2
                passes = (
                    (Phase.PREFILL, request.input_tokens, request.input_tokens, first),
                    (Phase.DECODE, 1, last, steps),
                )
                for phase, query, kv, timing in passes:
                    point = ForwardPoint(request.sequences, query, kv)
                    operations = step_operations(
                        architecture,
                        point.step,
                        Parallelism(),
                        precision,
                        precision,
                        engine,
                        first=phase is Phase.PREFILL,
                    )
                    what = f"{name}, {architecture.layer_count} layers | {engine}"
                    what += f" | {phase.value} of {request.sequences} over {kv}"
                    took = timing.distribution.median
                    yield Timed(what, engine, phase, operations, took)
            del model


def that_fits(architecture: Architecture, precision: Precision, device: Device) -> Architecture:
    """Returns the model with as many layers as fit the free memory."""
    needed = architecture.parameter_count() * precision.weight_bytes
    share = FREE_SHARE * device.free_bytes() / needed
    return with_depth(architecture, max(2, int(min(1.0, share) * architecture.layer_count)))


def rates(device: Device, kind: str) -> Iterator[Case]:
    """Yields a product and a copy as the profiler times them, and as a bare torch script does."""
    precision = device.default_precision
    dtype, size = dtype_of(precision), MATRIX[kind]
    (row,) = measure_linear(LinearPoint(size, size, (size,)), precision, device, MATRIX_EFFORT)
    x, weight = (torch.randn(size, size, device=device.torch_device).to(dtype) for _ in range(2))
    product = bare_ms(device, lambda: torch.nn.functional.linear(x, weight))
    yield Case(f"product of {size} cubed, {precision}", product, row.latency_ms.median)
    values = COPIED_BYTES[kind] // 4
    source, target = (torch.randn(values, device=device.torch_device) for _ in range(2))
    runs = [partial(target.copy_, source)]
    copied = time_graphed(device, runs, MATRIX_EFFORT).distribution.median
    bare = bare_ms(device, lambda: target.copy_(source))
    yield Case(f"copy of {COPIED_BYTES[kind] >> 20} MiB", bare, copied)


def bare_ms(device: Device, run: Callable[[], object]) -> float:
    """Returns the milliseconds of a run among twenty in a row, the clock around them all."""
    for _ in range(3):
        run()
    device.synchronize()
    begin = time.perf_counter()
    for _ in range(20):
        run()
    device.synchronize()
    return (time.perf_counter() - begin) / 20 * 1e3


def table(cases: Sequence[Case], head: str) -> list[str]:
    """Returns the lines of a table, printed as well."""
    rule = "|".join("---" for _ in head.split("|"))
    lines = [f"| {head} |", f"|{rule}|"]
    for case in cases:
        figures = f"{case.measured_ms:.4g} | {case.predicted_ms:.4g} | {100 * case.error:+.1f}%"
        lines.append(f"| {case.what} | {figures} |")
    print("\n".join(lines), flush=True)
    return [*lines, ""]


def summary(name: str, errors: Sequence[float], *, on_gpu: bool) -> tuple[str, bool]:
    """Returns a sentence on errors, and whether they are within their limits or have none."""
    median, p90 = (float(np.percentile(np.abs(errors), q)) for q in (50, 90))
    limits = LIMITS[name]
    held = median <= limits[0] and (limits[1] is None or p90 <= limits[1])
    asked = f"{100 * limits[0]:g}%" + (f" and {100 * limits[1]:g}%" if limits[1] else "")
    text = f"{name}: median {100 * median:.1f}%, 90th percentile {100 * p90:.1f}%"
    text += f", of {len(errors)} (on a GPU at most {asked})."
    print(text, flush=True)
    return text[0].upper() + text[1:], held or not on_gpu


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("campaign", type=Path)
    parser.add_argument("--again", type=Path, help="a second campaign on the same device")
    parser.add_argument("--device", default="", help="cpu or cuda:0; the GPU if there is one")
    parser.add_argument("--write-page", action="store_true")
    options = parser.parse_args()
    device = open_device(options.device or default_device())
    kind = "cuda" if device.is_cuda else "cpu"
    rows = rows_of(options.campaign)
    cost_model = fitted(rows, device)
    all_held = True
    made = f"The campaign made {cost_model.measurement_count:,} measurements that count."
    lines = [f"{made} {overhead.sentence(rows)}".strip(), ""]
    head = "model | engine | pass | measured ms | predicted ms | error"
    timed: dict[str, list[Timed]] = {}
    # One after the other: what is cut off by a time limit has printed what it measured.
    for name, measure in (("layers", layers), ("whole models", whole_models)):
        timed[name] = list(measure(cost_model, device, kind))
        if not timed[name]:
            raise SystemExit(f"{options.campaign} fits no engine in {device.default_precision}")
        cases = [Case(it.what, it.measured_ms, it.predicted_ms(cost_model)) for it in timed[name]]
        lines += table(cases, head)
        text, held = summary(name, [case.error for case in cases], on_gpu=device.is_cuda)
        lines += [text, ""]
        all_held &= held
    found = list(rates(device, kind))
    lines += table(found, "what | bare torch ms | profiler ms | apart")
    if device.is_cuda:
        all_held &= all(abs(case.error) <= RATE_LIMIT for case in found)
    if options.again:
        other = fitted(rows_of(options.again), device)
        apart = [
            it.predicted_ms(other) / it.predicted_ms(cost_model) - 1
            for each in timed.values()
            for it in each
            if other.supports(device.default_precision, it.engine)
        ]
        text, held = summary("campaigns", apart, on_gpu=device.is_cuda)
        lines += [text, ""]
        all_held &= held
    if options.write_page:
        given = [Path(argument).name for argument in sys.argv[1:]]
        command = f"PYTHONPATH=. python benchmarks/held_out.py {' '.join(given)}"
        title = heading(
            f"Models that a campaign never saw, on {campaign_device(options.campaign)}",
            command,
            ("torch", "transformers", "scikit-learn", "numpy"),
        )
        PAGE.write_text(f"{title}\n" + "\n".join(lines).rstrip() + "\n")
    return 0 if all_held else 1


def campaign_device(path: Path) -> str:
    """Returns the name of the device that a campaign's file was measured on."""
    held = campaigns.read(path)
    assert held is not None
    return held.header.device_name


if __name__ == "__main__":
    sys.exit(main())
