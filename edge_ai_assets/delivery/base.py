"""Images that others made: above all the runtime image, on which the layer of a model is put so that a
container engine can run it.

They come here as an OCI layout, which any engine writes; the runtime image is built rarely
(`deploy/runtime/`). What lies on it is `image`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from edge_ai_assets.delivery.errors import MalformedError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import (
    CONFIG,
    MANIFEST,
    MAX_DOCUMENT,
    Descriptor,
    Digest,
    decode,
    read_manifest,
)

TAG = "runtime"
"""Of the runtime image that models are released on, in a registry."""
MAX_LAYERS = 100
"""Overlay file systems of container engines take about 127."""
_LAYERS = "application/vnd.oci.image.layer.v1.tar"
BASE_DIGEST = "org.opencontainers.image.base.digest"
CREATED_BY = "edge_ai_assets: the model"


class _RootFs(msgspec.Struct):
    type: str
    diff_ids: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=MAX_LAYERS)]


class _Config(msgspec.Struct):
    """What is looked at of an image's config; all of it is kept."""

    os: str
    architecture: str
    rootfs: _RootFs
    config: dict[str, Any] = {}
    history: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Base:
    """What an image begins with."""

    layers: tuple[Descriptor, ...]
    config: dict[str, Any] = field(repr=False)
    annotations: dict[str, str]

    def config_with(self, layer: Descriptor) -> dict[str, Any]:
        """The config of an image that has one more layer, uncompressed."""
        config = {name: value for name, value in self.config.items() if name != "created"}
        ids = [*self.config["rootfs"]["diff_ids"], layer.digest]
        config["rootfs"] = {"type": "layers", "diff_ids": ids}
        if "history" in config:  # all layers have one, or none has
            config["history"] = [*config["history"], {"created_by": CREATED_BY}]
        return config


NOTHING = Base(
    (),
    {
        "architecture": "amd64",  # the specification wants one; a model runs on any
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
    },
    {},
)
"""Under an image that is unpacked and not run."""


def keep(source: Layout, name: str, layout: Layout) -> Descriptor:
    """Copy a runtime image from one layout to another, and tag it there `TAG`: models are released on it.

    Args and errors are those of `copy`.
    """
    with layout.writing():
        kept = copy(source, name, layout)
        layout.tag(TAG, kept)
    return kept


def copy(source: Layout, name: str, layout: Layout) -> Descriptor:
    """Copy an image from one layout to another. Doing it again copies nothing that is there and intact.

    Args:
        source: where an engine put it, for instance `buildah push IMAGE oci:FOLDER:NAME`.
        name: its tag.

    Raises:
        MissingError: there is no such tag, or a blob is missing.
        MalformedError: it is none that can be run, or built upon; see `read`.
        MismatchError: a blob is damaged.
    """
    found = source.resolve(name)
    base = read(source, found)
    config = read_manifest(source, found).config
    with layout.writing():
        for part in (*base.layers, config, found):
            if not layout.intact(part):
                source.give(part, layout)
    return Descriptor(MANIFEST, found.digest, found.size)


def read(layout: Layout, descriptor: Descriptor) -> Base:
    """A runtime image in a layout.

    Raises:
        MissingError: it is not there.
        MalformedError: it is no OCI image for Linux of one platform (an index, Docker's own format), its
            layers are no tar archives, or they and its config do not agree on how many there are.
    """
    what = f"runtime image {descriptor.digest}"
    manifest = read_manifest(layout, descriptor)
    if manifest.config.media_type != CONFIG or manifest.artifact_type is not None:
        raise MalformedError(
            f"{what} is refused: its config is {manifest.config.media_type!r}, not an image's"
        )
    kinds = [layer.media_type for layer in manifest.layers if not layer.media_type.startswith(_LAYERS)]
    if kinds:
        raise MalformedError(f"{what} is refused: a layer is {kinds[0]!r}, it must be {_LAYERS!r}")
    data = layout.get(manifest.config.digest, max_bytes=MAX_DOCUMENT)
    config = decode(data, _Config, f"the config of {what}")
    if config.os != "linux" or config.rootfs.type != "layers":
        raise MalformedError(f"{what} is refused: it is for {config.os!r}, it must be for 'linux'")
    if not 0 < len(manifest.layers) == len(config.rootfs.diff_ids):
        raise MalformedError(
            f"{what} is refused: it has {len(manifest.layers)} layers, its config says "
            f"{len(config.rootfs.diff_ids)}; there must be one or more"
        )
    layers = tuple(Descriptor(layer.media_type, layer.digest, layer.size) for layer in manifest.layers)
    return Base(layers, decode(data, dict[str, Any], what), {BASE_DIGEST: descriptor.digest})
