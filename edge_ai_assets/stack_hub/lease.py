"""How a site stands with its trust lease, and what is said and done about it.

The lease is what was signed; that it is over is decided by this machine's clock, which may be wrong: a clock
that is behind what was signed last is seen and said. What is refused then is `delivery.trust`'s, what people
see of it `lease_sensor`'s.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

import msgspec

from edge_ai_assets.delivery import durable, metadata
from edge_ai_assets.delivery.errors import DeliveryError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust
from edge_ai_assets.home import Home, SiteHome
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.scoring.lease import FILE, Note
from edge_ai_assets.stack_hub import provision
from edge_ai_assets.usecase import UseCase

log = logging.getLogger(__name__)


class State(StrEnum):
    """How a site stands."""

    FRESH = "fresh"
    STALE = "stale"
    """The lease is over."""
    CLOCK = "clock is behind"
    """Of what was signed, so its end would be seen too late."""
    NONE = "no lease"
    """Nothing was taken in yet, or the site trusts by a key alone."""


class Standing(NamedTuple):
    """How one site stands, and why."""

    site: str
    state: State
    until: datetime | None
    sentence: str

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
    if now >= lease.until:
        days = (now - lease.until).days
        ended = f"its trust lease ended {lease.until:%Y-%m-%d}, {days} days ago"
        said = f"{site.name} is STALE: {ended}; bring a newer bundle"
        return Standing(site.name, State.STALE, lease.until, said)
    if now < lease.issued:
        said = (
            f"the clock of {site.name} says {now:%Y-%m-%d}, but what it trusts was signed "
            f"{lease.issued:%Y-%m-%d}: set it"
        )
        return Standing(site.name, State.CLOCK, lease.until, said)
    left = (lease.until - now).days
    return Standing(
        site.name, State.FRESH, lease.until, f"{site.name}: {left} days of its trust lease are left"
    )


def note(site: SiteHome, usecase: UseCase) -> Standing:
    """Tell the scoring service when the lease ends and what is to be done then; how the site stands."""
    found = standing(site)
    if found.until is not None:
        data = msgspec.json.encode(Note(found.until, usecase.delivery.when_stale))
        path = site.root / FILE
        if not path.exists() or path.read_bytes() != data:
            with durable.locked(site.root / ".lease.lock"), durable.replacing(path) as file:
                file.write(data)
    return found


def renew(site: SiteHome, home: Home, usecase: UseCase) -> None:
    """Take newer trust metadata from the registry, if the site's link is up and there is some."""
    if not (usecase.at(site.name).road.pulls and Link(site.root).up and provision.root(site).exists()):
        return
    store, registry = SiteStore(site.root), Layout(home.registry)
    there = registry.tags().get(metadata.TAG)
    if there is not None and there != store.layout.tags().get(metadata.TAG):
        trust = provision.trust(site)
        assert isinstance(trust, Trust)
        store.renew(registry, trust)


def looked_at(home: Home, usecase: UseCase) -> list[Standing]:
    """Renew, note, and say how each site stands whose disk is here. One that is damaged is stale."""
    found = []
    for site in (home.site(each.name) for each in usecase.sites):
        if not site.root.is_dir():
            continue
        try:
            renew(site, home, usecase)
            found.append(note(site, usecase))
        except DeliveryError as error:
            log.error("site %s: %s", site.name, error)
            # What could not be renewed counts by what the site has; what it has may be what is damaged.
            found.append(_as_it_is(site, error))
    return found


def _as_it_is(site: SiteHome, problem: DeliveryError) -> Standing:
    try:
        found = standing(site)
    except DeliveryError as error:
        return Standing(site.name, State.STALE, None, f"{site.name}: {error}")
    return found._replace(sentence=f"{found.sentence} ({problem})")
