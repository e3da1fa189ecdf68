"""What waits at a site, for the sensors: cheap looks that change nothing. See `automation.Marker`."""

from __future__ import annotations

from edge_ai_assets.home import SiteHome


def bundles(site: SiteHome) -> str | None:
    """Bundles in the site's media folder that nobody looked at yet, or that brought a release which was never
    tried, because the run ended in between."""
    from edge_ai_assets.stack_hub import delivery

    marker = delivery.carried_marker(site)
    taken = site.taken.read_text("utf-8") if site.taken.exists() else ""
    if not marker:
        return None
    return marker if marker != taken or delivery.untried(site) else None


def service(site: SiteHome) -> str | None:
    """A service that was deployed and is gone, after a reboot say: what it is to serve, and since when it
    last did. One whose supervisor lives is left to it, unless what it serves was withdrawn and there is
    another release on the disk."""
    from edge_ai_assets.scoring import folder
    from edge_ai_assets.stack_hub import withdrawn

    # Not by `since`: a supervisor that is killed while it starts has overwritten it, and would stay dead.
    wish = folder.read_wish(site.root)
    if wish is None or folder.supervised(site.root):
        instead = withdrawn.way_out(site)
        return instead and f"withdrawn, {instead} is to serve"
    last = folder.read_status(site.root)
    return f"{wish.release.release_id} {last.since if last else ''}"


def readings(site: SiteHome) -> str | None:
    """Files of readings, if the site's service answers."""
    from edge_ai_assets.runtimes.choice import runtime
    from edge_ai_assets.scoring import batch

    files = batch.waiting(site)
    if not files or runtime(site.root, site.name).status() is None:
        return None
    return f"{len(files)} {files[-1].name} {files[-1].stat().st_mtime_ns}"


def scores(site: SiteHome) -> str | None:
    """Scores that are no insight yet, insights the policy has not judged, feedback that was not packed."""
    from edge_ai_assets.returns.outbox.outbox import Outbox

    if not site.outbox.exists():
        return None
    with Outbox(site.outbox, create=False) as outbox:
        new, ready, feedback = outbox.untouched(), outbox.waiting(1), outbox.waiting_feedback(1)
        if not (new or ready or feedback):
            return None
        oldest = [row.sequence for row in ready], [row.id for row in feedback]
        return f"{outbox.counts().scored} {new} {oldest}"


def newest_package(site: SiteHome) -> int:
    """Number of the package that was sealed last; 0 before the first."""
    from edge_ai_assets.returns.outbox.outbox import Outbox

    with Outbox(site.outbox, create=False) as outbox:
        last = outbox.last_package()
    return last.number if last else 0


def to_carry(site: SiteHome) -> str | None:
    """Sealed packages that were not put where a person takes them to carry."""
    from edge_ai_assets.returns.outbox.outbox import Outbox

    if not site.outbox.exists():
        return None
    with Outbox(site.outbox, create=False) as outbox:
        last = outbox.last_package()
    return f"{last.number}" if last and last.exported_at is None and last.uploaded_at is None else None
