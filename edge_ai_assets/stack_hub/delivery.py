"""What the deployment assets and their sensor do at one site, in the terms of `delivery` and `scoring`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edge_ai_assets import usecase as usecases
from edge_ai_assets.delivery import bundle as bundles
from edge_ai_assets.delivery import durable, split
from edge_ai_assets.delivery import release as releases
from edge_ai_assets.delivery.errors import DeliveryError, RollbackError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.release import Release
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import believed
from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.runtimes import interface as runtimes
from edge_ai_assets.runtimes.choice import runtime
from edge_ai_assets.runtimes.interface import Running
from edge_ai_assets.scoring import folder
from edge_ai_assets.stack_hub import connecting, disk
from edge_ai_assets.stack_hub.provision import trust
from edge_ai_assets.stack_hub.rollout import SiteState
from edge_ai_assets.usecase import Road

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
    """Bundles that were not taken, with the reason."""
    acknowledged: int = 0
    """Return packages of which a bundle brought Azure's acknowledgement."""


def fetch(site: SiteHome, registry: Path, road: Road) -> Fetched:
    """Bring the newest release to the site's disk: from the registry, or without a link from carried bundles.

    Bundles that were carried here are taken in either case, so that a medium is never left unread; so are the
    acknowledgements in them.

    Raises:
        NothingInstalled: nothing ever came: there is no way to the registry, and no bundle in `media/`.
        DeliveryError: the release does not check out, or a bundle does not and none brought anything new;
            what was there stays.
    """
    store, trusted = SiteStore(site.root), trust(site)
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
            bundles.import_bundle(path, store.layout, trusted)
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
    if (looked_at or not linked) and releases.latest(store.layout, believed(trusted)) is not None:
        newest = store.fetch(store.layout, trusted)
    elif not linked and problem is None:
        why = "its link is down (`edge-ai link up` restores it)" if road.pulls else f"its road is {road}"
        raise NothingInstalled(
            f"site {site.name} has nothing to run: {why}, and no bundle lies in {site.media}: carry one there"
        )
    if linked:
        newest = store.fetch(Layout(registry), trusted)
    with durable.replacing(site.taken) as file:
        file.write(looked_at.encode())
    if problem is not None and store.newest() == before and not untried(site):
        raise problem
    return Fetched(newest, refused, acknowledged)


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
    """The newest release on the site's disk.

    Raises:
        NothingInstalled: there is none.
    """
    found = SiteStore(site.root).releases()
    if not found:
        raise NothingInstalled(f"site {site.name} has no release: materialize site/release first")
    return found[-1]


def untried(site: SiteHome) -> bool:
    """Whether nobody asked the site's service yet to run the newest release on the site's disk."""
    newest, wish = SiteStore(site.root).newest(), folder.read_wish(site.root)
    if newest is None:
        return False
    if wish is not None:
        return wish.release.version != newest
    running = runtime(site.root, site.name).status()  # of a cluster, which keeps no wish in this folder
    return running is None or running.version != newest


def unpacked(site: SiteHome, release: Release) -> Path:
    """The folder with an installed release's files."""
    return SiteStore(site.root).path(release)


def deploy(site: SiteHome, release: Release) -> Running:
    """Let a release take over the site's scoring; DeploymentFailed leaves the former one serving."""
    path = unpacked(site, release)
    quota = disk.outbox_bytes(usecases.load(path / "usecase.yaml").returns)
    wanted = runtimes.Release(release.image, release.version, path, quota)
    return runtime(site.root, site.name).deploy(wanted, timeout=READY_SECONDS)


def state(site: SiteHome, target: Release, road: Road) -> SiteState:
    """What the rollout needs to know of a site, but for its checks."""
    running, last = runtime(site.root, site.name).status(), folder.read_status(site.root)
    failed = (
        running.failed if running and running.failed and running.failed.release_id == target.image else None
    )
    return SiteState(
        serving=running.version if running else None,
        since=last.since if last else None,
        failed=failed.reason if failed else None,
        linked=road.pulls and Link(site.root).up,
    )
