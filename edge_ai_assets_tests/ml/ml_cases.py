"""Made-up readings and use cases for the tests of `ml`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from edge_ai_assets.ml import features
from edge_ai_assets.usecase import UseCase

DATA = Path(os.environ.get("EDGE_AI_TEST_DATA", Path(__file__).resolve().parents[2].parent / "shared/data"))


def usecase(**changed: Any) -> UseCase:
    """Two numbers with awkward names and a category."""
    given: dict[str, Any] = {
        "name": "tiny",
        "runs": {"column": "run"},
        "features": [
            {"name": "Air: temp [K]", "unit": "K", "range": [-50, 50]},
            {"name": 'a "b" `c`', "range": [-100, 100]},
            {"name": "Typ", "kind": "category", "categories": ["L", "M"]},
        ],
        "label": {"column": "fault", "positive": [1]},
        "windows": {"rows": [3, 5], "statistics": ["mean", "std", "min", "max"], "baseline_rows": 4},
        "estimator": {"parameters": {"max_iter": 20}},
        "sites": [{"name": "a"}],
    }
    return UseCase.model_validate(given | changed)


def readings(runs: int = 8, rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Canonical readings; the last third of every run but each fourth one is faulty, and shows it."""
    rng = np.random.default_rng(seed)
    parts = []
    for run in range(runs):
        fault = (np.arange(rows) > rows * 2 / 3) & (run % 4 != 3)
        parts.append(
            pd.DataFrame(
                {
                    "_site": "ab"[run % 2],
                    "_run": f"run {run}",
                    "_row": np.arange(rows),
                    "_time": pd.Timestamp("2026-01-01")
                    + pd.to_timedelta(run * 3600 + np.arange(rows), unit="s"),
                    "Air: temp [K]": rng.normal(0, 1, rows) + 4 * fault,
                    'a "b" `c`': rng.normal(0, 1, rows).round(2),
                    "Typ": rng.choice(["L", "M"], rows),
                    "_label": pd.array(fault, dtype="boolean"),
                }
            )
        )
    frame = pd.concat(parts, ignore_index=True)
    frame["_time"] = frame["_time"].astype("datetime64[us]")
    return frame


def prepared(usecase: UseCase, **how: Any) -> pd.DataFrame:
    """Rows to train on, all of them in training."""
    made = features.compute(readings(**how), usecase)
    return made[features.scorable(made, usecase)].reset_index(drop=True)


def dataset(name: str) -> Path:
    """A file of real data; skips the test when it is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {path}: set EDGE_AI_TEST_DATA to the folder with the public data sets")
    return path
