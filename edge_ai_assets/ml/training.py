"""Training: from rows with inputs and labels to a candidate. Exporting and judging it is done elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edge_ai_assets.ml import drift, features
from edge_ai_assets.ml.evaluation import Scores, scores
from edge_ai_assets.ml.matrix import matrix, with_trained_ranges
from edge_ai_assets.ml.pipeline import build
from edge_ai_assets.scoring.contract import Contract
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

FOLDS = 10
"""More than the usual five: with few runs each model should see nearly as many as the final one."""
FEWEST_POSITIVE = 20
USUAL = 0.5
"""The threshold that a score which is a probability asks for."""
WORTH = 0.05
"""F1 that a threshold must gain to be preferred to one that lies nearer to the usual one."""


class TrainingError(ValueError):
    """The rows cannot be trained on; the message says what is missing."""


@dataclass(frozen=True)
class Candidate:
    """A fitted model with all that its release needs."""

    pipeline: Pipeline
    """Takes the matrix that `contract.encode` makes."""
    contract: Contract
    cv: Scores | None
    """Out-of-fold, by run, at the contract's threshold; None when no run could be predicted by the others."""
    rows: int
    runs: int
    notes: tuple[str, ...] = ()
    """What a reader of the model card should know, as sentences."""


def train(frame: pd.DataFrame, usecase: UseCase) -> Candidate:
    """Fit the use case's estimator and calibrate its threshold.

    The threshold comes from out-of-fold scores of a cross-validation by run: of the thresholds whose false
    alarm rate keeps the gate, those within .05 of the best F1, and of these the one nearest to .5. With a
    handful of runs F1 is flat for a wide range of thresholds, and where exactly it peaks is an accident: on
    the water-circulation rig the peak itself lay at .10 after the first feedback and gave 26 % false alarms
    on later runs, against 6 % so. Where .5 is really wrong (rare faults, forests) it costs more than .05.

    What is fitted on the training rows is what is judged on held-back ones and released. A second fit on all
    rows would gain a little, but nothing held back would be left that could tell whether it is any good, nor
    a fair comparison with the next challenger.

    Args:
        frame: `_site`, `_run`, `_label`, inputs; `_split` if some rows are held back.

    Raises:
        TrainingError: no labelled row, one class only, too few positive rows, or every number missing.
    """
    if "_split" in frame:
        frame = frame[frame["_split"] == "train"]
    frame = frame[frame["_label"].notna()].reset_index(drop=True)
    label = frame["_label"].astype(bool).to_numpy()
    _check(label, usecase)
    blank = Contract(usecase.name, features.inputs(usecase), USUAL, usecase.label.column)
    made = matrix(frame, blank)
    notes = _missing_everywhere(made, blank)
    run = frame.groupby(["_site", "_run"], sort=False, dropna=False).ngroup().to_numpy()
    score = out_of_fold(made, label, run, usecase)
    seen = ~np.isnan(score)
    threshold, cv = USUAL, None
    if label[seen].any() and not label[seen].all():
        threshold, kept = calibrate(label[seen], score[seen], usecase.gates.false_alarm_rate)
        cv = scores(label[seen], score[seen], threshold)
        if not kept:
            notes.append(
                f"No threshold finds anything in cross-validation within the gate's false alarm rate of "
                f"{usecase.gates.false_alarm_rate:g}; at {threshold:.4g} recall exceeds false alarms by most."
            )
    else:
        notes.append(
            "The runs cannot be predicted from each other, for too few hold positive rows: the threshold "
            f"is not calibrated and stays {USUAL}."
        )
    contract = with_trained_ranges(blank, made)
    contract = msgspec.structs.replace(
        contract, threshold=threshold, references=drift.references(frame, usecase)
    )
    fitted = build(usecase, contract.inputs, made).fit(made, label)
    return Candidate(fitted, contract, cv, len(label), int(run.max()) + 1, tuple(notes))


