"""How a site keeps within its quota: what came home goes first, then what is worth least, counted.

Which rows go, and how they stay counted, is the outbox's work.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns import clock, packing
from edge_ai_assets.returns.outbox import Outbox
from edge_ai_assets.returns.schema import Pruned
from edge_ai_assets.usecase import Returns

MEGABYTE = 1_000_000
DAY = 86_400_000_000
"""µs"""
SPOOL = 0.25
"""Share of the quota that packages may take, unsent or not acknowledged. What is packed can expire no more,
so the larger part is for what still can."""
HIGH, LOW = 0.9, 0.8
"""Of the outbox' share: beyond the first, room is made down to the second. Scoring is refused at 1."""


@dataclass(frozen=True)
class Room:
    """What was removed from a site's disk."""

    pruned: int
    """Scores that came home, acknowledged."""
    expired: int
    """Scores that never will."""
    packages: int
    """Files of acknowledged packages."""


def outbox_bytes(returns: Returns) -> int | None:
    """What the outbox may hold; None for no bound."""
    return None if returns.quota_megabytes is None else int(returns.quota_megabytes * MEGABYTE * (1 - SPOOL))


def spool_bytes(returns: Returns) -> int | None:
    """What packages that are not acknowledged may hold; None for no bound."""
    return None if returns.quota_megabytes is None else int(returns.quota_megabytes * MEGABYTE * SPOOL)


def make_room(site: SiteHome, outbox: Outbox, returns: Returns, now: clock.Clock = clock.now) -> Room:
    """Remove what was kept long enough, and as much more as the quota asks for."""
    pruned = _prune(site, outbox, now() - returns.retention_days * DAY)
    bound = outbox_bytes(returns)
    if bound is None or outbox.size() <= HIGH * bound:
        return Room(pruned.rows, 0, len(pruned.packages))
    more = _prune(site, outbox, now())
    expired, above = 0, outbox.size() - int(LOW * bound)
    if above > 0 and returns.when_full == "expire":
        with packing.lock(site.spool):
            expired = outbox.expire(above, now(), f"quota of {returns.quota_megabytes} MB").rows
    return Room(pruned.rows + more.rows, expired, len(pruned.packages) + len(more.packages))


def _prune(site: SiteHome, outbox: Outbox, before: int) -> Pruned:
    pruned = outbox.prune(before)
    for name in pruned.packages:
        for folder in (site.spool, site.outgoing):
            (folder / name).unlink(missing_ok=True)
    outbox.forget(pruned.packages)
    return pruned
