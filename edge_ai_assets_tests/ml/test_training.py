from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.ml import features, onnx_export
from edge_ai_assets.ml.matrix import matrix
from edge_ai_assets.ml.pipeline import EstimatorError, build
from edge_ai_assets.ml.training import TrainingError, calibrate, out_of_fold, probability, train
from edge_ai_assets_tests.ml.ml_cases import prepared, usecase

AIR = "Air: temp [K]"
ESTIMATORS = {
    "hist_gradient_boosting": {"max_iter": 20},
    "random_forest": {"n_estimators": 15},
    "extra_trees": {"n_estimators": 15},
    "logistic_regression": {},
}


def case_of(name):
    return usecase(estimator={"name": name, "parameters": ESTIMATORS[name]})


@pytest.mark.parametrize("name", ESTIMATORS)
def test_each_estimator_learns_and_exports_with_parity(name):
    case = case_of(name)
    frame = prepared(case)
    frame.loc[frame.sample(frac=0.1, random_state=0).index, 'a "b" `c`'] = np.nan
    candidate = train(frame, case)
    assert candidate.cv is not None
    assert candidate.cv.f1 > 0.9
    assert candidate.cv.false_alarm_rate <= case.gates.false_alarm_rate
    parity = onnx_export.parity(onnx_export.export(candidate), candidate, frame)
    assert parity.holds(1e-5)
    assert parity.rows > len(frame)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_feature_that_is_missing_everywhere_is_no_obstacle(name):
    case = case_of(name)
    frame = prepared(case)
    gone = [item.name for item in features.inputs(case) if item.base == 'a "b" `c`']
    frame[gone] = np.nan
    candidate = train(frame, case)
    assert candidate.cv is not None
    assert candidate.cv.f1 > 0.9
    assert "missing in every training row" in candidate.notes[0]
    frame[gone] = 1.0
    assert onnx_export.parity(onnx_export.export(candidate), candidate, frame).holds(1e-5)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_rows_give_the_same_bytes(name):
    case = case_of(name)
    frame = prepared(case, runs=4)
    first, second = train(frame, case), train(frame.copy(), case)
    assert onnx_export.export(first) == onnx_export.export(second)
    assert first.contract == second.contract


def test_only_training_rows_with_a_label_are_fitted():
    case = usecase()
    frame = prepared(case)
    frame["_split"] = np.where(frame["_run"] == "run 0", "holdout", "train")
    spoiled = frame.copy()
    spoiled.loc[spoiled["_split"] == "holdout", AIR] = 40.0
    unlabelled = frame[frame["_run"] == "run 1"].assign(
        _label=pd.array([None] * 56, dtype="boolean"), _run="new"
    )
    candidate, other = train(frame, case), train(pd.concat([spoiled, unlabelled]), case)
    assert (candidate.rows, candidate.runs) == (7 * 56, 7)
    assert onnx_export.export(candidate) == onnx_export.export(other)


def test_trained_ranges_and_references_come_from_training_rows():
    case = usecase()
    frame = prepared(case)
    candidate = train(frame, case)
    item = candidate.contract.inputs[0]
    assert item.trained_low == pytest.approx(frame[AIR].min(), rel=1e-6)
    assert item.trained_high == pytest.approx(frame[AIR].max(), rel=1e-6)
    assert [reference.name for reference in candidate.contract.references] == [AIR, 'a "b" `c`']
    assert not candidate.contract.beyond(matrix(frame, candidate.contract)).any()


def test_an_unknown_category_is_scored():
    case = usecase()
    candidate = train(prepared(case), case)
    rows = prepared(case, runs=1).assign(Typ="never seen")
    assert onnx_export.parity(onnx_export.export(candidate), candidate, rows).holds(1e-5)


def test_feedback_rounded_out_of_its_range_is_trained_on():
    case = usecase()
    frame = prepared(case)
    frame.loc[0, AIR] = 50.001
    assert train(frame, case).contract.inputs[0].trained_high == 50


