"""What a Predict costs: over an empty handler, on start, in memory, under load, beside a campaign.

Starts the real daemon and, in a process of its own, a server whose one handler does
nothing; calls to both take turns, so that what else the machine does meets both alike.

    python benchmarks/rpc.py [--data-dir DIR] [--write-page]

Without a data folder that holds a cost model of this device a short campaign makes one.
Ends with code 1 where a figure is beyond its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from common import ROOT, Daemon, address_of, campaign, daemon, page_heading, profile, wait_for
from google.protobuf.empty_pb2 import Empty

from tokenpace.v1 import (
    latency_pb2,
    types_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = ROOT / "benchmarks" / "rpc.md"
EMPTY = "/benchmarks.Empty/Call"
CALLS, WARM_UP = 2_000, 200
IN_FLIGHT, LOAD_S, SETTLED_S = 32, 60.0, 10.0
CADENCE_S, DEADLINE_S = 0.02, 1.0
MIB = 1 << 20


def requests(device: str, *presets: str) -> list[latency_pb2.PredictRequest]:
    """Returns requests of which no two are alike, so that no answer is one given before."""
    draw = random.Random(0)  # noqa: S311
    return [
        latency_pb2.PredictRequest(
            model=types_pb2.ModelSpec(preset=draw.choice(presets)),
            device=device,
            workload=types_pb2.Workload(
                input_tokens=draw.randint(1, 2_048),
                output_tokens=draw.randint(2, 512),
                batch_size=draw.randint(1, 8),
            ),
        )
        for _ in range(WARM_UP + CALLS)
    ]


# A card too unlike the one whose published kernels are brought to borrow them.
ANALYTICAL = requests("l4", "llama-3.1-8b", "qwen3-8b", "gemma-3-4b", "mistral-7b-v0.3")
PUBLISHED = requests("h200-sxm", "deepseek-r1")
for _request in PUBLISHED:
    _request.parallelism.tensor = 8
FITTED = requests("local", "smollm2-135m", "smollm2-360m", "qwen2.5-0.5b", "qwen3-0.6b")
SOURCES = {
    "analytical": (ANALYTICAL, types_pb2.PROVENANCE_ANALYTICAL),
    "fitted": (FITTED, types_pb2.PROVENANCE_MEASURED_LOCALLY),
    "DeepSeek R1 by published kernels": (PUBLISHED, types_pb2.PROVENANCE_REFERENCE_DATA),
}
"""What is asked, and what must answer it."""


@dataclass(frozen=True)
class Figure:
    """A figure beside the limit that it must not pass."""

    name: str
    value: float
    limit: float
    unit: str

    def row(self) -> list[str]:
        """Returns its cells in the table."""
        value, limit = (f"{x:.4g} {self.unit}".strip() for x in (self.value, self.limit))
        share = f"{self.value / self.limit:.2f}" if self.limit else "-"
        return [self.name, value, limit, share, "yes" if self.holds else "NO"]

    @property
    def holds(self) -> bool:
        """Whether the limit is kept."""
        return self.value <= self.limit


@contextlib.contextmanager
def empty_handler() -> Iterator[Callable[[Empty], object]]:
    command = [sys.executable, str(Path(__file__).resolve()), "--serve-empty"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            with grpc.insecure_channel(address_of(process)) as channel:
                yield channel.unary_unary(
                    EMPTY,
                    request_serializer=Empty.SerializeToString,
                    response_deserializer=Empty.FromString,
                )
        finally:
            process.terminate()


def serve_empty() -> None:
    """Serves a handler that does nothing, until it is ended."""
    server = grpc.server(ThreadPoolExecutor(16))
    handler = grpc.unary_unary_rpc_method_handler(
        lambda _request, _context: Empty(),
        request_deserializer=Empty.FromString,
        response_serializer=Empty.SerializeToString,
    )
    _, service, method = EMPTY.split("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def _ask(running: Daemon, asked: list[latency_pb2.PredictRequest], index: int) -> object:
    return running.latency.Predict(asked[index])


def over_empty(running: Daemon) -> list[Figure]:
    """Compares Predict with the empty handler, calls taking turns."""
    with empty_handler() as call:
        calls: dict[str, Callable[[int], object]] = {
            "empty handler": lambda _: call(Empty()),
        }
        for name, (asked, source) in SOURCES.items():
            found = running.latency.Predict(asked[0]).provenance
            if found != source:
                raise SystemExit(f"{name} is answered by provenance {found}, not {source}")
            calls[name] = partial(_ask, running, asked)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for index in range(WARM_UP + CALLS):
            for name, make in calls.items():
                taken = timed(partial(make, index))
                if index >= WARM_UP:
                    times[name].append(taken)
    medians = {name: statistics.median(found) for name, found in times.items()}
    print("medians of a call in ms:", {name: round(ms, 3) for name, ms in medians.items()})
    base = medians.pop("empty handler")
    return [
        Figure(f"Predict over an empty handler of {base:.2f} ms, {name}", ms / base, 3.0, "")
        for name, ms in medians.items()
    ]


def import_published(running: Daemon) -> None:
    """Brings published kernels of the device that is asked about, where there are none."""
    answer = running.latency.Predict(PUBLISHED[0], timeout=30)
    if answer.provenance == types_pb2.PROVENANCE_REFERENCE_DATA:
        return
    command = [sys.executable, "-m", "tokenpace.command", "reference", "import"]
    what = ["--device", "h200-sxm", "--engine", "vllm", "--rows", "3000", "--operations-only"]
    subprocess.run([*command, *what, "--address", running.address], check=True, cwd=ROOT)


def start_up(data_dir: Path) -> Figure:
    """Times the daemon's start to the first answered Predict, median of 5."""
    seconds = []
    for _ in range(5):
        with daemon(data_dir) as started:
            started.latency.Predict(FITTED[0], timeout=30)
            seconds.append(time.perf_counter() - started.begin)
    return Figure("start to the first answered Predict", statistics.median(seconds), 3.0, "s")


