"""How a site stands with its trust lease, and what is said and done about it.

The lease is what was signed; that it is over is decided by this machine's clock, which may be wrong: a clock
that is behind what was signed last is seen and said. What is refused then is `delivery.trust`'s, what people
see of it `lease_sensor`'s.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edge_ai_assets.delivery import metadata
from edge_ai_assets.delivery.errors import UnreachableError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.listing import Withdrawal
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust
from edge_ai_assets.home import Home, SiteHome
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.runtimes.choice import runtime
from edge_ai_assets.runtimes.interface import DeploymentFailed
from edge_ai_assets.scoring.lease import Note
from edge_ai_assets.stack_hub import provision, withdrawn
from edge_ai_assets.stack_hub.far_ends import NOTHING_FAR, FarEnds
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    from edge_ai_assets.delivery.registry import Registry

log = logging.getLogger(__name__)


class State(StrEnum):
    """How a site stands."""

    FRESH = "fresh"
    STALE = "stale"
    """The lease is over."""
    CLOCK = "clock is behind"
    """Of what was signed, so its end would be seen too late."""
    WITHDRAWN = "withdrawn"
    """What it runs was withdrawn, and its lease is not over."""
    NONE = "no lease"
    """Nothing was taken in yet, or the site trusts by a key alone."""


class Standing(NamedTuple):
    """How one site stands, and why."""

    site: str
    state: State
    until: datetime | None
    sentence: str
    issued: datetime | None = None

    @property
    def good(self) -> bool:
        return self.state in (State.FRESH, State.NONE)


def standing(site: SiteHome, now: datetime | None = None) -> Standing:
    """How a site stands by `now`, this machine's clock when absent.

    Raises:
        DeliveryError: what it trusts by is damaged.
    """
    now = now or datetime.now(UTC)
    trust = provision.trust(site) if provision.root(site).exists() else None
    lease = trust.lease() if isinstance(trust, Trust) else None
    if lease is None:
        return Standing(site.name, State.NONE, None, f"{site.name} has no trust lease yet")
    taken_back = _withdrawn(site)
    runs = f"release {taken_back[0]}, which was {taken_back[1]}" if taken_back else ""
    if now >= lease.until:  # first: the service may have stopped by it
        days = (now - lease.until).days
        ended = f"its trust lease ended {lease.until:%Y-%m-%d}, {days} days ago"
        also = f", and it runs {runs}" if runs else ""
        said = f"{site.name} is STALE: {ended}{also}; bring a newer bundle"
        return Standing(site.name, State.STALE, lease.until, said, lease.issued)
    if runs:
        said = f"{site.name} runs {runs}; it goes on until it has another"
        return Standing(site.name, State.WITHDRAWN, lease.until, said, lease.issued)
    if now < lease.issued:
        said = (
            f"the clock of {site.name} says {now:%Y-%m-%d}, but what it trusts was signed "
            f"{lease.issued:%Y-%m-%d}: set it"
        )
        return Standing(site.name, State.CLOCK, lease.until, said, lease.issued)
    left = (lease.until - now).days
    said = f"{site.name}: {left} days of its trust lease are left"
    return Standing(site.name, State.FRESH, lease.until, said, lease.issued)


def _withdrawn(site: SiteHome) -> tuple[int, Withdrawal] | None:
    try:
        return withdrawn.serving(site)
    except DeploymentFailed as error:  # a cluster that does not answer says nothing of the lease
        log.error("site %s: %s", site.name, error)
        return None


def note(site: SiteHome, usecase: UseCase) -> Standing:
    """Tell the scoring service when the lease ends and what is to be done then, and which releases were
    withdrawn; how the site stands."""
    found = standing(site)
    if found.until is not None:
        taken_back = {image: str(why) for image, why in withdrawn.on_disk(site).items()}
        said = Note(found.until, usecase.delivery.when_stale, found.issued, taken_back)
        runtime(site.root, site.name).trust(msgspec.json.encode(said))
    return found


def renew(site: SiteHome, home: Home, usecase: UseCase, far: Registry | None = None) -> None:
    """Take newer trust metadata from the registry, if the site's link is up and there is some."""
    if not (usecase.at(site.name).road.pulls and Link(site.root).up and provision.root(site).exists()):
        return
    store, source = SiteStore(site.root), far or Layout(home.registry)
    there, here = source.head(metadata.TAG), store.layout.head(metadata.TAG)
    if there is not None and there != here:
        trust = provision.trust(site)
        assert isinstance(trust, Trust)
        store.renew(source, trust)


def looked_at(home: Home, usecase: UseCase, far: FarEnds = NOTHING_FAR) -> list[Standing]:
    """Renew, note, and say how each site stands whose disk is here. One that is damaged is stale."""
    found, registry, away = [], far.registry(), False
    for site in (home.site(each.name) for each in usecase.sites):
        if not site.root.is_dir():
            continue
        try:
            if not away:
                renew(site, home, usecase, registry)
            found.append(note(site, usecase))
        except Exception as error:  # whatever it is, it is that site's, and keeps no other from its lease
            log.error("site %s: %s", site.name, error)
            away = away or isinstance(error, UnreachableError)  # asking it for each site would take minutes
            # What could not be renewed counts by what the site has; what it has may be what is damaged.
            found.append(_as_it_is(site, error))
    return found


def _as_it_is(site: SiteHome, problem: Exception) -> Standing:
    try:
        found = standing(site)
    except Exception as error:
        return Standing(site.name, State.STALE, None, f"{site.name}: {error}")
    return found._replace(sentence=f"{found.sentence} ({problem})")
