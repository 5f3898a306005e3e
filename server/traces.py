"""Traces of live measurements: where they lie, and what is said of them."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from model.bottleneck import bottleneck
from model.estimate import Phase
from model.steps import StepPlanner
from server.errors import unavailable
from server.messages import PHASES
from tokenpace.v1 import profiler_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from model.hardware import DataSheet
    from model.steps import Question
    from profiler.interface import LiveResult, TracedPhase

_KEPT = 20
"""Files; the oldest ones make room."""
_SUFFIX = ".trace.json.gz"


def new_trace(folder: Path, model: str) -> Path:
    """Returns the path of a trace that is to be written; the oldest ones make room for it.

    Args:
        folder: of all traces; made where there is none.
        model: name that the file's name tells.

    Raises:
        ServiceError: UNAVAILABLE, the folder cannot be written to.
    """
    name = re.sub(r"[^\w.-]+", "-", model)[:60] or "model"
    now = datetime.now(UTC)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob(f"*{_SUFFIX}"))[: -(_KEPT - 1)]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise unavailable("NO_TRACE", f"trace: {folder} cannot be written to: {error}") from error
    return folder / f"{now:%Y%m%d-%H%M%S}-{name}-{secrets.token_hex(2)}{_SUFFIX}"


def trace_message(
    path: Path,
    question: Question,
    sheet: DataSheet,
    result: LiveResult,
    exchanged: Mapping[Phase, float],
) -> profiler_pb2.Trace:
    """Returns what a trace shows, beside what the device could do.

    Args:
        path: of the trace.
        question: that was measured.
        sheet: of the device, with its rates.
        result: with the trace's phases.
        exchanged: predicted milliseconds of a phase's pass that its measured latency holds
            beside what ran; none where nothing was added.
    """
    planner = StepPlanner(question)
    sequences = max(1, question.workload.batch_size)
    message = profiler_pb2.Trace(path=str(path))
    for phase in result.phases:
        prompt = phase.phase is Phase.PREFILL
        measured = result.ttft_ms if prompt else result.tpot_ms
        if measured is not None:
            work = planner.prefill(sequences) if prompt else planner.decode(sequences)
            added = exchanged.get(phase.phase, 0.0)
            ran_ms = measured.median - added
            found = bottleneck(
                work.operations,
                sheet,
                measured.median,
                overhead_ms=phase.idle_share * ran_ms,
                communication_ms=phase.communication_share * ran_ms + added,
            )
            message.phases.add(
                phase=PHASES[phase.phase],
                measured_ms=measured.median,
                bound=found.bound,
                bandwidth_ms=found.bandwidth_ms,
                compute_ms=found.compute_ms,
                overhead_ms=found.overhead_ms,
                communication_ms=found.communication_ms,
                roofline_share=found.share,
                traced_ms=phase.milliseconds,
                kernels=_kernels(phase),
            )
    return message


def _kernels(phase: TracedPhase) -> list[profiler_pb2.TracedKernel]:
    return [
        profiler_pb2.TracedKernel(
            name=kernel.name,
            calls=kernel.calls,
            latency_ms=kernel.milliseconds,
            share=kernel.milliseconds / phase.milliseconds,
        )
        for kernel in phase.kernels
    ]
