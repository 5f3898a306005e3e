"""Errors of single operations on published tables, whole shapes left out.

The rows are aiconfigurator-core's (0.12.0, Apache-2.0); nothing of them is kept here.

    python benchmarks/operations.py --write-page
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.common import heading
from model.conformal import coverage, half_width
from model.cost_model import FittedCostModel
from model.kernel_fitting import kernel_errors
from model.measurement import Distribution, Measurement
from model.operations import OperationKind
from model.precision import Precision
from model.published import fit_published
from model.rows import usable_rows
from reference import sources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from model.rows import Row

COMMAND = "python benchmarks/operations.py --write-page"
PAGE = Path(__file__).with_suffix(".md")
FEW = 500
CONFIDENCE = 0.9


class Case(NamedTuple):
    """One line of the table: which rows, and what is asked of their mean error in %."""

    name: str
    device: str
    kind: str
    precision: str
    must: float
    must_few: float
    wanted: Callable[[Mapping[str, float]], bool] = lambda shape: True


def _large(shape: Mapping[str, float]) -> bool:
    return shape["n"] >= 512 and shape["k"] >= 512


def _plain(shape: Mapping[str, float]) -> bool:
    return shape["head_dim"] == 128 and "window" not in shape


def _decode(shape: Mapping[str, float]) -> bool:
    return _plain(shape) and shape["query_tokens"] == 1


def _prefill(shape: Mapping[str, float]) -> bool:
    return _plain(shape) and shape["query_tokens"] > 1


CASES = (
    Case("linear bf16", "h100-sxm", "linear", "bf16", 3.5, 5.0, _large),
    Case("linear fp8 block", "h100-sxm", "linear", "fp8-block", 3.5, 5.0, _large),
    Case("linear bf16", "a100-sxm", "linear", "bf16", 3.5, 5.0, _large),
    Case("attention decode", "h100-sxm", "attention", "bf16", 1.5, 3.0, _decode),
    Case("attention prefill", "h100-sxm", "attention", "bf16", 3.0, 5.0, _prefill),
    Case("experts fp8 block", "h100-sxm", "experts", "fp8-block", 7.0, 9.0),
    Case("latent attention bf16", "h100-sxm", "mla", "bf16", 3.0, 5.0),
)
"""Head counts are left out whole for attention, models for experts, weight shapes for linears."""


def measurements(device: str, limit: int) -> list[Measurement]:
    """Returns the rows of vLLM on a device, at most ``limit`` of a kind and precision."""
    return [
        Measurement(
            kind=row.kind,
            precision=Precision(row.precision),
            engine=row.engine,
            shape=row.shape,
            latency_ms=Distribution(
                median=row.latency_ms, p10=row.latency_ms, p90=row.latency_ms, samples=1
            ),
            group=row.group,
        )
        for row in sources.package_source(device, "vllm", limit).rows
    ]


def errors(kind: str, rows: Sequence[Row], points: int | None = None) -> list[np.ndarray]:
    """Returns log(measured / predicted) of held-out rows, an array a group.

    Args:
        kind: of the operations.
        rows: all of that kind.
        points: fit on so many rows of each fold alone; None takes all.
    """
    found = kernel_errors(OperationKind(kind), rows, points=points)
    return [np.array([error for _, error in group]) for group in found]


def line(case: Case, rows: Sequence[Row], points: int | None) -> str:
    by_group = errors(case.kind, rows, points)
    logs = np.concatenate(by_group)
    relative = 100 * np.abs(np.expm1(-logs))
    held = 100 * coverage([np.abs(group) for group in by_group], CONFIDENCE)
    width = 100 * np.expm1(half_width(np.sort(np.abs(logs)), CONFIDENCE))
    must = case.must_few if points else case.must
    return (
        f"| {case.name} | {case.device} | {points or len(rows):,} | {len(by_group)} |"
        f" {relative.mean():.1f} / {np.median(relative):.1f} / {np.quantile(relative, 0.9):.1f} |"
        f" {must:g} | {'yes' if relative.mean() <= must else 'no'} | {held:.0f}% |"
        f" {width:.0f}% |"
    )


def fit_times() -> list[str]:
    """Returns the lines on how long fitting and loading take."""
    rows = measurements("h100-sxm", sources.DEFAULT_LIMIT)
    pick = np.random.default_rng(0)
    lines = []
    for count, limit in ((100_000, 60.0), (1_000, 5.0)):
        chosen = [rows[i] for i in pick.choice(len(rows), count, replace=False)]
        start = time.perf_counter()
        blob = fit_published(chosen).to_bytes()
        took = time.perf_counter() - start
        start = time.perf_counter()
        FittedCostModel.from_bytes(blob)
        loaded = 1e3 * (time.perf_counter() - start)
        lines.append(
            f"| {count:,} rows | {took:.1f} s (limit {limit:g}) | {loaded:.0f} ms (limit 200) |"
            f" {len(blob) / 1e6:.1f} MB |"
        )
    return lines


def page() -> str:
    by_device = {name: measurements(name, 1 << 30) for name in {case.device for case in CASES}}
    lines = []
    for case in CASES:
        same = [
            m
            for m in by_device[case.device]
            if m.kind == case.kind and m.precision == case.precision and case.wanted(m.shape)
        ]
        rows = usable_rows(same)
        for points in (None, FEW):
            lines.append(line(case, rows, points))
            print(lines[-1], flush=True)
    times = fit_times()
    return "\n".join(
        [
            heading("Single operations against published tables", COMMAND),
            "aiconfigurator-core's tables of vLLM (latent attention: SGLang), fitted by what a"
            " device's own measurements are fitted by; whole groups left out (weight shapes of"
            " linears, head counts of attention, models of experts). Errors are mean / median /"
            " 90th percentile in %; the width is how far the 90% interval reaches above.",
            "",
            "| operations | device | points | groups | error | must (mean) | reached |"
            " 90% interval holds | width |",
            "|---|---|---|---|---|---|---|---|---|",
            *lines,
            "",
            "| fitting on | takes | loading the result | its size |",
            "|---|---|---|---|",
            *times,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write-page", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    text = page()
    print(text)
    if arguments.write_page:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
