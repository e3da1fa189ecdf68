"""What a site's own disk tells of a score: its row, the package it left in, the ledger, the release."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from edge_ai_assets.delivery.release import Release
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.egress.coverage import Coverage
from edge_ai_assets.returns.egress.ledger import LedgerError
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.outbox.schema import PackageRow, ScoreRow, decode


def score(site: SiteHome, sequence: int) -> dict[str, Any] | None:
    """The score as the outbox has it, and what became of it.

    Returns:
        None if the site never gave out that sequence. Else `state` in words, `disposition` (waiting, packed,
        withheld, quarantined, expired, or gone where the tombstones leave it open), `package` (number of the
        one it is in, or None) and, unless only tombstones are left, what was scored, by which release and
        when.
    """
    with Outbox(site.outbox, create=False) as outbox:
        if not 0 < sequence <= outbox.counts().scored:
            return None
        if rows := outbox.rows(sequence, sequence):
            return _described(rows[0])
        graves = [grave for grave in outbox.tombstones() if grave.first <= sequence <= grave.last]
    fates = sorted({(grave.state, grave.reason) for grave in graves})
    told = " or ".join(f"{state}{reason and f': {reason}'}" for state, reason in fates)
    stayed = len(fates) == 1 and fates[0][0] != "uploaded"
    return {
        "state": f"{told or 'nothing tells what became of it'}; it is no longer kept here",
        "disposition": fates[0][0] if stayed else "gone",
        "package": None,
    }


def _described(row: ScoreRow) -> dict[str, Any]:
    state = row.disposition or ("waiting" if row.package is None else "withheld" if row.reason else "packed")
    state = "packed" if state == "uploaded" else state
    waits = "waits to be packed" if row.kind else "waits to be judged"
    words = {"packed": f"in package {row.package}", "waiting": waits}
    try:
        record = decode(row)
    except ValueError as error:
        read: dict[str, Any] = {"unreadable": str(error)}
    else:
        read = {"fields": record.inputs, **msgspec.structs.asdict(record.context)}
    return {
        "state": words.get(state, f"{state}: {row.reason or 'no reason is noted'}"),
        "disposition": state,
        "package": row.package if state == "packed" else None,
        "scored_at": clock.moment(row.scored_at),
        "release": row.release,
        "kind": row.kind,
        "score": row.score,
        "predicted": bool(row.predicted),
        "outside_trained_range": bool(row.outside),
        **read,
    }


def standing(site: SiteHome, score: dict[str, Any]) -> dict[str, Any]:
    """Of a score whose insight is not here: whether it `came` home, as far as the site knows, and the
    `package` that it is in."""
    if score["disposition"] == "gone":
        return {"came": "not known here", "package": None}
    if score["package"] is None:
        alone = "it is in none; what was told of many together, or said of it, may be"
        return {"came": f"no: {score['state']}", "package": {"note": alone}}
    with Outbox(site.outbox, create=False) as outbox:
        found = next(iter(outbox.packages(score["package"] - 1, 1)), None)
    if found is None or found.number != score["package"]:
        return {"came": "no: its package is being made", "package": {"note": "it is being made"}}
    package = described(found)
    came = "yes: its package is acknowledged" if found.acknowledged_at else "not known here"
    return {"came": came, "package": package}


def described(row: PackageRow) -> dict[str, Any]:
    """A package with how far it is on its way home; times in ISO 8601, None for what was not yet."""
    times = {
        "acknowledged": row.acknowledged_at,
        "uploaded": row.uploaded_at,
        "exported": row.exported_at,
    }
    return {
        "name": row.name,
        "number": row.number,
        "digest": row.digest,
        "state": next((state for state, at in times.items() if at is not None), "waiting"),
        "bytes": row.bytes,
        "rows": row.rows,
        "feedback": row.feedback,
        "sealed": clock.iso(row.created_at),
        **{name: None if at is None else clock.iso(at) for name, at in times.items()},
    }


def ledger(site: SiteHome, name: str, digest: str) -> dict[str, Any]:
    """What the egress ledger says of a package's file; the chain is checked from its first line on."""
    try:
        with Coverage(site.ledger) as coverage:
            left = coverage.of(name, digest)
    except LedgerError as error:
        return {"verified": False, "error": str(error)}
    if left is None:
        return {"verified": True, "blocks": 0, "bytes": 0, "policy": None, "destination": None}
    return {
        "verified": True,
        "blocks": left.lines,
        "bytes": left.bytes,
        "covered": left.covered,
        "began": clock.iso(left.began),
        "ended": clock.iso(left.ended),
        "policy": ", ".join(left.policies),
        "destination": ", ".join(left.destinations),
    }


def release(site: SiteHome, image: str | None, version: int | None) -> Release | None:
    """The installed release of an image, or else of that version; None if it is not installed any more."""
    return picked(SiteStore(site.root).releases(), image, version)


def picked(releases: Iterable[Release], image: str | None, version: int | None) -> Release | None:
    """The release of an image, or where that is not known, of a version."""
    wanted = (each for each in releases if (each.image == image if image else each.version == version))
    return next(wanted, None)


def model(site: SiteHome, release: Release) -> dict[str, Any]:
    """Where the site has the model, and its figures as they were signed."""
    return {"folder": str(SiteStore(site.root).path(release)), "metrics": release.metrics}


def completeness(site: SiteHome) -> dict[str, Any]:
    """How far the site's scores are accounted for, and how much of that Azure has said to have merged."""
    with Outbox(site.outbox, create=False) as outbox:
        through, scored = outbox.complete_through(), outbox.counts().scored
        waiting, size = outbox.unacknowledged()
        last = outbox.last_package()
    return {
        "watermark": f"accounted for through {through:,} of {scored:,} scores",
        "packages": f"{last.number if last else 0:,}; {waiting:,} ({size:,} bytes) are not acknowledged",
    }
