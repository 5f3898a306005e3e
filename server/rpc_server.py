"""The gRPC server around the services: threads, limits, health, reflection."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from server.interceptors import CallInterceptor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from server.configuration import Configuration

REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


class AddressInUseError(Exception):
    """The address cannot be listened on; the text names the remedy."""


class RpcServer:
    """A server that is bound to its address on construction and answers once started.

    Args:
        configuration: address, limits and numbers of threads.
        services: by full name, what registers each on a server.

    Raises:
        AddressInUseError: the address is taken or not of this machine.
    """

    def __init__(
        self, configuration: Configuration, services: Mapping[str, Callable[[grpc.Server], None]]
    ) -> None:
        self._pool = ThreadPoolExecutor(
            # Streams and fits hold their thread; what is left answers short calls.
            configuration.max_workers + configuration.max_streams,
            thread_name_prefix="rpc",
        )
        self._server = grpc.server(
            self._pool,
            interceptors=[CallInterceptor(configuration.max_streams)],
            options=[
                ("grpc.max_receive_message_length", configuration.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # Two daemons on one port would take turns in answering.
                ("grpc.so_reuseport", 0),
            ],
        )
        self._names = tuple(services)
        for register in services.values():
            register(self._server)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._add_reflection()
        self._stopped = threading.Event()
        self.address = self._bind(configuration.address)

    def start(self) -> None:
        """Begins to answer; health says SERVING."""
        self._server.start()
        for name in (*self._names, health.OVERALL_HEALTH):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_s: float) -> None:
        """Takes no new calls from now on; health says NOT_SERVING.

        Args:
            grace_s: seconds that calls in flight have before they are cut off.
        """
        self._health.enter_graceful_shutdown()
        self._stopped = self._server.stop(grace_s)

    def join(self) -> None:
        """Waits until the calls in flight have ended or were cut off."""
        self._stopped.wait()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _bind(self, address: str) -> str:
        host, _, _ = address.rpartition(":")
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if not port:
            raise AddressInUseError(
                f"cannot listen on {address}: it is taken by another process or is not an"
                " address of this machine; name another with --address (port 0 picks a free one)"
            )
        return f"{host}:{port}"

    def _add_reflection(self) -> None:
        _describe_reflection_v1()
        names = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME, REFLECTION_V1)
        servicer = reflection.ReflectionServicer(names)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, self._server)
        # Version 1 has the same messages on the wire under another name, and
        # newer clients ask for it first.
        handler = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    REFLECTION_V1, {"ServerReflectionInfo": handler}
                ),
            )
        )


def _describe_reflection_v1() -> None:
    """Adds version 1 of reflection to the known descriptors: what is listed must be describable.

    grpcio-reflection ships version 1alpha alone, which differs in the package's name only.
    """
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    renamed = text_format.MessageToString(file).replace("v1alpha", "v1")
    file = text_format.Parse(renamed, descriptor_pb2.FileDescriptorProto())
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
