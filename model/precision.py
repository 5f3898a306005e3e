"""Number formats and what they weigh."""

from dataclasses import dataclass
from enum import StrEnum


class Precision(StrEnum):
    """Number format of weights and activations, spelt as the command spells it."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    FP8_BLOCK = "fp8-block"
    INT8 = "int8"
    INT8_WEIGHT_ONLY = "int8-weight-only"
    INT4 = "int4"
    FP4 = "fp4"

    @property
    def weight_bytes(self) -> float:
        """Bytes of one weight, scales included (one fp32 per 128 x 128 or per 32 values)."""
        return _WEIGHT_BYTES[self]

    @property
    def activation(self) -> "Precision":
        """Format of the activations between operations."""
        return self if self in _PLAIN else Precision.BF16

    @property
    def activation_bytes(self) -> float:
        """Bytes of one activation between operations."""
        return _ACTIVATION_BYTES[self]

    @property
    def compute(self) -> "Precision":
        """Format the multipliers run in: that of the activations where only weights are packed."""
        return Precision.BF16 if self in _WEIGHT_ONLY else self


_PLAIN = frozenset({Precision.FP32, Precision.BF16, Precision.FP16})
_WEIGHT_ONLY = frozenset({Precision.INT8_WEIGHT_ONLY, Precision.INT4})
_WEIGHT_BYTES = {
    Precision.FP32: 4.0,
    Precision.BF16: 2.0,
    Precision.FP16: 2.0,
    Precision.FP8: 1.0,
    Precision.FP8_BLOCK: 1.0 + 4.0 / (128 * 128),
    Precision.INT8: 1.0,
    Precision.INT8_WEIGHT_ONLY: 1.0,
    Precision.INT4: 0.5 + 2.0 / 128,
    Precision.FP4: 0.5 + 1.0 / 16,
}
_ACTIVATION_BYTES = {precision: _WEIGHT_BYTES[precision.activation] for precision in Precision}


@dataclass(frozen=True, slots=True)
class PackedFormat:
    """How a checkpoint packs some of its weights.

    Attributes:
        precision: number format.
        weight_bytes: bytes of one weight, the scales of its groups included.
    """

    precision: Precision
    weight_bytes: float
