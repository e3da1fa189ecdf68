"""What the bundled use case `skab` reaches on the real rig, and the story of drift and retraining on it.

`pytest -s -m "slow or not slow" edge_ai_assets_tests/ml/test_skab.py` prints the figures.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from edge_ai_assets.ml import drift, features, onnx_export
from edge_ai_assets.ml.evaluation import Scores, decide, score, scores
from edge_ai_assets.ml.matrix import matrix
from edge_ai_assets.ml.pipeline import build
from edge_ai_assets.ml.split import split
from edge_ai_assets.ml.training import Candidate, calibrate, out_of_fold, probability, train
from edge_ai_assets.scoring.contract import Contract
from edge_ai_assets.usecase import BUNDLED, load
from edge_ai_assets_tests.ml.ml_cases import dataset

SKAB = load(BUNDLED / "skab.yaml")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """All scorable rows of the rig, with inputs."""
    raw = pd.read_csv(dataset("skab/skab_shared.csv.gz"))
    raw = raw.assign(
        _site=raw["site"],
        _run=raw["run"],
        _row=raw.groupby("run").cumcount(),
        _time=pd.to_datetime(raw["datetime"]).astype("datetime64[us]"),
        _label=(raw["anomaly"] == 1).astype("boolean"),
        _origin="lake",
    )
    made = features.compute(raw, SKAB)
    return made[features.scorable(made, SKAB)].reset_index(drop=True)


@pytest.fixture(scope="module")
def february(rows: pd.DataFrame) -> pd.DataFrame:
    history = rows[rows["_time"] < pd.Timestamp(str(SKAB.history))].reset_index(drop=True)
    return history.assign(_split=split(history))


@pytest.fixture(scope="module")
def first(february: pd.DataFrame) -> Candidate:
    return train(february, SKAB)


def valve(rows: pd.DataFrame, first: int, last: int) -> pd.DataFrame:
    return rows[rows["_run"].isin([f"valve1/{number}" for number in range(first, last + 1)])]


def feedback(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as they come home: rounded by the egress policy."""
    digits = {field.name: field.digits for field in SKAB.egress.fields}
    inputs = features.inputs(SKAB)
    return rows.assign(
        _origin="feedback", **{i.name: rows[i.name].round(digits[i.base] or 0) for i in inputs}
    )


def judged(candidate: Candidate, rows: pd.DataFrame) -> Scores:
    made = score(onnx_export.export(candidate), matrix(rows, candidate.contract))
    return scores(rows["_label"].astype(bool), made, candidate.contract.threshold)


def held(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["_split"] == "holdout"]


def test_the_first_release_passes_the_gates_on_its_held_back_runs(first, february):
    assert sorted(held(february)["_run"].unique()) == ["other/11", "other/13", "other/9"]
    made = judged(first, held(february))
    print("first release, held back:", made)
    assert decide(made, None, SKAB.gates).promote


def test_february_knows_nothing_of_march(first, rows):
    made = judged(first, valve(rows, 4, 15))
    print("before, valve1/4-15:", made)
    assert made.f1 < 0.05


@pytest.mark.parametrize("others", [[], ["other/1"]], ids=["valve", "both sites"])
def test_after_retraining_with_feedback_it_does(first, february, rows, others):
    came = pd.concat([valve(rows, 0, 3), rows[rows["_run"].isin(others)]])
    frame = pd.concat([february.drop(columns="_split"), feedback(came)], ignore_index=True)
    frame["_split"] = split(frame)
    assert "valve1/3" in set(held(frame)["_run"])
    again = train(frame, SKAB)
    challenger, champion = judged(again, held(frame)), judged(first, held(frame))
    assert decide(challenger, champion, SKAB.gates).promote
    assert onnx_export.parity(onnx_export.export(again), again, frame).holds(SKAB.gates.parity)
    made = judged(again, valve(rows, 4, 15))
    print("after, valve1/4-15:", made, "threshold", again.contract.threshold)
    assert made.f1 >= 0.85
    assert made.false_alarm_rate <= 0.11
    for run, seen in valve(rows, 4, 15).groupby("_run"):
        assert not verdict(again, seen).drifted, run


def verdict(candidate: Candidate, rows: pd.DataFrame) -> drift.Verdict:
    given = candidate.contract.references
    seen = {
        reference.name: drift.histogram(rows[reference.name].to_numpy(), reference) for reference in given
    }
    return drift.judge(seen, given, share=SKAB.drift.share)


def test_march_is_drift_and_later_february_is_not(first, february, rows):
    for run, seen in held(february).groupby("_run"):
        assert not verdict(first, seen).drifted, run
    for run, seen in rows[rows["_time"] >= "2020-03-01"].groupby("_run"):
        assert verdict(first, seen).drifted, run
    assert verdict(first, valve(rows, 0, 3)).drifted


def test_no_february_run_is_drift_to_the_others(february):
    for run in february["_run"].unique():
        given = drift.references(february[february["_run"] != run], SKAB)
        rest = february[february["_run"] == run]
        seen = {
            reference.name: drift.histogram(rest[reference.name].to_numpy(), reference) for reference in given
        }
        assert not drift.judge(seen, given, share=SKAB.drift.share).drifted, run


@pytest.mark.slow
def test_cross_validation_by_run_with_the_threshold_chosen_inside_each_fold(rows):
    from sklearn.model_selection import GroupKFold

    inputs = features.inputs(SKAB)
    made = matrix(rows, Contract(SKAB.name, inputs, 0.5, SKAB.label.column))
    label = rows["_label"].astype(bool).to_numpy()
    run = rows.groupby(["_site", "_run"], sort=False).ngroup().to_numpy()
    score, predicted = np.empty(len(rows)), np.empty(len(rows))
    for fit, rest in GroupKFold(5).split(made, label, run):
        inner = out_of_fold(made[fit], label[fit], run[fit], SKAB)
        threshold, _ = calibrate(label[fit], inner, SKAB.gates.false_alarm_rate)
        fitted = build(SKAB, inputs, made[fit]).fit(made[fit], label[fit])
        score[rest] = probability(fitted, made[rest])
        predicted[rest] = score[rest] >= threshold
    found = scores(label, predicted, 0.5)
    print("5 folds by run, nested:", found, "ROC AUC of the scores", scores(label, score, 0.5).roc_auc)
    assert found.f1 >= 0.85
    assert found.false_alarm_rate <= 0.11
