"""The regression trees of a kernel's residual, through ONNX Runtime or through scikit-learn.

Both give the same numbers to six digits. ONNX Runtime answers a row in 0.03 ms and reads a
format that is no pickle; scikit-learn, which fits them, does where it is not installed: on a
machine that only measures.
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

    from model.laws import Array

FEATURES, TREES = "features", "trees"
"""Input, (rows, features), and output, (rows, 1 or trees), of the ONNX models of ensembles."""


class Trees(Protocol):
    """A fitted ensemble."""

    def predict(self, columns: Array) -> Array:
        """Returns what the ensemble says, (rows,)."""

    def spread(self, columns: Array) -> Array:
        """Returns the standard deviation between the trees' answers, (rows,)."""

    def to_json(self) -> dict[str, Any]:
        """Returns what :func:`trees_of_json` reads: JSON, but for bytes.

        Raises:
            ModuleNotFoundError: ONNX is not installed.
        """


@dataclass(frozen=True, slots=True)
class OnnxEnsemble:
    """Trees as they are kept.

    Attributes:
        model: ONNX; a row of :data:`FEATURES` gives the sum of the trees.
        base, weight: the ensemble says base + weight * that sum.
    """

    model: bytes
    base: float
    weight: float


class OnnxTrees:
    """Trees that ONNX Runtime holds.

    Args:
        ensemble: as it is kept.

    Raises:
        ValueError: the bytes are no such model.
        ModuleNotFoundError: ONNX Runtime is not installed.
    """

    def __init__(self, ensemble: OnnxEnsemble) -> None:
        self._session = _session(ensemble.model)
        self._ensemble = ensemble

    def predict(self, columns: Array) -> Array:
        """Returns what the ensemble says, (rows,)."""
        total = _run(self._session, columns)[:, 0].astype(np.float64)
        found: Array = self._ensemble.base + self._ensemble.weight * total
        return found

    def spread(self, columns: Array) -> Array:
        """Returns the standard deviation between the trees' answers, (rows,)."""
        found: Array = _run(self._apart, columns).std(axis=1, dtype=np.float64)
        return found

    def __reduce__(self) -> tuple[type[OnnxTrees], tuple[OnnxEnsemble]]:
        """Returns what makes them anew in the process that they are sent to."""
        return OnnxTrees, (self._ensemble,)

    def to_json(self) -> dict[str, Any]:
        """Returns what :func:`trees_of_json` reads."""
        return asdict(self._ensemble)

    @cached_property
    def _apart(self) -> InferenceSession:
        """The trees one by one, which campaigns alone ask for."""
        from model.tree_conversion import apart  # noqa: PLC0415 - loads a library for it

        return _session(apart(self._ensemble.model))


def _run(session: InferenceSession, columns: Array) -> NDArray[np.float32]:
    found: NDArray[np.float32]
    (found,) = session.run([TREES], {FEATURES: columns.astype(np.float32)})
    return found


def _session(model: bytes) -> InferenceSession:
    import onnxruntime  # noqa: PLC0415 - optional where nothing is stored

    options = onnxruntime.SessionOptions()
    # More threads gain nothing at a few rows, and are not ours to take.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    try:
        return onnxruntime.InferenceSession(
            model,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # it would print on standard output
        )
    except Exception as error:  # its errors have no base of their own
        raise ValueError(f"unreadable trees: {str(error)[:200]}") from error


class ScikitTrees:
    """Trees as scikit-learn fitted them.

    Args:
        regressor: ExtraTreesRegressor or HistGradientBoostingRegressor, fitted.
    """

    def __init__(self, regressor: Any) -> None:  # noqa: ANN401 - scikit-learn has no types
        self._regressor = regressor

    def predict(self, columns: Array) -> Array:
        """Returns what the ensemble says, (rows,)."""
        return np.asarray(self._regressor.predict(columns), dtype=np.float64)

    def spread(self, columns: Array) -> Array:
        """Returns the standard deviation between the trees' answers, (rows,).

        Of boosted trees the first is left out: scikit-learn tells it with the mean added.
        """
        if hasattr(self._regressor, "staged_predict"):
            stages = np.array(list(self._regressor.staged_predict(columns)))
            each = np.diff(stages, axis=0)
        else:
            each = np.array([tree.predict(columns) for tree in self._regressor.estimators_])
        found: Array = each.std(axis=0)
        return found

    def to_json(self) -> dict[str, Any]:
        """Raises ModuleNotFoundError: pickle is no format to keep."""
        raise ModuleNotFoundError("a cost model is stored as ONNX; install onnx and onnxruntime")


def trees_of(regressor: Any) -> Trees:  # noqa: ANN401 - scikit-learn has no types
    """Returns the trees of a fitted regressor, held by ONNX Runtime where that is installed."""
    if not _has_onnx():
        return ScikitTrees(regressor)
    from model.tree_conversion import onnx_of  # noqa: PLC0415 - as above

    return OnnxTrees(onnx_of(regressor))


def trees_of_json(data: dict[str, Any]) -> Trees:
    """Returns the trees that :meth:`Trees.to_json` wrote.

    Raises:
        TypeError, ValueError: the data is none.
        ModuleNotFoundError: ONNX Runtime is not installed.
    """
    return OnnxTrees(OnnxEnsemble(**data))


def load_format() -> None:
    """Loads what trees are kept with, if it is installed: processes forked later share it."""
    if _has_onnx():
        import onnxruntime  # noqa: F401, PLC0415

        import model.tree_conversion  # noqa: F401, PLC0415


@lru_cache(maxsize=1)
def _has_onnx() -> bool:
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
