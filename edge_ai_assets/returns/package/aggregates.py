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
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from edge_ai_assets.returns.egress import groups
from edge_ai_assets.returns.egress.policy import SMALL_CELL, Policy
from edge_ai_assets.returns.outbox.columns import Columns
from edge_ai_assets.returns.package.parts import Aggregate


class _Cell(NamedTuple):
    """How many of a window's scores are something, and how many of those that stay."""

    all: int
    stay: int

    def told(self, of: _Cell) -> int | None:
        """The count, unless it or what it leaves is small."""
        small = _small(self.all, of.all) or _small(self.stay, of.stay)
        return None if small else self.all


class _Window(NamedTuple):
    rows: _Cell = _Cell(0, 0)
    anomalies: _Cell = _Cell(0, 0)
    outside: _Cell = _Cell(0, 0)
    scores: tuple[float, ...] = ()
    """NaN where there is no number that may be told."""

    def plus(self, other: _Window) -> _Window:
        rows, anomalies, outside = (
            _Cell(one.all + more.all, one.stay + more.stay)
            for one, more in zip(self[:3], other[:3], strict=True)
        )
        return _Window(rows, anomalies, outside, self.scores + other.scores)


def aggregates(
    parts: Iterable[Columns], policy: Policy, window_minutes: int, spoken: Collection[int] = ()
) -> list[Aggregate]:
    """The windows of these scores that may leave, by release and start.

    Args:
        parts: all scores that a package accounts for.
        policy: says what may leave.
        window_minutes: how long a window is; they start at multiples of it since 1970, UTC.
        spoken: sequences of the scores whose feedback leaves in the package.
    """
    if "aggregate" not in policy.egress.kinds:
        return []
    length = window_minutes * 60_000_000
    windows: defaultdict[tuple[str, int], _Window] = defaultdict(_Window)
    for scores in parts:
        for start, window in _windows(scores, policy, length, spoken):
            windows[scores.release, start] = windows[scores.release, start].plus(window)
    smallest = policy.egress.minimum_group_size
    return [
        _aggregate(release, start, window, policy)
        for (release, start), window in sorted(windows.items())
        if window.rows.all >= smallest
    ]


def _windows(
    scores: Columns, policy: Policy, length: int, spoken: Collection[int]
) -> Iterator[tuple[int, _Window]]:
    """The windows of some scores, by start; their length in µs."""
    numbers = np.full(len(scores), np.nan)
    if policy.listed("_score"):
        numbers = policy.numbers("_score", scores.scores)
    stay = ~groups.leaves(scores, policy.egress.kinds, spoken)
    starts, places = np.unique(scores.times // length * length, return_inverse=True)

    def cells(yes: np.ndarray) -> Iterator[_Cell]:
        counts = (np.bincount(places[which], minlength=len(starts)).tolist() for which in (yes, yes & stay))
        return map(_Cell, *counts)

    ends = np.cumsum(np.bincount(places))[:-1]
    sums = map(tuple, (part.tolist() for part in np.split(numbers[np.argsort(places, kind="stable")], ends)))
    counted = (cells(yes) for yes in (np.ones(len(scores), bool), scores.predicted, scores.outside))
    return zip(starts.tolist(), map(_Window, *counted, sums), strict=True)


def _aggregate(release: str, start: int, window: _Window, policy: Policy) -> Aggregate:
    apart = groups.told_apart(window.rows.stay, policy.egress.minimum_group_size)
    anomalies = outside = None
    if "anomaly" in policy.egress.kinds:
        anomalies = window.anomalies.all
    elif policy.listed("_predicted") and not apart:
        anomalies = window.anomalies.told(window.rows)
    if policy.outside_counts and not apart:
        outside = window.outside.told(window.rows)
    total = None if apart else math.fsum(window.scores)
    return Aggregate(release, start, window.rows.all, anomalies, outside, None if total != total else total)


def _small(count: int, rows: int) -> bool:
    return 0 < count < SMALL_CELL or 0 < rows - count < SMALL_CELL
