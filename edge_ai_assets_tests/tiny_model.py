"""A release small enough to be made in a test: an ONNX file of a weighted sum, and its contract."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_ai_assets.scoring import contract
from edge_ai_assets.scoring.contract import Contract, Input

INPUTS = (
    Input("Pressure [bar]", "number", "bar", "Pressure [bar]", 0.0, 25.0, 1.0, 20.0),
    Input("Temperature", "number", "°C", "Temperature", -40.0, 150.0, 0.0, 90.0),
    Input("Pump type", "category", "", "Pump type", categories=("centrifugal", "screw")),
    Input("Temperature mean 12", "number", "°C", "Temperature", trained_low=0.0, trained_high=90.0),
)
WEIGHTS = (0.1, 0.02, 0.5, 0.01)


def tiny_model(weights: Sequence[float], *, bias: float = -2.0, output: str = "scores") -> bytes:
    """An ONNX file: sigmoid of the weighted sum of the inputs, where a missing one counts 0."""
    from onnx import TensorProto, helper, numpy_helper

    width = len(weights)
    constants = {
        "weights": np.array(weights, np.float32).reshape(width, 1),
        "bias": np.array([bias], np.float32),
        "zero": np.zeros(1, np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", ["features"], ["missing"]),
            helper.make_node("Where", ["missing", "zero", "features"], ["filled"]),
            helper.make_node("MatMul", ["filled", "weights"], ["sums"]),
            helper.make_node("Add", ["sums", "bias"], ["shifted"]),
            helper.make_node("Sigmoid", ["shifted"], [output]),
        ],
        "tiny",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def tiny_release(
    folder: Path,
    *,
    inputs: Sequence[Input] = INPUTS,
    weights: Sequence[float] | None = None,
    bias: float = -2.0,
    threshold: float = 0.5,
    usecase: bool = False,
) -> Path:
    """Write `model.onnx` and `contract.json` into a folder, which is made; if asked `usecase.yaml` too."""
    weights = (WEIGHTS if inputs is INPUTS else [0.1] * len(inputs)) if weights is None else weights
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(tiny_model(weights, bias=bias))
    contract.write(Contract("tiny", tuple(inputs), threshold, "fault"), folder / "contract.json")
    if usecase:
        (folder / "usecase.yaml").write_text(json.dumps(_usecase(inputs), ensure_ascii=False), "utf-8")
    return folder


def _usecase(inputs: Sequence[Input]) -> dict[str, object]:
    """The use case such a release could come from; JSON is YAML."""
    features = [
        {"name": item.name, "kind": "category", "categories": list(item.categories)}
        if item.kind == "category"
        else {"name": item.name, "unit": item.unit}
        | ({"range": [item.low, item.high]} if item.low is not None and item.high is not None else {})
        for item in inputs
        if item.base == item.name
    ]
    return {
        "name": "tiny",
        "time": {"columns": ["time"]},
        "runs": {"column": "run"},
        "features": features,
        "label": {"column": "fault", "positive": [1]},
        "sites": [{"name": "bergen"}],
    }
