from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.ml.evaluation import Scores, decide, evaluate, recorded, scores
from edge_ai_assets.scoring.contract import ContractError
from edge_ai_assets.usecase import Gates
from edge_ai_assets_tests.ml.ml_cases import prepared, usecase
from edge_ai_assets_tests.tiny_model import tiny_release

GATES = Gates(f1=0.6, false_alarm_rate=0.2)


def of(f1, far):
    return Scores(f1, far, 0.1, 0.5, 0.9, 0.9, 100, (50, 10, 10, 30))


pairs = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])), min_size=1, max_size=60
)


@given(pairs, st.sampled_from([0.1, 0.3, 0.5, 2.0]))
@settings(deadline=None)  # scikit-learn is loaded in the first example
def test_scores_agree_with_scikit_learn(rows, threshold):
    from sklearn import metrics

    label, score = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    made, predicted = scores(label, score, threshold), score >= threshold
    assert made.f1 == pytest.approx(metrics.f1_score(label, predicted, zero_division=0))
    assert made.precision == pytest.approx(metrics.precision_score(label, predicted, zero_division=0))
    assert made.recall == pytest.approx(metrics.recall_score(label, predicted, zero_division=0))
    expected = metrics.confusion_matrix(label, predicted, labels=[False, True]).ravel()
    assert made.confusion == tuple(int(n) for n in expected)
    assert sum(made.confusion) == made.rows == len(rows)
    if label.any() and not label.all():
        assert made.roc_auc == pytest.approx(metrics.roc_auc_score(label, score))


def test_a_score_at_the_threshold_is_positive():
    assert scores([True], [0.5], 0.5).confusion == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("label", "score", "expected"),
    [
        ([], [], (0, 0, 0, 0.5)),
        ([False, False], [0.1, 0.2], (0, 0, 0, 0.5)),
        ([False, False], [0.9, 0.2], (0, 0.5, 0, 0.5)),
        ([True, True], [0.1, 0.2], (0, 0, 1, 0.5)),
        ([True, True], [0.9, 0.9], (1, 0, 0, 0.5)),
    ],
)
def test_a_share_of_nothing_is_zero(label, score, expected):
    made = scores(label, score, 0.5)
    assert (made.f1, made.false_alarm_rate, made.miss_rate, made.roc_auc) == expected


@pytest.mark.parametrize(
    ("label", "score"), [([True], [0.1, 0.2]), ([True], [float("nan")]), ([[True]], [[0.1]])]
)
def test_scores_that_are_none_are_refused(label, score):
    with pytest.raises(ValueError, match=r"vectors|finite"):
        scores(label, score, 0.5)


@pytest.mark.parametrize(
    ("challenger", "champion", "promote", "said"),
    [
        (of(0.7, 0.1), None, True, "no champion yet"),
        (of(0.59, 0.1), None, False, "F1 0.590 is below the gate of 0.6"),
        (of(0.7, 0.21), None, False, "false alarm rate 0.210 is above the gate of 0.2"),
        (of(0.5, 0.3), of(0.0, 0.0), False, "below the gate of 0.6 and false alarm rate 0.300 is above"),
        (of(0.8, 0.1), of(0.7, 0.1), True, "the challenger is better"),
        (of(0.8, 0.19), of(0.7, 0.01), True, "the challenger is better"),
        (of(0.7, 0.1), of(0.7, 0.1), False, "not better"),
        (of(0.7, 0.1), of(0.8, 0.1), False, "not better"),
        (of(0.65, 0.05), of(0.0, 0.0), True, "champion no longer passes"),
        (of(0.65, 0.05), of(0.7, 1.0), True, "champion no longer passes"),
        (of(0.6, 0.2), of(0.599, 0.2), True, "champion no longer passes"),
    ],
)
def test_decisions_and_their_reasons(challenger, champion, promote, said):
    decision = decide(challenger, champion, GATES)
    assert decision.promote is promote
    assert said in decision.reason
    assert f"{challenger.f1:.3f}" in decision.reason


@given(*[st.floats(0, 1)] * 4)
def test_what_is_promoted_passes_the_gates_and_beats_what_passes_them(f1, far, champion_f1, champion_far):
    challenger, champion = of(f1, far), of(champion_f1, champion_far)
    if decide(challenger, champion, GATES).promote:
        assert f1 >= GATES.f1
        assert far <= GATES.false_alarm_rate
        assert not decide(champion, challenger, GATES).promote
    assert not decide(challenger, challenger, GATES).promote


def test_evaluate_scores_labelled_rows_of_a_release(tmp_path):
    folder = tiny_release(tmp_path / "m")
    frame = prepared(usecase()).rename(
        columns={"Air: temp [K]": "Pressure [bar]", 'a "b" `c`': "Temperature"}
    )
    frame = frame.rename(columns={"Typ": "Pump type"}).assign(**{"Temperature mean 12": 0.0})
    frame.loc[0, "_label"] = None
    made = evaluate(folder, frame)
    assert made.rows == len(frame) - 1
    with pytest.raises(ContractError, match="'Temperature' is missing"):
        evaluate(folder, frame.drop(columns="Temperature"))


def test_recorded_figures_are_numbers(tmp_path):
    (tmp_path / "metrics.json").write_text('{"cv_f1": 0.5, "rows": 3}')
    assert recorded(tmp_path) == {"cv_f1": 0.5, "rows": 3.0}


def test_scores_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        of(0.5, 0.1).f1 = 1.0
