"""Latency from a data sheet alone: what answers where nothing was measured.

A kernel takes the smooth maximum (p-norm) of its arithmetic and its traffic at a share
of the data sheet's rates, and of its launch by the host. A collective takes a start-up
time a hop and the bytes that one rank sends over the link (alpha-beta).

The interval is log-normal. Against 229 latencies that engines publish for A100 and H100
a plain roofline misses by 56% and one with a constant efficiency by 34% (MAPE): at 90%
the truth lies within a factor of 2 either way. Of a processor known by its number of
threads alone, within a factor of 4.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from model.engines import engine as engine_of
from model.estimate import Provenance, StepEstimate, factor_at
from model.hardware import data_sheet
from model.operations import ATTENTIONS, COLLECTIVES, OperationKind
from model.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.engines import Engine
    from model.estimate import Phase
    from model.hardware import DataSheet
    from model.operations import Operation

CPU_COMPUTE = 0.65
"""Share of a processor's peak rate that large products reach."""
CPU_BANDWIDTH = 0.8
"""Share of its memory bandwidth that long reads reach."""
CPU_LINK = 0.7
"""Share of that between ranks on one processor."""
NODE_RANKS = 8
"""Ranks that share a link; more of them meet over a network."""
NETWORK_BYTES_PER_SECOND = 50e9
"""Such a network: 400 Gb/s a device."""

_SMOOTHNESS = 4.0
_DEVICE_FACTOR, _GENERIC_FACTOR = 2.0, 4.0
_CPU_COLLECTIVE_S, _HOP_S = 8e-6, 1e-6
_NETWORK_START_S = 12e-6

# A core with 512-bit vectors, and its share of the memory channels.
_THREAD_FLOPS, _THREAD_BANDWIDTH = 90e9, 16e9
_MAX_CPU_BANDWIDTH = 250e9
_CPU_KERNEL_S, _CPU_STEP_S, _CPU_REQUEST_S = 6e-6, 1e-3, 3e-3
_PCIE_BYTES_PER_SECOND = 25e9


def generic_cpu(sheet: DataSheet, threads: int) -> DataSheet:
    """Returns a processor's sheet with the rates that its number of threads suggests.

    Args:
        sheet: what is known of it.
        threads: that torch computes with; 0 is taken as 1.
    """
    flops = max(1, threads) * _THREAD_FLOPS
    bandwidth = min(max(1, threads) * _THREAD_BANDWIDTH, _MAX_CPU_BANDWIDTH)
    return replace(
        sheet,
        bandwidth_bytes_per_second=sheet.bandwidth_bytes_per_second or bandwidth,
        peaks=sheet.peaks
        or {
            Precision.FP32: flops,
            Precision.BF16: flops,
            Precision.FP16: flops / 2,
            Precision.INT8: 2 * flops,
        },
    )


def _like_an_l4(sheet: DataSheet) -> DataSheet:
    """Returns the sheet of an unknown GPU with the rates of a small one."""
    l4 = data_sheet("l4")
    return replace(
        sheet,
        bandwidth_bytes_per_second=sheet.bandwidth_bytes_per_second
        or l4.bandwidth_bytes_per_second,
        peaks=sheet.peaks or l4.peaks,
    )