def under_load(running: Daemon) -> list[Figure]:
    """Keeps 32 Predicts in flight for 60 s."""
    errors: list[str] = []
    both = (ANALYTICAL, FITTED)
    answered = [0] * IN_FLIGHT
    end = time.monotonic() + LOAD_S

    def ask(worker: int) -> None:
        draw = random.Random(worker)  # noqa: S311
        while time.monotonic() < end:
            try:
                running.latency.Predict(draw.choice(draw.choice(both)), timeout=30)
            except grpc.RpcError as error:
                errors.append(str(error.code()))
            answered[worker] += 1

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(IN_FLIGHT)]
    for thread in threads:
        thread.start()
    time.sleep(SETTLED_S)
    settled = running.resident_bytes()
    for thread in threads:
        thread.join()
    growth = running.resident_bytes() / settled
    print(f"under load: {sum(answered) / LOAD_S:.0f} answers a second, errors: {errors[:3]}")
    return [
        Figure(f"errors with {IN_FLIGHT} in flight for {LOAD_S:.0f} s", len(errors), 0, ""),
        Figure("resident memory at the end over that after 10 s", growth, 1.05, ""),
    ]


def beside_a_campaign(running: Daemon, seconds: int) -> list[Figure]:
    """Compares Predict's median while the device is measured with that before."""

    def ask_until(done: Callable[[], bool]) -> tuple[float, int]:
        times, missed = [], 0
        draw = random.Random(0)  # noqa: S311
        while not done():
            asked = draw.choice(FITTED)
            try:
                predict = partial(running.latency.Predict, asked, timeout=DEADLINE_S)
                times.append(timed(predict))
            except grpc.RpcError:
                missed += 1
            time.sleep(CADENCE_S)
        return statistics.median(times), missed

    quiet_end = time.monotonic() + 10
    quiet, _ = ask_until(lambda: time.monotonic() > quiet_end)
    job = campaign(running, seconds)
    wait_for(running, job, ended=False)
    waiter = threading.Thread(target=wait_for, args=(running, job), kwargs={"ended": True})
    waiter.start()
    busy, missed = ask_until(lambda: not waiter.is_alive())
    print(f"Predict's median without a campaign {quiet:.2f} ms, beside one {busy:.2f} ms")
    return [
        Figure("Predict beside a campaign over Predict without one", busy / quiet, 5.0, ""),
        Figure(f"deadlines of {DEADLINE_S:.0f} s missed beside a campaign", missed, 0, ""),
    ]


def table(figures: list[Figure]) -> str:
    rows = [["figure", "value", "limit", "value / limit", "holds"], ["---"] * 5]
    rows += [figure.row() for figure in figures]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def page(figures: list[Figure]) -> str:
    return f"""{page_heading("What a Predict costs", "python benchmarks/rpc.py --write-page")}
Client and servers share the machine; calls go over the loopback. The empty handler runs
in a process of its own, without interceptors, and its calls take turns with Predict's.

{table(figures)}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="folder with a cost model of this device")
    parser.add_argument("--campaign", type=int, default=60, metavar="SECONDS")
    parser.add_argument("--write-page", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("--serve-empty", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_empty:
        serve_empty()
    with tempfile.TemporaryDirectory() as temporary:
        data_dir = arguments.data_dir or Path(temporary) / "data"
        profile(data_dir, arguments.campaign)
        figures = [start_up(data_dir)]
        with daemon(data_dir) as running:
            import_published(running)
            figures += over_empty(running)
            resident = running.resident_bytes() / MIB
            figures.append(
                Figure("resident memory without a job", resident, 300 * 1e6 / MIB, "MiB")
            )
            figures += under_load(running)
            figures += beside_a_campaign(running, arguments.campaign)
    print(table(figures))
    if arguments.write_page:
        PAGE.write_text(page(figures))
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
