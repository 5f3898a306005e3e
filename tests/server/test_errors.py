import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from server.errors import (
    ServiceError,
    Violation,
    failed_precondition,
    invalid_argument,
    not_found,
    quote,
    resource_exhausted,
    unavailable,
    unimplemented,
)


def trailer_bytes(error):
    """Bytes that the status takes on the wire: base64 and percent-encoding at worst."""
    status = rpc_status.to_status(error.status())
    details = sum(
        len(key) + 4 * -(-len(value) // 3) + 32 for key, value in status.trailing_metadata
    )
    return details + 3 * len(status.details.encode())


def detail(error, kind):
    found = [packed for packed in error.status().details if packed.Is(kind.DESCRIPTOR)]
    assert len(found) == 1
    message = kind()
    found[0].Unpack(message)
    return message


def test_violations_carry_their_paths():
    error = invalid_argument([Violation("workload.input_tokens", "-1 is not in 1 to 16777216")])
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.message == "workload.input_tokens: -1 is not in 1 to 16777216"
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == "workload.input_tokens"
    info = detail(error, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("INVALID_FIELD", "tokenpace")


def test_at_most_twenty_violations_are_listed():
    error = invalid_argument([Violation(f"f{i}", "is wrong") for i in range(30)])
    assert len(detail(error, error_details_pb2.BadRequest).field_violations) == 20
    assert error.message.endswith("(and 29 more)")


@given(
    st.lists(
        st.builds(Violation, st.text(max_size=2_000), st.text(max_size=5_000)),
        min_size=1,
        max_size=40,
    )
)
def test_a_trailer_stays_below_8_kib(violations):
    error = invalid_argument(violations)
    assert trailer_bytes(error) < 8192
    assert detail(error, error_details_pb2.BadRequest).field_violations


@given(st.text(min_size=1, max_size=60), st.integers(3_000, 6_000))
def test_long_names_are_cut(words, length):
    # Drawing so many characters one by one would take long.
    text = (words * length)[:length]
    for error in (
        not_found("device", text, text, text),
        failed_precondition("REASON", text, text, {"figure": text}),
        ServiceError(grpc.StatusCode.ABORTED, text),
    ):
        assert trailer_bytes(error) < 8192


@given(st.text() | st.binary() | st.integers() | st.lists(st.text()))
def test_a_quoted_value_is_short_and_on_one_line(value):
    shown = quote(value)
    assert len(shown) <= 100
    assert "\n" not in shown


def test_a_missing_resource_is_named():
    error = not_found("profile job", "x", "no job has that id", "id")
    resource = detail(error, error_details_pb2.ResourceInfo)
    assert (resource.resource_type, resource.resource_name) == ("profile job", "x")
    assert detail(error, error_details_pb2.ErrorInfo).reason == "PROFILE_JOB_NOT_FOUND"
    assert detail(error, error_details_pb2.BadRequest).field_violations[0].field == "id"


def test_a_failed_precondition_carries_its_subject():
    failure = detail(
        failed_precondition("OUT_OF_MEMORY", "local", "too large"),
        error_details_pb2.PreconditionFailure,
    )
    assert [(v.type, v.subject) for v in failure.violations] == [("OUT_OF_MEMORY", "local")]


@pytest.mark.parametrize("make", [resource_exhausted, unavailable])
def test_a_retry_time_is_carried(make):
    retry = detail(make("QUEUE_FULL", "come again", 2.5), error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 2500


def test_what_is_not_built_says_so():
    error = unimplemented("SWEEP_NOT_BUILT", "Sweep is not built yet")
    assert error.code is grpc.StatusCode.UNIMPLEMENTED
    assert detail(error, error_details_pb2.ErrorInfo).reason == "SWEEP_NOT_BUILT"
