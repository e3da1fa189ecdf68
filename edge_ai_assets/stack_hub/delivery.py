"""What the deployment assets and their sensor do at one site, in the terms of `delivery` and `scoring`."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from edge_ai_assets import usecase as usecases
from edge_ai_assets.delivery import bundle as bundles
from edge_ai_assets.delivery import durable, split, withdrawing
from edge_ai_assets.delivery import release as releases
from edge_ai_assets.delivery import trust as trusts
from edge_ai_assets.delivery.errors import (
    DeliveryError,
    MissingError,
    RollbackError,
    WithdrawnError,
)
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.release import Release
from edge_ai_assets.delivery.source import Source
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust, Trusted, believed
from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.runtimes import interface as runtimes
from edge_ai_assets.runtimes.choice import runs_images, runtime
from edge_ai_assets.runtimes.interface import Running
from edge_ai_assets.scoring import folder
from edge_ai_assets.stack_hub import connecting, disk, withdrawn
from edge_ai_assets.stack_hub.provision import trust
from edge_ai_assets.stack_hub.rollout import control
from edge_ai_assets.stack_hub.rollout.rings import SiteState
from edge_ai_assets.usecase import Road

log = logging.getLogger(__name__)

READY_SECONDS = 60.0
"""In which a release must be ready: pulling its image is part of it."""


class NothingInstalled(RuntimeError):
    """The site has no release yet."""


@dataclass(frozen=True)
class Fetched:
    """What came to a site's disk."""

    release: Release
    """The newest one that is installed now."""
    refused: dict[str, str]
    """What was not taken, by name of the bundle, with the reason."""
    acknowledged: int = 0
    """Return packages of which a bundle brought Azure's acknowledgement."""


def fetch(site: SiteHome, registry: Path, road: Road, far: Source | None = None) -> Fetched:
    """Bring the newest release to the site's disk: from the registry, or without a link from carried bundles.

    Bundles that were carried here are taken in either case, so that a medium is never left unread; so are the
    acknowledgements in them.

    Args:
        registry: the folder that is the registry where both sides are in one home.
        far: the registry elsewhere that the site pulls from instead.

    Raises:
        NothingInstalled: nothing ever came: there is no way to the registry, and no bundle in `media/`.
        DeliveryError: the release does not check out, or a bundle does not, or the registry is out of reach
            or behind, and nothing brought anything new; what was there stays.
    """
    store, trusted = store_of(site), trust(site)
    before = store.newest()
    refused: dict[str, str] = {}
    acknowledged = 0
    problem: DeliveryError | None = None
    looked_at = carried_marker(site)
    for index in parts_carried(site):
        try:
            split.join(index, site.media)
        except DeliveryError as error:
            refused[index.name], problem = str(error), error
    for path in bundles_carried(site):
        try:
            bundles.import_bundle(path, store.layout, trusted, runs_images=store.runs_images)
        except RollbackError as error:
            refused[path.name] = str(error)  # it was left lying, or is an attack; either way no way forward
        except DeliveryError as error:
            refused[path.name], problem = str(error), error
        try:
            # Then: what is acknowledged is signed by itself, and true of whatever release it came with. The
            # key may be one that the bundle's own metadata brought.
            found = connecting.apply_acks_of(site, path, clock.now())
            acknowledged += found.packages if found else 0
        except DeliveryError as error:
            refused[path.name], problem = str(error), error
    linked = road.pulls and Link(site.root).up
    newest: Release | None = None
    if (looked_at or not linked) and releases.latest(store.layout, believed(trusted)) is not None:
        try:
            newest = _take(site, store, store.layout, trusted)
        except (WithdrawnError, MissingError) as error:  # none that is here: a link may bring another
            refused["what is on its disk"], problem = str(error), error
    elif not linked and problem is None:
        why = "its link is down (`edge-ai link up` restores it)" if road.pulls else f"its road is {road}"
        raise NothingInstalled(
            f"site {site.name} has nothing to run: {why}, and no bundle lies in {site.media}: carry one there"
        )
    if linked:
        try:
            newest = _take(site, store, far or Layout(registry), trusted)
        except DeliveryError as error:
            if not _allowed(site):
                raise
            # Also one that is behind what was carried here, or refuses us: what came is brought into service.
            newest, problem = installed(site), error
            refused["the release in the registry"] = str(error)
    with durable.replacing(site.taken) as file:
        file.write(looked_at.encode())
    if problem is not None and store.newest() == before and not untried(site):
        raise problem
    return Fetched(newest or installed(site), refused, acknowledged)


def store_of(site: SiteHome) -> SiteStore:
    """The site's releases: whole images if a container engine runs them, else models alone."""
    return SiteStore(site.root, runs_images=runs_images(site.root))


