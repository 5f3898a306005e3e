"""A campaign: a space-filling design first, then the points that tell the cost model most.

Kinds of points share the time by weight, so that a campaign that ends early has
measured some of each. All campaigns of a device walk along one design: what is
measured already is not measured again.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from model.errors import InvalidFieldError, NotEnoughMeasurementsError
from model.precision import Precision
from profiler import attention_choice
from profiler.design import Design, Space, space_of
from profiler.device import Device, dtype_of
from profiler.goal import Goal
from profiler.interface import DeviceLostError, Skipped
from profiler.numerics import InaccurateError
from profiler.overhead import Tally
from profiler.pace import CONTENDED_FLAG, Pace
from profiler.paged_kernels import installed_kernels
from profiler.point_kinds import DENSE, MIXTURES, PAGED, PER_TENSOR, PLAIN
from profiler.points import Measured
from profiler.process_limits import is_out_of_memory
from profiler.telemetry import held_down_by
from profiler.texts import one_line
from profiler.timing import THROTTLED_FLAG, CaptureError
from profiler.track import Track
from profiler.warm_up import Warmth

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from model.cost_model import FittedCostModel
    from model.measurement import Measurement
    from profiler.interface import CampaignRequest
    from profiler.point_kinds import KindGroup
    from profiler.points import Point

OTHERS_FROM_S = 360.0
"""Budget from which on a campaign measures more than dense models of transformers."""

ALL_PRECISIONS_FROM_S = 1_200.0
"""Budget from which on a campaign of a GPU measures more than the formats of served models."""

_OTHER_PRECISION = 0.5
"""Share of the time of a precision behind the first, over the first one's."""
_SERVED = (Precision.BF16, Precision.FP8)
_REFIT_S = 30.0
_FREE_SHARE = 0.8
"""A point that needs more than this share of what is free is not measured."""
_MOST_HALVINGS = 8
"""Times that a point is halved until memory holds it."""