def out_of_fold(made: np.ndarray, label: np.ndarray, run: np.ndarray, usecase: UseCase) -> np.ndarray:
    """Score of each row by a model that saw no row of its run.

    Args:
        made: float32, shape (n, inputs).
        label: bool, shape (n,).
        run: number of each row's run, shape (n,).

    Returns:
        float64, shape (n,); NaN where the other folds hold a single class, everywhere if there is a single
        run.
    """
    from sklearn.model_selection import GroupKFold

    score = np.full(len(label), np.nan)
    folds = min(FOLDS, len(np.unique(run)))
    if folds < 2:
        return score
    inputs = features.inputs(usecase)
    for fit, rest in GroupKFold(folds).split(made, label, run):
        if label[fit].any() and not label[fit].all() and not np.isnan(made[fit]).all():
            score[rest] = probability(
                build(usecase, inputs, made[fit]).fit(made[fit], label[fit]), made[rest]
            )
    return score


def calibrate(label: np.ndarray, score: np.ndarray, false_alarm_rate: float) -> tuple[float, bool]:
    """The threshold for scores like these (see `train`), and whether it keeps the false alarm rate.

    When every threshold that finds anything alarms too often, it is the one with the largest difference of
    recall and false alarm rate (Youden's J).

    Args:
        label: bool, shape (n,), both classes present.
        score: shape (n,).
    """
    order = np.argsort(-score, kind="stable")
    at = score[order]
    last = np.append(at[1:] != at[:-1], True)  # rows of one score are predicted together
    tp, fp = np.cumsum(label[order])[last], np.cumsum(~label[order])[last]
    thresholds = _between(at[last])
    f1 = 2 * tp / (tp + fp + label.sum())
    alarms = fp / (~label).sum()
    kept = (alarms <= false_alarm_rate) & (tp > 0)
    if not kept.any():
        return float(thresholds[np.argmax(tp / label.sum() - alarms)]), False
    good = thresholds[kept & (f1 >= f1[kept].max() - WORTH)]
    return float(good[np.argmin(np.abs(good - USUAL))]), True


def _between(falling: np.ndarray) -> np.ndarray:
    """The middle between each score and the next lower: no score lies on it, whatever float32 does to it."""
    middle = np.append((falling[:-1] + falling[1:]) / 2, falling[-1:] / 2)
    return np.where(middle > np.append(falling[1:], -np.inf), middle, falling)


def probability(pipeline: Any, made: np.ndarray) -> np.ndarray:
    """P(positive) of each row, float64, shape (n,)."""
    return np.asarray(pipeline.predict_proba(made)[:, list(pipeline.classes_).index(True)], np.float64)


def _check(label: np.ndarray, usecase: UseCase) -> None:
    column, positive = usecase.label.column, int(label.sum())
    if not len(label):
        raise TrainingError(
            f"no training row has a label: is {column!r} the label column, and is it filled in?"
        )
    if positive in (0, len(label)):
        found = "positive" if positive else "negative"
        means = (
            f"positive: {list(usecase.label.positive)}"
            if usecase.label.positive
            else f"above: {usecase.label.above}"
        )
        raise TrainingError(
            f"all {len(label)} training rows are {found}, and a model needs both classes: check label "
            f"({column!r}, {means}), or add runs with the other class"
        )
    if positive < FEWEST_POSITIVE:
        raise TrainingError(
            f"{positive} of {len(label)} training rows are positive, and {FEWEST_POSITIVE} are needed: "
            f"add readings with faults, or check label ({column!r})"
        )


def _missing_everywhere(made: np.ndarray, contract: Contract) -> list[str]:
    empty = [i.name for i, gone in zip(contract.inputs, np.isnan(made).all(axis=0), strict=True) if gone]
    if len(empty) == len(contract.inputs):
        raise TrainingError(
            "every input is missing in every training row: do the column names match the features?"
        )
    base = [item.name for item in contract.inputs if item.name in empty and item.base == item.name]
    return [f"{name!r} is missing in every training row, so the model does not use it." for name in base]
