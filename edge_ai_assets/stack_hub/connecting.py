"""A site's road home: which it is, whether it is open, and sending over it, in the terms of `returns`.

What is known of the link is kept in the site's `connectivity.json`, so that a restart goes on where it was.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_ai_assets.delivery import durable
from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.egress.ledger import Ledger
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.road import connectivity, uplink
from edge_ai_assets.returns.road.acknowledging import Acknowledged, acknowledge
from edge_ai_assets.returns.road.connectivity import TIMING, Chance, Change, Connectivity, State, Timing
from edge_ai_assets.returns.road.link import Link, LinkDown
from edge_ai_assets.returns.road.pace import Pace
from edge_ai_assets.returns.road.uplink import DiodeUplink, FolderUplink, Uplink, Uploaded
from edge_ai_assets.stack_hub.far_ends import NOTHING_FAR, FarEnds
from edge_ai_assets.stack_hub.provision import azure_keys
from edge_ai_assets.usecase import Road, UseCase

log = logging.getLogger(__name__)

FILE = "connectivity.json"
UNTOLD = 16
"""Most changes that are kept until they were told."""


class NoRoad(RuntimeError):
    """The site sends nothing anywhere; the message says how its packages come home."""


@dataclass(frozen=True)
class Look:
    """What a look at a site's road found."""

    link: Connectivity
    changes: tuple[Change, ...] = ()
    """That nobody said to `forget`, oldest first."""
    upload_due: bool = False
    """Packages wait, and may be sent now."""
    acknowledged: int = 0
    """Packages whose acknowledgement this look brought."""

    @property
    def state(self) -> State:
        return self.link.state

    @property
    def changed(self) -> Change | None:
        """The last of the changes."""
        return self.changes[-1] if self.changes else None


class _Kept(msgspec.Struct, frozen=True):
    """What the file holds."""

    link: Connectivity = Connectivity()
    untold: tuple[Change, ...] = ()


def road(site: SiteHome, usecase: UseCase, root: Path, far: FarEnds = NOTHING_FAR) -> Uplink | None:
    """A site's way to Azure, as the use case names it; None when everything is carried by hand.

    Args:
        root: Azure's end of the links, and the near end of a diode.
        far: what a link leads to instead, if that is configured.
    """
    kind = usecase.at(site.name).road
    pace = Pace.of(usecase.returns.kilobytes_per_second)
    if kind is Road.DIODE:
        return DiodeUplink(root, site.name, Link(site.root), pace)
    if kind is Road.LINK:
        return far.uplink(site, pace) or FolderUplink(root, site.name, Link(site.root), pace)
    return None


def sealed_before(site: SiteHome, usecase: UseCase, root: Path, far: FarEnds = NOTHING_FAR) -> Uplink | None:
    """The way of packages that a site sealed before its road became the queue; None where they have to be
    carried: the hub is a real one, and the site knows no uplink.

    Azure merges none of the function's packages before these came.
    """
    pace = Pace.of(usecase.returns.kilobytes_per_second)
    if way := far.uplink(site, pace):
        return way
    return None if far.profile.queue else FolderUplink(root, site.name, Link(site.root), pace)


def look(
    site: SiteHome,
    way: Uplink | None,
    now: int,
    *,
    chance: Chance = random.random,
    timing: Timing = TIMING,
) -> Look:
    """See whether packages should be sent now. At most one probe, when one is due; a probe that works brings
    Azure's acknowledgement with it.

    A way that gives no answers is never probed: what waits there is tried again when a retry is due. Without
    a way nothing is done at all.

    Args:
        way: see `road`.
        now: µs since 1970, UTC.
    """
    if way is None:
        return Look(Connectivity())
    with durable.locked(_lock(site)):
        kept = _read(site)
        due = connectivity.due(kept.link, now)
        found, fresh = kept, 0
        if way.answers and due == "probe":
            try:
                way.probe()
                data = way.acknowledgement()
            except LinkDown as error:
                found = _after(kept, connectivity.failed(kept.link, now, str(error), chance, timing))
            else:
                found = _after(kept, connectivity.succeeded(kept.link, now, timing))
                fresh = apply_ack(site, data, now).packages if data is not None else 0
        if found != kept:
            _write(site, found)
    able = found.link.state is State.CONNECTED if way.answers else due != "wait"
    return Look(found.link, found.untold, able and unsent(site), fresh)


