"""What all candidates score: one model, and rows that are never the same twice in a row.

A release as the service takes it; the peers get the same ONNX file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_ai_assets.ml.matrix import with_trained_ranges
from edge_ai_assets.ml.onnx_export import export
from edge_ai_assets.ml.training import Candidate
from edge_ai_assets.scoring import contract
from edge_ai_assets.scoring.model import CONTRACT, MODEL

TREES, TRAINING_ROWS = 100, 20_000
NAMES = (
    "Discharge pressure",
    "Flow",
    "Bearing temperature",
    "Vibration RMS",
    "Motor current",
    "Inlet pressure",
    "Oil temperature",
    "Speed",
)


def build(folder: Path) -> None:
    """Write `model.onnx`, gradient boosting of TREES trees on 8 numbers, and `contract.json`."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline

    made = rows(TRAINING_ROWS, seed=1).astype(np.float32)
    noise = np.random.default_rng(2).normal(scale=5, size=len(made))
    label = (made[:, 0] - made[:, 3] + np.abs(made[:, 4] - made[:, 5]) + noise) > 20
    estimator = HistGradientBoostingClassifier(max_iter=TREES, early_stopping=False, random_state=1)
    inputs = tuple(contract.Input(name, "number", "", name, low=-1000, high=1000) for name in NAMES)
    blank = contract.Contract("bench", inputs, threshold=0.5, label="fault")
    fitted = make_pipeline(estimator).fit(made, label)
    candidate = Candidate(fitted, with_trained_ranges(blank, made), None, len(made), 1)
    folder.mkdir(parents=True)
    (folder / MODEL).write_bytes(export(candidate))
    contract.write(candidate.contract, folder / CONTRACT)


def rows(count: int, seed: int) -> np.ndarray:
    """Readings with three decimals, as sensors give them; float64, shape (count, inputs)."""
    return np.random.default_rng(seed).normal(50, 15, (count, len(NAMES))).round(3)
