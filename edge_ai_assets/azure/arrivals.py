"""What the inbox asset and its sensor do with the packages in the uplink's folder, in the terms of
`returns.inbox`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from edge_ai_assets.delivery import signing
from edge_ai_assets.home import Home
from edge_ai_assets.returns import inbox, packages, tables
from edge_ai_assets.returns.inbox import Received

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def site_keys(home: Home) -> dict[str, Sequence[Ed25519PublicKey]]:
    """The public keys of the sites that were provisioned."""
    suffix = ".pub.pem"
    folder = home.keys / "sites"
    return {path.name.removesuffix(suffix): [signing.load_public(path)] for path in folder.glob(f"*{suffix}")}


def receive_all(home: Home) -> Received:
    """Receive until nothing is left that can be, a bounded number of packages at a time."""
    keys = site_keys(home)
    total = Received(0, 0, 0, 0, [], [], set())
    while True:
        one = inbox.receive(home.uplink, home.tables, keys, home.refused)
        total = msgspec.structs.replace(
            one,
            packages=total.packages + one.packages,
            insights=total.insights + one.insights,
            feedback=total.feedback + one.feedback,
            repeated=total.repeated + one.repeated,
            refused=total.refused + one.refused,
            days=total.days | one.days,
        )
        if not one.packages:
            return total


def new_packages(home: Home) -> list[str]:
    """Names of packages in the uplink's folder that were not received yet."""
    known = {(row["site"], row["number"]) for row in tables.rows(home.tables, "packages", ["site", "number"])}
    found = []
    for path in home.uplink.glob("*/*"):
        match = packages.NAME.fullmatch(path.name)
        if match and (path.parent.name, int(match["number"])) not in known:
            found.append(path.name)
    return sorted(found)
