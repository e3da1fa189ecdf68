"""Champion against challenger: who stands after it, on the same held-back rows, and why."""

import numpy as np
import pandas as pd
import pytest

from edge_ai_assets.ml import champion
from edge_ai_assets.ml.champion import contest, passes
from edge_ai_assets.ml.evaluation import scores
from edge_ai_assets.ml.training_set import TrainingSet
from edge_ai_assets.scoring.contract import Input
from edge_ai_assets.usecase import Gates
from edge_ai_assets_tests.tiny_model import tiny_release

INPUTS = (Input("Flow", "number", "", "Flow"),)
GATES = Gates(f1=0.6, false_alarm_rate=0.3)
GOOD, FAIR, BLIND, ALARMIST = (10.0, -5.0), (10.0, -4.2), (0.0, -5.0), (0.0, 5.0)
"""Weight and bias: faults have a flow from .5 on; FAIR alarms from .42 on."""


@pytest.fixture
def held_back(tmp_path):
    flow = np.linspace(0, 1, 200, endpoint=False)
    frame = pd.DataFrame({"Flow": flow, "_label": pd.array(flow >= 0.5, "boolean"), "_split": "holdout"})
    train = frame.assign(_label=~frame["_label"], _split="train")  # must not be looked at
    pd.concat([frame, train]).to_parquet(tmp_path / "set.parquet", index=False)
    return TrainingSet(tmp_path / "set.parquet")


def model(folder, kind):
    return tiny_release(folder, inputs=INPUTS, weights=[kind[0]], bias=kind[1])


@pytest.mark.parametrize(
    ("challenger", "former", "promoted", "said"),
    [
        (GOOD, None, True, "there is no champion yet"),
        (BLIND, None, False, "below the gate of 0.6"),
        (ALARMIST, None, False, "above the gate of 0.3"),
        (GOOD, FAIR, True, "the challenger is better"),
        (FAIR, GOOD, False, "the challenger is not better"),
        (GOOD, GOOD, False, "the challenger is not better"),
        (FAIR, BLIND, True, "the champion no longer passes the gates"),
        (FAIR, ALARMIST, True, "the champion no longer passes the gates"),
        (BLIND, ALARMIST, False, "below the gate"),
    ],
)
def test_who_is_released(tmp_path, held_back, challenger, former, promoted, said):
    candidate, standing = model(tmp_path / "candidate", challenger), tmp_path / "champion"
    if former:
        model(standing, former)
    found = contest(candidate, standing, held_back, GATES)
    assert found.promoted is promoted and said in found.reason
    assert found.challenger.rows == 200 and (found.champion is None) == (former is None)


def test_the_candidate_that_is_the_champion_stays_it(tmp_path, held_back):
    model(tmp_path / "run 1", GOOD)
    for name in ("candidate", "champion"):
        (tmp_path / name).symlink_to("run 1")
    found = contest(tmp_path / "candidate", tmp_path / "champion", held_back, GATES)
    assert not found.promoted and found.champion == found.challenger
    assert found.reason == "the candidate is already the champion"


@pytest.mark.parametrize(
    ("truth", "answers", "fine"),
    [([1, 1, 0, 0], [1, 1, 0, 0], True), ([1, 1, 0, 0], [1, 1, 1, 0], False), ([1, 1], [0, 0], False)],
)
def test_gates(truth, answers, fine):
    assert passes(scores(truth, answers, 0.5), GATES) is fine


def test_a_bound_is_within():
    found = scores([1] * 6 + [0] * 8, [1] * 3 + [0] * 3 + [1] * 1 + [0] * 7, 0.5)
    assert champion.passes(found, Gates(f1=found.f1, false_alarm_rate=found.false_alarm_rate))


def test_a_champion_that_cannot_take_today_s_rows_does_not_stand_in_the_way(tmp_path, held_back):
    """Its feature was renamed in the use case: without this, nothing could ever replace it."""
    candidate = model(tmp_path / "candidate", GOOD)
    tiny_release(tmp_path / "champion", inputs=(Input("Old", "number", "", "Old"),), weights=[1.0], bias=0.0)
    found = contest(candidate, tmp_path / "champion", held_back, GATES)
    assert found.promoted and found.champion is None
    assert "cannot take today's rows" in found.reason and "'Old'" in found.reason
