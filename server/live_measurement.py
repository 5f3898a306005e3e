"""Measures one request live, beside the prediction made beforehand."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import grpc

from profiler.interface import (
    Environment,
    Failed,
    FailureCode,
    Finished,
    LiveRequest,
    LiveResult,
    Progressed,
    Started,
)
from server import messages
from server.campaign_run import worker_memory_bytes
from server.cancellation import CancelledError
from server.device_queue import QueueFullError
from server.errors import ServiceError, resource_exhausted, unavailable, unimplemented
from server.exchanged import with_exchanges
from server.live_request import LivePlan, check_devices, live_plan, out_of_memory
from server.traces import new_trace, trace_message
from server.worker_process import WORKER_COMMAND, WorkerEndedError, WorkerProcess
from tokenpace.v1 import profiler_pb2, types_pb2

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from model.estimate import Phase
    from server.cancellation import Cancellation
    from server.devices import Device
    from server.jobs import JobManager
    from server.predictor import Predictor
    from server.state import State
    from tokenpace.v1 import latency_pb2

_RETRY_S = 10.0

_Found = tuple[LiveResult, Environment]


class LiveMeasurements:
    """Answers Measure calls.

    Args:
        state: devices, who is on them, and configuration.
        predictor: makes the prediction.
        jobs: whose campaigns make room.
        worker_command: starts the workers.
    """

    def __init__(
        self,
        state: State,
        predictor: Predictor,
        jobs: JobManager,
        worker_command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._state = state
        self._predictor = predictor
        self._jobs = jobs
        self._worker_command = worker_command

    def measure(
        self, request: profiler_pb2.MeasureRequest, cancellation: Cancellation
    ) -> Iterator[profiler_pb2.MeasureResponse]:
        """Yields progress, and the result last.

        Waiting for the device does not count against the budget, as nobody can
        know how long others take; the call's deadline bounds both.

        Raises:
            ServiceError: the request cannot be measured, the queue is full, the
                budget was over, or the worker failed.
            InvalidFieldError: a field cannot be used; names it.
        """
        plan = live_plan(request, self._state.devices, self._predictor)
        is_alone = bool(plan.ranks.alone)
        prediction = self._predictor.answer(plan.resolution, with_breakdown=is_alone)
        # In one order for all calls: two that need the same devices never wait for each other.
        each, local = plan.ranks.each, self._state.devices.local()
        held = [each[known.stored_name] for known in local if known.stored_name in each]
        for device in held:
            if self._jobs.queue(device).busy:
                yield _progress(0.0, f"waiting for {device.name}")
        try:
            with ExitStack() as stack:
                for device in held:
                    stack.enter_context(self._jobs.queue(device).measurement(cancellation))
                check_devices(plan, self._state.occupancy, self._has_campaign)
                path = self._trace_path(plan)
                result, environment = yield from self._run(plan, path, cancellation)
        except QueueFullError as error:
            raise resource_exhausted("QUEUE_FULL", f"{error}; come again later", _RETRY_S) from None
        except CancelledError:
            raise ServiceError(grpc.StatusCode.CANCELLED, "the caller went away") from None
        warnings = []
        exchanged: dict[Phase, float] = {}
        if is_alone:
            source = self._predictor.exchange_provenance(plan.resolution)
            result, exchanged, warning = with_exchanges(result, prediction, source)
            warnings.append(warning)
            del prediction.breakdown[:]
        message = _message(plan, prediction, result, environment)
        message.warnings.extend(warnings)
        if path is not None and result.phases:
            question = plan.resolution.question
            sheet = self._predictor.analytical(plan.device, question.engine).sheet
            message.trace.CopyFrom(trace_message(path, question, sheet, result, exchanged))
        yield profiler_pb2.MeasureResponse(result=message)

    def _has_campaign(self, device: Device) -> bool:
        return self._jobs.queue(device).has_campaign

    def _trace_path(self, plan: LivePlan) -> Path | None:
        if not plan.trace:
            return None
        folder = self._state.configuration.data_dir / "traces"
        return new_trace(folder, plan.resolution.question.architecture.name)

    def _run(
        self, plan: LivePlan, trace: Path | None, cancellation: Cancellation
    ) -> Generator[profiler_pb2.MeasureResponse, None, _Found]:
        end = time.monotonic() + plan.budget_s
        try:
            with (
                WorkerProcess(
                    lifetime_s=plan.budget_s,
                    memory_bytes=worker_memory_bytes(self._state),
                    command=self._worker_command,
                ) as worker,
                cancellation.calling(worker.end_soon),
            ):
                worker.send(_request(plan, end - time.monotonic(), trace))
                return (yield from _listen(plan, worker, end, cancellation))
        except WorkerEndedError as error:
            cancellation.check()
            if time.monotonic() >= end:
                raise _budget_over(plan) from None
            raise ServiceError(grpc.StatusCode.ABORTED, f"not measured: {error}") from error
        except OSError as error:
            raise unavailable("NO_WORKER", f"the worker cannot be started: {error}") from error


def _listen(
    plan: LivePlan, worker: WorkerProcess, end: float, cancellation: Cancellation
) -> Generator[profiler_pb2.MeasureResponse, None, _Found]:
    environment: Environment | None = None
    while (left := end - time.monotonic()) > 0:
        event = worker.receive(left)
        cancellation.check()
        match event:
            case Started():
                environment = event.environment
                yield _progress(0.0, "the worker has started")
            case Progressed(fraction=fraction, text=text):
                yield _progress(fraction, text)
            case LiveResult() if environment is not None:
                return event, environment
            case Failed():
                raise _failure(plan, event)
            case Finished() | LiveResult():
                raise ServiceError(
                    grpc.StatusCode.ABORTED, "not measured: the worker ended without a result"
                )
    raise _budget_over(plan)


def _request(plan: LivePlan, budget_s: float, trace: Path | None) -> LiveRequest:
    question, ranks = plan.resolution.question, plan.ranks
    return LiveRequest(
        device=plan.device.torch_name,
        budget_s=budget_s,
        architecture=question.architecture,
        workload=question.workload,
        tensor=question.parallelism.tensor,
        precision=question.precision,
        scope=plan.scope,
        engine=question.engine,
        torch_compile=plan.torch_compile,
        trace_path=str(trace or ""),
        rank_devices=tuple(d.torch_name for d in ranks.devices) if len(ranks.devices) > 1 else (),
        alone=ranks.alone,
    )


def _failure(plan: LivePlan, failed: Failed) -> ServiceError:
    match failed.code:
        case FailureCode.MEMORY:
            return out_of_memory(plan, failed.message)
        case FailureCode.UNSUPPORTED:
            return unimplemented("NOT_MEASURABLE", failed.message)
        case FailureCode.BUDGET:
            return _budget_over(plan, failed.message)
    return ServiceError(grpc.StatusCode.ABORTED, f"not measured: {failed.message}")


def _budget_over(plan: LivePlan, detail: str = "") -> ServiceError:
    return ServiceError(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        f"budget: {plan.budget_s:g} s were over before the result"
        f"{f' ({detail})' if detail else ''}; give it more (loading torch alone takes seconds)",
    )


def _message(
    plan: LivePlan,
    prediction: latency_pb2.PredictResponse,
    result: LiveResult,
    environment: Environment,
) -> profiler_pb2.LiveMeasurement:
    message = profiler_pb2.LiveMeasurement(
        ttft_ms=messages.distribution(result.ttft_ms),
        prediction=prediction,
        ttft_residual=result.ttft_ms.median / prediction.ttft_ms.value - 1,
        environment=messages.environment(environment),
        warnings=[types_pb2.Warning(code="MEASUREMENT_NOTE", text=note) for note in result.notes],
    )
    if result.energy_per_token_joules is not None:
        message.energy_per_token_joules = result.energy_per_token_joules
    if result.tpot_ms is not None:
        message.tpot_ms.CopyFrom(messages.distribution(result.tpot_ms))
        if prediction.HasField("tpot_ms"):
            message.tpot_residual = result.tpot_ms.median / prediction.tpot_ms.value - 1
    if environment.fingerprint != plan.device.fingerprint:
        message.warnings.add(
            code="ENVIRONMENT_CHANGED",
            text="measured in another environment than the daemon was started in, and what the"
            " prediction rests on; restart the daemon",
        )
    return message


def _progress(fraction: float, text: str) -> profiler_pb2.MeasureResponse:
    share = min(1.0, max(0.0, fraction))
    return profiler_pb2.MeasureResponse(
        progress=profiler_pb2.Progress(fraction=share, text=text),
    )
