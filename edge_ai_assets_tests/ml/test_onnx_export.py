from __future__ import annotations

import json

import numpy as np
import pytest

from edge_ai_assets.ml import onnx_export
from edge_ai_assets.ml.evaluation import score
from edge_ai_assets.ml.matrix import matrix
from edge_ai_assets.ml.onnx_export import Parity
from edge_ai_assets.ml.training import Candidate, probability, train
from edge_ai_assets.scoring import contract
from edge_ai_assets.scoring.model import CONTRACT, MODEL, Model
from edge_ai_assets_tests.ml.ml_cases import prepared, usecase


@pytest.fixture(scope="module")
def candidate():
    return train(prepared(usecase()), usecase())


@pytest.fixture(scope="module")
def model(candidate):
    return onnx_export.export(candidate)


def test_one_float_input_and_one_float_output(model, candidate):
    import onnx

    graph = onnx.load_from_string(model).graph
    (taken,), (given,) = graph.input, graph.output
    assert (taken.name, given.name) == ("features", "scores")
    assert {taken.type.tensor_type.elem_type, given.type.tensor_type.elem_type} == {onnx.TensorProto.FLOAT}
    assert taken.type.tensor_type.shape.dim[1].dim_value == len(candidate.contract.inputs)


def test_the_file_is_valid_and_its_opset_fixed(model):
    import onnx

    loaded = onnx.load_from_string(model)
    onnx.checker.check_model(loaded)
    assert {item.domain: item.version for item in loaded.opset_import}[""] <= 18


def test_names_round_trip(model, candidate):
    import onnx

    properties = {item.key: item.value for item in onnx.load_from_string(model).metadata_props}
    assert json.loads(properties["inputs"]) == [item.name for item in candidate.contract.inputs]
    assert properties["usecase"] == "tiny"


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_any_number_of_rows_is_scored(model, candidate, rows):
    made = matrix(prepared(usecase()).head(rows), candidate.contract)
    assert score(model, made).shape == (rows,)


def test_parity_sees_another_model(candidate, model):
    other = train(prepared(usecase(), seed=5), usecase())
    found = onnx_export.parity(onnx_export.export(other), candidate, prepared(usecase()))
    assert found.max_abs_difference > 1e-5
    assert not found.holds(1e-5)


def test_a_single_label_that_differs_fails_parity():
    assert Parity(1e-7, 0, 10).holds(1e-5)
    assert not Parity(1e-7, 1, 10).holds(1e-5)
    assert not Parity(1e-4, 0, 10).holds(1e-5)


def test_parity_of_no_rows_still_tries_the_edges(candidate, model):
    found = onnx_export.parity(model, candidate, prepared(usecase()).head(0))
    assert found.rows > len(candidate.contract.inputs)
    assert found.holds(1e-5)


@pytest.mark.parametrize(
    "estimator",
    [
        {"parameters": {"max_iter": 10, "min_samples_leaf": 5}},
        {"name": "random_forest", "parameters": {"n_estimators": 10}},
        {"name": "extra_trees", "parameters": {"n_estimators": 10}},
    ],
    ids=["boosting", "forest", "extra"],
)
def test_values_next_to_a_split_point_are_scored_alike(estimator):
    """Splits between neighbouring float32 values: rounding the threshold up would move rows across."""
    case = usecase(features=[{"name": "x"}], windows={}, estimator=estimator)
    low = np.float32(221.3)
    steps = np.empty(40, np.float32)
    steps[0] = low
    for at in range(1, 40):
        steps[at] = np.nextafter(steps[at - 1], np.float32(np.inf))
    frame = prepared(usecase(), runs=8, rows=64)[["_site", "_run", "_row", "_time"]].head(400)
    values = np.tile(steps, 10)
    frame = frame.assign(x=values.astype(np.float64), _label=(np.tile(np.arange(40), 10) % 3 == 0))
    frame["_label"] = frame["_label"].astype("boolean")
    candidate = train(frame, case)
    assert onnx_export.parity(onnx_export.export(candidate), candidate, frame).holds(1e-5)
    assert len(np.unique(probability(candidate.pipeline, matrix(frame, candidate.contract)))) > 1


def test_a_forest_that_is_certain_is_believed(tmp_path):
    """Summed as float32, the votes of all of 10 trees are 1.0000001: what rounding made of 1."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline

    rows = np.random.default_rng(0).normal(size=(2_000, 3)).astype(np.float32)
    forest = make_pipeline(RandomForestClassifier(10, random_state=0)).fit(rows, rows[:, 0] > 0)
    inputs = tuple(contract.Input(name, "number", "", name) for name in "abc")
    certain = Candidate(forest, contract.Contract("tiny", inputs, 0.5, "fault"), None, len(rows), 1)
    (tmp_path / MODEL).write_bytes(onnx_export.export(certain))
    contract.write(certain.contract, tmp_path / CONTRACT)
    assert score((tmp_path / MODEL).read_bytes(), rows).max() > 1
    assert Model(tmp_path).score(rows).max() == 1


@pytest.mark.parametrize("name", ["hist_gradient_boosting", "random_forest", "extra_trees"])
def test_trees_are_exported_without_the_classes_that_nobody_asks_for(name):
    import onnx

    case = usecase(estimator={"name": name})
    graph = onnx.load_from_string(onnx_export.export(train(prepared(case), case))).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("TreeEnsembleRegressor") == 1 and "TreeEnsembleClassifier" not in kinds
