"""The error that every call of the client raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

_DETAILS_KEY = "grpc-status-details-bin"

D = TypeVar("D", bound="Message")


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request that was refused, by its path, and why."""

    field: str
    description: str


class TokenpaceError(Exception):
    """The daemon refused, or could not be reached.

    Attributes:
        code: gRPC status code.
        message: what is wrong and the remedy.
        field_violations: fields at fault; empty where none is.
        reason: stable name of the reason; empty where the daemon gave none.
        retry_after_s: seconds after which a retry may succeed; None where not said.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        field_violations: tuple[FieldViolation, ...] = (),
        *,
        reason: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.field_violations = field_violations
        self.reason = reason
        self.retry_after_s = retry_after_s

    @property
    def unreachable(self) -> bool:
        """Whether no daemon answered."""
        return self.code is grpc.StatusCode.UNAVAILABLE

    @classmethod
    def of(cls, error: grpc.Call) -> TokenpaceError:
        """Returns the error that a failed call stands for, with the details it carries."""
        status = _status(error)
        bad_request = _detail(status, error_details_pb2.BadRequest)
        info = _detail(status, error_details_pb2.ErrorInfo)
        retry = _detail(status, error_details_pb2.RetryInfo)
        return cls(
            error.code(),
            error.details() or "no reason given",
            tuple(
                FieldViolation(violation.field, violation.description)
                for violation in (bad_request.field_violations if bad_request else ())
            ),
            reason=info.reason if info else "",
            retry_after_s=retry.retry_delay.ToTimedelta().total_seconds() if retry else None,
        )


def _status(call: grpc.Call) -> status_pb2.Status:
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:  # a proxy's; the plain code and message remain
                break
    return status_pb2.Status()


def _detail(status: status_pb2.Status, kind: type[D]) -> D | None:
    for packed in status.details:
        detail = kind()
        if packed.Unpack(detail):
            return detail
    return None
