"""TUF metadata as an OCI artifact, so that every road carries it: a registry, a layout folder, a bundle.

One manifest, tagged `trust`, with a document a layer: all root versions from the first on, and the timestamp,
the snapshot and the targets of one moment. Neither manifest nor tag is trusted: each document is signed, and
says which others belong to it. Checking them is `trust`'s, signing `authority`'s.
Source: TUF specification 1.0.33, 4.6 and 5 (names of documents with consistent snapshots).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edge_ai_assets.delivery.blobs import BlobFolder
from edge_ai_assets.delivery.errors import MalformedError, TooLargeError
from edge_ai_assets.delivery.manifest import (
    EMPTY,
    MANIFEST,
    Blobs,
    Descriptor,
    Manifest,
    digest_of,
    encode,
    read_manifest,
)

TAG = "trust"
ARTIFACT = "application/vnd.edge-ai.trust.v1"
DOCUMENT = "application/vnd.tuf.metadata+json"
TITLE = "org.opencontainers.image.title"
NOTHING = b"{}"
"""The config of an artifact that has none, as OCI wants it."""
MAX_ROOTS = 256
MAX_SIZE = 2 << 20
"""Bytes of the largest document: a release takes about 130 in the targets."""
_NAME = re.compile(r"(?:([1-9][0-9]{0,8})\.(root|snapshot|targets)|(timestamp))\.json")


@dataclass(frozen=True)
class Documents:
    """The documents of one artifact, by name; nothing in them is verified."""

    files: Mapping[str, bytes]

    @property
    def roots(self) -> list[int]:
        """Versions of the root documents, rising."""
        return sorted(
            int(match[1]) for name in self.files if (match := _NAME.fullmatch(name)) and match[2] == "root"
        )

    def only(self, role: str) -> bytes:
        """The one document of a role; MalformedError when there is none, or several."""
        found = [name for name in self.files if name.removesuffix(".json").rpartition(".")[2] == role]
        if len(found) != 1:
            raise MalformedError(
                f"the trust metadata is refused: it has {len(found)} documents of role {role!r}"
            )
        return self.files[found[0]]


def read(blobs: Blobs, top: Descriptor) -> Documents:
    """The documents that a descriptor leads to.

    Raises:
        MalformedError: it is no such artifact, or not in the one form allowed.
        MissingError, MismatchError, TooLargeError: see `Layout.get`.
    """
    manifest = read_manifest(blobs, top)
    what = f"trust metadata {top.digest}"
    if manifest.artifact_type != ARTIFACT or len(manifest.layers) > MAX_ROOTS + 3:
        raise MalformedError(
            f"{what} is refused: it is {manifest.artifact_type!r} of {len(manifest.layers)} parts"
        )
    files: dict[str, bytes] = {}
    for layer in manifest.layers:
        if layer.size > MAX_SIZE:
            raise TooLargeError(
                f"{what} is refused: a document has {layer.size} bytes, {MAX_SIZE} are allowed"
            )
        files[layer.annotations.get(TITLE, "")] = blobs.get(layer.digest, max_bytes=MAX_SIZE)
    if encode(manifest_of(files)) != encode(manifest) or digest_of(encode(manifest)) != top.digest:
        raise MalformedError(f"{what} is refused: its manifest is not in the one form allowed")
    return Documents(files)


def manifest_of(files: Mapping[str, bytes]) -> Manifest:
    """The one manifest for these documents; MalformedError for a name that none has."""
    bad = [name for name in files if not _NAME.fullmatch(name)]
    if bad:
        raise MalformedError(f"{bad[0]!r} is no document of trust metadata")
    layers = tuple(
        Descriptor(DOCUMENT, digest_of(data), len(data), {TITLE: name})
        for name, data in sorted(files.items())
    )
    return Manifest(Descriptor(EMPTY, digest_of(NOTHING), len(NOTHING)), layers, artifact_type=ARTIFACT)


def put(blobs: BlobFolder, files: Mapping[str, bytes]) -> Descriptor:
    """Keep documents in a layout; the descriptor to tag."""
    manifest = manifest_of(files)
    blobs.put(NOTHING, EMPTY)
    for data in files.values():
        blobs.put(data, DOCUMENT)
    return blobs.put(encode(manifest), MANIFEST)
