"""The plant simulator: deterministic, fast, learnable, and drifting far enough to matter."""

from __future__ import annotations

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import pytest

from edge_ai_assets import usecase as usecases
from edge_ai_assets.readings.files import read
from edge_ai_assets.readings.simulator import DECIMALS, PUMP, ROWS, dirty, simulate

SITES = ("bergen", "narvik", "tromso")
SENSORS = list(DECIMALS)


def fleet(seed: int, first: int, shifts: int, drifted: bool = False) -> pd.DataFrame:
    frames = [simulate(site, seed=seed, shifts=shifts, first_shift=first, drifted=drifted) for site in SITES]
    return pd.concat(frames, ignore_index=True)


def test_its_columns_are_those_of_the_bundled_use_case() -> None:
    usecase = usecases.load(usecases.BUNDLED / "pump-station.yaml")
    frame = simulate("bergen", seed=1, shifts=2)
    assert list(frame) == [
        "station",
        "shift",
        "pump",
        "time",
        *(feature.name for feature in usecase.features),
        "fault",
    ]
    assert len(frame) == 2 * ROWS
    assert frame["shift"].unique().tolist() == ["2026-03-01-a", "2026-03-01-b"]
    assert frame["time"].diff().dropna().unique().tolist() == [pd.Timedelta(minutes=4)]


@pytest.mark.parametrize("drifted", [False, True])
def test_every_clean_row_is_within_the_plausible_ranges(drifted: bool) -> None:
    usecase = usecases.load(usecases.BUNDLED / "pump-station.yaml")
    frame = fleet(11, 0, 400, drifted)
    for feature in usecase.numbers:
        assert feature.range
        assert frame[feature.name].between(*feature.range).all(), feature.name
    assert set(frame[PUMP]) <= {"centrifugal", "screw"}


def test_a_shift_depends_on_nothing_but_itself() -> None:
    whole = simulate("narvik", seed=5, shifts=10)
    pd.testing.assert_frame_equal(simulate("narvik", seed=5, shifts=10), whole)
    part = simulate("narvik", seed=5, shifts=3, first_shift=4)
    pd.testing.assert_frame_equal(part, whole[4 * ROWS : 7 * ROWS].reset_index(drop=True))


def test_seeds_and_sites_differ() -> None:
    frames = [
        simulate("bergen", seed=1, shifts=2),
        simulate("bergen", seed=2, shifts=2),
        simulate("narvik", seed=1, shifts=2),
    ]
    assert not any(frames[0][SENSORS].equals(frame[SENSORS]) for frame in frames[1:])
    assert {simulate(site, seed=1, shifts=1)[PUMP][0] for site in SITES} == {"centrifugal", "screw"}


def test_faults_are_episodes_in_about_a_quarter_of_the_shifts() -> None:
    for site in SITES:
        frame = simulate(site, seed=3, shifts=300)
        by_shift = frame.groupby("shift")["fault"]
        assert 0.22 < by_shift.max().mean() < 0.30
        assert 0.10 < frame["fault"].mean() < 0.13
        assert (by_shift.apply(lambda fault: (fault.diff() == 1).sum()) <= 1).all()


def test_sensors_are_autocorrelated() -> None:
    frame = simulate("bergen", seed=3, shifts=50)
    for name in SENSORS:
        assert frame.groupby("shift")[name].apply(lambda values: values.autocorr(1)).mean() > 0.5, name


def test_it_is_fast() -> None:
    start = time.process_time()
    fleet(1, 0, 60)
    assert time.process_time() - start < 1


def test_dirt_is_rejected_by_the_use_case_and_the_rest_is_not(tmp_path: object) -> None:
    from pathlib import Path

    usecase = usecases.load(usecases.BUNDLED / "pump-station.yaml")
    clean = simulate("bergen", seed=1, shifts=40)
    soiled = dirty(clean, seed=1, share=0.05)
    pd.testing.assert_frame_equal(dirty(clean, seed=1, share=0.05), soiled)
    path = Path(str(tmp_path)) / "simulated.csv"
    soiled.to_csv(path, index=False)
    (batch,) = read(path, usecase)
    counts = batch.rejected["_problem"].value_counts().to_dict()
    assert counts == dict.fromkeys(["out of range", "not a number", "unreadable time", "duplicate"], 48)
    assert batch.readings[SENSORS].isna().sum().sum() == 48
    assert len(soiled) == len(clean) + 48


def windows(frame: pd.DataFrame) -> np.ndarray:
    groups = frame.groupby(["station", "shift"], sort=False)[SENSORS]
    mean = groups.rolling(12, min_periods=1).mean().to_numpy()
    std = groups.rolling(12, min_periods=1).std().to_numpy()
    return np.hstack([frame[SENSORS].to_numpy(), mean, std])


@pytest.mark.parametrize("seed", [7, 19])
def test_a_model_learns_fails_after_the_drift_and_learns_again(seed: int) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import f1_score

    def trained(*frames: pd.DataFrame) -> HistGradientBoostingClassifier:
        table = pd.concat(frames, ignore_index=True)
        model = HistGradientBoostingClassifier(max_iter=80, learning_rate=0.1, random_state=0)
        return model.fit(windows(table), table["fault"])

    def judged(model: HistGradientBoostingClassifier, frame: pd.DataFrame) -> tuple[float, float]:
        predicted, truth = model.predict(windows(frame)), frame["fault"].to_numpy()
        return f1_score(truth, predicted), predicted[truth == 0].mean()

    history, steady = fleet(seed, 0, 40), fleet(seed, 40, 12)
    first, later = fleet(seed, 46, 12, drifted=True), fleet(seed, 58, 12, drifted=True)
    old, new = trained(history), trained(history, first)
    f1, false_alarms = judged(old, steady)
    assert f1 > 0.9
    assert false_alarms < 0.03
    assert judged(old, first)[0] < 0.5
    f1, false_alarms = judged(new, later)
    assert f1 > 0.85
    assert false_alarms < 0.05
    moved = (first[SENSORS].mean() - history[SENSORS].mean()).abs() / history[SENSORS].std()
    assert (moved > 1).sum() >= 3
