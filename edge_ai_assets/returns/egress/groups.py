"""Rows that are told of together, although some of them leave by themselves as well.

Whoever reads a package can take away the rows that leave by themselves from what is told of all: what is
left is told of those that stay. So `minimum_group_size` and the bound on small cells hold for those that
stay. That is reckoned for one package: feedback that leaves in another one, before or after, lets out values
of more rows.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import numpy as np

from edge_ai_assets.returns.outbox.columns import Columns


class Group(msgspec.Struct, frozen=True):
    """A feature's numbers in rows of one release, each as it may leave."""

    leave: list[float] = []
    """Of rows with which, in the same package, they leave anyway."""
    stay: list[float] = []

    def add(self, numbers: np.ndarray, leave: np.ndarray) -> None:
        """Numbers, NaN for none, and whether the row of each lets it out; both of shape (rows,)."""
        there = ~np.isnan(numbers)
        self.leave.extend(numbers[there & leave].tolist())
        self.stay.extend(numbers[there & ~leave].tolist())

    def told(self, smallest: int) -> list[float]:
        """What may be told of together: all, or only what leaves anyway where too few stay; none if that is
        too small a group itself."""
        found = self.leave if told_apart(len(self.stay), smallest) else self.leave + self.stay
        return found if len(found) >= smallest else []


def told_apart(stay: int, smallest: int) -> bool:
    """Whether too few rows stay to be told of along with those that leave."""
    return 0 < stay < smallest


def leaves(scores: Columns, kinds: Collection[str], spoken: Collection[int]) -> np.ndarray:
    """Whether values of a score leave in a row of its own: as an insight, or with feedback on it. Bool, shape
    (scores,).

    Args:
        scores: of one kind.
        kinds: that may leave.
        spoken: sequences of the scores whose feedback leaves in the same package.
    """
    if scores.kind in kinds:
        return np.ones(len(scores), bool)
    return np.isin(scores.sequences, list(spoken))
