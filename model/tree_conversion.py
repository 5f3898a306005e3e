"""scikit-learn's regression trees as an ONNX model: the open format that they are kept in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from model.trees import FEATURES, TREES, OnnxEnsemble

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.laws import Array

_ML = "ai.onnx.ml"
_OPERATORS = (helper.make_opsetid(_ML, 5), helper.make_opsetid("", 21))
_IR_VERSION = 10
"""Of 2024, the first with this operator: runtimes of then read the models, too."""
_SUM = 1
_LESS_OR_EQUAL = 0


@dataclass(frozen=True, slots=True)
class _Tree:
    """The nodes of a tree as columns, the root first.

    Attributes:
        leaf: whether each is one, (nodes,).
        feature, threshold: a node's question is whether the feature is at most the threshold.
        left, right: nodes that follow a yes and a no.
        value: what a leaf says.
    """

    leaf: NDArray[np.bool_]
    feature: NDArray[np.int64]
    threshold: Array
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: Array


def onnx_of(regressor: Any) -> OnnxEnsemble:  # noqa: ANN401 - scikit-learn has no types
    """Returns an ensemble's trees as ONNX.

    Args:
        regressor: ExtraTreesRegressor or HistGradientBoostingRegressor, fitted, of one output
            and without missing or categorical values.
    """
    if hasattr(regressor, "estimators_"):
        trees = [_averaged(each.tree_) for each in regressor.estimators_]
        base, weight = 0.0, 1.0 / len(trees)
    else:
        # Private, and the one way to the nodes; a test holds that the numbers stay the same.
        trees = [_boosted(predictor.nodes) for (predictor,) in regressor._predictors]
        base, weight = float(regressor._baseline_prediction.item()), 1.0
    model = _model(trees, regressor.n_features_in_)
    return OnnxEnsemble(model.SerializeToString(), base, weight)


def apart(model: bytes) -> bytes:
    """Returns the ONNX of an ensemble with an output for each tree instead of their sum.

    Args:
        model: that :func:`onnx_of` made.
    """
    read = onnx.load_from_string(model)
    (node,) = read.graph.node
    held = {attribute.name: attribute for attribute in node.attribute}
    roots = np.array(held["tree_roots"].ints)
    targets = np.empty(len(held["leaf_targetids"].ints), dtype=np.int64)
    for side in ("true", "false"):
        ids = np.array(held[f"nodes_{side}nodeids"].ints)
        is_leaf = np.array(held[f"nodes_{side}leafs"].ints, dtype=bool)
        tree = roots.searchsorted(np.arange(len(ids)), side="right") - 1
        targets[ids[is_leaf]] = tree[is_leaf]
    held["leaf_targetids"].ints[:] = targets.tolist()
    held["n_targets"].i = len(roots)
    read.graph.output[0].type.tensor_type.shape.dim[1].dim_value = len(roots)
    found: bytes = read.SerializeToString()
    return found


def _averaged(tree: Any) -> _Tree:  # noqa: ANN401 - as above
    return _Tree(
        leaf=tree.children_left < 0,
        feature=tree.feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        value=tree.value[:, 0, 0],
    )


def _boosted(nodes: NDArray[np.void]) -> _Tree:
    return _Tree(
        leaf=nodes["is_leaf"].astype(bool),
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"],
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        value=nodes["value"],
    )


def _model(trees: list[_Tree], features: int) -> onnx.ModelProto:
    """Returns a model of the trees' sum, in 32 bits.

    One output is a quarter faster than one a tree, and half as many bytes a tenth.
    """
    roots, parts, inner, leaves = [], [], 0, 0
    for tree in trees:
        part = _attributes(tree, inner, leaves)
        parts.append(part)
        roots.append(inner)
        inner += len(part["nodes_featureids"])
        leaves += len(part["leaf_weights"])
    node = helper.make_node("TreeEnsemble", [FEATURES], [TREES], domain=_ML)
    node.attribute.extend(
        _attribute(name, np.concatenate([part[name] for part in parts])) for name in parts[0]
    )
    node.attribute.append(_attribute("tree_roots", np.array(roots)))
    for name, value in (("n_targets", 1), ("aggregate_function", _SUM)):
        node.attribute.append(helper.make_attribute(name, value))
    graph = helper.make_graph(
        [node],
        "trees",
        [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info(TREES, TensorProto.FLOAT, [None, 1])],
    )
    return helper.make_model(graph, opset_imports=_OPERATORS, ir_version=_IR_VERSION)


def _attributes(tree: _Tree, inner: int, leaves: int) -> dict[str, NDArray[Any]]:
    """Returns a tree as attributes of the operator, which numbers nodes and leaves apart.

    Args:
        tree: any.
        inner: nodes that ask, of the trees before it.
        leaves: of the trees before it.
    """
    asking = ~tree.leaf
    place = np.where(tree.leaf, leaves + np.cumsum(tree.leaf), inner + np.cumsum(asking)) - 1
    nodes = np.flatnonzero(asking)
    left, right = tree.left[nodes], tree.right[nodes]
    if not len(nodes):  # One leaf: a question with one answer.
        nodes = left = right = np.zeros(1, dtype=np.int64)
    return {
        "nodes_featureids": np.maximum(tree.feature[nodes], 0),
        "nodes_splits": tree.threshold[nodes],
        "nodes_modes": np.full(len(nodes), _LESS_OR_EQUAL, dtype=np.uint8),
        "nodes_truenodeids": place[left],
        "nodes_trueleafs": tree.leaf[left].astype(np.int64),
        "nodes_falsenodeids": place[right],
        "nodes_falseleafs": tree.leaf[right].astype(np.int64),
        "leaf_targetids": np.zeros(int(tree.leaf.sum()), dtype=np.int64),
        "leaf_weights": tree.value[tree.leaf],
    }


def _attribute(name: str, values: NDArray[Any]) -> AttributeProto:
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    if values.dtype in (np.float32, np.uint8):
        return helper.make_attribute(name, numpy_helper.from_array(values, name))
    # make_attribute() looks at each of the numbers, which takes as long as a fit.
    return AttributeProto(name=name, type=AttributeProto.INTS, ints=values.tolist())