def labelled(frame, label):
    return frame.assign(_label=pd.array(label, dtype="boolean"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: labelled(f, [False] * len(f)), r"all \d+ training rows are negative"),
        (lambda f: labelled(f, [True] * len(f)), r"all \d+ training rows are positive"),
        (lambda f: labelled(f, [None] * len(f)), "no training row has a label"),
        (
            lambda f: labelled(f, [True] * 19 + [False] * (len(f) - 19)),
            r"19 of \d+ training rows are positive",
        ),
        (lambda f: f.assign(_split="holdout"), "no training row has a label"),
    ],
)
def test_labels_that_cannot_be_learned_are_said_so(spoil, said):
    with pytest.raises(TrainingError, match=said):
        train(spoil(prepared(usecase())), usecase())


def test_every_input_missing_is_said_so():
    case = usecase(features=[{"name": AIR}])
    frame = prepared(case)
    frame[[item.name for item in features.inputs(case)]] = np.nan
    with pytest.raises(TrainingError, match="every input is missing"):
        train(frame, case)


def test_a_parameter_that_does_not_exist_is_named():
    case = usecase(estimator={"parameters": {"n_trees": 3}})
    with pytest.raises(EstimatorError, match=r"estimator\.parameters\.n_trees.*max_iter"):
        train(prepared(case), case)


@pytest.mark.parametrize("runs", [1, 2])
def test_few_runs_train_without_a_calibrated_threshold(runs):
    case = usecase()
    frame = prepared(case, rows=90)
    frame = frame[frame["_run"].isin(["run 0", "run 3"][:runs])]
    candidate = train(frame, case)
    assert candidate.cv is None
    assert candidate.contract.threshold == 0.5
    assert "not calibrated" in candidate.notes[0]


def test_out_of_fold_scores_know_nothing_of_their_run():
    case = usecase()
    rng = np.random.default_rng(0)
    run = np.repeat(np.arange(20), 30)
    made = np.zeros((600, len(features.inputs(case))), np.float32)
    made[:, 0], made[:, 1] = run, rng.normal(size=600)
    label = (run * 7919 % 5 < 2).astype(bool)  # the run's number tells all, and only of its own run
    score = out_of_fold(made, label, run, case)
    assert not np.isnan(score).any()
    assert ((score > 0.5) == label).mean() < 0.8


def test_a_pipeline_takes_every_input_of_the_contract():
    case = usecase()
    frame = prepared(case)
    made = matrix(frame, train(frame, case).contract)
    fitted = build(case, features.inputs(case), made).fit(made, frame["_label"].astype(bool))
    assert fitted.n_features_in_ == len(features.inputs(case))


class TestCalibrate:
    def test_separable_scores_get_the_usual_threshold_or_near(self):
        label = np.array([False] * 50 + [True] * 50)
        threshold, kept = calibrate(label, np.linspace(0, 1, 100), 0.1)
        assert kept
        assert threshold == pytest.approx(0.5, abs=0.02)

    def test_scores_far_from_a_half_move_it(self):
        label = np.array([False] * 90 + [True] * 10)
        score = np.r_[np.linspace(0, 0.05, 90), np.linspace(0.1, 0.2, 10)]
        threshold, kept = calibrate(label, score, 0.1)
        assert kept
        assert 0.05 < threshold <= 0.11

    def test_the_false_alarm_rate_bounds_it(self):
        label = np.array([True, False] * 100)
        score = np.linspace(1, 0, 200)
        threshold, kept = calibrate(label, score, 0.1)
        assert kept
        assert (score[~label] >= threshold).mean() <= 0.1

    def test_when_nothing_keeps_the_rate_it_is_the_best_trade_off(self):
        label = np.array([False, True, True, False])
        threshold, kept = calibrate(label, np.array([0.9, 0.8, 0.7, 0.1]), 0.0)
        assert not kept
        assert 0.1 < threshold < 0.7

    @given(
        st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=4, max_size=60),
        st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    )
    def test_what_it_says_it_keeps_it_keeps(self, pairs, rate):
        label, score = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
        if label.all() or not label.any():
            return
        threshold, kept = calibrate(label, score, rate)
        predicted = score >= threshold
        assert predicted.any()
        if kept:
            assert predicted[~label].mean() <= rate
            assert predicted[label].any()


def test_probability_is_of_the_positive_class():
    case = usecase()
    frame = prepared(case)
    candidate = train(frame, case)
    score = probability(candidate.pipeline, matrix(frame, candidate.contract))
    label = frame["_label"].astype(bool).to_numpy()
    assert score[label].mean() > 0.8 > 0.2 > score[~label].mean()
