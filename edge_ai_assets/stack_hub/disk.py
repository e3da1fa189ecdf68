"""How a site keeps within its quota: what came home goes first, then what is never to leave, then what is
worth least. All of it stays counted.

Which rows go, and how they stay counted, is the outbox's work.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from edge_ai_assets.delivery import durable
from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.hub import enqueuing
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.outbox.schema import Pruned
from edge_ai_assets.returns.package import packages, packing
from edge_ai_assets.returns.road import uplink
from edge_ai_assets.usecase import Returns

MEGABYTE = 1_000_000
DAY = 86_400_000_000
"""µs"""
EVER = 253_370_764_800_000_000
"""µs of the year 9999. At the quota all goes that is home, though the clock was set back since it was made.
"""
SPOOL = 0.25
"""Share of the quota that packages may take, unsent or not acknowledged. What is packed can expire no more,
so the larger part is for what still can."""
HIGH, LOW = 0.9, 0.8
"""Of the outbox' share: beyond the first, room is made down to the second. Scoring is refused at 1."""
PACKED = 0.5
"""Of the outbox' share: normal scores are packed until packages without an acknowledgement account for as
much. They can expire no more, and were all of it packed, anomalies that come later would expire instead."""
AT_ONCE = 5_000
"""Scores that get their kind before room is made again: some 4 MB, ten times what they took in the journal.
"""


@dataclass(frozen=True)
class Room:
    """What was removed from a site's disk."""

    pruned: int
    """Scores that came home, acknowledged."""
    expired: int
    """Scores that never will, and waited for it."""
    packages: int
    """Files of acknowledged packages."""
    withheld: int = 0
    """Scores that were never to leave."""


def outbox_bytes(returns: Returns) -> int | None:
    """What the outbox may hold; None for no bound."""
    return None if returns.quota_megabytes is None else int(returns.quota_megabytes * MEGABYTE * (1 - SPOOL))


def spool_bytes(returns: Returns) -> int | None:
    """What packages that are not acknowledged may hold; None for no bound."""
    return None if returns.quota_megabytes is None else int(returns.quota_megabytes * MEGABYTE * SPOOL)


def packed_bytes(returns: Returns) -> int | None:
    """What scores may hold of the outbox for more normal ones to be packed; None for no bound."""
    bound = outbox_bytes(returns)
    return None if bound is None or returns.when_full != "expire" else int(PACKED * bound)


def copied_bytes(site: SiteHome) -> int:
    """What packages hold that lie in `outgoing/` a second time, on the spool's disk: not as links."""
    if not site.outgoing.is_dir() or not site.spool.is_dir():
        return 0
    device = site.spool.stat().st_dev
    found = [path.lstat() for path in site.outgoing.iterdir() if packages.NAME.fullmatch(path.name)]
    return sum(file.st_size for file in found if file.st_dev == device and file.st_nlink == 1)


def make_room(site: SiteHome, outbox: Outbox, returns: Returns, now: clock.Clock = clock.now) -> Room:
    """Remove what was kept long enough, and as much more as the quota asks for."""
    pruned = _prune(site, outbox, now() - returns.retention_days * DAY)
    bound = outbox_bytes(returns)
    if bound is None or outbox.size() <= HIGH * bound:
        return Room(pruned.rows, 0, len(pruned.packages))
    more = _prune(site, outbox, EVER)
    withheld = expired = 0
    if (above := outbox.size() - int(LOW * bound)) > 0:
        withheld = outbox.drop_withheld(above, now())
    if (above := outbox.size() - int(LOW * bound)) > 0 and returns.when_full == "expire":
        reason = f"quota of {returns.quota_megabytes} MB"
        with packing.lock(site.spool), enqueuing.sent_through(site.root) as sent:
            expired = outbox.expire(above, now(), reason, sent).rows
    return Room(pruned.rows + more.rows, expired, len(pruned.packages) + len(more.packages), withheld)


def derive(site: SiteHome, outbox: Outbox, returns: Returns | None) -> Counter[str]:
    """Give every score its kind, and keep within the quota meanwhile: how many became which kind.

    Args:
        returns: None where it is not known which are in force: then room is made later, by who packs.
    """
    kinds: Counter[str] = Counter(anomaly=0, normal=0, quarantined=0)
    while found := insights.derive(outbox, AT_ONCE):
        kinds.update(found)
        if returns:
            make_room(site, outbox, returns)
    return kinds


def _prune(site: SiteHome, outbox: Outbox, before: int) -> Pruned:
    pruned = outbox.prune(before)
    # Not waited for: a slow link is in use for days. What leaves just now is named again the next time.
    with durable.if_unlocked(site.spool / uplink.LOCK) as ours:
        gone = pruned.packages if ours else []
        for name in gone:
            for folder in (site.spool, site.outgoing):
                (folder / name).unlink(missing_ok=True)
        outbox.forget(gone)
    return Pruned(pruned.rows, pruned.feedback, gone)
