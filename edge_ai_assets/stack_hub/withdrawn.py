"""What a site makes of releases that were withdrawn: which of those on its disk they are, and whether it has
another to run.

A site never stops by it: what serves goes on until another release takes over. That one was withdrawn is
said in `delivery.withdrawing`, and told by `lease`, to people and to the site's service.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from edge_ai_assets.delivery.listing import Withdrawal
from edge_ai_assets.delivery.manifest import Digest
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import believed, withdrawal
from edge_ai_assets.home import SiteHome
from edge_ai_assets.runtimes.choice import runtime
from edge_ai_assets.scoring import folder
from edge_ai_assets.stack_hub import provision

SITES = 4096
"""So many are remembered between two looks: a sensor asks every few seconds, and signatures take 2 ms."""


def on_disk(site: SiteHome) -> Mapping[Digest, Withdrawal]:
    """Which of the releases on a site's disk were withdrawn, as far as it heard, by their images.

    Raises:
        DeliveryError: what it trusts by is damaged.
    """
    if not provision.root(site).exists():
        return {}  # what it trusts is a key, by which nobody can say so
    return _on_disk(site, SiteStore(site.root).stamp())


@lru_cache(SITES)
def _on_disk(site: SiteHome, stamp: tuple[tuple[int, int], ...]) -> Mapping[Digest, Withdrawal]:
    installed = SiteStore(site.root).releases()
    if not installed:
        return {}
    trusted = believed(provision.trust(site))
    said = {each.image: withdrawal(trusted, each.usecase, each.version) for each in installed}
    return MappingProxyType({image: each for image, each in said.items() if each})


def versions(site: SiteHome) -> dict[int, Withdrawal]:
    """The same, by their versions."""
    said = on_disk(site)
    return {each.version: said[each.image] for each in SiteStore(site.root).releases() if each.image in said}


def serving(site: SiteHome) -> tuple[int, Withdrawal] | None:
    """The version that serves a site although it was withdrawn, and who said so; None when all is well.

    Raises:
        DeliveryError: as `on_disk`.
        DeploymentFailed: what serves cannot be found out.
    """
    taken_back = on_disk(site)
    running = runtime(site.root, site.name).status() if taken_back else None
    said = taken_back.get(running.release_id) if running else None
    return (running.version, said) if running and said else None


def way_out(site: SiteHome) -> Digest | None:
    """The image of a release on a site's disk that is to serve in place of one that was withdrawn; None when
    nothing withdrawn serves, there is no other, or it failed there already. Errors of `serving`."""
    from edge_ai_assets.stack_hub import delivery

    taken_back = on_disk(site)
    running = runtime(site.root, site.name).status() if taken_back else None
    if running is None or running.release_id not in taken_back:
        return None
    try:
        wanted = delivery.installed(site).image
    except delivery.NothingInstalled:  # a rollback leaves nothing of what is here
        return None
    failed = running.failed and running.failed.release_id == wanted
    return None if failed or wanted in taken_back else wanted


def served_last(site: SiteHome) -> int | None:
    """The version that serves a site, or was last asked to; None when none ever was."""
    # Not the wish first: what was wanted may have failed, and what was before goes on.
    if running := runtime(site.root, site.name).status():
        return running.version
    wish = folder.read_wish(site.root)
    return wish.release.version if wish else None
