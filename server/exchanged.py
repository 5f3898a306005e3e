"""What ranks exchange, added to a live measurement of one that ran alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from model.estimate import Phase, Provenance
from server.messages import PHASES
from tokenpace.v1 import types_pb2

if TYPE_CHECKING:
    from model.measurement import Distribution
    from profiler.interface import LiveResult
    from tokenpace.v1 import latency_pb2

_SOURCES = {
    Provenance.ANALYTICAL: "the data sheet",
    Provenance.TRANSFERRED: "measurements of another device",
    Provenance.REFERENCE_DATA: "reference data",
    Provenance.MEASURED_LOCALLY: "measurements of this machine",
}


class Exchanged(NamedTuple):
    """A live measurement, predicted exchanges added.

    Attributes:
        result: with them.
        milliseconds: that were added to a pass of each phase.
        warning: says so.
    """

    result: LiveResult
    milliseconds: dict[Phase, float]
    warning: types_pb2.Warning


def with_exchanges(
    result: LiveResult, prediction: latency_pb2.PredictResponse, source: Provenance
) -> Exchanged:
    """Returns the result with the exchanges that its prediction has.

    Args:
        result: of a rank that ran alone.
        prediction: with its breakdown.
        source: where it has the exchanges from.
    """
    added = {
        phase: sum(
            row.latency_ms
            for row in prediction.breakdown
            if row.phase == PHASES[phase] and row.bound == "communication"
        )
        for phase in (Phase.PREFILL, Phase.DECODE)
    }
    first, later = added[Phase.PREFILL], added[Phase.DECODE]
    warning = types_pb2.Warning(
        code="EXCHANGES_PREDICTED",
        text=f"one rank was measured; what ranks exchange was added as predicted by"
        f" {_SOURCES[source]}: {first:.3g} ms up to the first token, {later:.3g} ms in each later"
        " one",
    )
    tpot = result.tpot_ms and _later(result.tpot_ms, later)
    measured = replace(result, ttft_ms=_later(result.ttft_ms, first), tpot_ms=tpot)
    return Exchanged(measured, added, warning)


def _later(spread: Distribution, milliseconds: float) -> Distribution:
    return replace(
        spread,
        median=spread.median + milliseconds,
        p10=spread.p10 + milliseconds,
        p90=spread.p90 + milliseconds,
    )
