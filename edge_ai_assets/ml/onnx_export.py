"""A candidate as an ONNX file, and the check that the file scores as the candidate does."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_ai_assets.ml.evaluation import score
from edge_ai_assets.ml.matrix import matrix
from edge_ai_assets.ml.training import Candidate, probability
from edge_ai_assets.scoring.contract import UNKNOWN_CATEGORY

if TYPE_CHECKING:
    import pandas as pd
    from onnx import GraphProto, NodeProto

OPSET = {"": 18, "ai.onnx.ml": 3}
"""Fixed, so that a new skl2onnx writes what the sites' onnxruntime reads."""


@dataclass(frozen=True)
class Parity:
    """How far the ONNX file's scores are from the candidate's, over `rows` rows."""

    max_abs_difference: float
    labels_differing: int
    rows: int

    def holds(self, most: float) -> bool:
        """Whether no label differs and no score by more than `most`."""
        return self.labels_differing == 0 and self.max_abs_difference <= most


def export(candidate: Candidate) -> bytes:
    """ONNX with the float input `features` (n, inputs) and the float output `scores` (n, 1), P(positive).

    The same candidate gives the same bytes. Names of inputs, as the use case writes them, stand in the
    metadata property `inputs` as JSON; ONNX itself would not keep brackets and spaces.
    """
    from onnx import TensorProto, helper, numpy_helper
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    width = len(candidate.contract.inputs)
    pipeline = copy.deepcopy(candidate.pipeline)
    estimator = pipeline[-1]
    _split_between_float32(estimator)
    model = to_onnx(
        pipeline,
        initial_types=[("features", FloatTensorType([None, width]))],
        options={id(estimator): {"zipmap": False}},
        target_opset=OPSET,
        name=candidate.contract.usecase,
    )
    graph = model.graph
    classifier = graph.node[-1]
    if classifier.op_type == "TreeEnsembleClassifier":
        _as_regressor(graph, classifier)
    else:
        positive = np.array([list(estimator.classes_).index(True)], np.int64)
        graph.initializer.append(numpy_helper.from_array(positive, "positive_class"))
        given = [classifier.output[1], "positive_class"]
        graph.node.append(helper.make_node("Gather", given, ["scores"], "scores", axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 1]))
    names = [item.name for item in candidate.contract.inputs]
    helper.set_model_props(
        model, {"inputs": json.dumps(names, ensure_ascii=False), "usecase": candidate.contract.usecase}
    )
    return bytes(model.SerializeToString(deterministic=True))


def parity(model: bytes, candidate: Candidate, frame: pd.DataFrame) -> Parity:
    """Compare both on real rows and on edge rows: inputs missing, at trained ends, of unknown categories."""
    made = matrix(frame, candidate.contract)
    made = np.concatenate([made, _edges(made, candidate)])
    theirs, ours = score(model, made).astype(np.float64), probability(candidate.pipeline, made)
    threshold = candidate.contract.threshold
    return Parity(
        max_abs_difference=float(np.abs(theirs - ours).max(initial=0.0)),
        labels_differing=int(((theirs >= threshold) != (ours >= threshold)).sum()),
        rows=len(made),
    )


def _split_between_float32(estimator: Any) -> None:
    """Lower the split points of gradient boosting to float32, which changes no score of a float32 value.

    ONNX keeps them as float32. skl2onnx rounds them to the nearest one, which for a split between two
    neighbouring float32 values may be the upper one, and all rows with that value would change sides. Other
    trees it does rightly.
    """
    for (tree,) in getattr(estimator, "_predictors", []):
        nearest = tree.nodes["num_threshold"].astype(np.float32)
        above = nearest > tree.nodes["num_threshold"]
        tree.nodes["num_threshold"] = np.where(above, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _as_regressor(graph: GraphProto, node: NodeProto) -> None:
    """Let the trees of a classifier give P(positive) alone, as the regressor that they are.

    The scores are the same sums. onnxruntime 1.31 takes an eighth less time for them, for one row as for a
    thousand, and no class is worked out that nobody asks for: the contract's threshold decides.
    """
    from onnx import helper

    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if set(found["class_ids"]) != {0}:
        raise ValueError(f"trees of two classes have one score a leaf, these have {set(found['class_ids'])}")
    kept = {name: value for name, value in found.items() if name.startswith(("nodes_", "base_"))}
    del kept["nodes_hitrates"]  # says nothing: it is 1 everywhere
    leaves = {name.replace("class_", "target_"): found[name] for name in found if name.startswith("class_")}
    logistic = found["post_transform"] == b"LOGISTIC"
    sums = "log_odds" if logistic else "scores"
    graph.node.remove(node)
    graph.node.append(
        helper.make_node(
            "TreeEnsembleRegressor",
            list(node.input),
            [sums],
            "trees",
            domain="ai.onnx.ml",
            n_targets=1,
            **kept,
            **leaves,
        )
    )
    if logistic:  # onnxruntime passes over the regressor's own post_transform
        graph.node.append(helper.make_node("Sigmoid", [sums], ["scores"], "scores"))


def _edges(made: np.ndarray, candidate: Candidate) -> np.ndarray:
    """A middling row again and again, one input changed each time; and one with everything missing."""
    inputs = candidate.contract.inputs
    middle = made[len(made) // 2] if len(made) else np.zeros(len(inputs), np.float32)
    rows = []
    for at, item in enumerate(inputs):
        ends = (item.trained_low, item.trained_high) if item.kind == "number" else (UNKNOWN_CATEGORY,)
        for value in {np.float32(end) for end in ends if end is not None}:
            rows.append(np.where(np.arange(len(inputs)) == at, value, middle))
        if item.kind == "number":
            rows.append(np.where(np.arange(len(inputs)) == at, np.nan, middle))
    rows.append(np.array([np.nan if item.kind == "number" else UNKNOWN_CATEGORY for item in inputs]))
    return np.stack(rows).astype(np.float32)
