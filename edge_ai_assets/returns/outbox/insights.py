"""What the scores of a site mean: their kinds. What may leave is `policy`'s work."""

from __future__ import annotations

from collections import Counter

from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.outbox.schema import decode

PAGE = 5_000


def derive(outbox: Outbox, limit: int = 50_000) -> dict[str, int]:
    """Give the oldest unclassified scores their kind; what cannot be read is quarantined, never deleted.

    Args:
        outbox: of the site.
        limit: stops when so many have theirs; blocks that were begun are finished.

    Returns:
        How many became 'anomaly' (predicted positive), 'normal' or 'quarantined'; only those that occur.
        Empty when nothing waits.
    """
    found: Counter[str] = Counter()

    while (left := limit - found.total()) > 0:
        # What a version before this one unfolded, what is read again, and what could not be read.
        rows = outbox.unclassified(min(PAGE, left))
        if not rows:
            made = outbox.unfold(min(PAGE, left), _kind)
            if not made:
                break
            found.update({kind: number for kind, number in made.items() if kind is not None})
        kinds: dict[int, str] = {}
        broken: dict[str, list[int]] = {}
        for row in rows:
            try:
                decode(row)
            except ValueError as error:
                broken.setdefault(str(error), []).append(row.sequence)
            else:
                kinds[row.sequence] = _kind(bool(row.predicted))
        outbox.classify(kinds)
        outbox.dispose("quarantined", broken)
        found.update(kinds.values())
        found["quarantined"] += len(rows) - len(kinds)
    return {kind: number for kind, number in found.items() if number}


def _kind(predicted: bool) -> str:
    return "anomaly" if predicted else "normal"
