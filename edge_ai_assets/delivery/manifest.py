"""The documents of the OCI image specification v1.1 that delivery reads and writes.

Types, media types and how one document leads to others. Where they are kept is `layout`'s.
Source: https://github.com/opencontainers/image-spec (descriptor, manifest, image-index, config).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from edge_ai_assets.delivery.errors import MalformedError, MismatchError

Digest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
"""`sha256:` and 64 hexadecimal digits."""

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
MAX_DOCUMENT = 4 << 20
"""Bytes of the largest manifest or index that is read; registries use the same bound."""


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a blob is, and how to know it."""

    media_type: str
    digest: Digest
    size: Annotated[int, msgspec.Meta(ge=0)]
    annotations: dict[str, str] = {}
    artifact_type: str | None = None
    platform: dict[str, Any] | None = None
    urls: tuple[str, ...] = ()
    data: str | None = None


class Manifest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An image; or, with an artifact type, an artifact about the image `subject`."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    schema_version: int = msgspec.field(default_factory=lambda: 2)
    media_type: str = msgspec.field(default_factory=lambda: MANIFEST)
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class Index(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A list of manifests."""

    manifests: tuple[Descriptor, ...]
    schema_version: int = msgspec.field(default_factory=lambda: 2)
    media_type: str = msgspec.field(default_factory=lambda: INDEX)
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class Blobs(Protocol):
    """Anything that holds blobs by digest."""

    def get(self, digest: Digest, *, max_bytes: int) -> bytes: ...


T = TypeVar("T")


def digest_of(data: bytes) -> Digest:
    """SHA-256 of bytes, as OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_of_chunks(chunks: Iterable[bytes]) -> Digest:
    """Like `digest_of`, of a stream."""
    hashed = hashlib.sha256()
    for chunk in chunks:
        hashed.update(chunk)
    return f"sha256:{hashed.hexdigest()}"


def encode(document: msgspec.Struct | dict[str, Any]) -> bytes:
    """A document as JSON: the same content gives the same bytes."""
    return msgspec.json.encode(document, order="deterministic")


def decode(data: bytes, kind: type[T], what: str) -> T:
    """JSON as a document of that kind; MalformedError names `what` and the field."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"{what} is refused: {error}") from error


def read_manifest(blobs: Blobs, descriptor: Descriptor) -> Manifest:
    """The manifest a descriptor names.

    Raises:
        MalformedError: it is another kind of document, such as an index of several platforms.
        MismatchError, MissingError, TooLargeError: see `Layout.get`; also when the size is wrong.
    """
    what = f"manifest {descriptor.digest}"
    if descriptor.media_type != MANIFEST:
        raise MalformedError(f"{what} is refused: it is {descriptor.media_type!r}, this needs {MANIFEST!r}")
    manifest = decode(_document(blobs, descriptor), Manifest, what)
    if manifest.schema_version != 2 or manifest.media_type != MANIFEST:
        raise MalformedError(
            f"{what} is refused: it says it is {manifest.media_type!r} {manifest.schema_version}"
        )
    return manifest


def tagged(tags: dict[str, Descriptor]) -> tuple[Descriptor, ...]:
    """Tags as entries of an index, in name order."""
    return tuple(
        msgspec.structs.replace(descriptor, annotations={**descriptor.annotations, REF_NAME: name})
        for name, descriptor in sorted(tags.items())
    )


def reachable(blobs: Blobs, roots: list[Descriptor]) -> set[Digest]:
    """Digests of the roots and of everything they lead to."""
    found: set[Digest] = set()
    waiting = list(roots)
    while waiting:
        descriptor = waiting.pop()
        if descriptor.digest in found:
            continue
        found.add(descriptor.digest)
        if descriptor.media_type == MANIFEST:
            manifest = read_manifest(blobs, descriptor)
            waiting += [manifest.config, *manifest.layers, *([manifest.subject] if manifest.subject else [])]
        elif descriptor.media_type == INDEX:
            waiting += decode(_document(blobs, descriptor), Index, f"index {descriptor.digest}").manifests
    return found


def _document(blobs: Blobs, descriptor: Descriptor) -> bytes:
    data = blobs.get(descriptor.digest, max_bytes=MAX_DOCUMENT)
    if len(data) != descriptor.size:
        raise MismatchError(
            f"{descriptor.digest} has {len(data)} bytes, its descriptor says {descriptor.size}"
        )
    return data
