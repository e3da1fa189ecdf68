"""Scores by release and window of time: how many, how many anomalies, their mean. Counted on the site.

What leaves of a window is partial: it is of the scores that one package accounts for, withheld ones included,
and what several packages say of a window adds up.

What may leave, none without the kind `aggregate`:

- a window with fewer than `minimum_group_size` scores in the package does not leave at all. A site that packs
  often and scores seldom sends few windows: their sum is at most what was scored, never more;
- `anomalies` if the kind `anomaly` is listed: each leaves with its time anyway, so the number tells nothing
  new. Else if `_predicted` is listed, in whatever way, and neither the anomalies nor the others are a small
  cell: 1 to SMALL_CELL - 1 could be told apart. Null means hidden, 0 means none;
- `outside` if all numbers of the use case are listed, since any of them may be why, and no small cell;
- `score_sum` if `_score` is listed, in whatever way, and each score is a number. They are rounded before they
  are added if they leave rounded.

If some of a window's scores leave as rows, and of the others are fewer than `minimum_group_size`, `outside`
and `score_sum` are hidden too: what is left of them once those rows are taken away would tell of too few.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from edge_ai_assets.returns.parts import Aggregate
from edge_ai_assets.returns.policy import SMALL_CELL, Policy
from edge_ai_assets.returns.schema import ScoreRow


class _Window:
    def __init__(self) -> None:
        self.rows = self.anomalies = self.outside = self.stay = 0
        self.scores: list[float] | None = []


def aggregates(rows: Iterable[ScoreRow], policy: Policy, window_minutes: int) -> list[Aggregate]:
    """The windows of these scores that may leave, by release and start.

    Args:
        rows: all that a package accounts for.
        policy: says what may leave.
        window_minutes: how long a window is; they start at multiples of it since 1970, UTC.
    """
    if "aggregate" not in policy.egress.kinds:
        return []
    length = window_minutes * 60_000_000
    windows: defaultdict[tuple[str, int], _Window] = defaultdict(_Window)
    scored = policy.listed("_score")
    for row in rows:
        window = windows[row.release, row.scored_at // length * length]
        window.rows += 1
        window.anomalies += bool(row.predicted)
        window.outside += bool(row.outside)
        window.stay += row.kind not in policy.egress.kinds
        score = policy.number("_score", row.score) if scored else None
        if score is None:
            window.scores = None
        elif window.scores is not None:
            window.scores.append(score)
    smallest = policy.egress.minimum_group_size
    return [
        Aggregate(
            release=release,
            window=start,
            rows=window.rows,
            anomalies=_anomalies(window, policy),
            outside=_outside(window) if policy.outside_counts and _enough(window, smallest) else None,
            score_sum=math.fsum(window.scores) if window.scores and _enough(window, smallest) else None,
        )
        for (release, start), window in sorted(windows.items())
        if window.rows >= smallest
    ]


def _enough(window: _Window, smallest: int) -> bool:
    return not window.stay or window.stay >= smallest


def _anomalies(window: _Window, policy: Policy) -> int | None:
    if "anomaly" in policy.egress.kinds:
        return window.anomalies
    return _hidden(window.anomalies, window.rows) if policy.listed("_predicted") else None


def _outside(window: _Window) -> int | None:
    return _hidden(window.outside, window.rows)


def _hidden(count: int, rows: int) -> int | None:
    """A count, unless it or what it leaves of the rows is small."""
    return None if 0 < count < SMALL_CELL or 0 < rows - count < SMALL_CELL else count
