"""A daemon of canned answers behind a real gRPC server on the loopback."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tokenpace.client import Client
from tokenpace.v1 import catalog_pb2, latency_pb2, profiler_pb2

SERVICES = [
    latency_pb2.DESCRIPTOR.services_by_name["LatencyService"],
    profiler_pb2.DESCRIPTOR.services_by_name["ProfilerService"],
    catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"],
]


class FakeDaemon:
    """Answers each RPC with ``answers[name]``: a message, a list of them (streams), or a
    function of request and context that returns either; without one: an empty message."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[tuple[str, Message]] = []
        self.server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        for service in SERVICES:
            handlers = {method.name: self._handler(method) for method in service.methods}
            self.server.add_generic_rpc_handlers(
                [grpc.method_handlers_generic_handler(service.full_name, handlers)]
            )
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    @property
    def rpcs(self) -> set[str]:
        """Names of all RPCs of the contract."""
        return {method.name for service in SERVICES for method in service.methods}

    def request(self, name: str) -> Any:
        """The last request of that RPC."""
        return next(request for called, request in reversed(self.requests) if called == name)

    def called(self) -> list[str]:
        return [name for name, _ in self.requests]

    def _handler(self, method: Any) -> grpc.RpcMethodHandler:
        request, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

        def respond(message: Message, context: grpc.ServicerContext) -> Any:
            self.requests.append((method.name, message))
            canned = self.answers.get(method.name, answer())
            return canned(message, context) if callable(canned) else canned

        make = (
            grpc.unary_stream_rpc_method_handler
            if method.server_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(respond, request.FromString, answer.SerializeToString)


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    fake = FakeDaemon()
    yield fake
    fake.server.stop(None).wait()


@pytest.fixture
def client(daemon: FakeDaemon) -> Iterator[Client]:
    with Client(daemon.address, timeout=10) as client:
        yield client


@pytest.fixture
def refusal() -> Callable[..., Callable[[Message, grpc.ServicerContext], None]]:
    """Makes an answer that refuses with google.rpc.Status details, as the daemon does."""

    def make(
        code: grpc.StatusCode, message: str, *details: Message
    ) -> Callable[[Message, grpc.ServicerContext], None]:
        status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message)
        for detail in details:
            status.details.add().Pack(detail)

        def refuse(request: Message, context: grpc.ServicerContext) -> None:
            context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
            context.abort(code, message)

        return refuse

    return make


@pytest.fixture
def bad_field() -> error_details_pb2.BadRequest:
    details = error_details_pb2.BadRequest()
    details.field_violations.add(
        field="workload.input_tokens", description="0 is not in 1 to 16777216"
    )
    return details
