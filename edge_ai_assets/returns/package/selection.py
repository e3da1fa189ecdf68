"""Which scores, feedback and lineage events go into the next package: what is worth most, within bounds.

Nothing is written here. What of it may leave is decided in `content`.
"""

from __future__ import annotations

from edge_ai_assets.returns.outbox import columns
from edge_ai_assets.returns.outbox.kept import Part
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.outbox.schema import KINDS
from edge_ai_assets.returns.package.content import Content
from edge_ai_assets.returns.package.parts import EventMark, EventSource

MAX_PACKED = 32 * 1024 * 1024
"""Bytes of records that one package accounts for, or one record if it has more: what packing holds in memory
is some ten times that, and the file is far smaller."""
EVENTS = 10_000
"""Most lineage events in one package; each has at most lineage.MAX_LINE bytes."""


def take(
    outbox: Outbox, content: Content, limit: int, window_minutes: int, normal: int | None = None
) -> bool:
    """Fill a package with what waits, as far as it may go; whether there was anything.

    Args:
        limit: most scores, and most feedback.
        normal: most scores of the least valuable kind; None for no bound of their own.
    """
    bounds = {} if normal is None else {KINDS[0]: normal}
    room = MAX_PACKED
    feedback = outbox.waiting_feedback(limit)
    for item in feedback:
        row = next(iter(outbox.rows(item.sequence, item.sequence)), None)
        content.add_feedback(item, row)
        room -= len(row.record) if row else 0
        if room < 0:
            return True
    parts: list[Part] = []
    for kind in reversed(KINDS):
        found = _parts(outbox, kind, min(limit, bounds.get(kind, limit)), room)
        parts += found
        limit -= sum(len(part.sequences) for part in found)
        room -= sum(sum(part.sizes()) for part in found)
    content.add_scores(columns.of_parts(parts, content.broken), window_minutes)
    return bool(feedback or parts)


def lineage(events: EventSource, mark: EventMark) -> tuple[list[bytes], EventMark]:
    """The lines of lineage for a package, and where they end.

    Raises:
        ValueError: the source skipped a number.
    """
    lines, end = events(mark, EVENTS)
    while len(lines) > 1 and sum(map(len, lines)) > MAX_PACKED:
        lines, end = events(mark, len(lines) // 2)
    if end.number - mark.number != len(lines):
        raise ValueError(f"{len(lines)} lineage events follow number {mark.number}, they end at {end.number}")
    return lines, end


def _parts(outbox: Outbox, kind: str, limit: int, room: int) -> list[Part]:
    """The oldest scores of a kind whose records have so many bytes in all; the first in any case if there is
    room at all."""
    found: list[Part] = []
    if limit < 1 or room <= 0:
        return found
    for part in outbox.parts(kind):
        taken = 0
        for size in part.sizes()[:limit]:
            taken, room = taken + 1, room - size
            if room <= 0:
                break
        limit -= taken
        found.append(part.first(taken))
        if limit < 1 or room <= 0:
            break
    return found
