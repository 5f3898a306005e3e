"""The Python client: `from tokenpace.client import Client`.

Methods take plain values and return the protobuf responses of
``protos/tokenpace/v1``, whose fields are documented there.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

import grpc

from tokenpace import arguments
from tokenpace.channel import open_channel
from tokenpace.errors import FieldViolation, TokenpaceError
from tokenpace.questions import measure_request, predict_request
from tokenpace.v1 import catalog_pb2, latency_pb2, profiler_pb2

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from types import TracebackType

    from google.protobuf.message import Message

    from tokenpace.arguments import DurationLike, ModelLike
    from tokenpace.questions import Question
    from tokenpace.v1 import types_pb2

__all__ = ["Client", "FieldViolation", "TokenpaceError", "measure_request", "predict_request"]

DEFAULT_ADDRESS = "127.0.0.1:50051"
FIT_TIMEOUT_S = 600.0

A = TypeVar("A", bound="Message")


class Client:
    """A connection to a tokenpace daemon; safe to share between threads.

    >>> with Client() as client:  # doctest: +SKIP
    ...     answer = client.predict("llama-3.1-8b", input_tokens=512, output_tokens=128)
    ...     print(answer.tpot_ms.value)

    Every method raises ``TokenpaceError`` where the daemon refuses or cannot be
    reached, and ``ArgumentError`` (a ``ValueError``) where an argument cannot be sent.

    Args:
        address: "host:port" of the daemon.
        timeout: seconds that a call may take, all tries together; streams
            (``measure``, ``watch_profile_job``) end by themselves.
        attempts: tries of a call while the daemon is unavailable, 1 to 5. Calls
            that would measure, fit or create something twice are tried once.
    """

    def __init__(
        self, address: str = DEFAULT_ADDRESS, *, timeout: float = 30.0, attempts: int = 4
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._channel = open_channel(address, attempts=attempts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls in flight are cancelled."""
        self._channel.close()

    # --- predictions ---------------------------------------------------------

    def predict(
        self,
        model: ModelLike,
        *,
        breakdown: bool = False,
        require_provenance: str | types_pb2.Provenance | None = None,
        calibration: str = "",
        **question: Unpack[Question],
    ) -> latency_pb2.PredictResponse:
        """Predicts TTFT, TPOT, latency, throughput and memory; see ``predict_request``."""
        request = predict_request(
            model,
            breakdown=breakdown,
            require_provenance=require_provenance,
            calibration=calibration,
            **question,
        )
        return self._unary("LatencyService/Predict", request, latency_pb2.PredictResponse)

    def batch_predict(
        self, requests: Iterable[latency_pb2.PredictRequest]
    ) -> latency_pb2.BatchPredictResponse:
        """Predicts up to 10,000 questions, each made by ``predict_request``, in one call."""
        request = latency_pb2.BatchPredictRequest(requests=requests)
        return self._unary("LatencyService/BatchPredict", request, latency_pb2.BatchPredictResponse)

    # --- measuring -----------------------------------------------------------

    def measure(
        self,
        model: ModelLike,
        *,
        scope: str = "layer",
        budget: DurationLike | None = None,
        trace: bool = False,
        torch_compile: bool = False,
        force: bool = False,
        **question: Unpack[Question],
    ) -> Generator[profiler_pb2.MeasureResponse]:
        """Measures live; yields progress, and the result last. Closing the iterator cancels.

        Its arguments are those of ``measure_request``.
        """
        request = measure_request(
            model,
            scope=scope,
            budget=budget,
            trace=trace,
            torch_compile=torch_compile,
            force=force,
            **question,
        )
        return self._stream("ProfilerService/Measure", request, profiler_pb2.MeasureResponse)

    def create_profile_job(
        self,
        *,
        device: str = "",
        budget: DurationLike | None = None,
        target_error: float = 0.0,
        precisions: Iterable[str] = (),
        force: bool = False,
        ranks: int = 0,
    ) -> profiler_pb2.CreateProfileJobResponse:
        """Starts a campaign in the background.

        Args:
            device: local device; empty is "local".
            budget: time for all of it, such as "10m"; None is 120 s.
            target_error: ends early once the cross-validated median error is below.
            precisions: in this order; empty is all that the device runs, its default first, and
                on a GPU in less than 20 minutes bf16 and fp8 alone.
            force: whether to profile while other processes are on the device.
            ranks: whose messages to each other are measured, too; 0 is all GPUs of one kind, and
                none on the CPU.
        """
        request = profiler_pb2.CreateProfileJobRequest(
            device=device,
            budget=arguments.duration(budget),
            target_error=target_error,
            precisions=[arguments.precision(p, "precisions") for p in precisions],
            force=force,
            ranks=ranks,
        )
        return self._unary(
            "ProfilerService/CreateProfileJob", request, profiler_pb2.CreateProfileJobResponse
        )

    def profile_job(self, job_id: str) -> profiler_pb2.GetProfileJobResponse:
        """Returns a job as it stands."""
        request = profiler_pb2.GetProfileJobRequest(id=job_id)
        return self._unary(
            "ProfilerService/GetProfileJob", request, profiler_pb2.GetProfileJobResponse
        )

    def profile_jobs(
        self, *, page_size: int = 0, page_token: str = ""
    ) -> profiler_pb2.ListProfileJobsResponse:
        """Lists jobs, newest first."""
        request = profiler_pb2.ListProfileJobsRequest()
        arguments.fill(request, {"page_size": page_size, "page_token": page_token})
        return self._unary(
            "ProfilerService/ListProfileJobs", request, profiler_pb2.ListProfileJobsResponse
        )

    def cancel_profile_job(self, job_id: str) -> profiler_pb2.CancelProfileJobResponse:
        """Ends a job; what it measured is kept."""
        request = profiler_pb2.CancelProfileJobRequest(id=job_id)
        return self._unary(
            "ProfilerService/CancelProfileJob", request, profiler_pb2.CancelProfileJobResponse
        )

    def watch_profile_job(self, job_id: str) -> Generator[profiler_pb2.WatchProfileJobResponse]:
        """Yields a job whenever it changes, until it has ended."""
        request = profiler_pb2.WatchProfileJobRequest(id=job_id)
        return self._stream(
            "ProfilerService/WatchProfileJob", request, profiler_pb2.WatchProfileJobResponse
        )

    def export_profile_job(self, job_id: str) -> Generator[profiler_pb2.ExportProfileJobResponse]:
        """Yields where a job measured, then all that it measured and its device's states."""
        request = profiler_pb2.ExportProfileJobRequest(id=job_id)
        return self._stream(
            "ProfilerService/ExportProfileJob", request, profiler_pb2.ExportProfileJobResponse
        )

    def create_schedule(
        self,
        *,
        cron: str = "",
        interval: DurationLike | None = None,
        device: str = "",
        budget: DurationLike | None = None,
    ) -> profiler_pb2.CreateScheduleResponse:
        """Makes the device profile itself by a cron expression (UTC) or at an interval."""
        request = profiler_pb2.CreateScheduleRequest(
            interval=arguments.duration(interval, "interval"),
            device=device,
            budget=arguments.duration(budget),
        )
        if cron:
            request.cron = cron
        return self._unary(
            "ProfilerService/CreateSchedule", request, profiler_pb2.CreateScheduleResponse
        )

    def schedules(
        self, *, page_size: int = 0, page_token: str = ""
    ) -> profiler_pb2.ListSchedulesResponse:
        """Lists schedules with their latest runs, newest schedule first."""
        request = profiler_pb2.ListSchedulesRequest()
        arguments.fill(request, {"page_size": page_size, "page_token": page_token})
        return self._unary(
            "ProfilerService/ListSchedules", request, profiler_pb2.ListSchedulesResponse
        )

    def delete_schedule(self, schedule_id: str) -> profiler_pb2.DeleteScheduleResponse:
        """Removes a schedule; a job it started goes on."""
        request = profiler_pb2.DeleteScheduleRequest(id=schedule_id)
        return self._unary(
            "ProfilerService/DeleteSchedule", request, profiler_pb2.DeleteScheduleResponse
        )

    # --- catalogue -----------------------------------------------------------

    def devices(
        self, *, page_size: int = 0, page_token: str = ""
    ) -> catalog_pb2.ListDevicesResponse:
        """Lists devices, the local ones first."""
        request = catalog_pb2.ListDevicesRequest()
        arguments.fill(request, {"page_size": page_size, "page_token": page_token})
        return self._unary("CatalogService/ListDevices", request, catalog_pb2.ListDevicesResponse)

    def device(self, name: str = "local") -> catalog_pb2.GetDeviceResponse:
        """Returns a device, with live telemetry where it is local."""
        return self._unary(
            "CatalogService/GetDevice",
            catalog_pb2.GetDeviceRequest(name=name),
            catalog_pb2.GetDeviceResponse,
        )

    def architectures(
        self, *, page_size: int = 0, page_token: str = ""
    ) -> catalog_pb2.ListArchitecturesResponse:
        """Lists the presets."""
        request = catalog_pb2.ListArchitecturesRequest()
        arguments.fill(request, {"page_size": page_size, "page_token": page_token})
        return self._unary(
            "CatalogService/ListArchitectures", request, catalog_pb2.ListArchitecturesResponse
        )

    def architecture(self, model: ModelLike) -> catalog_pb2.GetArchitectureResponse:
        """Returns the dimensions and parameter count of a model."""
        request = catalog_pb2.GetArchitectureRequest(model=arguments.model_spec(model))
        return self._unary(
            "CatalogService/GetArchitecture", request, catalog_pb2.GetArchitectureResponse
        )

    def cost_models(
        self, *, device: str = "", page_size: int = 0, page_token: str = ""
    ) -> catalog_pb2.ListCostModelsResponse:
        """Lists the fitted cost models, newest first."""
        request = catalog_pb2.ListCostModelsRequest(device=device)
        arguments.fill(request, {"page_size": page_size, "page_token": page_token})
        return self._unary(
            "CatalogService/ListCostModels", request, catalog_pb2.ListCostModelsResponse
        )

    def cost_model(self, cost_model_id: str) -> catalog_pb2.GetCostModelResponse:
        """Returns a cost model with its cross-validated error and coverage."""
        request = catalog_pb2.GetCostModelRequest(id=cost_model_id)
        return self._unary("CatalogService/GetCostModel", request, catalog_pb2.GetCostModelResponse)

    def fit_cost_model(
        self, *, device: str = "", engine: str = "", source: str = ""
    ) -> catalog_pb2.FitCostModelResponse:
        """Fits a device's cost model again on all its measurements (up to 10 minutes).

        ``engine`` and ``source`` are of a device that is not here: whose imported
        measurements are fitted, those of the last import where no source is named.
        """
        request = catalog_pb2.FitCostModelRequest(device=device, engine=engine, source=source)
        return self._unary(
            "CatalogService/FitCostModel", request, catalog_pb2.FitCostModelResponse, FIT_TIMEOUT_S
        )

    def import_measurements(
        self,
        measurements: Iterable[types_pb2.Measurement] = (),
        *,
        device: str,
        engine: str,
        source: str,
        first_row: int = 0,
    ) -> catalog_pb2.ImportMeasurementsResponse:
        """Stores measurements that others have made; without any it tells how many are held."""
        request = catalog_pb2.ImportMeasurementsRequest(
            device=device,
            engine=engine,
            source=source,
            first_row=first_row,
            measurements=measurements,
        )
        return self._unary(
            "CatalogService/ImportMeasurements",
            request,
            catalog_pb2.ImportMeasurementsResponse,
            FIT_TIMEOUT_S,
        )

    def measurements(
        self,
        *,
        device: str = "",
        job_id: str = "",
        kind: str = "",
        page_size: int = 0,
        page_token: str = "",
    ) -> catalog_pb2.ListMeasurementsResponse:
        """Lists measurements, newest first, of a device, a job or a kind of point."""
        request = catalog_pb2.ListMeasurementsRequest(device=device, job_id=job_id, kind=kind)
        arguments.fill(request, {"page_size": page_size, "page_token": page_token})
        return self._unary(
            "CatalogService/ListMeasurements", request, catalog_pb2.ListMeasurementsResponse
        )

    # --- calibrations --------------------------------------------------------

    def create_calibration(
        self,
        name: str,
        rows: Iterable[catalog_pb2.CalibrationRow],
        *,
        accept_suspicious: bool = False,
        validate_only: bool = False,
    ) -> catalog_pb2.CreateCalibrationResponse:
        """Corrects predictions by measured rows; ``predict(calibration=name)`` applies it.

        Args:
            name: to keep it under.
            rows: what was measured.
            accept_suspicious: whether rows that cannot be right are fitted on, too.
            validate_only: whether it is reported on and not kept.
        """
        request = catalog_pb2.CreateCalibrationRequest(
            name=name,
            rows=rows,
            accept_suspicious=accept_suspicious,
            validate_only=validate_only,
        )
        return self._unary(
            "CatalogService/CreateCalibration", request, catalog_pb2.CreateCalibrationResponse
        )

    def calibration(self, name: str) -> catalog_pb2.GetCalibrationResponse:
        """Returns a calibration with its cross-validated error before and after."""
        request = catalog_pb2.GetCalibrationRequest(name=name)
        return self._unary(
            "CatalogService/GetCalibration", request, catalog_pb2.GetCalibrationResponse
        )

    def calibrations(
        self, *, page_size: int = 0, page_token: str = ""
    ) -> catalog_pb2.ListCalibrationsResponse:
        """Lists calibrations, newest first."""
        request = catalog_pb2.ListCalibrationsRequest()
        arguments.fill(request, {"page_size": page_size, "page_token": page_token})
        return self._unary(
            "CatalogService/ListCalibrations", request, catalog_pb2.ListCalibrationsResponse
        )

    def delete_calibration(self, name: str) -> catalog_pb2.DeleteCalibrationResponse:
        """Removes a calibration with its rows."""
        request = catalog_pb2.DeleteCalibrationRequest(name=name)
        return self._unary(
            "CatalogService/DeleteCalibration", request, catalog_pb2.DeleteCalibrationResponse
        )

    # --- calls ---------------------------------------------------------------

    def _unary(
        self, method: str, request: Message, answer: type[A], timeout: float | None = None
    ) -> A:
        call = self._channel.unary_unary(
            f"/tokenpace.v1.{method}", type(request).SerializeToString, answer.FromString
        )
        with _errors():
            return call(request, timeout=timeout or self.timeout)

    def _stream(self, method: str, request: Message, answer: type[A]) -> Generator[A]:
        call = self._channel.unary_stream(
            f"/tokenpace.v1.{method}", type(request).SerializeToString, answer.FromString
        )
        with _errors():
            events = call(request)
            try:
                yield from events
            finally:
                events.cancel()


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        if not isinstance(error, grpc.Call):
            raise
        raise TokenpaceError.of(error) from error
