"""The regression trees of a kernel's residual, through treelite or through scikit-learn.

Both give the same numbers. treelite answers one row in 0.03 ms and stores trees without
pickle; scikit-learn, which fits them, does where treelite is not installed: on a machine
that only measures.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import treelite

    from model.laws import Array


class Trees(Protocol):
    """A fitted ensemble."""

    def predict(self, columns: Array) -> Array:
        """Returns what the ensemble says, (rows,)."""

    def spread(self, columns: Array) -> Array:
        """Returns the standard deviation between the trees' answers, (rows,)."""

    def to_bytes(self) -> bytes:
        """Returns what :func:`trees_of_bytes` reads.

        Raises:
            ModuleNotFoundError: treelite is missing.
        """


class TreeliteTrees:
    """Trees that treelite holds.

    Args:
        trees: with one output.
    """

    def __init__(self, trees: treelite.Model) -> None:
        import treelite  # noqa: PLC0415 - optional where nothing is stored

        self._trees = trees
        self._inference = treelite.gtil

    def predict(self, columns: Array) -> Array:
        """Returns what the ensemble says, (rows,)."""
        found = self._inference.predict(self._trees, columns, nthread=1)
        return np.asarray(found, dtype=np.float64).reshape(-1)

    def spread(self, columns: Array) -> Array:
        """Returns the standard deviation between the trees' answers, (rows,)."""
        each = self._inference.predict_per_tree(self._trees, columns, nthread=1)
        found: Array = np.asarray(each, dtype=np.float64).reshape(len(columns), -1).std(axis=1)
        return found

    def to_bytes(self) -> bytes:
        """Returns the trees in treelite's format."""
        return bytes(self._trees.serialize_bytes())


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

    def to_bytes(self) -> bytes:
        """Raises ModuleNotFoundError: pickle is no format to keep."""
        raise ModuleNotFoundError("a cost model is stored through treelite; install treelite")


def trees_of(regressor: Any) -> Trees:  # noqa: ANN401 - scikit-learn has no types
    """Returns the trees of a fitted regressor, held by treelite where that is installed."""
    if not _has_treelite():
        return ScikitTrees(regressor)
    import treelite  # noqa: PLC0415 - as above

    return TreeliteTrees(treelite.sklearn.import_model(regressor))


def trees_of_bytes(data: bytes) -> Trees:
    """Returns the trees that :meth:`Trees.to_bytes` wrote.

    Raises:
        ValueError: the bytes hold none, or trees that this treelite does not read.
        ModuleNotFoundError: treelite is missing.
    """
    import treelite  # noqa: PLC0415 - as above

    try:
        return TreeliteTrees(treelite.Model.deserialize_bytes(data))
    except treelite.TreeliteError as error:
        raise ValueError(f"unreadable trees: {str(error)[:200]}") from error


@lru_cache(maxsize=1)
def _has_treelite() -> bool:
    return importlib.util.find_spec("treelite") is not None
