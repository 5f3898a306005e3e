"""What the benchmarks share: the real daemon as a process, its jobs, and a page's heading."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from google.protobuf.duration_pb2 import Duration

from evaluation.heading import heading
from model.source import ROOT
from tokenpace.v1 import (
    latency_pb2,
    latency_pb2_grpc,
    profiler_pb2,
    profiler_pb2_grpc,
    types_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

QUESTION = latency_pb2.PredictRequest(
    model=types_pb2.ModelSpec(preset="smollm2-135m"),
    workload=types_pb2.Workload(input_tokens=128, output_tokens=16),
)


class Daemon:
    """The real daemon, from its start on."""

    def __init__(self, data_dir: Path) -> None:
        self.begin = time.perf_counter()
        command = [sys.executable, "-m", "server", "--address", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, "--data-dir", str(data_dir), "--log-level", "warning"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.address = address_of(self.process)
        self.channel = grpc.insecure_channel(self.address)
        self.latency = latency_pb2_grpc.LatencyServiceStub(self.channel)  # type: ignore[no-untyped-call]
        self.profiler = profiler_pb2_grpc.ProfilerServiceStub(self.channel)  # type: ignore[no-untyped-call]

    def resident_bytes(self) -> int:
        """Returns the daemon's resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) << 10

    def has_cost_model(self) -> bool:
        """Returns whether the local device has a fitted cost model."""
        answer = self.latency.Predict(QUESTION, timeout=30)
        return bool(answer.cost_model != "analytical")

    def close(self) -> None:
        """Ends it in good order."""
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("listening on "), "the server did not start"
    return line.removeprefix("listening on ").strip()


@contextlib.contextmanager
def daemon(data_dir: Path) -> Iterator[Daemon]:
    started = Daemon(data_dir)
    try:
        yield started
    finally:
        started.close()


def wait_for(running: Daemon, job_id: str, *, ended: bool) -> str:
    """Waits until a job runs, or has ended, and returns its state."""
    while True:
        asked = profiler_pb2.GetProfileJobRequest(id=job_id)
        state = running.profiler.GetProfileJob(asked, timeout=30).profile_job.state
        if state >= types_pb2.JOB_STATE_SUCCEEDED or (
            not ended and state == types_pb2.JOB_STATE_RUNNING
        ):
            return str(types_pb2.JobState.Name(state))
        time.sleep(0.2)


def campaign(running: Daemon, seconds: int, precisions: Sequence[types_pb2.Precision] = ()) -> str:
    asked = profiler_pb2.CreateProfileJobRequest(
        budget=Duration(seconds=seconds), precisions=precisions
    )
    return str(running.profiler.CreateProfileJob(asked, timeout=30).profile_job.id)


def profile(data_dir: Path, seconds: int, precisions: Sequence[types_pb2.Precision] = ()) -> None:
    """Makes sure that the folder holds a cost model of this device."""
    with daemon(data_dir) as running:
        if running.has_cost_model():
            return
        print(f"no cost model in {data_dir.name}: a campaign of {seconds} s makes one")
        job = campaign(running, seconds, precisions)
        state = wait_for(running, job, ended=True)
        asked = profiler_pb2.GetProfileJobRequest(id=job)
        reason = running.profiler.GetProfileJob(asked, timeout=30).profile_job.error_message
        assert state == "JOB_STATE_SUCCEEDED", reason
        assert running.has_cost_model()


def page_heading(title: str, command: str) -> str:
    """Returns a page's first lines, with the versions that what is measured here hangs on."""
    return heading(title, command, ("torch", "transformers", "grpcio", "protobuf", "onnxruntime"))
