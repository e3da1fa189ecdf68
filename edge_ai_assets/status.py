"""What became of every score, in numbers: the answer of `edge-ai status --json`. Reads, changes nothing."""

from __future__ import annotations

from typing import Any

from edge_ai_assets.delivery import pack
from edge_ai_assets.home import Home, SiteHome
from edge_ai_assets.returns.inbox import tables
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.runtimes.choice import runtime
from edge_ai_assets.scoring import folder
from edge_ai_assets.stack_hub import lease, returning
from edge_ai_assets.usecase import Road, UseCase


def status(home: Home, usecase: UseCase) -> dict[str, Any]:
    """The state of all sites and of Azure's side.

    Returns:
        `{"sites": {NAME: {scored, uploaded, withheld, quarantined, expired, pending, release, link,
        trust, serving, page}}, "global": {insights, duplicates, releases, retrainings,
        completeness}}`. At each site
        scored = uploaded + withheld + quarantined + expired + pending. `release` is the version installed for
        scoring, None before the first, `page` where people find its service on this machine.
    """
    from edge_ai_assets.azure import arrivals

    newest = pack.newest(home.registry, home.keys)
    marks = [] if home.own_site else arrivals.watermarks(home, usecase)
    # A model has its lineage written once its export was found to agree with it.
    trained = list(home.candidates.glob("*/lineage.json"))
    return {
        "sites": {site.name: _site(home.site(site.name), site.road) for site in usecase.sites},
        "global": {
            "insights": tables.count(home.tables, "insights"),
            "duplicates": tables.duplicates(home.tables),
            "releases": newest.version if newest else 0,
            "retrainings": max(0, len(trained) - 1),
            "completeness": {mark.site: mark.sentence for mark in marks},
        },
    }


def conserved(site: dict[str, Any]) -> bool:
    """Whether a site's numbers add up."""
    parts = ("uploaded", "withheld", "quarantined", "expired", "pending")
    return bool(site["scored"] == sum(site[part] for part in parts))


def _site(site: SiteHome, road: Road) -> dict[str, Any]:
    last, running = folder.read_status(site.root), runtime(site.root, site.name).status()
    trust = lease.standing(site)
    return {
        **returning.as_dict(returning.counts(site)),
        "release": last.version if last else running.version if running else None,
        "link": "none" if road is Road.MEDIA else Link(site.root).state.state,
        "trust": {"state": str(trust.state), "until": trust.until and trust.until.isoformat()},
        "serving": running is not None,
        "page": running.url if running else None,
    }
