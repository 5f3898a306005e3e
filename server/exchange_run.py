"""What ranks send each other, measured as a part of a profile job."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.operations import OperationKind
from profiler.interface import ExchangeRequest, Failed, Finished
from server.cancellation import Cancellation, CancelledError
from server.device_queue import QueueFullError
from server.errors import ServiceError
from server.worker_process import WorkerEndedError, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from model.measurement import Measurement
    from model.precision import Precision
    from profiler.interface import WorkerEvent
    from server.device_queue import DeviceQueue
    from server.devices import Device
    from server.state import State

_FEWEST_S, _AMPLE_S = 15.0, 90.0
"""Processes take seconds to start, on a GPU more; below the second fewer sizes and samples do."""


class ExchangeError(Exception):
    """Nothing was measured; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRun:
    """Ranks of one machine that send each other messages.

    Attributes:
        devices: of each rank; the first one's user asks.
        precision: of the values that are sent.
        state: who is on the devices.
        queue_of: returns the queue of a local device.
        worker_command: starts the worker.
    """

    devices: Sequence[Device]
    precision: Precision
    state: State
    queue_of: Callable[[Device], DeviceQueue]
    worker_command: Sequence[str]

    def is_done(self, measured: Iterable[Measurement]) -> bool:
        """Returns whether measurements hold what so many ranks send each other."""
        kind, ranks = OperationKind.ALL_REDUCE, len(self.devices)
        return any(row.kind == kind and row.shape.get("ranks") == ranks for row in measured)

    def run(
        self,
        limit_s: float,
        cancellation: Cancellation,
        memory_bytes: int,
        take: Callable[[WorkerEvent], None],
    ) -> None:
        """Waits for the other devices and measures, no longer than the limit.

        Args:
            limit_s: seconds for all of it.
            cancellation: of the job.
            memory_bytes: that the worker may allocate; 0 is no limit.
            take: is given what the worker tells.

        Raises:
            ExchangeError: it came to nothing.
            CancelledError: the job was called off.
        """
        if limit_s < _FEWEST_S:
            raise ExchangeError("the budget leaves no time for them")
        end = time.monotonic() + limit_s
        within = Cancellation()
        timer = threading.Timer(limit_s, within.cancel)
        timer.daemon = True
        timer.start()
        try:
            with cancellation.calling(within.cancel), self._held(within):
                self._measure(end, memory_bytes, within, take)
        except (CancelledError, WorkerEndedError) as error:
            cancellation.check()
            late = within.cancelled
            reason = f"not measured within {limit_s:.0f} s" if late else str(error)
            raise ExchangeError(reason) from error
        except (QueueFullError, ServiceError, OSError) as error:
            raise ExchangeError(str(error)) from error
        finally:
            timer.cancel()

    @contextmanager
    def _held(self, within: Cancellation) -> Iterator[None]:
        """Holds the devices beside the first, in the machine's order, as all do."""
        first = self.devices[0].stored_name
        with ExitStack() as stack:
            for other in self.devices:
                if other.stored_name != first:
                    queue = self.queue_of(other)
                    stack.enter_context(queue.measurement(within))
                    self.state.occupancy.note_and_check(other, beside_ours=queue.has_campaign)
            yield

    def _measure(
        self,
        end: float,
        memory_bytes: int,
        within: Cancellation,
        take: Callable[[WorkerEvent], None],
    ) -> None:
        left = end - time.monotonic()
        with (
            WorkerProcess(
                lifetime_s=left, memory_bytes=memory_bytes, command=self.worker_command
            ) as worker,
            within.calling(worker.end_soon),
        ):
            worker.send(
                ExchangeRequest(
                    device=self.devices[0].torch_name,
                    rank_devices=tuple(device.torch_name for device in self.devices),
                    precision=self.precision,
                    brief=left < _AMPLE_S,
                )
            )
            while (event := worker.receive(end - time.monotonic())) is not None:
                if isinstance(event, Finished):
                    return
                if isinstance(event, Failed):
                    raise ExchangeError(event.message)
                take(event)
        within.cancel()
        within.check()
