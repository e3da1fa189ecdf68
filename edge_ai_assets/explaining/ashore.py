"""What Azure's side tells of a score by what came home: the insight, or why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edge_ai_assets.returns.inbox import heads, tables
from edge_ai_assets.returns.inbox.heads import Head


class UnknownInsight(KeyError):
    """There is no such insight."""

    def __str__(self) -> str:
        return str(self.args[0])


def insight(lake: Path, site: str, sequence: int) -> dict[str, Any] | None:
    """The insight with its `package` row and the `feedback` on it; None if none came.

    Raises:
        UnknownInsight: it is just being received.
    """
    try:
        found = tables.insight(lake, site, sequence)
    except KeyError:
        return None
    if found["package"] is None:
        raise UnknownInsight(f"the package of {site}/{sequence} is being received: ask again in a moment")
    return found


def missing(lake: Path, site: str, sequence: int, watermark: str) -> dict[str, Any]:
    """What is known of a score whose insight did not come: `came`: why, in words, the `feedback` on it, and
    with some the `release` (image) and the `package` row that it came in.

    Args:
        watermark: how complete the site is, as `completeness` says it.

    Raises:
        UnknownInsight: it may come yet, or was not made when the site's last package was.
    """
    head = heads.read(lake).get(site)
    if head is None:
        raise UnknownInsight(f"nothing of site {site!r} came home yet: {watermark}")
    last = next(iter(tables.rows(lake, "packages", site=site, number=head.number)), None) or {}
    feedback = [
        {**row, "fields": msgspec.json.decode(row["fields"])}
        for row in tables.rows(lake, "feedback", site=site, sequence=sequence)
    ]
    why = _why(sequence, head, last)
    if why is None and not feedback:
        there = f"in the home of site {site}, `edge-ai explain {site}/{sequence}` tells more"
        if last.get("scored") is not None and sequence > last["scored"]:
            raise UnknownInsight(
                f"site {site!r} had scored {last['scored']:,} when it made the last package that came, "
                f"{sequence:,} is not among them; {there}"
            )
        raise UnknownInsight(f"score {sequence:,} of site {site!r} has not come yet ({watermark}); {there}")
    rows = tables.rows(lake, "packages", site=site, number=feedback[-1]["package"]) if feedback else []
    return {
        "came": why or f"not yet: {watermark}",
        "feedback": feedback,
        "release": feedback[-1]["release"] if feedback else None,
        "package": next(iter(rows), None),
    }


def _why(sequence: int, head: Head, last: dict[str, Any]) -> str | None:
    """Why a score did not come; None if it may come yet."""
    if head.complete is None or sequence > head.complete:
        return None
    stayed = ", ".join(
        f"{last[part]:,} {part}" for part in ("withheld", "quarantined", "expired") if last.get(part)
    )
    return (
        f"no, it stayed at the site: up to {head.complete:,} all that may came ({stayed or 'others not'}); "
        "which of these it is, and the reason, is known there"
    )