def report(
    site: SiteHome,
    now: int,
    failure: str | None,
    *,
    chance: Chance = random.random,
    timing: Timing = TIMING,
) -> Connectivity:
    """Note what a real operation met: the state of the link follows it.

    Args:
        failure: what LinkDown said; None when the other side was reached.
    """
    with durable.locked(_lock(site)):
        kept = _read(site)
        if failure is None:
            found = _after(kept, connectivity.succeeded(kept.link, now, timing))
        else:
            found = _after(kept, connectivity.failed(kept.link, now, failure, chance, timing))
        _write(site, found)
    return found.link


def forget(site: SiteHome, told: Collection[Change]) -> None:
    """These changes were told and are durable elsewhere: no look gives them again."""
    with durable.locked(_lock(site)):
        kept = _read(site)
        rest = tuple(change for change in kept.untold if change not in told)
        _write(site, msgspec.structs.replace(kept, untold=rest))


def hint(site: SiteHome) -> None:
    """Somebody says that the link is back: the next look asks at once, however long it was to wait."""
    if not site.root.exists():
        return
    with durable.locked(_lock(site)):
        kept = _read(site)
        _write(site, msgspec.structs.replace(kept, link=msgspec.structs.replace(kept.link, wait=0)))


def known(site: SiteHome) -> Connectivity:
    """What is known of a site's link, without asking it."""
    return _read(site).link


def send(site: SiteHome, way: Uplink | None, now: clock.Clock = clock.now) -> Uploaded:
    """Send what is packed, apply Azure's acknowledgement if one came, and note how the link was. A cut is no
    error, the rest waits.

    Raises:
        NoRoad: the site's packages are carried by hand.
        UplinkError: see `uplink.upload`.
    """
    if way is None:
        raise NoRoad(
            f"site {site.name} has no link and sends nothing: carry its packages with "
            f"`edge-ai returns export --site {site.name} --to DIR`"
        )
    with Outbox(site.outbox, create=False) as outbox:
        sent = uplink.upload(outbox, site.spool, way, Ledger(site.ledger), now, _trusted(site))
    if sent.interrupted or sent.packages or way.answers:
        report(site, now(), sent.interrupted)
    return sent


def apply_ack(site: SiteHome, data: bytes, now: int) -> Acknowledged:
    """Act upon an acknowledgement, whatever brought it; one that does not check out is logged and ignored.

    Args:
        data: the envelope, unverified.
        now: µs since 1970, UTC.
    """
    if not site.outbox.exists():
        return Acknowledged(None, 0, f"site {site.name} has no outbox yet")
    with Outbox(site.outbox, create=False) as outbox:
        return acknowledge(outbox, data, site.name, _trusted(site), now)


def apply_acks_of(site: SiteHome, bundle: Path, now: int) -> Acknowledged | None:
    """Act upon the acknowledgement for this site in a release bundle; None when it holds none.

    Raises:
        DeliveryError: it is no bundle.
    """
    from edge_ai_assets.delivery import bundle as bundles

    data = bundles.acks(bundle).get(site.name)
    return None if data is None else apply_ack(site, data, now)


def _trusted(site: SiteHome) -> list[Ed25519PublicKey]:
    return azure_keys(site)


def unsent(site: SiteHome) -> bool:
    """Whether packages lie in the spool that the other side is not known to have."""
    if not site.outbox.exists():
        return False
    with Outbox(site.outbox, create=False) as outbox:
        return bool(outbox.unsent())


def _after(kept: _Kept, became: tuple[Connectivity, Change | None]) -> _Kept:
    link, change = became
    return _Kept(link, (*kept.untold, change)[-UNTOLD:] if change else kept.untold)


def _lock(site: SiteHome) -> Path:
    return site.root / f".{FILE}.lock"


def _read(site: SiteHome) -> _Kept:
    try:
        return msgspec.json.decode((site.root / FILE).read_bytes(), type=_Kept)
    except FileNotFoundError:
        return _Kept()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # It is found out again by the next probe: nothing but durations is lost.
        log.warning("site %s: %s cannot be read and is begun anew: %s", site.name, FILE, error)
        return _Kept()


def _write(site: SiteHome, kept: _Kept) -> None:
    with durable.replacing(site.root / FILE) as file:
        file.write(msgspec.json.encode(kept))
