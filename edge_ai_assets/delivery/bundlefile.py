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
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from edge_ai_assets.delivery import archive, durable, metadata
from edge_ai_assets.delivery import release as releases
from edge_ai_assets.delivery.errors import (
    DeliveryError,
    MalformedError,
    MismatchError,
    TooLargeError,
    UntrustedError,
)
from edge_ai_assets.delivery.layout import MARK
from edge_ai_assets.delivery.manifest import (
    MANIFEST,
    MAX_DOCUMENT,
    Blobs,
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
from edge_ai_assets.delivery.trust import Accepted, Trust, Trusted

FORMAT = 3
"""Of a bundle with trust metadata. Without, it is of format 2 if it has acknowledgements, else of 1."""
DOCUMENTS = 3
"""So many first blobs are in a bundle of format 1 or 2 in any case: it can be checked anywhere."""
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
    trust: Digest | None = None
    """Of the manifest of the trust metadata; format 3 only."""
    documents: int = 0
    """So many first blobs are in the bundle in any case; format 3 only."""


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


def contents_of(
    statement: Statement,
    have: frozenset[Digest],
    acks: tuple[Ack, ...] = (),
    trust: tuple[Descriptor, ...] = (),
) -> Contents:
    """bundle.json for a release, what the site has, what is acknowledged, and the manifest and documents of
    the trust metadata."""
    release = statement.release
    number = FORMAT if trust else 2 if acks else 1
    always = statement.documents + len(trust) if trust else DOCUMENTS
    blobs = tuple(
        Blob(part.digest, part.size, position < always or part.digest not in have)
        for position, part in enumerate(parts_of(statement, trust))
    )
    said = (release.usecase, release.version, statement.blobs[1].digest, blobs, acks)
    return Contents(number, *said, trust[0].digest, always) if trust else Contents(number, *said)


def parts_of(statement: Statement, trust: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
    """The blobs of a bundle, each once: documents first, the trust metadata after those of the release."""
    parts, at = statement.blobs, statement.documents
    ordered = (*parts[:at], *trust, *parts[at:])
    return tuple({part.digest: part for part in reversed(ordered)}[digest] for digest in _digests(ordered))


def trust_of(blobs: Blobs, top: Descriptor) -> tuple[Descriptor, ...]:
    """The manifest of trust metadata and its documents."""
    files = metadata.read(blobs, top).files
    layers = metadata.manifest_of(files).layers
    unique = {layer.digest: Descriptor(layer.media_type, layer.digest, layer.size) for layer in layers}
    return (Descriptor(MANIFEST, top.digest, top.size), *unique.values())


def acks_of(acks: Mapping[str, bytes]) -> tuple[Ack, ...]:
    """What bundle.json says of acknowledgements, given by site.

    Raises:
        MalformedError, TooLargeError: a site's name that is none, or too many bytes.
    """
    listed = tuple(Ack(site, digest_of(data), len(data)) for site, data in sorted(acks.items()))
    if problem := _wrong(listed):
        raise problem
    return listed


def index_of(statement: Statement, trust: tuple[Descriptor, ...] = ()) -> bytes:
    """index.json for a release and the trust metadata."""
    return encode(Index(tagged(statement.tags | ({metadata.TAG: trust[0]} if trust else {}))))


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
    if contents.format < FORMAT and (contents.format == 1) is bool(contents.acks):
        raise MalformedError(
            f"{path} refused: format {contents.format} with {len(contents.acks)} acknowledgements; "
            "format 1 has none, format 2 at least one"
        )
    if (contents.format == FORMAT) is (contents.trust is None):
        raise MalformedError(f"{path} refused: trust metadata belongs to format {FORMAT}, and to no other")
    if contents.trust and not DOCUMENTS < contents.documents <= len(contents.blobs):
        raise MalformedError(
            f"{path} refused: {contents.documents} documents among {len(contents.blobs)} blobs"
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


@dataclass(frozen=True)
class Checked:
    """What a bundle holds."""

    statement: Statement
    contents: Contents
    parts: tuple[Descriptor, ...]
    """What its blobs are."""
    accepted: Accepted | None
    """The trust metadata that it brings; None at a site that trusts by a key alone."""
    keys: Trusted
    """By what its release is believed."""


def checked(path: Path, trust: Trust | Trusted) -> Checked:
    """What a bundle holds, after every byte was checked.

    Raises:
        UntrustedError: its release is not one of those that `trust` lists once it has the bundle's metadata,
            or is not signed by one of its keys.
        StaleError, RollbackError: see `Trust.checked`.
        MalformedError, TooLargeError: it is torn, or anything in it is not as it must be.
        MismatchError: a blob has another content than its digest says.
    """
    with durable.open_regular(path) as file:
        contents, members = begin(path, file)
        index, _ = heads(path, contents, members)
        documents = _Documents()
        always = contents.documents or DOCUMENTS
        for blob in contents.blobs[:always]:
            data = _small(members, name_of(blob.digest), path)
            if digest_of(data) != blob.digest:
                raise MismatchError(f"{path} refused: blob {blob.digest} in it has another digest")
            documents.by_digest[blob.digest] = data
        for blob in contents.blobs[always:]:
            if not blob.included:
                continue
            if digest_of_chunks(_large(members, blob, path).chunks) != blob.digest:
                raise MismatchError(f"{path} refused: blob {blob.digest} in it has another digest")
        if extra := next(members, None):
            raise MalformedError(f"{path} refused: it holds {extra.name!r}, which is no part of its release")
    # Signatures last: what is torn is told apart from what is forged.
    return _found(path, contents, index, documents, trust)


def _found(
    path: Path, contents: Contents, index: bytes, documents: _Documents, trust: Trust | Trusted
) -> Checked:
    """The release of the bundle, and nothing in bundle.json and index.json but what follows from it."""
    first = contents.blobs[0]
    sizes = {blob.digest: blob.size for blob in contents.blobs}
    accepted: Accepted | None = None
    brought: tuple[Descriptor, ...] = ()
    try:
        if contents.trust:
            top = Descriptor(MANIFEST, contents.trust, sizes.get(contents.trust, 0))
            brought = trust_of(documents, top)
            accepted = trust.checked(documents, top) if isinstance(trust, Trust) else None
        elif isinstance(trust, Trust):
            raise UntrustedError(
                f"it is of format {contents.format}, which brings no trust metadata, and this site "
                "trusts by that: build it anew"
            )
        keys = accepted.listed if accepted else cast("Trusted", trust)
        statement = releases.read(documents, Descriptor(MANIFEST, first.digest, first.size), keys)
    except DeliveryError as error:
        raise type(error)(f"{path} refused: {error}") from error
    left_out = frozenset(blob.digest for blob in contents.blobs if not blob.included)
    said = contents_of(statement, left_out, contents.acks, brought)
    if contents != said or index != index_of(statement, brought):
        raise MalformedError(f"{path} refused: it says something else than its signed release")
    return Checked(statement, contents, parts_of(statement, brought), accepted, keys)


def _digests(parts: tuple[Descriptor, ...]) -> tuple[Digest, ...]:
    return tuple(dict.fromkeys(part.digest for part in parts))


def _member(members: Iterator[archive.Member], name: str, path: Path) -> archive.Member:
    member = next(members, None)
    if member is None or member.name != name:
        found = repr(member.name) if member else "its end"
        raise MalformedError(f"{path} refused: {found} stands where {name!r} must be")
    return member


def _large(members: Iterator[archive.Member], blob: Blob, path: Path) -> archive.Member:
    """A blob of the bundle, as large as is said and allowed: a sparse file costs its maker nothing."""
    member = _member(members, name_of(blob.digest), path)
    if blob.size > releases.MAX_MODEL:
        raise TooLargeError(f"{path} refused: a blob of {blob.size} bytes, {releases.MAX_MODEL} are allowed")
    if member.size != blob.size:
        raise MismatchError(
            f"{path} refused: {member.name!r} has {member.size} bytes, {blob.size} are allowed"
        )
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
