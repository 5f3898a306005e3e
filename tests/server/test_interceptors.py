import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from model.errors import InvalidFieldError, UnknownNameError
from server import logs
from server.errors import ServiceError, failed_precondition
from server.interceptors import CallInterceptor
from server.store.errors import StoreFullError, StoreUnavailableError

SERVICE = "test.Service"


class Behaviour:
    """What the test's methods do, set by each test."""

    def __init__(self):
        self.unary = lambda request, context: request
        self.stream = lambda request, context: iter([request])


@pytest.fixture
def log():
    stream = io.StringIO()
    logs.set_up("debug", "json", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logs.set_up()


@pytest.fixture
def behaviour():
    return Behaviour()


@pytest.fixture
def channel(behaviour, log):
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[CallInterceptor(max_streams=2)])

    def unary(request, context):
        return behaviour.unary(request, context)

    def stream(request, context):
        yield from behaviour.stream(request, context)

    handlers = {
        name: grpc.unary_unary_rpc_method_handler(unary)
        for name in ("Call", "Predict", "FitCostModel")
    } | {"Stream": grpc.unary_stream_rpc_method_handler(stream)}
    handlers |= {
        "CallStruct": grpc.unary_unary_rpc_method_handler(
            unary, request_deserializer=Struct.FromString
        ),
        "StreamStruct": grpc.unary_stream_rpc_method_handler(
            stream, request_deserializer=Struct.FromString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(None).wait()


def call(channel, name="Call", metadata=()):
    return channel.unary_unary(f"/{SERVICE}/{name}").with_call(b"x", metadata=metadata, timeout=10)


def trailing(call_or_error):
    return dict(call_or_error.trailing_metadata())


def fail(channel, name="Call"):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, name)
    return caught.value


def raise_(error):
    def behave(request, context):
        raise error

    return behave


def test_the_callers_request_id_goes_back_and_into_the_log(channel, log):
    response, done = call(channel, metadata=[("x-request-id", "my-id")])
    assert response == b"x"
    assert trailing(done)["x-request-id"] == "my-id"
    (line,) = log()
    assert (line["request_id"], line["code"], line["method"]) == (
        "my-id",
        "OK",
        "/test.Service/Call",
    )
    assert line["duration_ms"] >= 0


@pytest.mark.parametrize("bad", ["", "x" * 129])
def test_an_unfit_request_id_is_replaced(channel, bad):
    _, done = call(channel, metadata=[("x-request-id", bad)])
    assert len(trailing(done)["x-request-id"]) == 16


def test_calls_have_different_ids(channel):
    assert len({trailing(call(channel)[1])["x-request-id"] for _ in range(5)}) == 5


def test_a_good_prediction_is_logged_at_debug_only(channel, log, behaviour):
    call(channel, "Predict")
    behaviour.unary = raise_(failed_precondition("REASON", "local", "no"))
    fail(channel, "Predict")
    assert [line["level"] for line in log()] == ["debug", "info"]


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (failed_precondition("REASON", "x", "no"), "FAILED_PRECONDITION", "REASON"),
        (InvalidFieldError("workload.input_tokens", "no"), "INVALID_ARGUMENT", "INVALID_FIELD"),
        (UnknownNameError("preset", "x", ["y"]), "NOT_FOUND", "PRESET_NOT_FOUND"),
        (StoreFullError("full"), "RESOURCE_EXHAUSTED", "STORE_FULL"),
        (StoreUnavailableError("gone"), "UNAVAILABLE", "STORE_UNAVAILABLE"),
    ],
)
def test_errors_become_statuses_with_details(channel, behaviour, error, code, reason):
    behaviour.unary = behaviour.stream = raise_(error)
    for caught in (fail(channel), stream_error(channel)):
        assert caught.code().name == code
        assert "x-request-id" in trailing(caught)
        info = error_details_pb2.ErrorInfo()
        assert rpc_status.from_call(caught).details[0].Unpack(info)
        assert info.reason == reason


def stream_error(channel):
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.unary_stream(f"/{SERVICE}/Stream")(b"x", timeout=10))
    return caught.value


def test_a_stray_exception_is_internal_and_logged_with_its_traceback(channel, behaviour, log):
    behaviour.unary = raise_(ZeroDivisionError("secret"))
    caught = fail(channel)
    assert caught.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.details()
    failed = next(line for line in log() if line["event"] == "call failed")
    assert "ZeroDivisionError: secret" in failed["exception"]
    assert failed["request_id"] in caught.details()


def test_a_service_may_abort_itself(channel, behaviour, log):
    behaviour.unary = lambda request, context: context.abort(grpc.StatusCode.ABORTED, "mine")
    caught = fail(channel)
    assert (caught.code(), caught.details()) == (grpc.StatusCode.ABORTED, "mine")
    assert [line["code"] for line in log()] == ["ABORTED"]


def test_streams_beyond_the_limit_are_refused_and_short_calls_answered(channel, behaviour):
    release = threading.Event()

    def wait(request, context):
        yield b"first"
        release.wait(10)

    behaviour.stream = wait
    method = channel.unary_stream(f"/{SERVICE}/Stream")
    streams = [method(b"x", timeout=10) for _ in range(2)]
    assert [next(stream) for stream in streams] == [b"first"] * 2
    refused = stream_error(channel)
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert any(
        packed.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
        for packed in rpc_status.from_call(refused).details
    )
    assert fail(channel, "FitCostModel").code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert call(channel)[0] == b"x"
    release.set()
    assert [list(stream) for stream in streams] == [[], []]
    assert call(channel, "FitCostModel")[0] == b"x"


def test_a_stream_that_was_left_gives_its_place_free(channel, behaviour, log):
    ended = threading.Event()

    def endless(request, context):
        try:
            while True:
                yield b"more"
        finally:
            ended.set()

    behaviour.stream = endless
    method = channel.unary_stream(f"/{SERVICE}/Stream")
    for _ in range(3):  # more than there are places
        ended.clear()
        stream = method(b"x", timeout=10)
        next(stream)
        stream.cancel()
        assert ended.wait(5)
    assert {line["code"] for line in log()} == {"CANCELLED"}


def nested(levels):
    struct = Struct()
    innermost = struct
    for _ in range(levels):
        innermost = innermost.fields["a"].struct_value
    return struct.SerializeToString()


@pytest.mark.parametrize("content", [nested(40), b"\xff"])
def test_a_request_that_cannot_be_read_is_an_invalid_argument(channel, behaviour, log, content):
    behaviour.unary = lambda request, context: b"read"
    behaviour.stream = lambda request, context: iter([b"read"])
    one = channel.unary_unary(f"/{SERVICE}/CallStruct")
    many = channel.unary_stream(f"/{SERVICE}/StreamStruct")
    assert one(nested(30), timeout=10) == b"read"
    assert list(many(nested(30), timeout=10)) == [b"read"]
    for ask in (one, lambda *args, **named: list(many(*args, **named))):
        with pytest.raises(grpc.RpcError) as caught:
            ask(content, timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "nested too deep" in caught.value.details()
        assert trailing(caught.value)["x-request-id"]
    assert [line["code"] for line in log()] == ["OK"] * 2 + ["INVALID_ARGUMENT"] * 2
    assert not any("exception" in line for line in log())


def test_a_long_message_fits_the_trailer(channel, behaviour):
    behaviour.unary = raise_(ServiceError(grpc.StatusCode.ABORTED, "é" * 50_000))
    caught = fail(channel)
    assert caught.code() is grpc.StatusCode.ABORTED
    assert caught.details().startswith("é")
