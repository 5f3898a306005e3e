"""A small point of every kind in every precision: what a device fails at is found in a minute."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from model.errors import InvalidFieldError
from model.precision import Precision
from profiler.design import Design, Space
from profiler.interface import Skipped
from profiler.point_kinds import EVERY_KIND
from profiler.points import AttendingPoint
from profiler.texts import typed_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from profiler.device import Device
    from profiler.point_kinds import PointKind
    from profiler.points import Point

_SPACE = Space(
    hidden=(256, 512),
    ranks=(1, 2),
    vocab=(512, 1024),
    kv_tokens=256,
    model_bytes=(4e6, 8e6),
    flops=1e8,
    bytes=1e7,
)
_DRAWN = 6
"""Of a kind; so many hold each sort of point that the design mixes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What became of one kind in one precision.

    Attributes:
        precision: of the points.
        kind: of the points; empty where the precision is none of the device's.
        text: milliseconds, or why there are none.
        failed: whether it should have been measured.
        error: that it failed with, where one was raised.
    """

    precision: Precision
    kind: str
    text: str
    failed: bool = False
    error: Exception | None = None

    @property
    def line(self) -> str:
        """All of it, for a person."""
        return f"{self.precision:<17}{self.kind or 'every kind':<18}{self.text}"


def check(
    device: Device,
    precisions: Sequence[Precision] = (),
    kinds: Sequence[PointKind] = EVERY_KIND,
) -> Iterator[Checked]:
    """Measures each kind in each precision and yields what became of it.

    What the device or the profiler states as its limit is no failure. It ends early where a
    failure took the device with it.

    Args:
        device: to check.
        precisions: to check it in, in this order; those that it does not take are said. Empty:
            all, those that it runs well first, as time may be short.
        kinds: of points.
    """
    for precision in precisions or dict.fromkeys((*device.precisions, *Precision)):
        try:
            device.check(precision)
        except InvalidFieldError as error:
            yield Checked(precision=precision, kind="", text=f"not timed: {error}")
            continue
        for kind in kinds:
            found = _checked(kind, precision, device)
            yield found
            if not found.failed:
                continue
            if lost := device.lost():
                text = f"the device is lost, nothing else was checked: {lost}"
                yield Checked(precision=precision, kind=kind.name, text=text, failed=True)
                return
            if device.is_cuda:
                torch.cuda.empty_cache()


def _checked(kind: PointKind, precision: Precision, device: Device) -> Checked:
    first_ms: dict[str, float] = {}
    skipped: list[str] = []
    try:
        for point in _points(kind):
            for event in point.measure(precision, device):
                if isinstance(event, Skipped):
                    skipped.append(event.reason)
                else:
                    first_ms.setdefault(str(event.kind), event.latency_ms.median)
    except Exception as error:  # whatever it is, it is what is looked for
        if isinstance(error, InvalidFieldError) and error.field == "precision":
            return Checked(precision=precision, kind=kind.name, text=f"not timed: {error}")
        text = f"FAILED: {typed_line(error)}"
        return Checked(precision=precision, kind=kind.name, text=text, failed=True, error=error)
    times = [f"{name} {ms:.3f} ms" for name, ms in first_ms.items()]
    problems = [f"FAILED: {reason}" for reason in dict.fromkeys(skipped)]
    text = ", ".join((*times, *problems)) or "FAILED: nothing was measured"
    failed = bool(skipped) or not times
    return Checked(precision=precision, kind=kind.name, text=text, failed=failed)


def _points(kind: PointKind) -> Iterable[Point]:
    """Returns the design's first point of each sort."""
    found: dict[tuple[type[Point], str], Point] = {}
    for point in islice(kind.points(Design(_SPACE, 0)), _DRAWN):
        found.setdefault((type(point), _queries(point)), point)
    return found.values()


def _queries(point: Point) -> str:
    """Says how many tokens of their context queries are of, which other kernels run for."""
    if not isinstance(point, AttendingPoint):
        return ""
    if point.query_tokens == 1:
        return "one"
    return "all" if point.query_tokens == point.kv_tokens else "some"
