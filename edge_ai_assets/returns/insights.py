"""What the scores of a site mean: their kinds, and figures of them. What may leave is `policy`'s work."""

from __future__ import annotations

from collections import Counter

import msgspec

from edge_ai_assets.returns.outbox import Outbox
from edge_ai_assets.returns.schema import decode

PAGE = 5_000


class Summary(msgspec.Struct, frozen=True):
    """Figures of a range of scores."""

    rows: int
    releases: dict[str, int]
    """Rows per release."""
    mean_score: float | None
    outside: int
    """Rows with a value outside the range that was trained on."""


def derive(outbox: Outbox, limit: int = 50_000) -> dict[str, int]:
    """Give the oldest unclassified scores their kind; what cannot be read is quarantined, never deleted.

    Returns:
        How many became 'anomaly' (predicted positive), 'normal' or 'quarantined'; only those that occur.
        Empty when nothing waits.
    """
    found: Counter[str] = Counter()
    while (left := limit - found.total()) > 0 and (rows := outbox.unclassified(min(PAGE, left))):
        kinds: dict[int, str] = {}
        broken: dict[str, list[int]] = {}
        for row in rows:
            try:
                decode(row)
            except ValueError as error:
                broken.setdefault(str(error), []).append(row.sequence)
            else:
                kinds[row.sequence] = "anomaly" if row.predicted else "normal"
        outbox.classify(kinds)
        outbox.dispose("quarantined", broken)
        found.update(kinds.values())
        found["quarantined"] += len(rows) - len(kinds)
    return {kind: number for kind, number in found.items() if number}


def summary(outbox: Outbox, newest: int = 50_000) -> Summary:
    """Figures of the newest scores, whatever became of them."""
    last = outbox.counts().scored
    figures = outbox.figures(last - newest + 1, last)
    rows = sum(number for _, number, _, _ in figures)
    scored = [(number, mean) for _, number, mean, _ in figures if mean is not None]
    return Summary(
        rows=rows,
        releases={release: number for release, number, _, _ in figures},
        mean_score=sum(n * mean for n, mean in scored) / sum(n for n, _ in scored) if scored else None,
        outside=sum(outside for *_, outside in figures),
    )
