"""What a layer costs beyond its kernels, a step beyond its layers, a request beyond its steps.

Each is a sum of few non-negative terms, fitted from real layers and real
``generate()`` runs; milliseconds.

An engine that launches its kernels one by one works ahead of a GPU: of the host's
launches and the device's kernels a pass takes the longer, not the sum. How far the two
overlap is a power p of the engine's: with H of launches and D of the device the layers
take (H^p + D^p)^(1/p), the sum at 1, as where the host itself computes, and close to
the longer beyond 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.operations import Operation, OperationKind

if TYPE_CHECKING:
    from collections.abc import Sequence

TERMS: dict[OperationKind, tuple[str, ...]] = {
    OperationKind.EMBEDDING: ("element_ms",),
    OperationKind.LAYER_OVERHEAD: ("layer_ms", "kernel_ms", "layer_element_ms", "gap_ms"),
    OperationKind.STEP_OVERHEAD: ("step_ms", "logit_ms"),
    OperationKind.REQUEST_OVERHEAD: ("request_ms",),
}
"""Names of each kind's terms, in the order of :func:`columns`."""
LAUNCHES = ("layer_ms", "kernel_ms")
"""Terms of the host, which may launch a layer's kernels while others still run."""
GAP = "gap_ms"
"""What a device takes for a kernel of a layer at the least. It counts beside ``kernel_ms`` where
launches overlap, and is one with it where they do not."""
SERIAL = (OperationKind.STEP_OVERHEAD, OperationKind.REQUEST_OVERHEAD)
"""Kinds of which nothing runs beside the layers: a request's first kernel waits for what is
before it, and a step's token for the last one."""


@dataclass(frozen=True, slots=True)
class Overheads:
    """Fitted terms by name, in milliseconds a unit; a missing one is zero.

    Attributes:
        terms: by name.
        power: p above, from 1 on.
    """

    terms: dict[str, float]
    power: float = 1.0

    def latency_ms(self, operation: Operation) -> float:
        """Returns milliseconds of one run, where nothing runs beside it."""
        return self._sum(operation, TERMS[operation.kind])

    def run_ms(self, operations: Sequence[Operation], alone_ms: Sequence[float]) -> list[float]:
        """Returns what each operation adds to a step, all its runs together, in milliseconds.

        Launches add what they take while no kernel runs, and the rest as if alone.

        Args:
            operations: of the step.
            alone_ms: of one run of each where nothing runs beside it.
        """
        each = [o.count * ms for o, ms in zip(operations, alone_ms, strict=True)]
        if self.power == 1.0:
            return each
        launching = [
            o.count * self._sum(o, LAUNCHES) if o.kind is OperationKind.LAYER_OVERHEAD else 0.0
            for o in operations
        ]
        launches = math.fsum(launching)
        beside = math.fsum(
            ms for o, ms in zip(operations, each, strict=True) if o.kind not in SERIAL
        )
        hidden = 1.0 - exposed_share(launches, beside - launches, self.power)
        return [ms - hidden * own for ms, own in zip(each, launching, strict=True)]

    def _sum(self, operation: Operation, chosen: Sequence[str]) -> float:
        sizes = zip(TERMS[operation.kind], columns(operation), strict=True)
        return sum(self.terms.get(name, 0.0) * size for name, size in sizes if name in chosen)


def exposed_share(launches_ms: float, device_ms: float, power: float) -> float:
    """Returns the share of the host's launches during which no kernel runs, 0 to 1.

    Args:
        launches_ms: that the host takes.
        device_ms: that the device computes for.
        power: by which the two overlap, from 1 on.
    """
    if device_ms <= 0.0 or launches_ms <= 0.0:
        return 1.0
    ratio = launches_ms / device_ms
    # At a large ratio the sum of powers is that of launches alone, and would overflow.
    if ratio > 1.0:
        return math.exp(math.log1p(ratio**-power) / power) - 1.0 / ratio
    return math.expm1(math.log1p(ratio**power) / power) / ratio


def columns(operation: Operation) -> Sequence[float]:
    """Returns the sizes that the kind's terms multiply.

    Raises:
        KeyError: the kind has no terms.
    """
    shape = operation.shape
    if operation.kind is OperationKind.EMBEDDING:
        return (shape[0] * shape[1],)
    if operation.kind is OperationKind.LAYER_OVERHEAD:
        return (1.0, shape[0], shape[1], shape[0])
    if operation.kind is OperationKind.STEP_OVERHEAD:
        return (1.0, shape[1])
    if operation.kind is OperationKind.REQUEST_OVERHEAD:
        return (1.0,)
    raise KeyError(operation.kind)