class Campaign:
    """Measures points of one device until its time is over or its error is small enough.

    Args:
        request: what is asked.
        device: where to measure.
        begin: monotonic seconds at which the budget began; torch is loaded within it.
        space: of the design; None takes what suits the device.

    Attributes:
        goal: the error that was asked for.
        text: what is being done, for a person.
        measuring: time spent in points.

    Raises:
        InvalidFieldError: the device does not run one of the precisions.
    """

    def __init__(
        self,
        request: CampaignRequest,
        device: Device,
        begin: float,
        space: Space | None = None,
    ) -> None:
        self._device = device
        self._space = space
        self._clock = time.monotonic
        self._start = begin
        self._seconds = max(0.0, request.budget_s - request.reserve_s)
        whole_s = request.whole_budget_s or request.budget_s
        self._measures_others = whole_s >= OTHERS_FROM_S
        self.goal = Goal(request.target_error)
        self._rows = list(request.done)
        self._measured = Measured(request.done)
        self._precisions = request.precisions or _usual_precisions(device, whole_s)
        for precision in self._precisions:
            device.check(precision)
        self._seed = request.seed
        self._design_only = request.design_only
        self._avoided = frozenset(request.avoided)
        attention_choice.leave_out(device.name, request.avoided)
        installed_kernels(device).leave_out_lost(request.avoided)
        self._cost_model: FittedCostModel | None = None
        self._fitted_at = -math.inf
        self._is_good_enough = False
        self._pace = Pace(device)
        self._warmth = Warmth(device)
        self.text = "starting"
        self.measuring = Tally()

    @property
    def fraction(self) -> float:
        """Share of the time that is over, 0 to 1."""
        return min(1.0, (self._clock() - self._start) / max(self._seconds, 1e-9))

    def run(self) -> Iterator[Measurement | Skipped]:
        """Yields each measurement as soon as it is made, and each point that was left out."""
        self._warmth.renew()
        space = self._space or _space_of(self._device)
        tracks = [
            Track(
                precision,
                Design(space, self._seed),
                self._measured,
                group,
                group.share * (1.0 if precision is self._precisions[0] else _OTHER_PRECISION),
                self._avoided,
            )
            for precision in self._precisions
            for group in self._groups(precision)
        ]
        while (left := self._left()) > 0:
            chosen = self._next_point(tracks, left)
            if chosen is None or self._is_good_enough:
                return
            yield from self._measure(*chosen)

    def _next_point(self, tracks: Sequence[Track], left: float) -> tuple[Track, str, Point] | None:
        """Returns the next point, its track and kind; None where none fits the time left.

        The first track's base comes before all else; from then on each has its share of the
        time, and the cost model's advice once its own base is done.
        """
        behind = sorted(tracks, key=lambda track: track.used_up)
        if not tracks[0].base_is_done:
            behind.insert(0, tracks[0])
        elif self.goal.is_set:
            self._refreshed()
        for track in behind:
            is_advised = track.base_is_done and not self._design_only
            chosen = track.next_point(self._refreshed() if is_advised else None, left)
            if chosen is not None:
                return track, *chosen
        return None

    def _refreshed(self) -> FittedCostModel | None:
        """Returns the cost model of what was measured up to some time ago, None where too little.

        Notes whether its error is small enough.
        """
        if self._cost_model is None or self._clock() - self._fitted_at > _REFIT_S:
            self._cost_model = self._fit() or self._cost_model
            self._fitted_at = self._clock()
            if self._cost_model is not None:
                error = step_error(self._cost_model, self._precisions[0])
                self._is_good_enough = self.goal.note(len(self._rows), error)
        return self._cost_model

    def _groups(self, precision: Precision) -> tuple[KindGroup, ...]:
        """Returns what is measured in a precision, dense models of transformers first."""
        if not self._measures_others:
            return (DENSE,)
        if precision is Precision.FP8:
            return DENSE, PER_TENSOR
        if precision is self._precisions[0] is self._device.default_precision:
            return DENSE, *other_groups(self._device)
        return (DENSE,)

    def _measure(self, track: Track, kind: str, point: Point) -> Iterator[Measurement | Skipped]:
        begin, before = self._clock(), len(self._rows)
        model = self._cost_model
        error = step_error(model, track.precision) if model is not None else math.nan
        self.text = track.describe(error)
        failure = yield from self._attempt(point, track.precision)
        if failure is not None:
            told = failure.text
            if failure.is_memory:
                told = yield from self._measure_smaller(point, track.precision, failure)
            yield Skipped(reason=f"{point.group}: {told}")
        measured = len(self._rows) > before
        if told := track.record(kind, self._clock() - begin, measured=measured):
            yield Skipped(reason=told)

    def _measure_smaller(
        self, asked: Point, precision: Precision, failure: _Failure
    ) -> Generator[Measurement | Skipped, None, str]:
        """Halves a point until memory holds it; returns what became of it, for a person."""
        point = asked
        for _ in range(_MOST_HALVINGS):
            smaller = point.halved(precision, self._measured)
            if smaller is None or self._left() <= 0:
                break
            point = smaller
            again = yield from self._attempt(point, precision)
            if again is None:
                sizes = f"asked for {asked.sizes}, measured {point.sizes}"
                return f"{sizes}: out of memory ({failure.text})"
            if not again.is_memory:
                break
        return failure.text

    def _attempt(
        self, point: Point, precision: Precision
    ) -> Generator[Measurement | Skipped, None, _Failure | None]:
        """Measures the point as it is; returns why it cannot be, and None where it was."""
        try:
            needed, free = point.needed_bytes(precision, self._device), self._device.free_bytes()
            if needed > _FREE_SHARE * free:
                text = f"needs {needed / 1e9:.1f} GB of {free / 1e9:.1f} GB free"
                return _Failure(text, is_memory=True)
            self._warmth.renew()
            self._pace.lap()
            for event in self.measuring.over(point.measure(precision, self._device)):
                if isinstance(event, Skipped):
                    yield event
                    continue
                self._warmth.note_work()
                kept = self._marked(event)
                self._rows.append(kept)
                self._measured.add(kept)
                yield kept
                if self._left() <= 0:
                    break
                self._warmth.renew()  # who was told may have taken a while
        except DeviceLostError:
            raise
        except Exception as error:  # of any library that a point runs
            failure = self._failure_of(point, error)
        else:
            return None
        # What the point held is let go of behind the handler alone.
        if self._device.is_cuda:
            torch.cuda.empty_cache()
        return failure

    def _failure_of(self, point: Point, error: Exception) -> _Failure:
        """Returns why a point is left out.

        Raises:
            DeviceLostError: it took the device with it.
            Exception: on the CPU the error itself, where it is no misfortune of that point alone.
        """
        is_memory = is_out_of_memory(error)
        skipped = (InaccurateError, CaptureError, InvalidFieldError)
        if not (is_memory or isinstance(error, skipped)):
            if not self._device.is_cuda:
                raise error
            # No kernel for that shape is the point's misfortune alone, unless the context is lost.
            if lost := self._device.lost():
                raise DeviceLostError(point.group, lost) from error
        told = one_line(error) if str(error) or not is_memory else "out of memory"
        return _Failure(told, is_memory)

    def _marked(self, measurement: Measurement) -> Measurement:
        """Returns the measurement, marked where a neighbour or heat slowed it down.

        Whole steps last long enough to meet a neighbour's fast and slow moments alike.
        """
        flags = list(measurement.flags)
        if self._pace.lap() and measurement.kind not in {"prefill", "decode"}:
            flags.append(CONTENDED_FLAG)
        if held_down_by(self._device.name):
            flags.append(THROTTLED_FLAG)
        return replace(measurement, flags=tuple(flags))

    def _left(self) -> float:
        return self._start + self._seconds - self._clock()

    def _fit(self) -> FittedCostModel | None:
        # scikit-learn takes a second to load, and few campaigns get so far.
        from model.training import fit_cost_model  # noqa: PLC0415

        try:
            return fit_cost_model(self._rows, self._device.processors)
        except (NotEnoughMeasurementsError, ArithmeticError, RuntimeError, ValueError):
            return None  # the point that a solver fails at may be the last one: the next one helps


