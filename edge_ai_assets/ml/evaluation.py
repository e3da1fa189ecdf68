"""How good a model is on labelled rows, and which of two is to be released. Training is not done here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from edge_ai_assets.scoring import contract as contracts
from edge_ai_assets.usecase import Gates

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 65_536
"""Rows that are encoded and scored at a time."""


@dataclass(frozen=True)
class Scores:
    """Quality on labelled rows. A share of nothing is 0, and the ROC AUC of a single class .5."""

    f1: float
    false_alarm_rate: float
    """Share of the negative rows that were predicted positive."""
    miss_rate: float
    """Share of the positive rows that were predicted negative."""
    precision: float
    recall: float
    roc_auc: float
    rows: int
    confusion: tuple[int, int, int, int]
    """tn, fp, fn, tp."""


@dataclass(frozen=True)
class Decision:
    """Whether a challenger becomes champion, and why, as a sentence with the figures."""

    promote: bool
    reason: str


def scores(label: ArrayLike, score: ArrayLike, threshold: float) -> Scores:
    """Compare scores with labels; a score at or above the threshold is predicted positive.

    Args:
        label: what is true, shape (n,), no value missing.
        score: shape (n,), finite.

    Raises:
        ValueError: shapes differ, or a score is not finite.
    """
    truth, values = np.asarray(label).astype(bool), np.asarray(score, np.float64)
    if truth.shape != values.shape or truth.ndim != 1:
        raise ValueError(f"labels {truth.shape} and scores {values.shape} must be vectors of one length")
    if not np.isfinite(values).all():
        raise ValueError(f"score {int(np.argmin(np.isfinite(values)))} is not finite")
    predicted = values >= threshold
    tp, fp = int((predicted & truth).sum()), int((predicted & ~truth).sum())
    fn, tn = int((~predicted & truth).sum()), int((~predicted & ~truth).sum())
    return Scores(
        f1=_share(2 * tp, 2 * tp + fp + fn),
        false_alarm_rate=_share(fp, fp + tn),
        miss_rate=_share(fn, fn + tp),
        precision=_share(tp, tp + fp),
        recall=_share(tp, tp + fn),
        roc_auc=_roc_auc(truth, values),
        rows=len(truth),
        confusion=(tn, fp, fn, tp),
    )


def evaluate(model: Path, frame: pd.DataFrame) -> Scores:
    """Score labelled rows with an exported model, as a site would.

    Args:
        model: folder with `model.onnx` and `contract.json`.
        frame: inputs and `_label`; rows whose label is not known are left out.

    Raises:
        ContractError: the rows lack a feature of the model, or hold a value of the wrong kind.
    """
    from edge_ai_assets.ml.matrix import matrix

    contract = contracts.read(model / "contract.json")
    known = frame[frame["_label"].notna()]
    made = score((model / "model.onnx").read_bytes(), matrix(known, contract))
    return scores(known["_label"].astype(bool).to_numpy(), made, contract.threshold)


def score(model: bytes, features: np.ndarray) -> np.ndarray:
    """Scores of an ONNX model; features float32 (n, inputs), result float32 (n,)."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    parts = [
        np.asarray(session.run(["scores"], {"features": features[start : start + CHUNK]})[0]).reshape(-1)
        for start in range(0, len(features), CHUNK)
    ]
    return np.concatenate([np.empty(0, np.float32), *parts])


def decide(challenger: Scores, champion: Scores | None, gates: Gates) -> Decision:
    """Whether the challenger is to be released instead of the champion; both were judged on the same rows.

    It must pass the gates. Then it wins against no champion, against one that no longer passes them itself
    (drift, or one that alarms on everything, whose F1 may well be higher), and against one with a lower F1. A
    tie keeps the champion: a release is work for every site.
    """
    said = f"the challenger has F1 {challenger.f1:.3f} and false alarm rate {challenger.false_alarm_rate:.3f}"
    if fails := _fails(challenger, gates):
        return Decision(False, f"{said}: {fails}")
    if champion is None:
        return Decision(True, f"{said}: it passes the gates, and there is no champion yet")
    against = f"the champion F1 {champion.f1:.3f} and {champion.false_alarm_rate:.3f}"
    if fails := _fails(champion, gates):
        return Decision(True, f"{said}, {against}: the champion no longer passes the gates ({fails})")
    if challenger.f1 > champion.f1:
        return Decision(True, f"{said}, {against}: the challenger is better")
    return Decision(False, f"{said}, {against}: the challenger is not better")


def recorded(model: Path) -> dict[str, float]:
    """The figures that training left beside a model, by name."""
    return {name: float(value) for name, value in json.loads((model / "metrics.json").read_text()).items()}


def _fails(scores: Scores, gates: Gates) -> str:
    """Which gates are missed, as a phrase; empty when none is."""
    missed = []
    if scores.f1 < gates.f1:
        missed.append(f"F1 {scores.f1:.3f} is below the gate of {gates.f1:g}")
    if scores.false_alarm_rate > gates.false_alarm_rate:
        missed.append(
            f"false alarm rate {scores.false_alarm_rate:.3f} is above the gate of {gates.false_alarm_rate:g}"
        )
    return " and ".join(missed)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _roc_auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Probability that a positive row scores above a negative one, ties counting half (Mann-Whitney U)."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return 0.5
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))
