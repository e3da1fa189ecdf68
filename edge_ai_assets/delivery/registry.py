"""A registry elsewhere, as a site takes releases from it: any server of the OCI distribution specification.

Nothing in one is trusted: what comes out is checked as a bundle is, in `store` and `trust`. What goes into it
is `push`'s, how requests are made `distribution`'s. PyPI `oras` begins a blob that was cut off anew, checks
no digest and bounds no size; so what is pulled is asked for here.
Source: OCI distribution specification v1.1, "Pull".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import msgspec
import requests
from urllib3.exceptions import HTTPError

from edge_ai_assets.delivery.blobs import BlobFolder
from edge_ai_assets.delivery.distribution import Repository, joined
from edge_ai_assets.delivery.durable import CHUNK
from edge_ai_assets.delivery.errors import (
    DeliveryError,
    MalformedError,
    MismatchError,
    MissingError,
    TooLargeError,
    UnreachableError,
)
from edge_ai_assets.delivery.manifest import (
    INDEX,
    MANIFEST,
    MAX_DOCUMENT,
    Descriptor,
    Digest,
    Manifest,
    decode,
    digest_of,
)

_ACCEPT = {"Accept": f"{MANIFEST}, {INDEX}"}
_404 = frozenset({404})
MAX_TAGS = 100_000


class _Tags(msgspec.Struct):
    tags: tuple[str, ...] | None = None


class Registry:
    """A repository as a source of releases, see `source.Source`."""

    def __init__(self, repository: Repository) -> None:
        self.at = repository
        self.repository = repository.name
        """As people write it, HOST/PATH."""
        self._documents: dict[Digest, bytes] = {}
        self._parts: dict[Digest, int] = {}
        """Sizes of what the manifests that were read list as config or layer: that is kept as blobs."""

    def head(self, tag: str) -> Digest | None:
        """What a tag means now, by one small request; None when there is no such tag. Not checked."""
        with self.at.ask(
            "HEAD", f"manifests/{tag}", doing=f"looking for {tag!r}", headers=_ACCEPT, also=_404
        ) as answer:
            if answer.status_code == 404:
                return None
            return answer.headers.get("Docker-Content-Digest") or self.resolve(tag).digest

    def resolve(self, name: str) -> Descriptor:
        data = self.manifest(name, MAX_DOCUMENT)
        if data is None:
            raise MissingError(f"there is no tag {name!r} in {self.repository}")
        return Descriptor(MANIFEST, self._keep(data), len(data))

    def names(self) -> Collection[str]:
        found: list[str] = []
        where: str | None = "tags/list?n=1000"
        while where and len(found) < MAX_TAGS:
            with self.at.ask("GET", where, doing="listing tags", also=_404) as answer:
                if answer.status_code == 404:
                    break
                data = b"".join(self._whole(answer, MAX_DOCUMENT, "listing tags"))
                tags = decode(data, _Tags, f"the list of tags of {self.repository}").tags
                if not tags:
                    break
                found += tags
                following = answer.links.get("next", {}).get("url")
                where = joined(answer.url, following) if following else None
        return found

    def get(self, digest: Digest, *, max_bytes: int) -> bytes:
        data = self._documents.get(digest)
        if data is None and digest in self._parts:
            data = b"".join(self._chunks(digest, 0, min(self._parts[digest], max_bytes)))
        elif data is None:
            data = self.manifest(digest, max_bytes)
        if data is None:
            raise MissingError(f"manifest {digest} is not in {self.repository}")
        if len(data) > max_bytes:
            raise TooLargeError(f"{digest} in {self.repository} has more than the {max_bytes} bytes allowed")
        if digest_of(data) != digest:
            raise MismatchError(f"{digest} in {self.repository} is damaged: its content has another digest")
        self._keep(data)
        return data

    def give(self, part: Descriptor, into: BlobFolder) -> None:
        if part.media_type == MANIFEST or part.digest in self._documents:
            data = self.get(part.digest, max_bytes=min(part.size, MAX_DOCUMENT))
            into.put_chunks([data], part.media_type, expect=part)
        else:
            into.take(part, lambda offset: self._chunks(part.digest, offset, part.size))

    def _keep(self, data: bytes) -> Digest:
        """Remember a document, so that it is asked for once."""
        digest = digest_of(data)
        self._documents[digest] = data
        try:
            read = decode(data, Manifest, digest)
        except DeliveryError:
            return digest  # no manifest, or one that its reader will refuse
        self._parts |= {part.digest: part.size for part in (read.config, *read.layers)}
        return digest

    def manifest(self, reference: str, max_bytes: int) -> bytes | None:
        """A manifest by tag or digest, read no further than allowed; None when there is none."""
        doing = f"reading {reference}"
        with self.at.ask("GET", f"manifests/{reference}", doing=doing, headers=_ACCEPT, also=_404) as answer:
            if answer.status_code == 404:
                return None
            data = b"".join(self._whole(answer, max_bytes, doing))
        if len(data) > max_bytes:
            raise TooLargeError(
                f"{reference} in {self.repository} has more than the {max_bytes} bytes allowed"
            )
        return data

    def _whole(self, answer: requests.Response, max_bytes: int, doing: str) -> Iterator[bytes]:
        try:
            yield from _bounded(answer, max_bytes)
        except HTTPError as error:
            raise self._cut(doing, error) from None

    def _chunks(self, digest: Digest, offset: int, size: int) -> Iterator[bytes]:
        """A blob from an offset on, at most one byte more than `size`. Cut off, it is asked for again from
        there, as long as each time brings something."""
        doing = f"pulling blob {digest}"
        while offset < size:
            before, problem = offset, None
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            with self.at.ask("GET", f"blobs/{digest}", doing=doing, headers=headers, also=_404) as answer:
                if answer.status_code == 404:
                    raise MissingError(f"blob {digest} is not in {self.repository}")
                skip = self._skip(answer, offset, doing)
                try:
                    for chunk in _bounded(answer, size - offset + skip):
                        new = chunk[skip:]
                        skip = max(0, skip - len(chunk))
                        offset += len(new)
                        if new:
                            yield new
                except HTTPError as error:
                    problem = error
            if offset == before:
                raise self._cut(doing, problem)

    def _skip(self, answer: requests.Response, offset: int, doing: str) -> int:
        """How many bytes of an answer are known: none of a range, all before it of the whole."""
        if answer.status_code != 206:
            return offset
        found = answer.headers.get("Content-Range", "")
        if not found.startswith(f"bytes {offset}-"):
            raise MalformedError(
                f"{doing}: {self.repository} was asked from {offset} on, and gives {found!r}"
            )
        return 0

    def _cut(self, doing: str, error: Exception | None) -> UnreachableError:
        why = type(error).__name__ if error else "it ended early"
        return UnreachableError(
            f"{doing}: {self.repository} was cut off ({why}); the next time goes on there"
        )


def _bounded(answer: requests.Response, most: int) -> Iterator[bytes]:
    """The body of an answer, until it has more than `most` bytes: whoever reads it finds out by that.

    Each piece as it comes: read in pieces of one size, as requests does, a cut takes with it what had come of
    the last one.
    """
    while most >= 0 and (chunk := answer.raw.read1(CHUNK)):
        yield chunk[: most + 1]
        most -= len(chunk)
