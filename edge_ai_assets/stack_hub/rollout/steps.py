"""What operators do about releases on their way, for the job and the command line alike: one call each.

Each returns the observations that tell of it; who writes them into Dagster's log is the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import NamedTuple

import dagster as dg

from edge_ai_assets.delivery import pack
from edge_ai_assets.delivery import release as releases
from edge_ai_assets.delivery.errors import DeliveryError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.listing import Withdrawal
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.home import Home
from edge_ai_assets.stack_hub import withdrawn
from edge_ai_assets.stack_hub.rollout import control, telling
from edge_ai_assets.stack_hub.rollout.control import RolloutError, State
from edge_ai_assets.usecase import Ring, UseCase

log = logging.getLogger(__name__)

MAX_WHY = 500
"""Characters of the reason of a withdrawal, which every site is sent, and keeps."""


class Done(NamedTuple):
    """What holds now, and what is to be told of it."""

    state: State
    events: list[dg.AssetObservation]


def pause(home: Home, who: str, why: str) -> Done:
    """Ask no site for a new release, until `resume`."""
    release = _newest(home)
    state = control.pause(home, who, why)
    return Done(state, [telling.of_release("paused", release, f"paused by {who}: {why}")])


def resume(
    home: Home,
    usecase: UseCase,
    who: str,
    why: str,
    *,
    sites: Sequence[str] = (),
    accept: Ring | None = None,
) -> Done:
    """End a pause, a halt and rollbacks; with `sites` only their rollbacks.

    Args:
        accept: go on after this ring for the newest release, whatever its evidence is.
    """
    here = _here(home, usecase, sites)
    release = _newest(home)
    before = control.read(home)
    state = control.resume(home, who, why, sites=sites, accept=(release, accept) if accept else None)
    said = f"resumed by {who}: {why}" + (f"; ring {accept} is accepted as it is" if accept else "")
    events = [] if sites else [telling.of_release("resumed", release, said)]
    back = [site for site in here if before.back(site, release)]
    events += [
        telling.of_site("resumed", site, release, said) for site in back if state.allows(site, release)
    ]
    return Done(state, events)


def roll_back(
    home: Home,
    usecase: UseCase,
    who: str,
    why: str,
    *,
    to: int | None = None,
    sites: Sequence[str] = (),
) -> Done:
    """Bring sites back to an older release, and keep from them what is newer, until something newer comes.

    Args:
        to: when absent, the newest of those before that none of these sites was rolled back from.
        sites: all when empty.
    """
    here = _here(home, usecase, sites)
    newest, known = _newest(home), _known(home)
    older = [version for version in known if version < newest]
    if not older:
        raise RolloutError(f"release {newest} is the only one: there is none to go back to")
    where = list(sites) or here
    if to is None:
        state = control.read(home)
        good = (each for each in reversed(older) if all(state.allows(site, each) for site in where))
        to = next(good, None)
    if to is None:
        raise RolloutError("each older release was rolled back from itself: say which one is to run")
    if to not in older:
        raise RolloutError(f"release {to} is none to go back to: there are {', '.join(map(str, older))}")
    state = control.roll_back(home, who, why, to=to, release=newest, sites=sites or None)
    said = f"rolled back from {newest} to {to} by {who}: {why}"
    events = [telling.of_release("rolled_back", newest, said, {"to": to, "sites": ", ".join(where)})]
    events += [telling.of_site("rolled_back", site, newest, said, {"to": to}) for site in where]
    return Done(state, events)


def withdraw(home: Home, usecase: UseCase, who: str, why: str, *, release: int) -> Done:
    """Take a release back, for good: no site installs it any more, or goes back to it.

    Its bundles in the home are removed. Publishing it elsewhere is the caller's, and later the matter of
    `lease_renewed`. Again records it again, and changes nothing.

    Raises:
        RolloutError: there is no such release, or this is the home of one site.
        DeliveryError: it cannot be signed, or the registry's list does not check out.
    """
    if home.own_site:
        raise RolloutError(
            f"this is the home of site {home.own_site!r}: releases are withdrawn on Azure's side; "
            "`edge-ai rollout rollback` keeps this site from one"
        )
    known = _published(home)
    if release not in known:
        raise RolloutError(f"there is no release {release}: there are {', '.join(map(str, known)) or 'none'}")
    said = control.said(who, why, most=MAX_WHY)
    wanted = Withdrawal(said.who, said.why, said.at)
    held = pack.withdraw(home.registry, home.keys, release, wanted, usecase.delivery.lease)
    for path in home.media.rglob(f"{usecase.name}-{release}.bundle*"):
        path.unlink(missing_ok=True)  # another may have taken it away
    newest = pack.newest(home.registry, home.keys)
    told = f"release {release} was {held}"
    after = {"newest": newest.version} if newest else {}
    return Done(control.read(home), [telling.of_release("withdrawn", release, told, after)])


def _newest(home: Home) -> int:
    known = _known(home)
    if not known:
        raise RolloutError(f"{home.root} holds no release yet: there is nothing to pause or to roll back")
    return known[-1]


def _known(home: Home) -> list[int]:
    """Versions of the releases in the registry that were not withdrawn; in the home of one site, of those on
    its disk.

    Whether they check out is seen where they are installed: one that is damaged must keep no site from
    another, and nor must a list that cannot be read.
    """
    taken_back: Collection[int] = ()
    site = home.site(home.own_site) if home.own_site else None
    try:
        taken_back = withdrawn.versions(site) if site else pack.withdrawn(home.registry, home.keys)
    except DeliveryError as error:
        log.error("which releases were withdrawn is not known: %s", error)
    there = [release.version for release in SiteStore(site.root).releases()] if site else _published(home)
    return [version for version in there if version not in taken_back]


def _published(home: Home) -> list[int]:
    return releases.versions(Layout(home.registry).tags())


def _here(home: Home, usecase: UseCase, named: Sequence[str]) -> list[str]:
    """The sites that are decided about here; RolloutError when another one is named."""
    names = [site.name for site in usecase.sites]
    if own := home.own_site:
        names = [own]
    for name in named:
        if name not in names:
            if own:
                raise RolloutError(
                    f"this is the home of site {own!r}: nothing is decided about {name!r} here"
                )
            raise RolloutError(
                f"site {name!r} is not in use case {usecase.name!r}: it has {', '.join(names)}"
            )
    return names
