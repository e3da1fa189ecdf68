"""Scores by release, window of time and plant asset: how many, how many anomalies, their mean. Counted on
the site.

What leaves of a cell is partial: it is of the scores that one package accounts for, withheld ones included,
and what several packages say of a cell adds up.

What may leave, none without the kind `aggregate`:

- the plant asset, as in a row, if `_asset` is listed; if not, a window is one cell. The assets of a window
  with fewer than `minimum_group_size` scores each are told of as one, together with the scores whose asset is
  not known;
- a cell with fewer than `minimum_group_size` scores in the package does not leave at all. A site that packs
  often and scores seldom sends few cells: their sum is at most what was scored, never more. Of a window it is
  too low by fewer than `minimum_group_size`, whether there are assets or not;
- `anomalies` if the kind `anomaly` is listed: each leaves with its time anyway, so the number tells nothing
  new. Else if `_predicted` is listed, in whatever way, and neither the anomalies nor the others are a small
  cell: 1 to SMALL_CELL - 1 could be told apart, of all or of those that stay. Null means hidden, 0
  none;
- `outside` if all numbers of the use case are listed, since any of them may be why, and no small cell either;
- `score_sum` if `_score` is listed, in whatever way, and each score is a number. They are rounded before they
  are added if they leave rounded.

If some of a cell's scores leave by themselves, as rows or with feedback in the same package, and of the
others are fewer than `minimum_group_size`, then all of these are hidden but the anomalies that leave anyway:
what is left once those rows are taken away would tell of too few. See `groups`. Which scores stay, and so
`rows`, can be told from the manifest anyway.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from edge_ai_assets.returns.egress import groups
from edge_ai_assets.returns.egress.policy import SMALL_CELL, Policy
from edge_ai_assets.returns.outbox.columns import Columns
from edge_ai_assets.returns.outbox.schema import Value
from edge_ai_assets.returns.package.parts import Aggregate


class _Count(NamedTuple):
    """How many of a cell's scores are something, and how many of those that stay."""

    all: int
    stay: int

    def told(self, of: _Count) -> int | None:
        """The count, unless it or what it leaves is small."""
        small = _small(self.all, of.all) or _small(self.stay, of.stay)
        return None if small else self.all


class _Cell(NamedTuple):
    rows: _Count = _Count(0, 0)
    anomalies: _Count = _Count(0, 0)
    outside: _Count = _Count(0, 0)
    scores: tuple[float, ...] = ()
    """NaN where there is no number that may be told."""

    def plus(self, other: _Cell) -> _Cell:
        rows, anomalies, outside = (
            _Count(one.all + more.all, one.stay + more.stay)
            for one, more in zip(self[:3], other[:3], strict=True)
        )
        return _Cell(rows, anomalies, outside, self.scores + other.scores)


_Cells = defaultdict[tuple[str, int, str], _Cell]
"""By release, start of the window and asset; '' for those whose asset is not told."""


def aggregates(
    parts: Iterable[Columns], policy: Policy, window_minutes: int, spoken: Collection[int] = ()
) -> list[Aggregate]:
    """The cells of these scores that may leave, by release, start of the window and plant asset.

    Args:
        parts: all scores that a package accounts for.
        policy: says what may leave.
        window_minutes: how long a window is; they start at multiples of it since 1970, UTC.
        spoken: sequences of the scores whose feedback leaves in the package.
    """
    if "aggregate" not in policy.egress.kinds:
        return []
    length = window_minutes * 60_000_000
    smallest = policy.egress.minimum_group_size
    by_asset: _Cells = defaultdict(_Cell)
    for scores in parts:
        for start, asset, cell in _cells(scores, policy, length, spoken):
            key = scores.release, start, asset
            by_asset[key] = by_asset[key].plus(cell)
    told: _Cells = defaultdict(_Cell)
    for (release, start, asset), cell in by_asset.items():
        key = release, start, asset if cell.rows.all >= smallest else ""
        told[key] = told[key].plus(cell)
    return [_aggregate(*key, cell, policy) for key, cell in sorted(told.items()) if cell.rows.all >= smallest]


def _cells(
    scores: Columns, policy: Policy, length: int, spoken: Collection[int]
) -> Iterator[tuple[int, str, _Cell]]:
    """The cells of some scores, by start and asset; the length of their windows in µs."""
    numbers = np.full(len(scores), np.nan)
    if policy.listed("_score"):
        numbers = policy.numbers("_score", scores.scores)
    stay = ~groups.leaves(scores, policy.egress.kinds, spoken)
    starts, places = np.unique(scores.times // length * length, return_inverse=True)
    keys = [(start, "") for start in starts.tolist()]
    if (assets := policy.assets(scores)) is not None:
        keys, places = _by_asset(keys, places, assets)

    def counts(yes: np.ndarray) -> Iterator[_Count]:
        found = (np.bincount(places[which], minlength=len(keys)).tolist() for which in (yes, yes & stay))
        return map(_Count, *found)

    ends = np.cumsum(np.bincount(places))[:-1]
    sums = map(tuple, (part.tolist() for part in np.split(numbers[np.argsort(places, kind="stable")], ends)))
    counted = (counts(yes) for yes in (np.ones(len(scores), bool), scores.predicted, scores.outside))
    cells = map(_Cell, *counted, sums)
    return ((start, asset, cell) for (start, asset), cell in zip(keys, cells, strict=True))


def _by_asset(
    keys: Sequence[tuple[int, str]], places: np.ndarray, assets: Sequence[Value]
) -> tuple[list[tuple[int, str]], np.ndarray]:
    """Windows cut by the asset of each score: their keys, and the place of each score among them."""
    names = list(dict.fromkeys(assets))
    numbers = {name: number for number, name in enumerate(names)}
    of_asset = np.array([numbers[asset] for asset in assets], np.intp)
    cells, cut = np.unique(places * len(names) + of_asset, return_inverse=True)
    windows, named = np.divmod(cells, len(names))
    found = zip(windows.tolist(), named.tolist(), strict=True)
    return [(keys[window][0], str(names[name] or "")) for window, name in found], cut


def _aggregate(release: str, start: int, asset: str, cell: _Cell, policy: Policy) -> Aggregate:
    apart = groups.told_apart(cell.rows.stay, policy.egress.minimum_group_size)
    anomalies = outside = None
    if "anomaly" in policy.egress.kinds:
        anomalies = cell.anomalies.all
    elif policy.listed("_predicted") and not apart:
        anomalies = cell.anomalies.told(cell.rows)
    if policy.outside_counts and not apart:
        outside = cell.outside.told(cell.rows)
    total = None if apart else math.fsum(cell.scores)
    score_sum = None if total != total else total
    return Aggregate(release, start, cell.rows.all, anomalies, outside, score_sum, asset or None)


def _small(count: int, rows: int) -> bool:
    return 0 < count < SMALL_CELL or 0 < rows - count < SMALL_CELL
