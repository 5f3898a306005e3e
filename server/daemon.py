"""The daemon: opens the store, answers over gRPC, ends in good order."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

import structlog

from server import logs

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    import grpc

    from server.calibrations import Calibrations
    from server.configuration import Configuration
    from server.predictor import Predictor

_EXIT_S = 5.0
_SIGNAL_POLL_S = 0.2

_log = structlog.get_logger(__name__)


class Daemon:
    """One daemon, bound to its address on construction.

    Args:
        configuration: its settings.

    Raises:
        StoreError: the store cannot be used.
        AddressInUseError: the address cannot be listened on.
    """

    def __init__(self, configuration: Configuration) -> None:
        # Loaded here, so that --help and a wrong setting do not wait for it.
        from server.calibrations import Calibrations  # noqa: PLC0415
        from server.committed import CommittedMeasurements  # noqa: PLC0415
        from server.cost_models import CostModels  # noqa: PLC0415
        from server.devices import DeviceRegistry  # noqa: PLC0415
        from server.occupancy import Occupancy  # noqa: PLC0415
        from server.predictor import Predictor  # noqa: PLC0415
        from server.profiling import Profiling  # noqa: PLC0415
        from server.rpc_server import RpcServer  # noqa: PLC0415
        from server.state import State  # noqa: PLC0415
        from server.store import Store  # noqa: PLC0415

        self._configuration = configuration
        self._store = Store(
            configuration.data_dir, configuration.database_url, configuration.max_store_bytes
        )
        with contextlib.ExitStack() as undo:
            undo.callback(self._store.close)
            devices = DeviceRegistry()
            cost_models = CostModels(
                self._store, devices, refit_timeout_s=configuration.fit_timeout
            )
            undo.callback(cost_models.stop)
            self.state = State(
                configuration=configuration,
                store=self._store,
                devices=devices,
                occupancy=Occupancy(devices),
                cost_models=cost_models,
            )
            base = Predictor(devices, cost_models)
            calibrations = Calibrations(self._store, base)
            predictor = Predictor(devices, cost_models, calibrations)
            self._profiling = Profiling(self.state, predictor)
            self._committed = CommittedMeasurements(configuration.reference_dir, self.state)
            self._server = RpcServer(configuration, self._services(predictor, calibrations))
            undo.pop_all()

    @property
    def address(self) -> str:
        """HOST:PORT that it listens on."""
        return self._server.address

    def start(self) -> None:
        """Begins to answer."""
        self._server.start()

    def begin_work(self) -> None:
        """Goes on with the jobs of before a restart, profiles if asked to, takes in measurements.

        All of it in the background.
        """
        self._profiling.start()
        self._committed.start()

    def stop(self) -> None:
        """Drains the calls in flight, lays campaigns aside and closes the store."""
        self._server.stop(self._configuration.drain_seconds)
        self._profiling.drain()
        self._committed.stop()
        self.state.cost_models.stop()
        self._server.join()
        self._store.close()

    def _services(
        self, predictor: Predictor, calibrations: Calibrations
    ) -> dict[str, Callable[[grpc.Server], None]]:
        from server.catalog_service import CatalogService  # noqa: PLC0415
        from server.latency_service import LatencyService  # noqa: PLC0415
        from tokenpace.v1 import (  # noqa: PLC0415
            catalog_pb2_grpc,
            latency_pb2_grpc,
            profiler_pb2_grpc,
        )

        state = self.state
        catalog = CatalogService(
            state.store,
            state.devices,
            state.cost_models,
            calibrations,
            self._configuration.fit_timeout,
        )
        return {
            "tokenpace.v1.LatencyService": partial(
                latency_pb2_grpc.add_LatencyServiceServicer_to_server, LatencyService(predictor)
            ),
            "tokenpace.v1.ProfilerService": partial(
                profiler_pb2_grpc.add_ProfilerServiceServicer_to_server, self._profiling.service
            ),
            "tokenpace.v1.CatalogService": partial(
                catalog_pb2_grpc.add_CatalogServiceServicer_to_server, catalog
            ),
        }


def serve(configuration: Configuration) -> int:
    """Runs the daemon until SIGTERM or SIGINT and returns the exit code.

    Prints ``listening on HOST:PORT`` as the one line on standard output once
    it answers. A second signal ends it without waiting for calls in flight.
    """
    logs.set_up(configuration.log_level, configuration.log_format)
    # torch must number GPUs as the driver's library does, in the worker, too.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    # Of a port that is taken we tell ourselves.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from server.rpc_server import AddressInUseError  # noqa: PLC0415 - after the variables above
    from server.store.errors import StoreError  # noqa: PLC0415

    ending = threading.Event()

    def end(number: int, _frame: FrameType | None) -> None:
        if ending.is_set():
            os._exit(128 + number)
        ending.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        daemon = Daemon(configuration)
    except (StoreError, AddressInUseError) as error:
        print(f"tokenpace: {error}", file=sys.stderr)
        return 1

    daemon.start()
    print(f"listening on {daemon.address}", flush=True)
    _log.info("started", address=daemon.address, data_dir=str(configuration.data_dir))
    daemon.begin_work()
    # A wait without end may sleep through the signal that was to end it.
    while not ending.wait(_SIGNAL_POLL_S):
        pass
    _log.info("draining", seconds=configuration.drain_seconds)
    daemon.stop()
    # Python waits for its threads; a handler that never saw its call end must
    # not keep the daemon from ending.
    last = threading.Timer(_EXIT_S, os._exit, [0])
    last.daemon = True
    last.start()
    _log.info("ended")
    return 0
