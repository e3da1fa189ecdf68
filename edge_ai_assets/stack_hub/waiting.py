"""What waits at a site, for the sensors: cheap looks that change nothing. See `automation.Marker`."""

from __future__ import annotations

from edge_ai_assets.home import SiteHome


def readings(site: SiteHome) -> str | None:
    """Files of readings, if the site's service answers."""
    from edge_ai_assets.scoring import batch, supervisor

    files = batch.waiting(site)
    if not files or supervisor.status(site.root) is None:
        return None
    return f"{len(files)} {files[-1].name} {files[-1].stat().st_mtime_ns}"


def scores(site: SiteHome) -> str | None:
    """Scores that are no insight yet, insights the policy has not judged, feedback that was not packed."""
    from edge_ai_assets.returns.outbox import Outbox

    if not site.outbox.exists():
        return None
    with Outbox(site.outbox, create=False) as outbox:
        new, ready, feedback = outbox.untouched(), outbox.waiting(1), outbox.waiting_feedback(1)
        if not (new or ready or feedback):
            return None
        oldest = [row.sequence for row in ready], [row.id for row in feedback]
        return f"{outbox.counts().scored} {new} {oldest}"


def packages(site: SiteHome) -> str | None:
    """Sealed packages, if the link is up."""
    from edge_ai_assets.returns.link import Link
    from edge_ai_assets.returns.outbox import Outbox

    if not site.outbox.exists() or not Link(site.root).up:
        return None
    with Outbox(site.outbox, create=False) as outbox:
        unsent = outbox.unsent()
    return f"{unsent[-1].number}" if unsent else None
