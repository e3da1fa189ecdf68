"""What the egress and upload assets do at one site, in the terms of `returns`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edge_ai_assets.delivery import signing
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.egress.ledger import Ledger
from edge_ai_assets.returns.egress.policy import Policy
from edge_ai_assets.returns.outbox.outbox import Counts, Outbox
from edge_ai_assets.returns.package import packing
from edge_ai_assets.returns.package.parts import EventSource
from edge_ai_assets.returns.road import media
from edge_ai_assets.runtimes.choice import runtime
from edge_ai_assets.scoring import contract as contracts
from edge_ai_assets.scoring.contract import Contract
from edge_ai_assets.stack_hub import connecting, delivery, disk
from edge_ai_assets.stack_hub.far_ends import NOTHING_FAR, FarEnds
from edge_ai_assets.stack_hub.provision import PSEUDONYM_KEY, private_key
from edge_ai_assets.stack_hub.scoring import deployed_usecase
from edge_ai_assets.usecase import Road, UseCase

TO_CARRY = (
    "packages were sealed before the road was the queue, and stack_hub.toml has no [uplink] for them: "
    "carry them with `edge-ai returns export --site {} --to DIR`, Azure merges nothing after them before"
)
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
    lineage: int = 0
    """Events of the site's own Dagster."""
    stopped: str | None = None
    """Why not all that waits was packed."""
    room: disk.Room = field(default_factory=lambda: disk.Room(0, 0, 0))


def pack_all(
    site: SiteHome, events: Callable[[Policy], EventSource] | None = None, *, queued: bool = False
) -> Packed:
    """Pack everything that waits and may leave, under the policy of the running release, and make room.

    Args:
        events: what the site's own Dagster recorded, under a policy; None where Azure's Dagster is the same.
        queued: packages are made by the function, of what it finds on the queue: only room is made.
    """
    usecase = deployed_usecase(site)
    policy = Policy(usecase, (site.keys / PSEUDONYM_KEY).read_bytes())
    key = signing.load_private(private_key(site))
    running = runtime(site.root, site.name).status()
    packed = Packed(policy=policy.digest)
    with Outbox(site.outbox, create=False) as outbox:
        packed.room = disk.make_room(site, outbox, usecase.returns)
        if queued:
            return packed
        before, bound = outbox.counts(), disk.spool_bytes(usecase.returns)
        try:
            while sealed := packing.pack(
                outbox,
                site.name,
                policy,
                _contracts(site),
                key,
                site.spool,
                at=clock.now(),
                # Once: packing makes events itself, and would find some for ever.
                events=events(policy) if events and not packed.packages else None,
                inventory=sorted(delivery.store_of(site).inventory()),
                running=(running.release_id if running else None) or "",
                window_minutes=usecase.returns.window_minutes,
                spool_bytes=None if bound is None else bound - disk.copied_bytes(site),
                outbox_bytes=disk.packed_bytes(usecase.returns),
                stays=packed.withheld,
            ):
                packed.packages.append(sealed.package.name)
                packed.rows += sealed.package.rows
                packed.feedback += sealed.package.feedback
                packed.bytes += sealed.package.bytes
                packed.lineage += sealed.events
        except packing.SpoolFull as error:
            packed.stopped = str(error)
        packed.withheld_rows = outbox.counts().withheld - before.withheld
    return packed


@dataclass(frozen=True)
class Left:
    """What one pass over the spool let leave."""

    names: list[str]
    """Of packages."""
    bytes: int
    acknowledged: int
    """Packages that Azure was found to have merged."""
    waiting: int
    interrupted: str | None = None
    """Why it stopped early: what the link said."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """Packages that cannot leave, for their file is lost or damaged, with what to do about it."""


def let_leave(site: SiteHome, usecase: UseCase, root: Path, far: FarEnds = NOTHING_FAR) -> Left:
    """Let what is packed leave by the site's road: over its link, or into its `outgoing/`, to be carried.

    A cut of the link is no error, the rest waits. At a site whose function makes the packages, those leave
    that it had sealed itself when it had another road.
    """
    queued = usecase.at(site.name).road is Road.QUEUE
    if queued and not connecting.unsent(site):  # the function sends what it made
        return Left([], 0, 0, counts(site).pending)
    way = (connecting.sealed_before if queued else connecting.road)(site, usecase, root, far)
    if queued and way is None:
        return Left([], 0, 0, counts(site).pending, TO_CARRY.format(site.name))
    if way is not None:
        sent = connecting.send(site, way)
        return Left(sent.names, sent.bytes, sent.acknowledged, sent.waiting, sent.interrupted, sent.lost)
    site.outgoing.mkdir(exist_ok=True)
    with Outbox(site.outbox, create=False) as outbox:
        ledger = Ledger(site.ledger)
        put = media.export(outbox, site.spool, ledger, site.outgoing, only_new=True, link=True)
        return Left(put.names, put.bytes, 0, outbox.unsent_total(), lost=put.lost)


def counts(site: SiteHome) -> Counts:
    """What became of the site's scores; all 0 before the first."""
    if not site.outbox.exists():
        return NOTHING
    with Outbox(site.outbox, create=False) as outbox:
        return outbox.counts()


def removed(site: SiteHome) -> list[dict[str, Any]]:
    """What the tombstones tell of the scores that are no longer kept: state, kind, reason, rows, first and
    last sequence, and when the last of them went; a row for each state, kind and reason."""
    if not site.outbox.exists():
        return []
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    with Outbox(site.outbox, create=False) as outbox:
        graves = outbox.tombstones()
    for grave in graves:
        key = (grave.state, grave.kind, grave.reason)
        before = found.get(key, {"rows": 0, "first": grave.first, "last": grave.last, "at": ""})
        found[key] = {
            **dict(zip(("state", "kind", "reason"), key, strict=True)),
            "rows": before["rows"] + grave.rows,
            "first": min(before["first"], grave.first),
            "last": max(before["last"], grave.last),
            "at": max(before["at"], clock.iso(grave.at)),
        }
    return list(found.values())


def recount(site: SiteHome) -> Counts:
    """The same, counted row by row: slow, and does not rely on what was added up before."""
    if not site.outbox.exists():
        return NOTHING
    with Outbox(site.outbox, create=False) as outbox:
        return outbox.recount()


def as_dict(counted: Counts) -> Mapping[str, int]:
    return msgspec.structs.asdict(counted)


def _contracts(site: SiteHome) -> dict[str, Contract]:
    store = SiteStore(site.root)
    return {
        release.image: contracts.read(store.path(release) / "contract.json") for release in store.releases()
    }
