"""Figures, sizes, times and enum values as a person reads them."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    from tokenpace.v1 import types_pb2

NONE = "-"
_UNITS = ("", "k", "M", "G", "T", "P", "E")


def figure(value: float) -> str:
    """Returns a number with three significant digits and no exponent: 0.0123, 12.3, 1234."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:#.3g}"
    return f"{value:.2g}" if "e" in text else text.rstrip(".")


def interval(estimate: types_pb2.Estimate) -> str:
    """Returns an estimate's interval."""
    return f"{figure(estimate.lower)} to {figure(estimate.upper)}"


def spread(distribution: types_pb2.Distribution) -> str:
    """Returns a distribution's 10th and 90th percentile."""
    return f"{figure(distribution.p10)} to {figure(distribution.p90)}"


def percent(share: float) -> str:
    """Returns a share as a percentage with one decimal."""
    return f"{100 * share:.1f}%"


def count(number: float) -> str:
    """Returns a large number in thousands, millions, ...: 8.03G."""
    for unit in _UNITS:
        if abs(number) < 999.5 or unit == _UNITS[-1]:
            return f"{number:.3g}{unit}"
        number /= 1000
    raise AssertionError("the last unit takes every number")


def parameters(number: float) -> str:
    """Returns a number of parameters as models are named by: 135M, 8.03B, 1.03T."""
    return count(number).replace("G", "B")


def size(number: float) -> str:
    """Returns bytes in GiB or MiB."""
    gib = number / 2**30
    return f"{figure(gib)} GiB" if gib >= 0.1 else f"{figure(number / 2**20)} MiB"


def time(message: Message, field: str) -> str:
    """Returns a timestamp field in local time; a dash where it is unset."""
    if not message.HasField(field):
        return NONE
    stamp: Timestamp = getattr(message, field)
    return f"{stamp.ToDatetime(tzinfo=UTC).astimezone():%Y-%m-%d %H:%M}"


def length(span: Duration) -> str:
    """Returns a duration as 90s, 10m or 1h."""
    total = span.ToTimedelta().total_seconds()
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if total >= seconds and total % seconds == 0:
            return f"{total / seconds:g}{unit}"
    return f"{total:g}s"


def clock(seconds: float) -> str:
    """Returns a time span as minutes and seconds, 3:12, or 1:03:12; none is below zero."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def enum(wrapper: Any, prefix: str, number: int) -> str:  # noqa: ANN401 - enums share no type
    """Returns an enum value as the command spells it; a dash where unspecified."""
    if number == 0:
        return NONE
    name: str = wrapper.Name(number) if number in wrapper.values() else f"{number}"
    return name.removeprefix(prefix).lower().replace("_", "-")


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """Returns an empty table with these columns; those in ``right`` hold figures.

    Figures and ids stay on one line, to be copied.
    """
    result = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        result.add_column(
            column,
            justify="right" if column in set(right) else "left",
            no_wrap=column in {"id", *right},
            overflow="fold",
        )
    return result


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """Returns a table of names and values without a head; empty values are left out."""
    result = Table.grid(padding=(0, 2))
    result.add_column(style="bold", no_wrap=True)
    result.add_column(overflow="fold")
    for name, value in rows:
        if value:
            result.add_row(name, value)
    return result
