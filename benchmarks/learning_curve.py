"""What a longer campaign buys: error on later points of cost models fitted on the earlier ones.

Starts the daemon with an empty data folder and lets it run one long campaign in fp32. Its
last third is the test; cost models are fitted on what stood after shorter times.

    python benchmarks/learning_curve.py [--budget 360] [--write-page]

Ends with code 1 where the longest time is not better than the quick campaign's.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import ROOT, daemon, page_heading, profile

from model.errors import NotEnoughMeasurementsError
from model.measurement import Distribution, Measurement
from model.precision import Precision
from model.training import fit_cost_model
from tokenpace.client import Client
from tokenpace.v1 import types_pb2

QUICK_S = 110
STEPS = ("layer", "prefill", "decode")


def measured(data_dir: Path, budget: int) -> list[tuple[float, Measurement]]:
    """Returns the campaign's rows with the seconds since the first one."""
    profile(data_dir, budget, [types_pb2.PRECISION_FP32])
    rows: list[types_pb2.Measurement] = []
    with daemon(data_dir) as running, Client(running.address) as client:
        token = ""
        while True:
            answer = client.measurements(page_size=1000, page_token=token)
            rows += answer.measurements
            token = answer.next_page_token
            if not token:
                break
    rows.sort(key=lambda row: row.id)
    begin = rows[0].create_time.ToMicroseconds()
    return [((row.create_time.ToMicroseconds() - begin) / 1e6, _measurement(row)) for row in rows]


def _measurement(row: types_pb2.Measurement) -> Measurement:
    name = types_pb2.Precision.Name(row.precision).removeprefix("PRECISION_")
    shape = dict(row.shape)
    # The API tells no group: an architecture or a weight shape is one.
    steps = ("sequences", "query_tokens", "kv_tokens", "m")
    group = ",".join(f"{k}={v:g}" for k, v in sorted(shape.items()) if k not in steps)
    return Measurement(
        kind=row.kind,
        precision=Precision(name.lower().replace("_", "-")),
        engine=row.engine,
        shape=shape,
        latency_ms=Distribution(
            median=row.latency_ms.median,
            p10=row.latency_ms.p10,
            p90=row.latency_ms.p90,
            samples=row.latency_ms.samples,
        ),
        group=group,
        flags=tuple(row.flags),
    )


def curve(rows: list[tuple[float, Measurement]], budget: int) -> list[tuple[float, int, float]]:
    """Returns seconds, rows and median error of each prefix on the campaign's last third."""
    split = budget * 2 / 3
    test = [m for t, m in rows if t > split and m.kind in STEPS]
    assert test, "no layer or step was measured in the last third; give it more time"
    points = []
    for seconds in sorted({40.0, 70.0, float(QUICK_S), (QUICK_S + split) / 2, split}):
        prefix = [m for t, m in rows if t <= seconds]
        try:
            errors = fit_cost_model(prefix).errors_on(test)
        except NotEnoughMeasurementsError:
            continue
        points.append((seconds, len(prefix), float(np.median(errors))))
    return points


def main() -> int:
    """Runs the benchmark; returns 1 where a longer campaign is not better."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=int, default=360, help="seconds of the campaign")
    parser.add_argument("--write-page", action="store_true", help="write benchmarks/*.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        points = curve(measured(Path(folder), options.budget), options.budget)
    lines = ["| seconds | rows | median error on later layers and steps |", "|---|---|---|"]
    lines += [f"| {seconds:.0f} | {count} | {error:.1%} |" for seconds, count, error in points]
    print("\n".join(lines))
    quick = next(error for seconds, _, error in points if seconds == QUICK_S)
    longest = points[-1][2]
    verdict = f"error after {points[-1][0]:.0f} s / after {QUICK_S} s: {longest / quick:.2f}"
    print(verdict)
    if options.write_page:
        command = f"python benchmarks/learning_curve.py --budget {options.budget} --write-page"
        text = [page_heading("What a longer campaign buys", command), *lines, "", verdict + ".", ""]
        (ROOT / "benchmarks" / "learning_curve.md").write_text("\n".join(text))
    return 0 if longest < quick else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    sys.exit(main())
