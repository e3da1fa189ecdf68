"""An image as one file for a node without a registry, under the name that its pods will ask for.

`ctr --namespace k8s.io images import FILE` on the node, or `skopeo copy oci-archive:FILE docker://REPOSITORY:TAG`
to the site's own registry. What a release is and whether it is to be trusted is known before: `delivery`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_ai_assets.delivery import archive, durable, image
from edge_ai_assets.delivery.base import NOTHING
from edge_ai_assets.delivery.errors import MalformedError, MissingError
from edge_ai_assets.delivery.layout import MARK, Layout
from edge_ai_assets.delivery.manifest import (
    REF_NAME,
    Descriptor,
    Digest,
    Index,
    digest_of,
    encode,
    read_manifest,
)
from edge_ai_assets.runtimes.placement import Placement

IMAGE_NAME = "io.containerd.image.name"
"""Containerd takes the name of an imported image from this annotation."""


def oci_archive(layout: Layout, digest: Digest, place: Placement, version: int, out: Path) -> Path:
    """Write an image as an OCI archive (a tar of an image layout); the same image gives the same bytes.

    Its name there is the very one in the manifests, repository and digest. Under another repository a node
    would pull an image anew that it has, which without a link fails (KEP-2535).

    Args:
        version: the release's; `release-N` is the archive's only tag.
        out: the file; it appears whole or not at all.

    Returns:
        `out`.

    Raises:
        MalformedError: the image has no runtime image below its model: nothing could run it.
        MissingError: the runtime image below it was left out at this site.
        DeliveryError: a blob is missing or damaged.
    """
    top = image.describe(layout, digest)
    manifest = read_manifest(layout, top)
    if manifest.config.digest == digest_of(encode(NOTHING.config_with(manifest.layers[-1]))):
        raise MalformedError(
            f"image {digest} is only a model, no container engine can run it: release it on a runtime image"
        )
    if missing := [layer.digest for layer in manifest.layers if not layout.has(layer.digest)]:
        raise MissingError(
            f"image {digest} is not whole here, {missing[0]} is missing: a site that runs models in a "
            'process leaves out what only containers need; set kind = "kubernetes" in its runtime.toml, and '
            "materialize site/release again"
        )
    names = {IMAGE_NAME: place.image(digest), REF_NAME: f"release-{version}"}
    index = Index(manifests=(Descriptor(top.media_type, digest, top.size, annotations=names),))
    parts = {part.digest: part for part in (top, manifest.config, *manifest.layers)}
    with durable.locked(out.parent / ".lock"), durable.replacing(out) as file:
        file.writelines(archive.pack(_members(layout, encode(index), list(parts.values()))))
    return out


def _members(layout: Layout, index: bytes, parts: list[Descriptor]) -> Iterator[archive.Member]:
    yield archive.Member("oci-layout", len(MARK), [MARK])
    yield archive.Member("index.json", len(index), [index])
    for part in sorted(parts, key=lambda part: part.digest):
        with layout.open(part.digest, max_bytes=part.size) as file:
            name = f"blobs/{part.digest.replace(':', '/')}"
            yield archive.Member(name, part.size, durable.chunks_of(file))
