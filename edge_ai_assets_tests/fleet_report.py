"""What the page for everyone tells of a fleet that is made up: as many sites and days as a test wants."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from edge_ai_assets.azure.page_data import Release, Report, Site, packed
from edge_ai_assets.returns.inbox.heads import Head
from edge_ai_assets.returns.inbox.watermark import Watermark

EVIL = "</script><script>hit=1</script><img src=x onerror=hit=1>\"'&amp;$title\u2028"
"""A name that would do harm as markup, in a script or in a template."""
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def fleet(sites: int, days: int, names: dict[int, str] | None = None) -> Report:
    """Sites site-0000 and so on; every seventh is stale, every eleventh has a gap, the last sent nothing.

    Args:
        names: other names of some, by their place.
    """
    rnd, first = random.Random(1), NOW.date() - timedelta(days=days - 1)
    found, insights = [], [0] * days
    for place in range(sites):
        counts = [rnd.choice([0, 1, 2, 5, 9, 40]) for _ in range(days)]
        if place == sites - 1:
            counts = [0] * days
        for day, count in enumerate(counts):
            insights[day] += 3 * count
        found.append(
            Site(
                (names or {}).get(place, f"site-{place:04}"),
                ["canary", "early", "broad"][place % 3],
                _mark(place, place == sites - 1),
                3 * sum(counts),
                sum(max(0, count - 1) for count in counts),
                packed(counts),
                [(days * step // 8, step + 1) for step in range(min(8, days))],
                min(8, days),
            )
        )
    judged = (120, 0.9, 0.04, 0.1)
    releases = [
        Release(n, NOW - timedelta(days=400 - 45 * n), *(judged if n % 2 else ())) for n in range(1, 9)
    ]
    return Report("mill", "A mill & its pumps", True, NOW, first, insights, found, releases)


def _mark(place: int, silent: bool) -> Watermark:
    heard = int(NOW.timestamp() * 1e6) - place * 10**9
    head = Head(10 + place, "0" * 64, 100 * place, received_at=heard)
    gaps = ((head.number + 1, head.number + 2),) if place % 11 == 10 else ()
    name = f"site-{place:04}"
    if silent:
        return Watermark(name, Head(), (), (), None, False, 0.0)
    return Watermark(name, head, gaps, (), place * 1_000 / 86_400, place % 7 == 6, 0.0)
