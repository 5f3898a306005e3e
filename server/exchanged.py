"""What ranks exchange, added to a live measurement of one that ran alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from model.estimate import Provenance
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


def with_exchanges(
    result: LiveResult, prediction: latency_pb2.PredictResponse, source: Provenance
) -> tuple[LiveResult, types_pb2.Warning]:
    """Returns the result with the exchanges that its prediction has, and a warning that says so.

    Args:
        result: of a rank that ran alone.
        prediction: with its breakdown.
        source: where it has the exchanges from.
    """
    first, later = (
        sum(
            row.latency_ms
            for row in prediction.breakdown
            if row.phase == phase and row.bound == "communication"
        )
        for phase in (types_pb2.PHASE_PREFILL, types_pb2.PHASE_DECODE)
    )
    warning = types_pb2.Warning(
        code="EXCHANGES_PREDICTED",
        text=f"one rank was measured; what ranks exchange was added as predicted by"
        f" {_SOURCES[source]}: {first:.3g} ms up to the first token, {later:.3g} ms in each later"
        " one",
    )
    tpot = result.tpot_ms and _later(result.tpot_ms, later)
    return replace(result, ttft_ms=_later(result.ttft_ms, first), tpot_ms=tpot), warning


def _later(spread: Distribution, milliseconds: float) -> Distribution:
    return replace(
        spread,
        median=spread.median + milliseconds,
        p10=spread.p10 + milliseconds,
        p90=spread.p90 + milliseconds,
    )
