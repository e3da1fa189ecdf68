"""What the egress and upload assets do at one site, in the terms of `returns`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edge_ai_assets.delivery import signing
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns import packing, uplink
from edge_ai_assets.returns.ledger import Ledger
from edge_ai_assets.returns.link import Link
from edge_ai_assets.returns.outbox import Counts, Outbox
from edge_ai_assets.returns.policy import Policy
from edge_ai_assets.scoring import contract as contracts
from edge_ai_assets.scoring.contract import Contract
from edge_ai_assets.stack_hub.provision import PSEUDONYM_KEY, private_key
from edge_ai_assets.stack_hub.scoring import deployed_usecase

NOTHING = Counts(scored=0, uploaded=0, withheld=0, quarantined=0, expired=0, pending=0)


@dataclass
class Packed:
    """What one pass over the outbox packed."""

    policy: str
    packages: list[str] = field(default_factory=list)
    rows: int = 0
    feedback: int = 0
    bytes: int = 0
    withheld_rows: int = 0
    """Scores that stay by policy."""
    withheld: Counter[str] = field(default_factory=Counter)
    """Scores and feedback that stay, by reason, as far as they were packed beside something that leaves."""


def pack_all(site: SiteHome) -> Packed:
    """Pack everything that waits and may leave, under the policy of the running release."""
    policy = Policy(deployed_usecase(site), (site.keys / PSEUDONYM_KEY).read_bytes())
    key = signing.load_private(private_key(site))
    packed = Packed(policy=policy.digest)
    with Outbox(site.outbox, create=False) as outbox:
        before = outbox.counts()
        while sealed := packing.pack(
            outbox, site.name, policy, _contracts(site), key, site.spool, at=time.time_ns() // 1000
        ):
            packed.packages.append(sealed.package.name)
            packed.rows += sealed.package.rows
            packed.feedback += sealed.package.feedback
            packed.bytes += sealed.package.bytes
            packed.withheld.update(sealed.withheld)
        packed.withheld_rows = outbox.counts().withheld - before.withheld
    return packed


def upload(site: SiteHome, root: Path) -> uplink.Uploaded:
    """Send what is packed over the site's link; a cut is no error, the rest waits."""
    road = uplink.FolderUplink(root, site.name, Link(site.root))
    with Outbox(site.outbox, create=False) as outbox:
        return uplink.upload(outbox, site.spool, road, Ledger(site.ledger))


def counts(site: SiteHome) -> Counts:
    """What became of the site's scores; all 0 before the first."""
    if not site.outbox.exists():
        return NOTHING
    with Outbox(site.outbox, create=False) as outbox:
        return outbox.counts()


def recount(site: SiteHome) -> Counts:
    """The same, counted row by row: slow, and does not rely on what was added up before."""
    if not site.outbox.exists():
        return NOTHING
    with Outbox(site.outbox, create=False) as outbox:
        return outbox.recount()


def conserved(site: SiteHome) -> bool:
    """Whether scored = uploaded + withheld + quarantined + expired + pending."""
    return counts(site).conserved


def as_dict(counted: Counts) -> Mapping[str, int]:
    return msgspec.structs.asdict(counted)


def _contracts(site: SiteHome) -> dict[str, Contract]:
    store = SiteStore(site.root)
    return {
        release.image: contracts.read(store.path(release) / "contract.json") for release in store.releases()
    }
