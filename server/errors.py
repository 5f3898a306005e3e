"""Errors that services raise, with google.rpc details for programs to read.

A service raises :class:`ServiceError`; server.interceptors turns it into the
call's status. The details travel in a trailer, of which gRPC clients accept
8 KiB, so all texts are cut.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.message import Message

DOMAIN = "tokenpace"
MAX_VIOLATIONS = 20
MAX_QUOTED_CHARACTERS = 100

# A trailer is base64 of the details plus the percent-encoded message: three
# bytes of it for one of the message at worst, and the message is in both.
_MAX_MESSAGE_BYTES = 600
_MAX_DETAILS_BYTES = 3_000
_MAX_FIELD_BYTES = 120
_MAX_DESCRIPTION_BYTES = 400

_quoting = reprlib.Repr()
_quoting.maxstring = _quoting.maxother = MAX_QUOTED_CHARACTERS


@dataclass(frozen=True, slots=True)
class Violation:
    """One field at fault.

    Attributes:
        field: its path in the request, such as "workload.input_tokens".
        description: what is wrong and the remedy.
    """

    field: str
    description: str


class ServiceError(Exception):
    """A call that ends with a status other than OK.

    Attributes:
        code: its status code.
        message: for a person; cut to a size that fits a trailer.
        details: google.rpc messages.
    """

    def __init__(
        self, code: grpc.StatusCode, message: str, details: Iterable[Message] = ()
    ) -> None:
        self.code = code
        self.message = _cut(message, _MAX_MESSAGE_BYTES)
        self.details = tuple(details)
        super().__init__(self.message)

    def status(self) -> status_pb2.Status:
        """Returns the status; details that would not fit the trailer are left out, last first."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        room = _MAX_DETAILS_BYTES
        for detail in self.details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            room -= packed.ByteSize()
            if room < 0:
                break
            status.details.append(packed)
        return status


def quote(value: object) -> str:
    """Returns the value as an error message quotes it: at most 100 characters, no control ones."""
    shown = _quoting.repr(value)
    return (
        shown if len(shown) <= MAX_QUOTED_CHARACTERS else shown[: MAX_QUOTED_CHARACTERS - 1] + "…"
    )


def invalid_argument(
    violations: Iterable[Violation], reason: str = "INVALID_FIELD"
) -> ServiceError:
    """Returns the error of a bad request; at least one violation is needed."""
    found = list(violations)
    bad_request = error_details_pb2.BadRequest()
    room = _MAX_DETAILS_BYTES - 300
    for violation in found[:MAX_VIOLATIONS]:
        entry = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.field, _MAX_FIELD_BYTES),
            description=_cut(violation.description, _MAX_DESCRIPTION_BYTES),
        )
        room -= entry.ByteSize() + 4
        if room < 0:
            break
        bad_request.field_violations.append(entry)
    first = found[0]
    message = f"{first.field}: {first.description}" if first.field else first.description
    if len(found) > 1:
        message = f"{_cut(message, _MAX_MESSAGE_BYTES - 40)} (and {len(found) - 1} more)"
    return ServiceError(
        grpc.StatusCode.INVALID_ARGUMENT, message, [_error_info(reason), bad_request]
    )


def not_found(resource_type: str, name: str, message: str, field: str = "") -> ServiceError:
    """Returns the error of a name that stands for nothing.

    Args:
        resource_type: "device", "profile job", "cost model", ...
        name: as it was asked for.
        message: says what there is instead.
        field: path of the field that holds the name; empty where it is plain.
    """
    reason = f"{resource_type.upper().replace(' ', '_')}_NOT_FOUND"
    resource = error_details_pb2.ResourceInfo(
        resource_type=resource_type,
        resource_name=_cut(name, MAX_QUOTED_CHARACTERS),
        description=_cut(message, _MAX_DESCRIPTION_BYTES),
    )
    details: list[Message] = [_error_info(reason), resource]
    if field:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=_cut(field, _MAX_FIELD_BYTES),
                        description=_cut(message, _MAX_DESCRIPTION_BYTES),
                    )
                ]
            )
        )
    return ServiceError(grpc.StatusCode.NOT_FOUND, message, details)


