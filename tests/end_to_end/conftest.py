"""The real daemon as a process, and what its errors hold."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tokenpace.v1 import catalog_pb2_grpc, latency_pb2_grpc, profiler_pb2_grpc


@dataclass
class Daemon:
    """A daemon that runs; ``log`` is the file that its standard error goes to."""

    process: "subprocess.Popen[str]"
    address: str
    data_dir: Path
    log: Path
    channel: grpc.Channel

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def latency(self) -> latency_pb2_grpc.LatencyServiceStub:
        return latency_pb2_grpc.LatencyServiceStub(self.channel)

    @property
    def profiler(self) -> profiler_pb2_grpc.ProfilerServiceStub:
        return profiler_pb2_grpc.ProfilerServiceStub(self.channel)

    @property
    def catalog(self) -> catalog_pb2_grpc.CatalogServiceStub:
        return catalog_pb2_grpc.CatalogServiceStub(self.channel)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self.process.kill()
        self.process.wait(timeout=10)


@contextmanager
def running(data_dir: Path, *flags: str, **environment: str) -> Iterator[Daemon]:
    """Starts a daemon on a free port and ends it in good order."""
    log = data_dir.parent / f"{data_dir.name}.log"
    command = [sys.executable, "-m", "server", "--address", "127.0.0.1:0"]
    with (
        log.open("a") as errors,
        subprocess.Popen(
            [*command, "--data-dir", str(data_dir), *flags],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | environment,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), log.read_text()
            address = line.removeprefix("listening on ").strip()
            with grpc.insecure_channel(address) as channel:
                yield Daemon(process, address, data_dir, log, channel)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def start_daemon(tmp_path):
    """Starts daemons on one data folder, one after the other."""

    def start(*flags: str, data_dir: Path | None = None, **environment: str) -> Any:
        return running(data_dir or tmp_path / "data", *flags, **environment)

    return start


@pytest.fixture(scope="module")
def daemon(tmp_path_factory) -> Iterator[Daemon]:
    """A fresh daemon that the tests of a module share."""
    with running(tmp_path_factory.mktemp("daemon") / "data") as started:
        yield started


@dataclass
class Failure:
    """What a call ended with."""

    code: str
    message: str
    fields: list[str]
    details: list[Message]
    trailer_bytes: int


def failure_of(error: grpc.RpcError) -> Failure:
    """Reads the rich details of an error."""
    call: Any = error
    status = rpc_status.from_call(call)
    kinds = (
        error_details_pb2.BadRequest,
        error_details_pb2.ErrorInfo,
        error_details_pb2.ResourceInfo,
        error_details_pb2.PreconditionFailure,
        error_details_pb2.RetryInfo,
    )
    details: list[Message] = [
        kind.FromString(packed.value)
        for packed in (status.details if status is not None else ())
        for kind in kinds
        if packed.Is(kind.DESCRIPTOR)
    ]
    fields = [
        violation.field
        for detail in details
        if isinstance(detail, error_details_pb2.BadRequest)
        for violation in detail.field_violations
    ]
    size = sum(len(key) + len(value) for key, value in call.trailing_metadata())
    return Failure(call.code().name, call.details(), fields, details, size)


@pytest.fixture
def failure():
    """Calls what must fail and returns what it ended with; reads a stream to its end."""

    def of(call: Any, request: Message, timeout: float = 30) -> Failure:
        with pytest.raises(grpc.RpcError) as caught:
            answer = call(request, timeout=timeout)
            if not isinstance(answer, Message):
                list(answer)
        return failure_of(caught.value)

    return of
