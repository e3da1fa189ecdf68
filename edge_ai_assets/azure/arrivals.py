"""What the inbox asset and its sensor do with the packages in the uplink's folder, in the terms of
`returns.inbox.inbox`: taking in, saying how complete each site is, and acknowledging."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_ai_assets.delivery import durable, pack, signing
from edge_ai_assets.home import Home
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.inbox import heads, inbox, watermark
from edge_ai_assets.returns.inbox.heads import Head
from edge_ai_assets.returns.inbox.inbox import Received
from edge_ai_assets.returns.inbox.watermark import Watermark
from edge_ai_assets.returns.package import foreign, packages
from edge_ai_assets.returns.road import acks as acknowledgements
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_SUFFIX = ".pub.pem"
Keys = Mapping[str, Sequence["Ed25519PublicKey"]]
"""The public keys of each site."""


def site_keys(home: Home) -> dict[str, Sequence[Ed25519PublicKey]]:
    """The public keys of the sites that were provisioned."""
    folder = home.keys / "sites"
    return {
        path.name.removesuffix(_SUFFIX): [signing.load_public(path)] for path in folder.glob(f"*{_SUFFIX}")
    }


def receive_all(home: Home) -> Received:
    """Receive until nothing is left that can be, a bounded number of packages at a time."""
    keys = site_keys(home)
    total = Received(0, 0, 0, 0, [], [], set())
    while True:
        failed = {site for site, _ in total.failed}
        one = inbox.receive(home.uplink, home.tables, keys, home.refused, passing_over=failed)
        total = msgspec.structs.replace(
            one,
            packages=total.packages + one.packages,
            insights=total.insights + one.insights,
            feedback=total.feedback + one.feedback,
            repeated=total.repeated + one.repeated,
            refused=total.refused + one.refused,
            days=total.days | one.days,
            lineage=total.lineage + one.lineage,
            failed=total.failed + one.failed,
        )
        if not one.packages:
            return total


def new_packages(home: Home) -> list[str]:
    """Names of packages in the uplink's folder that were not received yet.

    It costs a row a site and, for what was received, a look at its name in the folder.
    """
    return sorted(waiting_packages(home))


def waiting_packages(home: Home) -> dict[str, bool]:
    """The same, and of each whether it is the next of its site's chain; others wait for a missing one."""
    known = heads.read(home.tables)
    new, _ = inbox.arrived(home.uplink, known)
    return {path.name: number == known.get(site, Head()).number + 1 for site, number, path in new}


def watermarks(home: Home, usecase: UseCase, now: clock.Clock = clock.now) -> list[Watermark]:
    """How complete each site is, by name: those of the use case, and whoever else sent something.

    What came counts only if the site's key signed it: nobody else can make a gap. A site that is no longer in
    the use case is never stale: nothing more is waited for.
    """
    known, trusted = heads.read(home.tables), site_keys(home)
    new, _ = inbox.arrived(home.uplink, known)
    arrived: defaultdict[str, list[int]] = defaultdict(list)
    for site, number, path in new:
        if _signed(path, site, number, trusted):
            arrived[site].append(number)
    current = {site.name for site in usecase.sites}
    return [
        watermark.mark(
            site,
            known.get(site, Head()),
            arrived=arrived[site],
            refused=_refused(home, site, known.get(site, Head()).number, trusted),
            registered_at=_registered_at(home, site),
            stale_days=usecase.returns.stale_days if site in current else math.inf,
            now=now(),
        )
        for site in sorted(current | known.keys() | arrived.keys())
    ]


def held_back(home: Home, usecase: UseCase, now: clock.Clock = clock.now) -> list[Watermark]:
    """The sites of the use case for whose sake nothing is published now; none when it always publishes."""
    if usecase.returns.publish == "always":
        return []
    current = {site.name for site in usecase.sites}
    return [mark for mark in watermarks(home, usecase, now) if mark.site in current and not mark.whole]


def acks(home: Home) -> dict[str, bytes]:
    """A signed acknowledgement for each site that sent something, by site: of all its packages up to the
    first gap. None while there is no release key.

    They are made of what the tables say was merged, so they are never ahead of it, and the same until more
    is.
    """
    private = home.keys / f"{pack.KEY}.pem"
    if not private.exists():
        return {}
    key = signing.load_private(private)
    return {
        site: acknowledgements.make(site, head.number, head.digest, head.received_at, key)
        for site, head in sorted(heads.read(home.tables).items())
    }


def acknowledge(home: Home) -> list[str]:
    """Put acknowledgements where the sites' links find them, and give the names of sites for which there is
    a new one.

    Killed anywhere, the next call writes what is not there.
    """
    new = []
    with durable.locked(home.tables / ".acks.lock"):
        for site, data in acks(home).items():
            path = home.uplink / site / acknowledgements.NAME
            if not path.exists() or path.read_bytes() != data:
                durable.make_folder(path.parent)
                with durable.replacing(path) as file:
                    file.write(data)
                new.append(site)
    return new


def _refused(home: Home, site: str, head: int, trusted: Keys) -> list[int]:
    """Numbers after `head` of the site's packages in quarantine; other files there were no packages of it."""
    folder = home.refused / site
    found: list[int] = []
    for path in folder.iterdir() if folder.exists() else ():
        match = packages.NAME.match(path.name)
        number = int(match["number"]) if match and match["site"] == site else 0
        if number > head and number not in found and _signed(path, site, number, trusted):
            found.append(number)
    return found


def _signed(path: Path, site: str, number: int, trusted: Keys) -> bool:
    try:
        said = foreign.manifest_of(path, trusted.get(site, ()))
    except foreign.Rejected:
        return False
    return (said.site, said.number) == (site, number)


def _registered_at(home: Home, site: str) -> int | None:
    path = home.keys / "sites" / f"{site}{_SUFFIX}"
    return path.stat().st_mtime_ns // 1_000 if path.exists() else None
