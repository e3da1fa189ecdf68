"""What the release assets do, in two calls: the champion's folder becomes a signed release, the release a
bundle."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from edge_ai_assets.delivery import base as bases
from edge_ai_assets.delivery import bundle as bundles
from edge_ai_assets.delivery import ceremony, metadata, signing, withdrawing
from edge_ai_assets.delivery import image as images
from edge_ai_assets.delivery import release as releases
from edge_ai_assets.delivery import trust as trusts
from edge_ai_assets.delivery.authority import LEASE, Authority
from edge_ai_assets.delivery.errors import MissingError
from edge_ai_assets.delivery.keyring import Keyring
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.listing import Withdrawal, path_of
from edge_ai_assets.delivery.manifest import Digest
from edge_ai_assets.delivery.release import Release
from edge_ai_assets.delivery.trust import Trust, Trusted, withdrawal

KEY = ceremony.ONLINE


def release(model: Path, registry: Path, keys: Path, usecase: str, lease: timedelta = LEASE) -> Release:
    """Publish a model's folder as the next release; the model that is out already stays the release it is.

    It lies on the runtime image that the registry holds, if it holds one: see `runtime`.

    Args:
        model: what training wrote, with `lineage.json`.
        keys: holds the keys of all roles; made on first use.
        lease: how long a site that hears nothing may rely on what is released.
    """
    from edge_ai_assets.delivery import attest
    from edge_ai_assets.ml import evaluation, lineage

    layout, came_from, metrics = Layout(registry), lineage.read(model), evaluation.recorded(model)
    signer = current(registry, keys, lease)
    below = layout.tags().get(bases.TAG)
    made = images.build(model, layout, annotations={"org.opencontainers.image.title": usecase}, base=below)
    return releases.publish(
        layout,
        image=made,
        attached=attest.attach(layout, made, model, usecase=usecase, came_from=came_from, metrics=metrics),
        usecase=usecase,
        run_id=came_from.training_run,
        data_version=came_from.training_set,
        metrics=metrics,
        key=signing.load_private(keys / f"{KEY}.pem"),
        authority=signer,
    )


def container(
    source: Layout, name: str, registry: Path, keys: Path, usecase: str, lease: timedelta = LEASE
) -> Release:
    """Publish an image that somebody else made as the next release: the same signing, the same roads.

    Args:
        source, name: where it is; see `base.copy`.
    """
    layout = Layout(registry)
    signer = current(registry, keys, lease)
    with layout.writing():
        image = bases.copy(source, name, layout).digest
        return releases.publish(
            layout,
            image=image,
            usecase=usecase,
            run_id="",
            data_version="",
            metrics={},
            key=signing.load_private(keys / f"{KEY}.pem"),
            authority=signer,
            container=True,
        )


def runtime(source: Layout, name: str, registry: Path) -> Digest:
    """Take a runtime image into the registry: every model that is released from now on lies on it. Errors of
    `base.copy`."""
    return bases.keep(source, name, Layout(registry)).digest


def bundle(
    registry: Path,
    keys: Path,
    media: Path,
    *,
    have: frozenset[Digest] = frozenset(),
    acks: Mapping[str, bytes] | None = None,
    lease: timedelta = LEASE,
) -> Path:
    """Write the newest release as an offline bundle; its path. Where each was withdrawn, the bundle brings
    that word, and no site installs anything by it.

    Args:
        have: what the site that it is for has already.
        acks: acknowledgements that ride along, by site.
        lease: see `release`; a tenth of it is the most that a bundle's metadata may be old.

    Raises:
        MissingError: there is no release yet.
    """
    layout = Layout(registry)
    last = newest(registry, keys) or releases.latest(layout, _trusted(registry, keys))
    if last is None:
        raise MissingError(f"{registry} holds no release: materialize release/image first")
    signer = current(registry, keys, lease)
    media.mkdir(parents=True, exist_ok=True)
    return bundles.build(layout, last.version, media, Trust(signer.root, layout), have=have, acks=acks)


def withdraw(
    registry: Path, keys: Path, version: int, said: Withdrawal, lease: timedelta = LEASE
) -> Withdrawal:
    """Take back a release in the registry; what holds. See `withdrawing.withdraw`."""
    return withdrawing.withdraw(Layout(registry), version, current(registry, keys, lease), said)


def withdrawn(registry: Path, keys: Path) -> dict[int, Withdrawal]:
    """The releases of the registry that were withdrawn, by version."""
    return trusts.withdrawn(_trusted(registry, keys))


def current(registry: Path, keys: Path, lease: timedelta = LEASE) -> Authority:
    """Sign the registry's trust metadata anew if that is due; who signs for it.

    Keys and metadata are made when there are none, and releases from before that are listed.
    """
    signer, layout = ceremony.authority(keys, lease), Layout(registry)
    with layout.editing() as tags:
        if metadata.TAG not in tags:
            own = [signing.load_public(signing.public_path(keys / f"{KEY}.pem"))]
            found = [
                releases.read(layout, tags[f"release-{number}"], own) for number in releases.versions(tags)
            ]
            signed = {
                path_of(each.release.usecase, each.release.version): layout.get(
                    each.blobs[1].digest, max_bytes=releases.MAX_STATEMENT
                )
                for each in found
            }
            tags[metadata.TAG] = signer.listed(layout, tags, signed)
        else:
            tags[metadata.TAG] = signer.current(layout, tags)
    return signer


def root(registry: Path, keys: Path) -> bytes:
    """The newest root metadata: what a site is given to trust by. MissingError when there is none."""
    return Authority(ceremony.first_root(keys), Keyring([])).latest_root(Layout(registry))


def get(registry: Path, keys: Path, version: int) -> Release:
    """A release in the registry, checked; MissingError when there is none of that version."""
    return releases.get(Layout(registry), version, _trusted(registry, keys))


def known(registry: Path, keys: Path) -> list[Release]:
    """Every release in the registry, checked, oldest first; none before the first."""
    layout = Layout(registry)
    # What is there first, then what is listed: the other way round, a release in between would not be listed.
    versions = releases.versions(layout.tags())
    trusted = _trusted(registry, keys)
    return [releases.get(layout, version, trusted) for version in versions]


def newest(registry: Path, keys: Path) -> Release | None:
    """The newest release in the registry that was not withdrawn, checked; None when there is none."""
    layout = Layout(registry)
    top = layout.tags().get(releases.LATEST)
    trusted = _trusted(registry, keys)
    if top is None:
        return None
    found = withdrawing.instead(layout, releases.read(layout, top, trusted), trusted).release
    return None if withdrawal(trusted, found.usecase, found.version) else found


def _trusted(registry: Path, keys: Path) -> Trusted:
    """By what a registry's own side believes its releases: those from before trust metadata by their key."""
    layout = Layout(registry)
    if metadata.TAG in layout.tags():
        return Trust(ceremony.first_root(keys), layout).held()
    public = signing.public_path(keys / f"{KEY}.pem")
    return [signing.load_public(public)] if public.exists() else []