class _Failure(NamedTuple):
    """Why a point could not be measured.

    Attributes:
        text: for a person.
        is_memory: whether memory does not hold it.
    """

    text: str
    is_memory: bool


def other_groups(device: Device) -> tuple[KindGroup, ...]:
    """Returns what a long campaign measures beside dense models of transformers.

    Where no library attends to pages, what plain torch does instead prices nothing: its time is
    better spent on the rest.
    """
    groups = (PLAIN, MIXTURES)
    return (*groups, PAGED) if installed_kernels(device).libraries else groups


def _usual_precisions(device: Device, budget_s: float) -> tuple[Precision, ...]:
    """Returns what is measured where nothing else is asked for, the device's default first.

    A GPU runs fp16 by the kernels of bf16, and serves no model in fp32.
    """
    if not device.is_cuda or budget_s >= ALL_PRECISIONS_FROM_S:
        return device.precisions
    return tuple(precision for precision in device.precisions if precision in _SERVED)


def step_error(cost_model: FittedCostModel, precision: Precision) -> float:
    """Returns the larger of the median errors of decode and prefill steps; NaN where unknown."""
    errors = [
        score.median_error
        for score in cost_model.scores
        if score.kind in {"decode", "prefill"} and score.precision is precision
    ]
    return max(errors, default=math.nan)


def _space_of(device: Device) -> Space:
    return space_of(
        is_cuda=device.is_cuda,
        flops_per_second=_matrix_rate(device),
        cold_bytes=device.cold_bytes,
        free_bytes=device.free_bytes(),
    )


def _matrix_rate(device: Device) -> float:
    """Returns FLOPs a second of a large product, to a power of two.

    Rounded so that a campaign that goes on tomorrow walks along the same design: bounds lie
    where no usual GPU does (670 and 1,340 TFLOPs a second; an H100 comes to 770 to 800).
    """
    size = 8192 if device.is_cuda else 1024
    dtype = dtype_of(device.default_precision)
    a = device.random(size, size, dtype=dtype)
    a @ a
    device.synchronize()
    begin = time.perf_counter()
    for _ in range(5):
        a @ a
    device.synchronize()
    rate = 5 * 2 * size**3 / (time.perf_counter() - begin)
    return float(2 ** round(math.log2(rate) + 0.25))
