"""The laws of one kind of operation: one for each regime, linears of many rows by blocks."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from model.block_law import BlockLaw
from model.laws import Law, law_ms

if TYPE_CHECKING:
    from model.laws import Array, Sizes


@dataclass(frozen=True, slots=True)
class RegimeLaws:
    """Laws of one kind.

    Attributes:
        laws: one for each regime.
        blocks: takes the place of the last one's; None where that explains more.
    """

    laws: tuple[Law, ...]
    blocks: BlockLaw | None = None
    _constants: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_constants", np.array([astuple(law) for law in self.laws]).T)

    def __call__(self, sizes: Sizes) -> Array:
        """Returns milliseconds, each operation by the law of its regime, (operations,)."""
        found = law_ms(sizes, *self._constants[:, sizes.regime])
        if self.blocks is not None:
            many = sizes.regime == len(self.laws) - 1
            if many.any():
                found[many] = self.blocks(sizes.take(many))
        return found

    def to_json(self) -> dict[str, Any]:
        """Returns what :meth:`from_json` reads."""
        return {
            "laws": [asdict(law) for law in self.laws],
            "blocks": self.blocks.to_json() if self.blocks is not None else None,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RegimeLaws:
        """Returns the laws that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: the data is none.
        """
        blocks = data["blocks"]
        return cls(
            tuple(Law(**law) for law in data["laws"]),
            BlockLaw.from_json(blocks) if blocks is not None else None,
        )
