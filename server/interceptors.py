"""What happens around every call: a request id, one log line, errors as statuses, a cap on streams.

A call's id comes from its ``x-request-id`` metadata or is made here; it is
bound to all log lines of the call and goes back in the trailing metadata.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from model.errors import InvalidFieldError, UnknownNameError
from server.errors import (
    ServiceError,
    Violation,
    internal,
    invalid_argument,
    not_found,
    resource_exhausted,
    unavailable,
)
from server.store.errors import StoreFullError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    _Handler = grpc.RpcMethodHandler[Any, Any]

REQUEST_ID = "x-request-id"

_MAX_ID_CHARACTERS = 128
_RETRY_S = 1.0

# Answered by the thousand: a line for each would cost more than the answer.
_QUIET = frozenset({"Predict", "BatchPredict"})
# Unary calls that take as long as a stream and count as one.
_LONG = frozenset({"FitCostModel"})
# gRPC's own: the health service must get its hooks unwrapped, and a check every
# few seconds is worth no line.
_UNWRAPPED = "/grpc.health.v1.Health/"

# By whether the request and the response are streams.
_MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}

_log = structlog.get_logger(__name__)


class CallInterceptor(grpc.ServerInterceptor):
    """Wraps the handlers of all services.

    Args:
        max_streams: streams and long calls at one time. Each holds a thread of
            the pool as long as it lasts; with ``max_workers + max_streams``
            threads none of them can keep a short call waiting.
    """

    def __init__(self, max_streams: int) -> None:
        self._slots = threading.Semaphore(max_streams)
        # Bound once: a quiet call's line then costs nothing where it is not asked for.
        self._log = _log.bind()
        self._handlers: dict[str, _Handler] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Returns the wrapped handler of the method; None stands for an unknown method."""
        method = handler_call_details.method
        if (known := self._handlers.get(method)) is not None:
            return known
        handler = continuation(handler_call_details)
        if handler is None or method.startswith(_UNWRAPPED):
            return handler
        wrapped = self._wrap(method, handler)
        self._handlers[method] = wrapped
        return wrapped

    def _wrap(self, method: str, handler: _Handler) -> _Handler:
        name = method.rpartition("/")[2]
        inner: Any = (
            handler.unary_unary
            or handler.unary_stream
            or handler.stream_unary
            or handler.stream_stream
        )
        make: Any = _MAKERS[handler.request_streaming, handler.response_streaming]
        wrapped: _Handler = make(
            self._streaming(method, inner)
            if handler.response_streaming
            else self._unary(method, inner, name in _QUIET, name in _LONG),
            request_deserializer=handler.request_deserializer
            if handler.request_streaming
            else _marking(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )
        return wrapped

    def _unary(
        self, method: str, inner: Callable[..., Any], quiet: bool, long: bool
    ) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - any message
            with (
                _Call(method, context, self._log, quiet=quiet),
                self._slot() if long else _NO_SLOT,
            ):
                if request is _UNREADABLE:
                    raise _unreadable()
                return inner(request, context)

        return call

    def _streaming(self, method: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: ANN401 - any message
            with _Call(method, context, self._log, quiet=False), self._slot():
                if request is _UNREADABLE:
                    raise _unreadable()
                yield from inner(request, context)

        return call

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(blocking=False):
            raise resource_exhausted(
                "TOO_MANY_STREAMS",
                "too many streams and fits are open; end one or come again later",
                _RETRY_S,
            )
        try:
            yield
        finally:
            self._slots.release()


_UNREADABLE = object()
"""Stands for a request that protobuf cannot read."""


def _marking(read: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Returns a reader of requests that marks those it cannot read.

    gRPC itself would answer INTERNAL, and write a traceback, where a reader fails.
    """
    if read is None:
        return None

    def marked(content: bytes) -> Any:  # noqa: ANN401 - any message
        try:
            return read(content)
        except DecodeError:
            return _UNREADABLE

    return marked


def _unreadable() -> ServiceError:
    text = (
        "the request cannot be read: it is damaged, of another type, or nested too deep; protobuf"
        " reads 100 messages in one another, which are 32 objects of a huggingface_config"
    )
    return invalid_argument([Violation("", text)])


_NO_SLOT: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


class _Call:
    """One call: binds its id, turns errors into its status and logs how it went."""

    __slots__ = ("_context", "_log", "_method", "_quiet", "_request_id", "_start")

    def __init__(
        self,
        method: str,
        context: grpc.ServicerContext,
        log: structlog.typing.FilteringBoundLogger,
        *,
        quiet: bool,
    ) -> None:
        self._method = method
        self._context = context
        self._log = log
        self._quiet = quiet
        self._start = time.perf_counter()
        self._request_id = _request_id(context)

    def __enter__(self) -> None:
        structlog.contextvars.bind_contextvars(request_id=self._request_id)
        self._context.set_trailing_metadata(((REQUEST_ID, self._request_id),))

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._report(grpc.StatusCode.OK)
            elif isinstance(error, Exception):
                self._fail(error)
            else:  # GeneratorExit: the client went away from a stream
                self._report(grpc.StatusCode.CANCELLED)
        finally:
            # A stream that is left may be closed by another thread than it was begun in.
            structlog.contextvars.unbind_contextvars("request_id")

    def _fail(self, error: Exception) -> None:
        if (answer := _as_service_error(error)) is not None:
            self._abort(answer)
        # The type stubs lack it.
        aborted = self._context.code()  # type: ignore[attr-defined]
        if aborted not in (None, grpc.StatusCode.OK):
            self._report(aborted)  # the service itself aborted; its exception goes on
        elif not self._context.is_active():
            self._report(grpc.StatusCode.CANCELLED)
        else:
            self._log.error("call failed", method=self._method, exc_info=error)
            self._abort(
                internal(f"the daemon failed at this; its log tells why under {self._request_id}")
            )

    def _abort(self, error: ServiceError) -> None:
        self._report(error.code, error.message)
        status = rpc_status.to_status(error.status())
        # abort_with_status would drop the request id.
        trailing = (*status.trailing_metadata, (REQUEST_ID, self._request_id))
        self._context.set_trailing_metadata(trailing)
        self._context.abort(status.code, status.details)

    def _report(self, code: grpc.StatusCode, message: str | None = None) -> None:
        quiet = self._quiet and code is grpc.StatusCode.OK
        write = self._log.debug if quiet else self._log.info
        details = {} if message is None else {"message": message}
        write(
            "call",
            method=self._method,
            code=code.name,
            duration_ms=round((time.perf_counter() - self._start) * 1000, 3),
            **details,
        )


def _as_service_error(error: Exception) -> ServiceError | None:
    """Returns the status of an exception that a service may let through, else None."""
    match error:
        case ServiceError():
            return error
        case InvalidFieldError():
            return invalid_argument([Violation(error.field, error.message)])
        case UnknownNameError():
            return not_found(error.kind, error.name, error.message)
        case StoreFullError():
            return resource_exhausted("STORE_FULL", str(error))
        case StoreUnavailableError():
            return unavailable("STORE_UNAVAILABLE", str(error))
    return None


def _request_id(context: grpc.ServicerContext) -> str:
    for key, value in context.invocation_metadata():
        if key == REQUEST_ID:
            text = value if isinstance(value, str) else ""
            # The id goes into logs: one line of plain characters, or another id.
            if 0 < len(text) <= _MAX_ID_CHARACTERS and text.isascii() and text.isprintable():
                return text
            break
    return secrets.token_hex(8)
