"""How much of an unknown file should be history: so much that a model can be trained on it and judged by it.

Cutting files by it is `replay`'s work.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from edge_ai_assets.ml.split import SplitError, split

SHARES = (0.5, 0.6, 0.7, 0.8)
ENOUGH = 20
"""Positive rows to train on, and to judge by."""


def share(
    positive: np.ndarray, sites: pd.Series | None, runs: pd.Series, times: pd.Series | None
) -> tuple[float, str]:
    """The smallest of `SHARES` whose history has enough positive rows on either side of training's split.

    Args:
        positive: whether each row is, bool, shape (n,).
        sites, runs, times: of each row; None when there are none.

    Returns:
        The share, and a doubt to be shown when none is enough ("" otherwise).
    """
    frame = pd.DataFrame({"_site": "" if sites is None else sites, "_run": runs, "_label": positive})
    frame["_time"] = pd.NaT if times is None else times
    if times is not None:
        frame = frame.sort_values("_time", kind="stable")
    frame["_label"] = frame["_label"].astype("boolean")
    found: list[tuple[int, float]] = []
    total = frame.groupby("_site")["_run"].transform("size")
    for part in SHARES:
        history = frame[frame.groupby("_site").cumcount() < part * total]
        try:
            held = split(history) == "holdout"
        except SplitError:
            continue
        trained, judged = (int(history["_label"][side].sum()) for side in (~held, held))
        if min(trained, judged) >= ENOUGH:
            return part, ""
        found.append((min(trained, judged), part))
    few = "few rows are positive, or they stand together, so one model can hardly be told from another"
    return max(found, key=lambda each: (each[0], -each[1]), default=(0, SHARES[0]))[1], few
