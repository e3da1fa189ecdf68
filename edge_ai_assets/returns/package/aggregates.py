"""Scores by release and window of time: how many, how many anomalies, their mean. Counted on the site.

What leaves of a window is partial: it is of the scores that one package accounts for, withheld ones included,
and what several packages say of a window adds up.

What may leave, none without the kind `aggregate`:

- a window with fewer than `minimum_group_size` scores in the package does not leave at all. A site that packs
  often and scores seldom sends few windows: their sum is at most what was scored, never more;
- `anomalies` if the kind `anomaly` is listed: each leaves with its time anyway, so the number tells nothing
  new. Else if `_predicted` is listed, in whatever way, and neither the anomalies nor the others are a small
  cell: 1 to SMALL_CELL - 1 could be told apart, of all or of those that stay. Null means hidden, 0
  none;
- `outside` if all numbers of the use case are listed, since any of them may be why, and no small cell either;
- `score_sum` if `_score` is listed, in whatever way, and each score is a number. They are rounded before they
  are added if they leave rounded.

If some of a window's scores leave by themselves, as rows or with feedback in the same package, and of the
others are fewer than `minimum_group_size`, then all of these are hidden but the anomalies that leave anyway:
what is left once those rows are taken away would tell of too few. See `groups`. Which scores stay, and so
`rows`, can be told from the manifest anyway.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable

from edge_ai_assets.returns.egress import groups
from edge_ai_assets.returns.egress.policy import SMALL_CELL, Policy
from edge_ai_assets.returns.outbox.schema import ScoreRow
from edge_ai_assets.returns.package.parts import Aggregate


class _Cell:
    """How many of a window's scores are something, and how many of those that stay."""

    def __init__(self) -> None:
        self.all = self.stay = 0

    def add(self, yes: bool, stays: bool) -> None:
        self.all += yes
        self.stay += yes and stays

    def told(self, of: _Cell) -> int | None:
        """The count, unless it or what it leaves is small."""
        small = _small(self.all, of.all) or _small(self.stay, of.stay)
        return None if small else self.all


class _Window:
    def __init__(self) -> None:
        self.rows, self.anomalies, self.outside = _Cell(), _Cell(), _Cell()
        self.scores: list[float] | None = []


def aggregates(
    rows: Iterable[ScoreRow], policy: Policy, window_minutes: int, spoken: Collection[int] = ()
) -> list[Aggregate]:
    """The windows of these scores that may leave, by release and start.

    Args:
        rows: all that a package accounts for.
        policy: says what may leave.
        window_minutes: how long a window is; they start at multiples of it since 1970, UTC.
        spoken: sequences of the scores whose feedback leaves in the package.
    """
    if "aggregate" not in policy.egress.kinds:
        return []
    length = window_minutes * 60_000_000
    windows: defaultdict[tuple[str, int], _Window] = defaultdict(_Window)
    scored = policy.listed("_score")
    for row in rows:
        window = windows[row.release, row.scored_at // length * length]
        stays = not groups.leaves(row, policy.egress.kinds, spoken)
        window.rows.add(True, stays)
        window.anomalies.add(bool(row.predicted), stays)
        window.outside.add(bool(row.outside), stays)
        score = policy.number("_score", row.score) if scored else None
        if score is None:
            window.scores = None
        elif window.scores is not None:
            window.scores.append(score)
    smallest = policy.egress.minimum_group_size
    return [
        _aggregate(release, start, window, policy)
        for (release, start), window in sorted(windows.items())
        if window.rows.all >= smallest
    ]


def _aggregate(release: str, start: int, window: _Window, policy: Policy) -> Aggregate:
    apart = groups.told_apart(window.rows.stay, policy.egress.minimum_group_size)
    anomalies = outside = None
    if "anomaly" in policy.egress.kinds:
        anomalies = window.anomalies.all
    elif policy.listed("_predicted") and not apart:
        anomalies = window.anomalies.told(window.rows)
    if policy.outside_counts and not apart:
        outside = window.outside.told(window.rows)
    total = math.fsum(window.scores) if window.scores and not apart else None
    return Aggregate(release, start, window.rows.all, anomalies, outside, total)


def _small(count: int, rows: int) -> bool:
    return 0 < count < SMALL_CELL or 0 < rows - count < SMALL_CELL
