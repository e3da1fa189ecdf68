"""Release bundles for the sites they are carried to: what each has already is left out, and what Azure merged
of its packages is acknowledged in it.

What a bundle is stands in `delivery.bundle`.
"""

from __future__ import annotations

from pathlib import Path

from edge_ai_assets.azure import arrivals
from edge_ai_assets.delivery import pack
from edge_ai_assets.home import Home
from edge_ai_assets.returns.inbox import tables
from edge_ai_assets.usecase import UseCase


def bundles(home: Home, usecase: UseCase) -> dict[str, Path]:
    """Write the newest release as bundles into `home.media`.

    Returns:
        '' for the whole bundle, which any site can install, and each site without a link that told what it
        has for the one in its own folder.

    Raises:
        MissingError: there is no release yet.
    """
    acks, have = arrivals.acks(home), inventories(home)
    lease = usecase.delivery.lease
    found = {"": pack.bundle(home.registry, home.keys, home.media, acks=acks, lease=lease)}
    for site in usecase.sites:
        if not site.road.pulls and site.name in have:
            own = {site.name: acks[site.name]} if site.name in acks else {}
            into = home.media / site.name
            found[site.name] = pack.bundle(
                home.registry, home.keys, into, have=have[site.name], acks=own, lease=lease
            )
    return found


def inventories(home: Home) -> dict[str, frozenset[str]]:
    """The blobs that each site said it has, in the last package that came of it."""
    columns = ["site", "number", "inventory"]
    rows = [row for row in tables.rows(home.tables, "packages", columns) if row["inventory"]]
    last = {row["site"]: row["inventory"] for row in sorted(rows, key=lambda row: row["number"])}
    return {site: frozenset(listed) for site, listed in last.items()}
