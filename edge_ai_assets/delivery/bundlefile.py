"""The one valid form of a bundle, and checking a file against it.

An uncompressed tar that is an OCI image layout (a complete one is read by skopeo and podman as
`oci-archive:`), with bundle.json in front. For a release, a set of left-out blobs and the acknowledgements
that ride along there is exactly one valid bundle: a file is compared with that, not interpreted. Building and
importing is `bundle`'s. What an acknowledgement says, and whether it is to be believed, is the site's matter:
here it is so many bytes with a digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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

FORMAT = 2
"""Of a bundle with acknowledgements. One without is of format 1, and every version reads it."""
DOCUMENTS = 3
"""So many first blobs of a release (see `Statement.blobs`) are always in: it can be checked anywhere."""
MAX_BLOBS = 1000
MAX_ACK = 64 * 1024
"""Bytes of one acknowledgement."""
MAX_ACKS = 16 * 1024 * 1024
"""Bytes of all of them: ten thousand sites take a third of it."""
SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Blob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A blob of the release; when it is not included, the site is known to have it."""

    digest: Digest
    size: int
    included: bool


class Ack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An acknowledgement for a site, the member `acks/<site>.dsse`."""

    site: str
    digest: Digest
    size: int


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """bundle.json"""

    format: int
    usecase: str
    version: int
    release: Digest
    """Of the signed statement."""
    blobs: tuple[Blob, ...]
    acks: tuple[Ack, ...] = ()
    """By site, each site once; left out when there are none."""


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


def contents_of(statement: Statement, have: frozenset[Digest], acks: tuple[Ack, ...] = ()) -> Contents:
    """bundle.json for a release, what the site has, and what is acknowledged."""
    release, parts = statement.release, statement.blobs
    blobs = tuple(
        Blob(part.digest, part.size, position < DOCUMENTS or part.digest not in have)
        for position, part in enumerate(parts)
    )
    number = FORMAT if acks else 1
    return Contents(number, release.usecase, release.version, parts[1].digest, blobs, acks)


def acks_of(acks: Mapping[str, bytes]) -> tuple[Ack, ...]:
    """What bundle.json says of acknowledgements, given by site.

    Raises:
        MalformedError, TooLargeError: a site's name that is none, or too many bytes.
    """
    listed = tuple(Ack(site, digest_of(data), len(data)) for site, data in sorted(acks.items()))
    if problem := _wrong(listed):
        raise problem
    return listed


def index_of(statement: Statement) -> bytes:
    """index.json for a release."""
    return encode(Index(tagged(statement.tags)))


def begin(path: Path, file: BinaryIO) -> tuple[Contents, Iterator[archive.Member]]:
    """bundle.json, of which nothing is verified yet, and the members that follow it."""
    members = archive.members(file, str(path))
    data = _small(members, "bundle.json", path)
    what = f"bundle.json of {path}"
    found = decode(data, _Format, what).format
    if not 1 <= found <= FORMAT:
        raise MalformedError(
            f"{path} refused: bundle format {found}, this version reads 1 to {FORMAT}; upgrade it first"
        )
    contents = decode(data, Contents, what)
    if encode(contents) != data:
        raise MalformedError(f"{path} refused: its bundle.json is not in the one form allowed")
    if not DOCUMENTS <= len(contents.blobs) <= MAX_BLOBS:
        raise MalformedError(
            f"{path} refused: {len(contents.blobs)} blobs, it must be {DOCUMENTS} to {MAX_BLOBS}"
        )
    if (contents.format == 1) is bool(contents.acks):
        raise MalformedError(
            f"{path} refused: format {contents.format} with {len(contents.acks)} acknowledgements; "
            f"format 1 has none, format {FORMAT} at least one"
        )
    if problem := _wrong(contents.acks):
        raise type(problem)(f"{path} refused: {problem}")
    return contents, members


def heads(
    path: Path, contents: Contents, members: Iterator[archive.Member]
) -> tuple[bytes, dict[str, bytes]]:
    """index.json, and the acknowledgements by site, as they follow bundle.json.

    Raises:
        MalformedError, MismatchError: they are not what bundle.json lists.
    """
    if _small(members, "oci-layout", path) != MARK:
        raise MalformedError(f"{path} refused: its oci-layout is not {MARK.decode()}")
    index = _small(members, "index.json", path)
    acks = {}
    for ack in contents.acks:
        data = _small(members, ack_name(ack.site), path)
        if len(data) != ack.size or digest_of(data) != ack.digest:
            raise MismatchError(f"{path} refused: {ack_name(ack.site)!r} in it has another digest or size")
        acks[ack.site] = data
    return index, acks


def checked(path: Path, keys: Sequence[Ed25519PublicKey]) -> tuple[Statement, Contents]:
    """What a bundle holds, after every byte was checked.

    Raises:
        UntrustedError: none of `keys` signed its release.
        MalformedError, TooLargeError: it is torn, or anything in it is not as it must be.
        MismatchError: a blob has another content than its digest says.
    """
    with durable.open_regular(path) as file:
        contents, members = begin(path, file)
        index, _ = heads(path, contents, members)
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
    if contents != contents_of(statement, left_out, contents.acks) or index != index_of(statement):
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


def _wrong(acks: Sequence[Ack]) -> DeliveryError | None:
    """What is wrong with a list of acknowledgements."""
    sites = [ack.site for ack in acks]
    for site in sites:
        if not SITE.fullmatch(site):
            said = "no name of a site: letters, digits, '.', '_' and '-', at most 64"
            return MalformedError(f"{site!r} is {said}")
    if sites != sorted(set(sites)):
        return MalformedError("its acknowledgements are not in the order of their sites, each once")
    if large := next((ack for ack in acks if not 0 < ack.size <= MAX_ACK), None):
        return TooLargeError(
            f"the acknowledgement for {large.site} has {large.size} bytes, it must be 1 to {MAX_ACK}"
        )
    if (size := sum(ack.size for ack in acks)) > MAX_ACKS:
        return TooLargeError(f"its acknowledgements have {size} bytes, {MAX_ACKS} are allowed")
    return None


def ack_name(site: str) -> str:
    """Where a site's acknowledgement stands."""
    return f"acks/{site}.dsse"


def name_of(digest: Digest) -> str:
    """Where a blob stands in an image layout."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"
