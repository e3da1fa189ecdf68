"""What the release assets do, in two calls: the champion's folder becomes a signed release, the release a
bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_ai_assets.delivery import bundle as bundles
from edge_ai_assets.delivery import image as images
from edge_ai_assets.delivery import release as releases
from edge_ai_assets.delivery import signing
from edge_ai_assets.delivery.errors import MissingError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import Digest
from edge_ai_assets.delivery.release import Release

KEY = "release"


def release(model: Path, registry: Path, keys: Path, usecase: str) -> Release:
    """Publish a model's folder as the next release; the model that is out already stays the release it is.

    Args:
        model: what training wrote, with `lineage.json`.
        keys: holds the release key; made on first use.
    """
    from edge_ai_assets.ml import evaluation, lineage

    private = keys / f"{KEY}.pem"
    if not private.exists():
        signing.create(keys, KEY)
    layout, came_from = Layout(registry), lineage.read(model)
    return releases.publish(
        layout,
        image=images.build(model, layout, annotations={"org.opencontainers.image.title": usecase}),
        usecase=usecase,
        run_id=came_from.training_run,
        data_version=came_from.training_set,
        metrics=evaluation.recorded(model),
        key=signing.load_private(private),
    )


def bundle(
    registry: Path,
    keys: Path,
    media: Path,
    *,
    have: frozenset[Digest] = frozenset(),
    acks: Mapping[str, bytes] | None = None,
) -> Path:
    """Write the newest release as an offline bundle; its path.

    Args:
        have: what the site that it is for has already.
        acks: acknowledgements that ride along, by site.

    Raises:
        MissingError: there is no release yet.
    """
    last = newest(registry, keys)
    if last is None:
        raise MissingError(f"{registry} holds no release: materialize release/image first")
    media.mkdir(parents=True, exist_ok=True)
    public = signing.load_public(signing.public_path(keys / f"{KEY}.pem"))
    return bundles.build(Layout(registry), last.version, media, [public], have=have, acks=acks)


def get(registry: Path, keys: Path, version: int) -> Release:
    """A release in the registry, its signature checked; MissingError when there is none of that version."""
    public = signing.load_public(signing.public_path(keys / f"{KEY}.pem"))
    return releases.get(Layout(registry), version, [public])


def known(registry: Path, keys: Path) -> list[Release]:
    """Every release in the registry, signatures checked, oldest first; none before the first."""
    public = signing.public_path(keys / f"{KEY}.pem")
    return releases.all_releases(Layout(registry), [signing.load_public(public)]) if public.exists() else []


def newest(registry: Path, keys: Path) -> Release | None:
    """The newest release in the registry, its signature checked; None when there is none."""
    public = signing.public_path(keys / f"{KEY}.pem")
    return releases.latest(Layout(registry), [signing.load_public(public)]) if public.exists() else None