def failed_precondition(
    reason: str, subject: str, message: str, metadata: Mapping[str, str] | None = None
) -> ServiceError:
    """Returns the error of a state that must change before the call can go through.

    Args:
        reason: stable name, such as "OUT_OF_MEMORY".
        subject: what is in that state, such as a device's name.
        message: what is wrong and the remedy.
        metadata: figures for programs.
    """
    failure = error_details_pb2.PreconditionFailure(
        violations=[
            error_details_pb2.PreconditionFailure.Violation(
                type=reason,
                subject=_cut(subject, MAX_QUOTED_CHARACTERS),
                description=_cut(message, _MAX_DESCRIPTION_BYTES),
            )
        ]
    )
    return ServiceError(
        grpc.StatusCode.FAILED_PRECONDITION, message, [_error_info(reason, metadata), failure]
    )


def already_exists(resource_type: str, name: str, message: str, field: str) -> ServiceError:
    """Returns the error of a name that is taken; arguments as in ``not_found``."""
    found = not_found(resource_type, name, message, field)
    reason = f"{resource_type.upper().replace(' ', '_')}_EXISTS"
    return ServiceError(
        grpc.StatusCode.ALREADY_EXISTS, message, [_error_info(reason), *found.details[1:]]
    )


def within(error: ServiceError, parent: str) -> ServiceError:
    """Returns the error of a message as seen from the one that holds it at the path ``parent``."""
    details = []
    for detail in error.details:
        if isinstance(detail, error_details_pb2.BadRequest):
            located = error_details_pb2.BadRequest()
            located.CopyFrom(detail)
            for violation in located.field_violations:
                violation.field = _cut(f"{parent}.{violation.field}", _MAX_FIELD_BYTES)
            details.append(located)
        else:
            details.append(detail)
    return ServiceError(error.code, f"{parent}.{error.message}", details)


def resource_exhausted(
    reason: str, message: str, retry_seconds: float | None = None
) -> ServiceError:
    """Returns the error of a full queue or disk; ``retry_seconds`` tells when to come again."""
    details: list[Message] = [_error_info(reason)]
    if retry_seconds is not None:
        details.append(_retry_info(retry_seconds))
    return ServiceError(grpc.StatusCode.RESOURCE_EXHAUSTED, message, details)


def unavailable(reason: str, message: str, retry_seconds: float | None = None) -> ServiceError:
    """Returns the error of a daemon that cannot answer now."""
    details: list[Message] = [_error_info(reason)]
    if retry_seconds is not None:
        details.append(_retry_info(retry_seconds))
    return ServiceError(grpc.StatusCode.UNAVAILABLE, message, details)


def unimplemented(reason: str, message: str) -> ServiceError:
    """Returns the error of what the contract names and nobody has built yet."""
    return ServiceError(grpc.StatusCode.UNIMPLEMENTED, message, [_error_info(reason)])


def internal(message: str) -> ServiceError:
    """Returns the error of a fault of the daemon itself."""
    return ServiceError(grpc.StatusCode.INTERNAL, message, [_error_info("INTERNAL")])


def _error_info(
    reason: str, metadata: Mapping[str, str] | None = None
) -> error_details_pb2.ErrorInfo:
    cut = {name: _cut(value, MAX_QUOTED_CHARACTERS) for name, value in (metadata or {}).items()}
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=cut)


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(max(1, round(seconds * 1000)))
    return retry


def _cut(text: str, size: int) -> str:
    """Returns at most ``size`` UTF-8 bytes of the text, never half a character."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= size:
        return encoded.decode()
    return encoded[: size - 3].decode(errors="ignore") + "…"
