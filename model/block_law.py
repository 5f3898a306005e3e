"""The physics of a matrix product of many rows on a GPU: whole waves of whole blocks.

A kernel cuts the result into blocks and, where these are few, the inner dimension into
parts; each processor takes one block of one part at a time. With b blocks of r x c values,
s parts and P processors a product of (m, k) with (k, n) takes

    t(block, s) = ceil(b s / P) x (k / s x (c1 r c + c2 (r + c)) + c3 + c4 r c) + c5 m n (s - 1)

for multiplying, loading, starting, writing, and adding the parts up. A library chooses
the block and s that are about the fastest: the soft minimum over the usual ones takes the
place of the FLOPs in the law of ``model.laws``,

    T = a + c0 m n + (min t^p + (c6 bytes)^p)^(1/p)

in milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from model.laws import soft_maximum

if TYPE_CHECKING:
    from model.laws import Array, Sizes

_ROWS = np.array([64, 64, 128, 128, 64, 256, 128, 256])
_COLUMNS = np.array([64, 128, 64, 128, 256, 64, 256, 128])
_PARTS = np.arange(1, 9)
_AREAS = np.repeat(_ROWS * _COLUMNS, len(_PARTS))
_EDGES = np.repeat(_ROWS + _COLUMNS, len(_PARTS))
_CUTS = np.tile(_PARTS, len(_ROWS))
"""Of each choice, a block and a number of parts: values, rows and columns, parts."""


class BlockLaw(NamedTuple):
    """Constants of one device, milliseconds but for the sharpness and p; all positive.

    Attributes:
        processors: that the device has.
        value_step_ms, edge_step_ms: of one step of k, for each value and each edge of a block.
        wave_ms, value_ms: of one wave, and for each value of a block in it.
        part_ms: of adding one value of a further part.
        sharpness: how surely the fastest is chosen.
        start_ms, output_ms, byte_ms, corner: as in ``model.laws.Law``.
    """

    processors: int
    value_step_ms: float
    edge_step_ms: float
    wave_ms: float
    value_ms: float
    part_ms: float
    sharpness: float
    start_ms: float
    output_ms: float
    byte_ms: float
    corner: float

    def __call__(self, sizes: Sizes) -> Array:
        """Returns milliseconds of linears, (operations,)."""
        processors, *constants = self
        return block_law_ms(sizes, amounts(sizes, processors), *constants)

    def to_json(self) -> dict[str, Any]:
        """Returns what :meth:`from_json` reads."""
        return self._asdict()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> BlockLaw:
        """Returns the law that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: the data is none.
        """
        _, *constants = (float(data[name]) for name in cls._fields)
        return cls(int(data["processors"]), *constants)


def block_law_ms(sizes: Sizes, counted: Array, *constants: float) -> Array:
    """Returns milliseconds for the constants of :class:`BlockLaw`, (operations,).

    Args:
        sizes: of linears.
        counted: what :func:`amounts` gives for them.
        constants: in the order of the fields, the processors left out.
    """
    *each, sharpness, start, output, byte, corner = constants
    fastest = soft_minimum(counted @ each, sharpness)
    moved = soft_maximum(fastest, byte * sizes.bytes, corner)
    result: Array = start + output * sizes.outputs + moved
    return result


def amounts(sizes: Sizes, processors: int) -> Array:
    """Returns how often each constant of t counts for each choice, (operations, choices, 5).

    Args:
        sizes: of linears.
        processors: that the device has.
    """
    m, n, k = (column[:, None] for column in sizes.shape.T)
    blocks = np.repeat(np.ceil(m / _ROWS) * np.ceil(n / _COLUMNS), len(_PARTS), axis=1)
    waves = np.ceil(blocks * _CUTS / processors)
    steps = waves * (k / _CUTS)
    return np.stack(
        [steps * _AREAS, steps * _EDGES, waves, waves * _AREAS, (_CUTS - 1) * (m * n)], axis=-1
    )


def soft_minimum(times: Array, sharpness: float) -> Array:
    """Returns the p-norm of negative p of each row's times, (operations,)."""
    least = times.min(axis=1)
    total = ((times / least[:, None]) ** -sharpness).sum(axis=1)
    result: Array = least * total ** (-1 / sharpness)
    return result
