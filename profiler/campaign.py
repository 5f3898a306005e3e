"""A campaign: a space-filling design first, then the points that tell the cost model most.

Kinds of points share the time by weight, so that a campaign that ends early has
measured some of each. All campaigns of a device walk along one design: what is
measured already is not measured again.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from model.errors import InvalidFieldError, NotEnoughMeasurementsError
from model.precision import Precision
from profiler.design import Design, Space, space_of
from profiler.device import Device, dtype_of
from profiler.goal import Goal
from profiler.interface import Skipped
from profiler.numerics import InaccurateError
from profiler.overhead import Tally
from profiler.pace import CONTENDED_FLAG, Pace
from profiler.paged_kernels import installed_kernels
from profiler.point_kinds import DENSE, MIXTURES, PAGED, PER_TENSOR, PLAIN
from profiler.points import Measured
from profiler.process_limits import is_out_of_memory
from profiler.selection import most_telling
from profiler.telemetry import held_down_by
from profiler.timing import THROTTLED_FLAG, CaptureError
from profiler.warm_up import Warmth

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from model.cost_model import FittedCostModel
    from model.measurement import Measurement
    from profiler.interface import CampaignRequest
    from profiler.point_kinds import KindGroup
    from profiler.points import Point

OTHERS_FROM_S = 360.0
"""Budget from which on a campaign measures more than dense models of transformers."""

_MOST_SKIPPED = 20
"""So many points in a row that memory does not hold end the campaign."""
_TAKEN = 3
"""One of so many candidates is measured until they are weighed anew."""
_REFIT_S = 30.0
_FREE_SHARE = 0.8
"""A point that needs more than this share of what is free is not measured."""
_MOST_HALVINGS = 8
"""Times that a point is halved until memory holds it."""
_REASON = 200
"""Characters of an error that a person is told."""


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
        self._measures_others = request.budget_s >= OTHERS_FROM_S
        self.goal = Goal(request.target_error)
        self._rows = list(request.done)
        self._measured = Measured(request.done)
        self._precisions = request.precisions or device.precisions
        for precision in self._precisions:
            device.check(precision)
        self._seed = request.seed
        self._design_only = request.design_only
        self._skipped_in_a_row = 0
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
            _Track(precision, Design(space, self._seed), self._measured, group)
            for precision in self._precisions
            for group in self._groups(precision)
        ]
        cost_model: FittedCostModel | None = None
        fitted_at = self._clock()
        while (left := self._left()) > 0 and self._skipped_in_a_row < _MOST_SKIPPED:
            track = next((t for t in tracks if not t.base_is_done), None)
            if track is None:
                track = min(tracks, key=lambda t: t.spent / t.share)
            advised = track.base_is_done and not self._design_only
            # Other precisions go on unaided, but a target may be met meanwhile.
            of_use = advised or (self.goal.is_set and tracks[0].base_is_done)
            if of_use and (cost_model is None or self._clock() - fitted_at > _REFIT_S):
                cost_model = self._fit()
                fitted_at = self._clock()
                if cost_model is not None and self.goal.note(
                    len(self._rows), step_error(cost_model, self._precisions[0])
                ):
                    return
            chosen = track.next_point(cost_model if advised else None, left)
            if chosen is None:
                return
            yield from self._measure(track, *chosen, cost_model)

    def _groups(self, precision: Precision) -> tuple[KindGroup, ...]:
        """Returns what is measured in a precision, dense models of transformers first."""
        if not self._measures_others:
            return (DENSE,)
        if precision is Precision.FP8:
            return DENSE, PER_TENSOR
        if precision is self._precisions[0] is self._device.default_precision:
            return DENSE, *other_groups(self._device)
        return (DENSE,)

    def _measure(
        self, track: _Track, kind: str, point: Point, cost_model: FittedCostModel | None
    ) -> Iterator[Measurement | Skipped]:
        begin = self._clock()
        self.text = track.describe(cost_model)
        self._skipped_in_a_row += 1
        failure = yield from self._attempt(point, track.precision)
        if failure is not None:
            told = failure.text
            if failure.is_memory:
                told = yield from self._measure_smaller(point, track.precision, failure)
            yield Skipped(reason=f"{point.group}: {told}")
        track.record(kind, self._clock() - begin)

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
        needed, free = point.needed_bytes(precision, self._device), self._device.free_bytes()
        if needed > _FREE_SHARE * free:
            text = f"needs {needed / 1e9:.1f} GB of {free / 1e9:.1f} GB free"
            return _Failure(text, is_memory=True)
        self._warmth.renew()
        try:
            self._pace.lap()
            for event in self.measuring.over(point.measure(precision, self._device)):
                if isinstance(event, Skipped):
                    yield event
                    continue
                self._warmth.note_work()
                self._skipped_in_a_row = 0
                kept = self._marked(event)
                self._rows.append(kept)
                self._measured.add(kept)
                yield kept
                if self._left() <= 0:
                    break
                self._warmth.renew()  # who was told may have taken a while
        except (MemoryError, RuntimeError, ValueError) as error:
            failure = self._failure_of(error)
        else:
            return None
        # What the point held is let go of behind the handler alone.
        if self._device.is_cuda:
            torch.cuda.empty_cache()
        return failure

    def _failure_of(self, error: Exception) -> _Failure:
        """Returns why a point is left out.

        Raises:
            Exception: the error itself where it is no misfortune of that point alone.
        """
        is_memory = is_out_of_memory(error)
        skipped = (InaccurateError, CaptureError, InvalidFieldError)
        if not (is_memory or isinstance(error, skipped)):
            if not self._device.is_cuda:
                raise error
            # No kernel for that shape is the point's misfortune alone; a context that
            # is lost raises here again.
            self._device.synchronize()
        return _Failure(str(error)[:_REASON] or "out of memory", is_memory)

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
        except NotEnoughMeasurementsError:
            return None


class _Failure(NamedTuple):
    """Why a point could not be measured.

    Attributes:
        text: for a person.
        is_memory: whether memory does not hold it.
    """

    text: str
    is_memory: bool


class _Track:
    """How far one precision has come along its design.

    Points *taken* are off the design, measured now or in an earlier campaign; those *dealt*
    with cost this campaign time, by which its next ones are expected to.

    Args:
        precision: of all its points.
        design: that they are drawn from.
        measured: what was measured, in this campaign, too.
        group: kinds of its points.
    """

    def __init__(
        self,
        precision: Precision,
        design: Design,
        measured: Measured,
        group: KindGroup,
    ) -> None:
        self.precision = precision
        self.spent = 0.0
        self.share = group.share
        self._kinds = {kind.name: kind for kind in group.kinds}
        self._points = {name: kind.points(design) for name, kind in self._kinds.items()}
        self._pools: dict[str, list[Point]] = {kind: [] for kind in self._kinds}
        self._next: dict[str, list[Point]] = {}
        self._adviser: FittedCostModel | None = None
        self._seconds = dict.fromkeys(self._kinds, 0.0)
        self._taken = Counter[str]()
        self._dealt = Counter[str]()
        self._measured = measured
        for kind in self._kinds:
            self._fill(kind, 1)

    @property
    def base_is_done(self) -> bool:
        """Whether the design's first points are measured."""
        return all(self._taken[name] >= kind.base_points for name, kind in self._kinds.items())

    def next_point(
        self, cost_model: FittedCostModel | None, left: float
    ) -> tuple[str, Point] | None:
        """Returns the kind that is most behind its share and fits the time left, with a point.

        Args:
            cost_model: that chooses the point; None takes the design's next one.
            left: seconds.
        """
        fitting = [kind for kind in self._kinds if self._expected(kind) < left]
        if not fitting:
            return None
        kind = min(fitting, key=lambda k: self._seconds[k] / self._kinds[k].weight)
        if cost_model is None:
            return kind, self._fill(kind, 1).pop(0)
        return kind, self._chosen(kind, cost_model)

    def _chosen(self, kind: str, cost_model: FittedCostModel) -> Point:
        if cost_model is not self._adviser:
            self._adviser = cost_model
            self._next.clear()
        if not self._next.get(kind):
            pool = self._fill(kind, self._kinds[kind].candidates)
            count = -(-len(pool) // _TAKEN)
            chosen = most_telling(cost_model, pool, self.precision, count)
            self._next[kind] = [pool[index] for index in chosen]
        point = self._next[kind].pop(0)
        self._pools[kind].remove(point)
        return point

    def record(self, kind: str, seconds: float) -> None:
        """Notes that the point was dealt with."""
        self._taken[kind] += 1
        self._dealt[kind] += 1
        self._seconds[kind] += seconds
        self.spent += seconds

    def describe(self, cost_model: FittedCostModel | None) -> str:
        """Returns what is being done, for a person."""
        counts = ", ".join(f"{self._taken[n]} {kind.plural}" for n, kind in self._kinds.items())
        error = step_error(cost_model, self.precision) if cost_model else math.nan
        tail = "" if math.isnan(error) else f"; median error {error:.1%}"
        return f"{self.precision}: {counts}{tail}"

    def _fill(self, kind: str, count: int) -> list[Point]:
        """Returns the next points that are not measured yet, at least so many."""
        pool = self._pools[kind]
        while len(pool) < count:
            point = next(self._points[kind])
            if point.is_measured(self.precision, self._measured):
                self._taken[kind] += 1
            else:
                pool.append(point)
        return pool

    def _expected(self, kind: str) -> float:
        if not self._dealt[kind]:
            return self._kinds[kind].first_guess_s
        return self._seconds[kind] / self._dealt[kind]


def other_groups(device: Device) -> tuple[KindGroup, ...]:
    """Returns what a long campaign measures beside dense models of transformers.

    Where no library attends to pages, what plain torch does instead prices nothing: its time is
    better spent on the rest.
    """
    groups = (MIXTURES, PLAIN)
    return (*groups, PAGED) if installed_kernels(device).libraries else groups


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
