"""Which runs a model is trained on and which are held back to judge it. Whole runs, and the latest ones.

A random split of rows puts neighbours of every held-back row into training and flatters the model (F1 .914
instead of .85 on the water-circulation rig). The feedback of sites is split by itself, so that a model is
always judged both on what it should still know and on what is new.
"""

from __future__ import annotations

import pandas as pd

RUN = ["_site", "_run"]


class SplitError(ValueError):
    """The readings cannot be split; the message says what to declare."""


def split(frame: pd.DataFrame, *, holdout_share: float = 0.2) -> pd.Series:
    """Hold back each origin's latest runs until they hold `holdout_share` of its rows.

    Held back is at least one run of an origin with two or more, and at most half of its runs. When the runs
    so chosen lack positive or negative rows, earlier ones are added if that helps. A run of which any row is
    feedback is feedback. When no origin has two runs, both are split as one.

    Args:
        frame: `_site`, `_run`, `_label`; `_time` if there are times (else the order of rows counts);
            `_origin`, 'lake' or 'feedback', if there is feedback.

    Returns:
        'train' or 'holdout' for each row; index of `frame`.

    Raises:
        SplitError: there are fewer than two runs.
    """
    number = frame.groupby(RUN, sort=False, dropna=False).ngroup()
    held = held_back(_runs(frame), holdout_share=holdout_share)
    return number.isin(held).map({True: "holdout", False: "train"})


def held_back(runs: pd.DataFrame, *, holdout_share: float = 0.2) -> set[int]:
    """As `split`, from one row a run; index labels of the runs held back.

    Args:
        runs: in order of appearance, `rows`; `positive`, `negative` and `feedback`, whether any row is;
            `start`, the first time or NaT.
    """
    if len(runs) < 2:
        raise SplitError(
            f"the readings hold {len(runs)} run{'' if len(runs) == 1 else 's'}, and 2 are needed, one to "
            "train on and one to judge by: declare shorter runs with runs.every (such as 1d) or runs.rows"
        )
    runs = runs.sort_values("start", kind="stable", na_position="first")
    held: set[int] = set()
    for _, origin in runs.groupby("feedback", sort=True):
        held.update(_latest(origin, holdout_share))
    return held or set(_latest(runs, holdout_share))


def _runs(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a run, in order of appearance."""
    label = frame["_label"].astype("boolean")
    facts = frame[RUN].assign(
        rows=1, positive=label.fillna(False).astype(bool), negative=(~label).fillna(False).astype(bool)
    )
    facts["feedback"] = frame["_origin"].eq("feedback") if "_origin" in frame else False
    facts["start"] = frame.get("_time", pd.NaT)
    runs: pd.DataFrame = facts.groupby(RUN, sort=False, dropna=False, as_index=False).agg(
        rows=("rows", "sum"),
        positive=("positive", "any"),
        negative=("negative", "any"),
        feedback=("feedback", "any"),
        start=("start", "min"),
    )
    return runs


def _latest(runs: pd.DataFrame, share: float) -> list[int]:
    most = len(runs) // 2
    if most == 0:
        return []
    latest = runs.iloc[::-1]
    enough = int((latest["rows"].cumsum() < share * latest["rows"].sum()).sum()) + 1
    both = latest["positive"].cummax() & latest["negative"].cummax()
    first_with_both = int((~both).sum()) + 1
    count = min(enough, most)
    if count < first_with_both <= most:
        count = first_with_both
    return [int(number) for number in latest.index[:count]]
