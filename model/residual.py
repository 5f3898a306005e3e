"""What is learned of a kernel beyond its law: trees, and a smooth function beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.matern import MaternProcess
from model.trees import trees_of_json

if TYPE_CHECKING:
    from model.laws import Array
    from model.trees import Trees

_SHARE = 0.7
"""Part of the smooth function and what is learned on it, where the function is sure."""
_SURE = 0.1
"""Deviation from which on it counts the less: of models unlike all others it knows nothing."""


@dataclass(frozen=True, slots=True)
class Smooth:
    """What is between few points.

    Attributes:
        process: the smooth function.
        rest: ensembles, each on what a point is off the function that the others give.
    """

    process: MaternProcess
    rest: tuple[Trees, ...]

    def at(self, columns: Array, least: float = 0.0) -> tuple[Array, Array]:
        """Returns what is expected there, and the function's standard deviation, (rows,) each.

        Args:
            columns: features, (rows, features).
            least: deviations below it count as it.
        """
        mean, deviation = self.process.at(columns, least)
        rest = sum(each.predict(columns) for each in self.rest) / len(self.rest)
        return mean + rest, deviation

    def to_json(self) -> dict[str, Any]:
        """Returns what :meth:`from_json` reads: JSON, but for bytes.

        Raises:
            ModuleNotFoundError: ONNX or its runtime is not installed.
        """
        return {
            "process": self.process.to_json(),
            "rest": [each.to_json() for each in self.rest],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Smooth:
        """Returns what :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: the data is none.
            ModuleNotFoundError: ONNX or its runtime is not installed.
        """
        return cls(
            MaternProcess.from_json(data["process"]),
            tuple(trees_of_json(each) for each in data["rest"]),
        )


@dataclass(frozen=True, slots=True)
class Residual:
    """Regression of log(latency / law) on features.

    Attributes:
        trees: steps, as kernels switch.
        smooth: what is between few points; None where they are many.
    """

    trees: Trees
    smooth: Smooth | None = None

    def predict(self, columns: Array) -> Array:
        """Returns the log of the factor, (rows,)."""
        found = self.trees.predict(columns)
        if self.smooth is None:
            return found
        mean, deviation = self.smooth.at(columns, _SURE)
        share = _SHARE * (_SURE / deviation) ** 2
        mixed: Array = found + share * (mean - found)
        return mixed

    def spread(self, columns: Array) -> Array:
        """Returns the standard deviation between the trees' answers, (rows,)."""
        return self.trees.spread(columns)

    def to_json(self) -> dict[str, Any]:
        """Returns what :meth:`from_json` reads: JSON, but for bytes.

        Raises:
            ModuleNotFoundError: ONNX or its runtime is not installed.
        """
        smooth = self.smooth.to_json() if self.smooth is not None else None
        return {"trees": self.trees.to_json(), "smooth": smooth}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Residual:
        """Returns the residual that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: the data is none.
            ModuleNotFoundError: ONNX or its runtime is not installed.
        """
        smooth = data["smooth"]
        return cls(
            trees_of_json(data["trees"]),
            Smooth.from_json(smooth) if smooth is not None else None,
        )