def _take(site: SiteHome, store: SiteStore, source: Source, trusted: Trust | Trusted) -> Release:
    """Install the newest release, or after a rollback the newest that the site may run."""
    state = control.read(site.home)
    if not state.backs:
        return store.fetch(source, trusted)
    known, taken_back = releases.versions(source.names()), trusts.withdrawn(believed(trusted))
    there = [each for each in known if state.allows(site.name, each) and each not in taken_back]
    if not there:
        back = state.backs[-1]
        raise MissingError(
            f"site {site.name} was rolled back to release {back.to} {back.said}; none that it may run is "
            "there (`edge-ai rollout resume` ends the rollback)"
        )
    # Also from what is the newest once those that were withdrawn do not count, to which `fetch` goes anyway.
    newest = store.newest()
    last = withdrawing.floor(store.releases()[-1].usecase, newest, believed(trusted)) if newest else None
    back_here = any(state.back(site.name, each) for each in (newest, last))
    return store.fetch(source, trusted, version=max(there), allow_rollback=back_here)


def bundles_carried(site: SiteHome) -> list[Path]:
    """Bundles in the site's `media/`, by version: a later one may build upon an earlier."""
    found = (path for path in site.media.glob("*.bundle") if not path.name.startswith("."))
    return sorted(found, key=lambda path: (len(path.name), path.name))


def parts_carried(site: SiteHome) -> list[Path]:
    """Lists of parts in the site's `media/`, from which a bundle is put together there."""
    return sorted(site.media.glob(f"*.bundle{split.SUFFIX}"))


def carried_marker(site: SiteHome) -> str:
    """What tells one state of `media/` from another, without reading the bundles."""
    files = [
        *bundles_carried(site),
        *parts_carried(site),
        *sorted(site.media.glob("*.bundle.[0-9][0-9][0-9]")),
    ]
    found = [(path, path.stat() if path.is_file() else path.lstat()) for path in files]
    seen = [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in found]
    return hashlib.sha256(repr(seen).encode()).hexdigest() if seen else ""


def installed(site: SiteHome) -> Release:
    """The newest release on the site's disk that it may run: none that it was rolled back from, and none that
    was withdrawn unless it has nothing else and serves it.

    Raises:
        NothingInstalled: there is none.
    """
    found = _allowed(site)
    if not found:
        raise NothingInstalled(f"site {site.name} has no release: materialize site/release first")
    return found[-1]


def _allowed(site: SiteHome) -> list[Release]:
    found = SiteStore(site.root).releases()
    try:
        state, taken_back = control.read(site.home), withdrawn.on_disk(site)
    except DeliveryError as error:
        # Nobody knows any more what was rolled back. What served last is no news, and may be started again.
        wish = folder.read_wish(site.root)
        log.error("site %s: %s", site.name, error)
        return [release for release in found if wish and release.version == wish.release.version]
    found = [release for release in found if state.allows(site.name, release.version)]
    good = [release for release in found if release.image not in taken_back]
    if good or not found:
        return good
    last = withdrawn.served_last(site)  # a site never stops by a withdrawal
    return [release for release in found if release.version == last]


def untried(site: SiteHome) -> bool:
    """Whether nobody asked the site's service yet to run the newest release on its disk that it may run."""
    found, wish = _allowed(site), folder.read_wish(site.root)
    if not found:
        return False
    newest = found[-1]
    if wish is not None:
        return wish.release.version != newest.version
    running = runtime(site.root, site.name).status()  # of a cluster, which keeps no wish in this folder
    if running is None or running.version == newest.version:
        return running is None
    return running.failed is None or running.failed.release_id != newest.image


def unpacked(site: SiteHome, release: Release) -> Path:
    """The folder with an installed release's files."""
    return SiteStore(site.root).path(release)


def deploy(site: SiteHome, release: Release) -> Running:
    """Let a release take over the site's scoring; DeploymentFailed leaves the former one serving."""
    if release.model is None:
        raise runtimes.DeploymentFailed(
            f"release {release.version} is a container that somebody else made, and what it needs to run is "
            f"not known here: `edge-ai kubernetes archive --site {site.name}` writes it as a file for others"
        )
    path = unpacked(site, release)
    quota = disk.outbox_bytes(usecases.load(path / "usecase.yaml").returns)
    wanted = runtimes.Release(release.image, release.version, path, quota)
    return runtime(site.root, site.name).deploy(wanted, timeout=READY_SECONDS)


def state(site: SiteHome, target: Release | None, road: Road) -> SiteState:
    """What the rollout needs to know of a site, but for its evidence.

    Args:
        target: the release that is brought to it; None when none is.
    """
    running, last = runtime(site.root, site.name).status(), folder.read_status(site.root)
    fell = running.failed if running else None
    return SiteState(
        serving=running.version if running else None,
        since=last.since if last else None,
        failed=fell.reason if fell and target and fell.release_id == target.image else None,
        linked=road.pulls and Link(site.root).up,
        fell=fell,
    )
