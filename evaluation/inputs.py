"""What several tables need, made once and only when one asks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from evaluation.deployments import DEVICES, drawn, left_out, read_rows
from evaluation.kernels import ALL_ROWS, LIMIT, measured_kernels, measurements
from evaluation.peers.asked import ask
from model.rows import usable_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from evaluation.peers.asked import Asked
    from evaluation.rows import Answered, Kernels, Row
    from model.cost_model import FittedCostModel
    from model.measurement import Measurement
    from model.rows import Row as OperationRow

OPERATIONS_ENGINE = "vllm"
"""Whose tables of operations are taken where no other engine is named."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Rows, kernels and predictions.

    Attributes:
        out: folder of the page; pictures go there.
        say: told of each step that is done.
        limit: most deployments, and most rows of one kind of operation; None takes all.
    """

    out: Path
    say: Callable[[str], None]
    limit: int | None = None

    @cached_property
    def deployments(self) -> list[Row]:
        """Deployments measured end to end."""
        rows = read_rows()
        return rows if self.limit is None else drawn(rows, self.limit)

    @cached_property
    def kernels(self) -> Kernels:
        """Cost models of published kernels for each device and engine of the deployments."""
        found: dict[tuple[str, str], FittedCostModel] = {}
        limit = LIMIT if self.limit is None else min(LIMIT, self.limit)
        engines = sorted({row.engine for row in self.deployments})
        for device in DEVICES:
            for engine in engines:
                found[device, engine] = measured_kernels(device, engine, limit)
                self.say(f"fitted kernels of {engine} on {device}")
        return found

    @cached_property
    def answers(self) -> list[Answered]:
        """Each deployment as predicted by coefficients that never saw its architecture."""
        return left_out(self.deployments, self.kernels, self.say)

    @cached_property
    def peers(self) -> Asked:
        """What peers say of the rows of :attr:`answers`, by their place there."""
        return ask([answer.row for answer in self.answers], self.say)

    def measurements(
        self, device: str, engine: str, *, launched: bool = False
    ) -> Sequence[Measurement]:
        """Returns the published operations of an engine on a device, all of them, limit or not."""
        key = device, engine, launched
        if key not in self._measurements:
            self._measurements[key] = measurements(device, engine, ALL_ROWS, launched=launched)
            self.say(f"read operations of {engine} on {device}")
        return self._measurements[key]

    def operations(
        self,
        device: str,
        wanted: Callable[[Measurement], bool],
        most: int | None = None,
        engine: str = OPERATIONS_ENGINE,
        *,
        launched: bool = False,
    ) -> list[OperationRow]:
        """Returns published operations as the fit reads them.

        Args:
            device: that they ran on.
            wanted: which of them.
            most: draws so many at random, the same in every run; None takes all.
            engine: whose tables are read; what they lack is another's.
            launched: takes linears that were timed as the host launched them, too.
        """
        every = self.measurements(device, engine, launched=launched)
        found = [one for one in every if wanted(one)]
        limits = [one for one in (most, self.limit) if one is not None]
        return usable_rows(drawn(found, min(limits)) if limits else found)

    @cached_property
    def _measurements(self) -> dict[tuple[str, str, bool], Sequence[Measurement]]:
        return {}