class AnalyticalCostModel:
    """Prices any operation on any device, in any precision and engine.

    Args:
        sheet: of the device. Rates that are unknown are guessed: a GPU is taken for an
            L4, a processor for one of 4 threads (``generic_cpu`` knows better).
        engine: whose coefficients count on a GPU, or its name.
    """

    def __init__(self, sheet: DataSheet, engine: str | Engine = "transformers") -> None:
        self._engine = engine_of(engine) if isinstance(engine, str) else engine
        self._gpu = sheet.kind == "cuda"
        known = bool(sheet.peaks) and sheet.bandwidth_bytes_per_second > 0
        if not known:
            sheet = _like_an_l4(sheet) if self._gpu else generic_cpu(sheet, 4)
        self._factor = _DEVICE_FACTOR if known and self._gpu else _GENERIC_FACTOR
        self.knows_rates = known
        self.sheet = sheet
        # A processor's rates are what its number of threads suggests: they bound nothing.
        bounds = self._gpu and known
        self._surely_cold_bytes = 2 * sheet.last_level_cache_bytes if bounds else math.inf
        self._bandwidth = sheet.bandwidth_bytes_per_second
        self._plain_rate = self._bandwidth * self._shares(OperationKind.LINEAR)[1]
        self._peaks = {precision: sheet.effective_peak(precision) for precision in Precision}
        # On one processor ranks talk through memory.
        self._link = sheet.link_bytes_per_second or (
            _PCIE_BYTES_PER_SECOND if self._gpu else sheet.bandwidth_bytes_per_second / 2
        )

    @property
    def engine(self) -> Engine:
        """Whose coefficients count."""
        return self._engine

    def beside_measured_kernels(self) -> AnalyticalCostModel:
        """Returns the model with the engine's coefficients for kernels that were measured."""
        return AnalyticalCostModel(self.sheet, self._engine.with_measured_kernels())

    @property
    def provenance(self) -> Provenance:
        """Data sheet and physics alone."""
        return Provenance.ANALYTICAL

    def supports(self, precision: Precision, engine: str) -> bool:
        """Returns False: it holds no measurements, and prices everything all the same."""
        return False

    def estimate(
        self, operations: Sequence[Operation], phase: Phase, confidence: float
    ) -> StepEstimate:
        """Returns the latency of the operations run one after the other.

        Args:
            operations: of one step.
            phase: plays no part: the interval is equally wide in both.
            confidence: probability that the interval holds, 0.5 to 0.999.
        """
        times = tuple(self.seconds(o) * o.count * 1e3 for o in operations)
        value = math.fsum(times)
        factor = self.interval_factor(confidence)
        return StepEstimate(
            value_ms=value, lower_ms=value / factor, upper_ms=value * factor, operations_ms=times
        )

    def interval_factor(self, confidence: float) -> float:
        """Returns by what factor the truth may lie above or below at that confidence."""
        return factor_at(confidence, self._factor)

    def seconds(self, operation: Operation) -> float:
        """Returns the time of one run."""
        match operation.kind:
            case OperationKind.ALL_REDUCE | OperationKind.ALL_GATHER | OperationKind.ALL_TO_ALL:
                ranks = int(operation.shape[1])
                return self._start(ranks) + ranks * _HOP_S + self._transfer(operation, ranks)
            case OperationKind.POINT_TO_POINT:
                return self._start(2) + self._transfer(operation, 2)
            case OperationKind.STEP_OVERHEAD:
                return self._step(operation)
            case OperationKind.REQUEST_OVERHEAD:
                return self._engine.request_s if self._gpu else _CPU_REQUEST_S
            case OperationKind.LAYER_OVERHEAD:
                return self._elementwise(operation)
        return self._kernel(operation, self._bound_seconds(operation))

    def floors_ms(self, operations: Sequence[Operation]) -> list[float]:
        """Returns what no kernel of the device can take less than for all runs of each.

        Its arithmetic at the peak rate, its traffic at the bandwidth; 0 where caches may
        hold the traffic, where it is no kernel, and where the rates are guessed.
        """
        cold = self._surely_cold_bytes
        return [self._floor_ms(o) if o.bytes > cold else 0.0 for o in operations]

    def _floor_ms(self, operation: Operation) -> float:
        if operation.kind in _NO_KERNELS:
            return 0.0
        compute = operation.flops / self._peaks[operation.multiplied_in]
        return 1e3 * operation.count * max(compute, operation.bytes / self._bandwidth)

    def bound(self, operation: Operation) -> str:
        """Returns what holds an operation back: as in the API's ``OperationCost.bound``."""
        if operation.kind in COLLECTIVES:
            return "communication"
        if operation.kind in _OVERHEADS:
            return "overhead"
        compute, traffic = self._bound_seconds(operation)
        if max(compute, traffic) < self._launch():
            return "overhead"
        return "compute" if compute > traffic else "bandwidth"

    def _bound_seconds(self, operation: Operation) -> tuple[float, float]:
        of_peak, of_bandwidth = self._shares(operation.kind)
        compute = operation.flops / (self._peaks[operation.multiplied_in] * of_peak)
        rate = self._bandwidth * of_bandwidth * self._unpacking(operation.precision)
        return compute, operation.bytes / rate

    def _shares(self, kind: OperationKind) -> tuple[float, float]:
        """Returns the shares of the peak rate and of the bandwidth that a kind reaches."""
        engine = self._engine
        if not self._gpu:
            return CPU_COMPUTE, CPU_BANDWIDTH
        if kind is OperationKind.LINEAR_ATTENTION:
            return engine.linear_attention_compute, engine.attention_bandwidth
        if kind in _LIKE_ATTENTION:
            return engine.attention_compute, engine.attention_bandwidth
        if kind is OperationKind.EXPERTS:
            return engine.experts_compute, engine.experts_bandwidth
        return engine.compute, engine.bandwidth

    def _unpacking(self, precision: Precision) -> float:
        """Returns the share of the rate at which weights of a format are read."""
        if self._gpu and precision is Precision.INT8_WEIGHT_ONLY:
            return self._engine.int8_share
        return self._engine.int4_share if self._gpu and precision is Precision.INT4 else 1.0

    def _launch(self) -> float:
        return max(self._engine.host_s, self._engine.kernel_s) if self._gpu else _CPU_KERNEL_S

    def _kernel(self, operation: Operation, bounds: tuple[float, float]) -> float:
        if not self._gpu:
            return _CPU_KERNEL_S + _smooth_maximum(*bounds, 0.0)
        return self._engine.kernel_s + _smooth_maximum(*bounds, self._engine.host_s)

    def _elementwise(self, operation: Operation) -> float:
        kernels = operation.shape[0]
        traffic = operation.bytes / self._plain_rate
        if not self._gpu:
            return kernels * _CPU_KERNEL_S + traffic
        left = kernels * self._engine.elementwise
        traffic *= self._engine.elementwise_traffic
        host = left * self._engine.host_s
        return left * self._engine.kernel_s + _smooth_maximum(0.0, traffic, host)

    def _step(self, operation: Operation) -> float:
        traffic = operation.bytes / self._plain_rate
        if not self._gpu:
            return _CPU_STEP_S + traffic
        return self._engine.step_s + operation.shape[0] * self._engine.sequence_s + traffic

    def _start(self, ranks: int) -> float:
        start = self._engine.collective_s if self._gpu else _CPU_COLLECTIVE_S
        return start if ranks <= NODE_RANKS else start + _NETWORK_START_S

    def _transfer(self, operation: Operation, ranks: int) -> float:
        """Returns the seconds that what one rank sends is on its way.

        Between nodes sums and gathers run in as many rings as a node has devices, each over
        the port of another one. Of an all-to-all each device has its own ranks' share in its
        node, and the rest through its port, at one time.
        """
        share = self._engine.link if self._gpu else CPU_LINK
        sent, link = operation.bytes / share, self._link
        if ranks <= NODE_RANKS:
            return sent / link
        if operation.kind is not OperationKind.ALL_TO_ALL:
            return sent / min(link, NODE_RANKS * NETWORK_BYTES_PER_SECOND)
        beyond = sent * (ranks - NODE_RANKS) / (ranks - 1)
        return max((sent - beyond) / link, beyond / NETWORK_BYTES_PER_SECOND)


_LIKE_ATTENTION = ATTENTIONS | {OperationKind.INDEXER}
_OVERHEADS = frozenset(
    {
        OperationKind.LAYER_OVERHEAD,
        OperationKind.STEP_OVERHEAD,
        OperationKind.REQUEST_OVERHEAD,
        OperationKind.EMBEDDING,
    }
)
_NO_KERNELS = _OVERHEADS | COLLECTIVES


def _smooth_maximum(first: float, second: float, third: float) -> float:
    """Returns the p-norm of three times; scaled by the largest so that none overflows."""
    largest = max(first, second, third)
    if largest <= 0.0:
        return 0.0
    ratios = (first / largest, second / largest, third / largest)
    total = sum(ratio**_SMOOTHNESS for ratio in ratios)
    return largest * float(total ** (1 / _SMOOTHNESS))
