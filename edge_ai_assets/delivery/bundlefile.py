"""The one valid form of a bundle, and checking a file against it.

An uncompressed tar that is an OCI image layout (a complete one is read by skopeo and podman as
`oci-archive:`), with bundle.json in front. For a release and a set of left-out blobs there is exactly one
valid bundle: a file is compared with that, not interpreted. Building and importing is `bundle`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_ai_assets.delivery import archive, durable
from edge_ai_assets.delivery import release as releases
from edge_ai_assets.delivery.errors import DeliveryError, MalformedError, MismatchError, TooLargeError
from edge_ai_assets.delivery.layout import MARK
from edge_ai_assets.delivery.manifest import (
    MANIFEST,
    MAX_DOCUMENT,
    Descriptor,
    Digest,
    Index,
    decode,
    digest_of,
    digest_of_chunks,
    encode,
    tagged,
)
from edge_ai_assets.delivery.release import Statement

FORMAT = 1
DOCUMENTS = 3
"""So many first blobs of a release (see `Statement.blobs`) are always in: it can be checked anywhere."""
MAX_BLOBS = 1000


class Blob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A blob of the release; when it is not included, the site is known to have it."""

    digest: Digest
    size: int
    included: bool


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """bundle.json"""

    format: int
    usecase: str
    version: int
    release: Digest
    """Of the signed statement."""
    blobs: tuple[Blob, ...]


class _Format(msgspec.Struct):
    format: int


class _Documents:
    """The documents of a bundle as `Blobs`, by the digests that they have."""

    def __init__(self) -> None:
        self.by_digest: dict[Digest, bytes] = {}

    def get(self, digest: Digest, *, max_bytes: int) -> bytes:
        data = self.by_digest.get(digest)
        if data is None or len(data) > max_bytes:
            raise MalformedError(f"its first blobs are not the documents of a release: {digest} is not there")
        return data


def contents_of(statement: Statement, have: frozenset[Digest]) -> Contents:
    """bundle.json for a release and what the site has."""
    release, parts = statement.release, statement.blobs
    blobs = tuple(
        Blob(part.digest, part.size, position < DOCUMENTS or part.digest not in have)
        for position, part in enumerate(parts)
    )
    return Contents(FORMAT, release.usecase, release.version, parts[1].digest, blobs)


def index_of(statement: Statement) -> bytes:
    """index.json for a release."""
    return encode(Index(tagged(statement.tags)))


def begin(path: Path, file: BinaryIO) -> tuple[Contents, Iterator[archive.Member]]:
    """bundle.json, of which nothing is verified yet, and the members that follow it."""
    members = archive.members(file, str(path))
    data = _small(members, "bundle.json", path)
    what = f"bundle.json of {path}"
    found = decode(data, _Format, what).format
    if found != FORMAT:
        raise MalformedError(
            f"{path} refused: bundle format {found}, this version reads {FORMAT}; upgrade it first"
        )
    contents = decode(data, Contents, what)
    if encode(contents) != data:
        raise MalformedError(f"{path} refused: its bundle.json is not in the one form allowed")
    if not DOCUMENTS <= len(contents.blobs) <= MAX_BLOBS:
        raise MalformedError(
            f"{path} refused: {len(contents.blobs)} blobs, it must be {DOCUMENTS} to {MAX_BLOBS}"
        )
    return contents, members


def checked(path: Path, keys: Sequence[Ed25519PublicKey]) -> tuple[Statement, Contents]:
    """What a bundle holds, after every byte was checked.

    Raises:
        UntrustedError: none of `keys` signed its release.
        MalformedError, TooLargeError: it is torn, or anything in it is not as it must be.
        MismatchError: a blob has another content than its digest says.
    """
    with durable.open_regular(path) as file:
        contents, members = begin(path, file)
        if _small(members, "oci-layout", path) != MARK:
            raise MalformedError(f"{path} refused: its oci-layout is not {MARK.decode()}")
        index = _small(members, "index.json", path)
        documents = _Documents()
        for blob in contents.blobs[:DOCUMENTS]:
            data = _small(members, name_of(blob.digest), path)
            documents.by_digest[digest_of(data)] = data
        statement = _statement(path, contents, index, documents, keys)
        for blob in contents.blobs[DOCUMENTS:]:
            if not blob.included:
                continue
            if digest_of_chunks(_member(members, name_of(blob.digest), path).chunks) != blob.digest:
                raise MismatchError(f"{path} refused: blob {blob.digest} in it has another digest")
        if extra := next(members, None):
            raise MalformedError(f"{path} refused: it holds {extra.name!r}, which is no part of its release")
    return statement, contents


def _statement(
    path: Path, contents: Contents, index: bytes, documents: _Documents, keys: Sequence[Ed25519PublicKey]
) -> Statement:
    """The release of the bundle, and nothing in bundle.json and index.json but what follows from it."""
    first = contents.blobs[0]
    try:
        statement = releases.read(documents, Descriptor(MANIFEST, first.digest, first.size), keys)
    except DeliveryError as error:
        raise type(error)(f"{path} refused: {error}") from error
    left_out = frozenset(blob.digest for blob in contents.blobs if not blob.included)
    if contents != contents_of(statement, left_out) or index != index_of(statement):
        raise MalformedError(f"{path} refused: it says something else than its signed release")
    return statement


def _member(members: Iterator[archive.Member], name: str, path: Path) -> archive.Member:
    member = next(members, None)
    if member is None or member.name != name:
        found = repr(member.name) if member else "its end"
        raise MalformedError(f"{path} refused: {found} stands where {name!r} must be")
    return member


def _small(members: Iterator[archive.Member], name: str, path: Path) -> bytes:
    member = _member(members, name, path)
    if member.size > MAX_DOCUMENT:
        raise TooLargeError(f"{path} refused: {name!r} has {member.size} bytes, {MAX_DOCUMENT} are allowed")
    return b"".join(member.chunks)


def name_of(digest: Digest) -> str:
    """Where a blob stands in an image layout."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"
