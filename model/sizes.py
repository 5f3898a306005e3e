"""A documented dense shape for a bare parameter count.

The shape is Llama's: RMS norms, gated feed-forward blocks, grouped KV heads, no
biases. Its rule, for a count N:

- aspect (hidden size over layers) 128 from 1e9 parameters on, as Llama 2 7B; 64 below.
- hidden size h: N = 12.75 h^3 / aspect + the embeddings (what layers of that aspect with
  a feed-forward block 3.5 times as wide come to), to a multiple of 128 below 1e9, of 512
  up to 2,560, of 1,024 beyond, so that 8 tensor-parallel ranks divide the heads from
  1e9 on.
- heads of 64 up to a hidden size of 2,560, of 128 beyond; the greatest common divisor
  of 8 and the query heads as KV heads.
- vocabulary 4,096 below 3e7, 16,384 below 1e8, else 32,000; the head is tied to the
  embedding below 1e9.
- layers: what is left over a layer, rounded; at least 2.
- feed-forward width: takes up the rest, to a multiple of 256 from a hidden size of
  4,096 on, 128 from 2,048, 32 from 512, else 16.

The shapes of this rule, taken every 0.25%, are a ladder; the rung whose count is the
closest answers, within 3% of any N. So a larger N never gets a smaller model.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from model.dimensions import architecture_of_dimensions
from model.errors import InvalidFieldError

if TYPE_CHECKING:
    from model.architecture import Architecture

SMALLEST, LARGEST = 1e6, 1e13
_RUNG = math.log(1.0025)
_REACH = 12
"""Rungs looked at on either side: no shape is as far as 3% off its own count."""


class _Shape(NamedTuple):
    hidden_size: int
    layer_count: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tied: bool

    @property
    def query_heads(self) -> int:
        return self.hidden_size // self.head_dim

    @property
    def kv_heads(self) -> int:
        return math.gcd(8, self.query_heads)

    @property
    def outside_feed_forward(self) -> int:
        """Parameters of all but the feed-forward blocks."""
        kv_size = self.kv_heads * self.head_dim
        attention = 2 * self.hidden_size * (self.hidden_size + kv_size)
        embedding = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        layers = self.layer_count * (attention + 2 * self.hidden_size)
        return embedding + self.hidden_size + layers

    @property
    def parameters(self) -> int:
        width = 3 * self.hidden_size * self.layer_count
        return self.outside_feed_forward + width * self.intermediate_size


def architecture_of_size(parameters: float) -> Architecture:
    """Returns the dense shape that this module documents, within 3% of a parameter count.

    Args:
        parameters: number of parameters, 1e6 to 1e13.

    Raises:
        InvalidFieldError: it lies outside, or is no number; names ``parameter_count``.
    """
    if not SMALLEST <= parameters <= LARGEST:  # NaN fails this too
        raise InvalidFieldError(
            "parameter_count", f"{parameters} is not in {SMALLEST:.0e} to {LARGEST:.0e}"
        )
    shape = _closest(parameters)
    return architecture_of_dimensions(
        name=f"{parameters:.4g} parameters",
        model_type="llama",
        hidden_size=shape.hidden_size,
        layer_count=shape.layer_count,
        query_heads=shape.query_heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate_size,
        vocab_size=shape.vocab_size,
        tied_embeddings=shape.tied,
        source="the dense shape documented in model/sizes.py",
    )


def _closest(parameters: float) -> _Shape:
    """Returns the rung whose count is the closest."""
    middle = round(math.log(parameters / SMALLEST) / _RUNG)
    last = round(math.log(LARGEST / SMALLEST) / _RUNG)
    rungs = range(max(0, middle - _REACH), min(last, middle + _REACH) + 1)
    return min((_rung(k) for k in rungs), key=lambda shape: abs(shape.parameters - parameters))


@lru_cache(maxsize=4096)
def _rung(k: int) -> _Shape:
    """Returns the shape that the rule gives at the ladder's k-th count."""
    parameters = SMALLEST * math.exp(k * _RUNG)
    small = parameters < 1e9
    vocabulary = 4096 if parameters < 3e7 else 16_384 if parameters < 1e8 else 32_000
    ideal = _ideal_hidden_size(parameters, *((64, vocabulary) if small else (128, 2 * vocabulary)))
    hidden = _nearest(ideal, 128 if small else 512 if ideal < 2816 else 1024)
    draft = _Shape(hidden, 1, 64 if hidden <= 2560 else 128, 0, vocabulary, tied=small)
    none = draft._replace(layer_count=0).parameters
    layer = draft._replace(intermediate_size=int(3.5 * hidden)).parameters - none
    shape = draft._replace(layer_count=max(2, round((parameters - none) / layer)))
    per_column = 3 * hidden * shape.layer_count
    left = (parameters - shape.outside_feed_forward) / per_column
    multiple = 256 if hidden >= 4096 else 128 if hidden >= 2048 else 32 if hidden >= 512 else 16
    return shape._replace(intermediate_size=_nearest(left, multiple))


def _ideal_hidden_size(parameters: float, aspect: int, embedding_rows: int) -> float:
    """Solves ``parameters = 12.75 h^3 / aspect + embedding_rows h`` for h."""
    cubic = 12.75 / aspect
    hidden = math.cbrt(parameters / cubic)
    for _ in range(8):  # Newton's method from above on a convex function: no overshoot
        excess = cubic * hidden**3 + embedding_rows * hidden - parameters
        hidden -= excess / (3 * cubic * hidden**2 + embedding_rows)
    return hidden


def _nearest(value: float, multiple: int) -> int:
    return max(1, round(value / multiple)) * multiple
