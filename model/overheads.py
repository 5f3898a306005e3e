"""What a layer costs beyond its kernels, a step beyond its layers, a request beyond its steps.

Each is a sum of few non-negative terms, fitted from real layers and real
``generate()`` runs; milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.operations import Operation, OperationKind

if TYPE_CHECKING:
    from collections.abc import Sequence

TERMS: dict[OperationKind, tuple[str, ...]] = {
    OperationKind.EMBEDDING: ("element_ms",),
    OperationKind.LAYER_OVERHEAD: ("layer_ms", "kernel_ms", "layer_element_ms"),
    OperationKind.STEP_OVERHEAD: ("step_ms", "logit_ms"),
    OperationKind.REQUEST_OVERHEAD: ("request_ms",),
}
"""Names of each kind's terms, in the order of :func:`columns`."""


@dataclass(frozen=True, slots=True)
class Overheads:
    """Fitted terms by name, in milliseconds a unit; a missing one is zero."""

    terms: dict[str, float]

    def latency_ms(self, operation: Operation) -> float:
        """Returns milliseconds of one run."""
        names = TERMS[operation.kind]
        sizes = columns(operation)
        return sum(self.terms.get(n, 0.0) * s for n, s in zip(names, sizes, strict=True))


def columns(operation: Operation) -> Sequence[float]:
    """Returns the sizes that the kind's terms multiply.

    Raises:
        KeyError: the kind has no terms.
    """
    shape = operation.shape
    if operation.kind is OperationKind.EMBEDDING:
        return (shape[0] * shape[1],)
    if operation.kind is OperationKind.LAYER_OVERHEAD:
        return (1.0, shape[0], shape[1])
    if operation.kind is OperationKind.STEP_OVERHEAD:
        return (1.0, shape[1])
    if operation.kind is OperationKind.REQUEST_OVERHEAD:
        return (1.0,)
    raise KeyError(operation.kind)
