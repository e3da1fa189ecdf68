"""What the deployment assets and their sensor do at one site, in the terms of `delivery` and `scoring`."""

from __future__ import annotations

from pathlib import Path

from edge_ai_assets.delivery import bundle as bundles
from edge_ai_assets.delivery import signing
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.release import Release
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns.link import Link
from edge_ai_assets.scoring import folder, supervisor
from edge_ai_assets.stack_hub.provision import release_key
from edge_ai_assets.stack_hub.rollout import SiteState


class NothingInstalled(RuntimeError):
    """The site has no release yet."""


def fetch(site: SiteHome, registry: Path) -> Release:
    """Bring the newest release to the site's disk: from the registry, or without a link from carried bundles.

    Raises:
        LinkDown: there is no way to the registry, and no bundle in the site's `media/`.
        DeliveryError: the release does not check out; what was there stays.
    """
    store, link, trusted = SiteStore(site.root), Link(site.root), [signing.load_public(release_key(site))]
    if link.up:
        return store.fetch(Layout(registry), trusted)
    carried = sorted(site.media.glob("*.bundle"))
    if not carried:
        link.check()
    for path in carried:
        bundles.import_bundle(path, store.layout, trusted)
    return store.fetch(store.layout, trusted)


def installed(site: SiteHome) -> Release:
    """The newest release on the site's disk.

    Raises:
        NothingInstalled: there is none.
    """
    found = SiteStore(site.root).releases()
    if not found:
        raise NothingInstalled(f"site {site.name} has no release: materialize site/release first")
    return found[-1]


def unpacked(site: SiteHome, release: Release) -> Path:
    """The folder with an installed release's files."""
    return SiteStore(site.root).path(release)


def deploy(site: SiteHome, release: Release) -> supervisor.Status:
    """Let a release take over the site's scoring; DeploymentFailed leaves the former one serving."""
    return supervisor.deploy(
        site.root,
        site=site.name,
        release_id=release.image,
        version=release.version,
        path=unpacked(site, release),
    )


def state(site: SiteHome, target: Release) -> SiteState:
    """What the rollout needs to know of a site, but for its checks."""
    running, last = supervisor.status(site.root), folder.read_status(site.root)
    failed = (
        running.failed if running and running.failed and running.failed.release_id == target.image else None
    )
    return SiteState(
        serving=running.version if running else None,
        since=last.since if last else None,
        failed=failed.reason if failed else None,
        linked=Link(site.root).up,
    )
