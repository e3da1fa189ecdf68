"""What became of every score, in numbers: the answer of `edge-ai status --json`. Reads, changes nothing."""

from __future__ import annotations

import sqlite3
from typing import Any

from edge_ai_assets.delivery import pack
from edge_ai_assets.home import Home, SiteHome
from edge_ai_assets.returns.inbox import tables
from edge_ai_assets.returns.outbox.outbox import OutboxError
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.runtimes.choice import runtime
from edge_ai_assets.scoring import folder
from edge_ai_assets.stack_hub import lease, provision, returning
from edge_ai_assets.usecase import Road, Site, UseCase

PARTS = ("scored", "uploaded", "withheld", "quarantined", "expired", "pending")
GLOBAL = ("insights", "duplicates", "releases", "retrainings")


def status(home: Home, usecase: UseCase) -> dict[str, Any]:
    """The state of all sites and of Azure's side, as far as it is known in this home.

    Returns:
        `{"sites": {NAME: {scored, uploaded, withheld, quarantined, expired, pending, removed, release, link,
        trust, serving, page, here, error}}, "global": {insights, duplicates, releases, retrainings,
        completeness}}`. At each site that is `here`
        scored = uploaded + withheld + quarantined + expired + pending; of another home's, and of one with an
        `error` (what is damaged), None stands for what is not known. `removed` tells of the scores that are
        no longer kept, by state, kind and reason. `release` is the version installed for scoring, None before
        the first, `page` where people find its service on this machine. In a site's own home all of `global`
        is None.
    """
    return {
        "sites": {site.name: _site(home, site) for site in usecase.sites},
        "global": dict.fromkeys((*GLOBAL, "completeness")) if home.own_site else _global(home, usecase),
    }


def conserved(site: dict[str, Any]) -> bool:
    """Whether a site's numbers add up, if they are to be known here."""
    if not site["here"]:
        return True
    return site["error"] is None and bool(site["scored"] == sum(site[part] for part in PARTS[1:]))


def away(home: Home, site: Site) -> bool:
    """Whether a site's disk is in another home, or on another machine, than this."""
    if home.site(site.name).root.is_dir():
        return False
    return bool(home.own_site) or site.road is Road.MEDIA or provision.elsewhere(home, site.name)


def _global(home: Home, usecase: UseCase) -> dict[str, Any]:
    from edge_ai_assets.azure import arrivals

    newest = pack.newest(home.registry, home.keys)
    # A model has its lineage written once its export was found to agree with it.
    trained = list(home.candidates.glob("*/lineage.json"))
    return {
        "insights": tables.count(home.tables, "insights"),
        "duplicates": tables.duplicates(home.tables),
        "releases": newest.version if newest else 0,
        "retrainings": max(0, len(trained) - 1),
        "completeness": {mark.site: mark.sentence for mark in arrivals.watermarks(home, usecase)},
    }


def _site(home: Home, site: Site) -> dict[str, Any]:
    at = home.site(site.name)
    nothing = dict.fromkeys((*PARTS, "removed", "release", "link", "trust", "serving", "page"))
    if away(home, site):
        link = "none" if site.road is Road.MEDIA else None
        return {**nothing, "link": link, "here": False, "error": None}
    try:
        return {**_known(at, site.road), "here": True, "error": None}
    except (OutboxError, sqlite3.Error, OSError) as error:  # one damaged disk must not hide the other sites
        return {**nothing, "here": True, "error": str(error)}


def _known(site: SiteHome, road: Road) -> dict[str, Any]:
    last, running = folder.read_status(site.root), runtime(site.root, site.name).status()
    trust = lease.standing(site)
    return {
        **returning.as_dict(returning.counts(site)),
        "removed": returning.removed(site),
        "release": last.version if last else running.version if running else None,
        "link": "none" if road is Road.MEDIA else Link(site.root).state.state,
        "trust": {"state": str(trust.state), "until": trust.until and trust.until.isoformat()},
        "serving": running is not None,
        "page": running.url if running else None,
    }
