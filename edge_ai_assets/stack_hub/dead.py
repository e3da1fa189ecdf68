"""What a site put aside because nothing could be made of it: scores that cannot be read, and letters that its
function gave up. Looked at, and tried again once their cause was put right.

Nothing of it is ever deleted, and none of it counts as gone: it is quarantined, or waits.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, nullcontext

import msgspec

from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns.hub import enqueuing, letters, settling
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.outbox.store import OutboxError
from edge_ai_assets.stack_hub import forwarding
from edge_ai_assets.stack_hub.far_ends import NOTHING_FAR, FarEnds

PAGE = 5_000
SHOWN = 32
"""Letters that are looked at: as many as a queue shows at once."""


class Dead(msgspec.Struct, frozen=True):
    """What was put aside at a site."""

    scores: dict[str, int]
    """How many, by reason."""
    letters: int
    """Letters; a letter holds up to some hundred scores or feedback."""
    reasons: list[str]
    """Why, of the first letters."""


class Again(msgspec.Struct, frozen=True):
    """What another try put back."""

    scores: int
    letters: int
    left: list[str]
    """Why the rest of the scores stays where it is."""


def look(site: SiteHome, queued: bool, far: FarEnds = NOTHING_FAR) -> Dead:
    """What was put aside.

    Args:
        queued: whether the site's road is its queue.

    Raises:
        LinkDown: the hub's queue is out of reach.
    """
    scores, after = Counter[str](), 0
    with Outbox(site.outbox, create=False) as outbox:
        while rows := outbox.dead_letters(PAGE, after):
            scores.update(row.reason or "" for row in rows)
            after = rows[-1].sequence
    if not queued:
        return Dead(dict(scores), 0, [])
    with ExitStack() as opened:
        dead = (far.hub() or forwarding.embedded(site, opened)).dead
        seen = [letters.exhume(each.body, each.tries, each.sent_at) for each in dead.peek(SHOWN)]
        return Dead(dict(scores), dead.count(), [each.reason for each in seen])


def retry(site: SiteHome, queued: bool, far: FarEnds = NOTHING_FAR) -> Again:
    """Put back what can be tried again. Done twice, it does no harm; see `look`."""
    schemas, after, made, left = set[int](), 0, 0, list[str]()
    with Outbox(site.outbox, create=False) as outbox:
        while rows := outbox.dead_letters(PAGE, after):
            schemas |= {row.schema for row in rows}
            after = rows[-1].sequence
        with enqueuing.starting_over(site.root) if queued and schemas else nullcontext():
            for schema in sorted(schemas):
                try:
                    made += outbox.requeue(schema)
                except OutboxError as error:
                    left.append(str(error))
    if not queued:
        return Again(made, 0, left)
    with ExitStack() as opened:
        hub = far.hub() or forwarding.embedded(site, opened)
        return Again(made, settling.retry(hub.dead, hub.letters, hub.receipts), left)
