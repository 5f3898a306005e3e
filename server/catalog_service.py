"""CatalogService: devices, architectures, cost models, measurements, calibrations."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import grpc

from model.errors import InvalidFieldError
from model.presets import preset, preset_names
from server import messages
from server.architectures import architecture_message
from server.conversions import REFERENCE_ENGINE, architecture_of, engine_name
from server.cost_models import NoMeasurementsError
from server.errors import ServiceError, failed_precondition, not_found
from server.fitting import FitCancelledError, FitError, FitTimeoutError
from server.imports import imported_environment, imported_measurements
from server.store.paging import PageRequest, page_of
from tokenpace.v1 import catalog_pb2, catalog_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from profiler.telemetry import Telemetry
    from server.calibrations import Calibrations
    from server.cost_models import CostModels
    from server.devices import Device, DeviceRegistry
    from server.records import CostModelRecord
    from server.store import Store

# Longer times are days: such a caller has set no deadline.
_NO_DEADLINE_S = 86_400.0


class CatalogService(catalog_pb2_grpc.CatalogServiceServicer):
    """What can be asked for and what has been learnt.

    Args:
        store: measurements and cost models.
        devices: all devices.
        cost_models: current ones.
        calibrations: that users made.
        fit_timeout_s: longest time of FitCostModel.
    """

    def __init__(
        self,
        store: Store,
        devices: DeviceRegistry,
        cost_models: CostModels,
        calibrations: Calibrations,
        fit_timeout_s: float,
    ) -> None:
        self._store = store
        self._devices = devices
        self._cost_models = cost_models
        self._calibrations = calibrations
        self._fit_timeout_s = fit_timeout_s

    def ListDevices(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.ListDevicesRequest, context: grpc.ServicerContext
    ) -> catalog_pb2.ListDevicesResponse:
        """Lists devices, the local ones first."""
        page = page_of(
            "devices", self._devices.all(), PageRequest(request.page_size, request.page_token)
        )
        return catalog_pb2.ListDevicesResponse(
            devices=self._device_messages(page.items),
            next_page_token=page.next_token,
            total_size=page.total_size,
        )

    def GetDevice(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.GetDeviceRequest, context: grpc.ServicerContext
    ) -> catalog_pb2.GetDeviceResponse:
        """Returns a device, with live telemetry where it is local."""
        device = self._devices.get(_required("name", request.name), "name")
        (message,) = self._device_messages([device])
        return catalog_pb2.GetDeviceResponse(device=message)

    def ListArchitectures(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.ListArchitecturesRequest, context: grpc.ServicerContext
    ) -> catalog_pb2.ListArchitecturesResponse:
        """Lists the presets in the order of their names."""
        page = page_of(
            "architectures", preset_names(), PageRequest(request.page_size, request.page_token)
        )
        return catalog_pb2.ListArchitecturesResponse(
            architectures=[architecture_message(preset(name)) for name in page.items],
            next_page_token=page.next_token,
            total_size=page.total_size,
        )

    def GetArchitecture(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.GetArchitectureRequest, context: grpc.ServicerContext
    ) -> catalog_pb2.GetArchitectureResponse:
        """Returns the dimensions and parameter count of a model."""
        architecture = architecture_of(request.model, field="model")
        return catalog_pb2.GetArchitectureResponse(architecture=architecture_message(architecture))

    def ListCostModels(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.ListCostModelsRequest, context: grpc.ServicerContext
    ) -> catalog_pb2.ListCostModelsResponse:
        """Lists the fitted cost models, newest first."""
        page = self._store.cost_models.page(
            PageRequest(request.page_size, request.page_token),
            device=self._stored_name(request.device),
        )
        return catalog_pb2.ListCostModelsResponse(
            cost_models=[self._cost_model_message(record) for record in page.items],
            next_page_token=page.next_token,
            total_size=page.total_size,
        )

    def GetCostModel(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.GetCostModelRequest, context: grpc.ServicerContext
    ) -> catalog_pb2.GetCostModelResponse:
        """Returns a cost model with its cross-validated error and coverage."""
        name = _required("id", request.id)
        record = self._store.cost_models.get(name)
        if record is None:
            raise not_found(
                "cost model", name, "no cost model has that id; ListCostModels lists them", "id"
            )
        return catalog_pb2.GetCostModelResponse(cost_model=self._cost_model_message(record))

    def FitCostModel(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.FitCostModelRequest, context: grpc.ServicerContext
    ) -> catalog_pb2.FitCostModelResponse:
        """Fits a device's cost model again on all its measurements."""
        device = self._devices.get(request.device)
        left = context.time_remaining()
        timeout = min(self._fit_timeout_s, left if left is not None else _NO_DEADLINE_S)
        gone = threading.Event()
        # Called when the call ends, be it by a client that has gone away.
        if not context.add_callback(gone.set):
            gone.set()
        try:
            if device.local:
                fitted = self._cost_models.fit(device, timeout_s=timeout, cancelled=gone)
            else:
                engine = engine_name(request.engine, REFERENCE_ENGINE, "engine")
                fitted = self._cost_models.fit_reference(
                    device, engine, source=request.source, timeout_s=timeout, cancelled=gone
                )
        except NoMeasurementsError as error:
            raise failed_precondition("NO_MEASUREMENTS", device.name, str(error)) from error
        except FitCancelledError as error:
            raise ServiceError(grpc.StatusCode.CANCELLED, str(error)) from error
        except FitTimeoutError as error:
            raise ServiceError(grpc.StatusCode.DEADLINE_EXCEEDED, str(error)) from error
        except FitError as error:
            raise failed_precondition("FIT_FAILED", device.name, str(error)) from error
        return catalog_pb2.FitCostModelResponse(cost_model=self._cost_model_message(fitted.record))

    def ImportMeasurements(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.ImportMeasurementsRequest, context: grpc.ServicerContext
    ) -> catalog_pb2.ImportMeasurementsResponse:
        """Stores measurements that others have made on a device that is not here."""
        device = self._devices.get(_required("device", request.device))
        if device.local:
            raise InvalidFieldError(
                "device", f"{device.name} is in this machine; a profile job measures it"
            )
        imported = imported_measurements(request)
        environment = imported_environment(device, imported.source, imported.engine)
        count = self._store.measurements.append_imported(
            imported.rows,
            first=imported.first_row,
            device=device.stored_name,
            environment=environment,
        )
        return catalog_pb2.ImportMeasurementsResponse(measurement_count=count)

    def ListMeasurements(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.ListMeasurementsRequest, context: grpc.ServicerContext
    ) -> catalog_pb2.ListMeasurementsResponse:
        """Lists measurements, newest first."""
        page = self._store.measurements.page(
            PageRequest(request.page_size, request.page_token),
            device=self._stored_name(request.device),
            job_id=request.job_id,
            kind=request.kind,
        )
        return catalog_pb2.ListMeasurementsResponse(
            measurements=[messages.measurement(record) for record in page.items],
            next_page_token=page.next_token,
            total_size=page.total_size,
        )

    def CreateCalibration(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.CreateCalibrationRequest, context: grpc.ServicerContext
    ) -> catalog_pb2.CreateCalibrationResponse:
        """Corrects predictions by rows measured end to end."""
        record = self._calibrations.create(
            request.name,
            request.rows,
            accept_suspicious=request.accept_suspicious,
            validate_only=request.validate_only,
        )
        return catalog_pb2.CreateCalibrationResponse(calibration=messages.calibration(record))

    def GetCalibration(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.GetCalibrationRequest, context: grpc.ServicerContext
    ) -> catalog_pb2.GetCalibrationResponse:
        """Returns a calibration with its cross-validated error before and after."""
        record = self._calibrations.get(_required("name", request.name))
        return catalog_pb2.GetCalibrationResponse(calibration=messages.calibration(record))

    def ListCalibrations(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.ListCalibrationsRequest, context: grpc.ServicerContext
    ) -> catalog_pb2.ListCalibrationsResponse:
        """Lists the calibrations, newest first."""
        page = self._store.calibrations.page(PageRequest(request.page_size, request.page_token))
        return catalog_pb2.ListCalibrationsResponse(
            calibrations=[messages.calibration(record) for record in page.items],
            next_page_token=page.next_token,
            total_size=page.total_size,
        )

    def DeleteCalibration(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.DeleteCalibrationRequest, context: grpc.ServicerContext
    ) -> catalog_pb2.DeleteCalibrationResponse:
        """Removes a calibration with its rows."""
        self._calibrations.delete(_required("name", request.name))
        return catalog_pb2.DeleteCalibrationResponse()

    def _stored_name(self, name: str) -> str:
        return self._devices.get(name).stored_name if name else ""

    def _cost_model_message(self, record: CostModelRecord) -> catalog_pb2.CostModel:
        return messages.cost_model(record, in_use=self._cost_models.in_use(record))

    def _device_messages(self, devices: Iterable[Device]) -> list[catalog_pb2.Device]:
        states: dict[str, Telemetry | None] = {}
        found = []
        for device in devices:
            record, provenance = self._cost_models.described(device) or (None, None)
            count = record.measurement_count if record is not None else 0
            if device.local:
                # "local" and "cpu" may be one device; reading it takes 50 ms.
                if device.torch_name not in states:
                    states[device.torch_name] = self._devices.telemetry(device)
                count = self._store.measurements.count(device.stored_name, device.fingerprint)
            found.append(
                messages.device(
                    device,
                    state=states.get(device.torch_name),
                    current=record,
                    provenance=provenance,
                    measurement_count=count,
                )
            )
        return found


def _required(field: str, value: str) -> str:
    if not value:
        raise InvalidFieldError(field, "is required")
    return value
