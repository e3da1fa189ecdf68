"""Publishing a layout folder to a registry elsewhere.

Content goes first and tags last, the trust metadata before `latest`: whoever pulls meanwhile finds the former
release or the new one, whole. PyPI `oras` writes a manifest anew when it pushes one, under another digest,
and neither goes on with a blob that was cut off nor lists referrers; so what is pushed is sent here.
Source: OCI distribution specification v1.1, "Push" and "Listing Referrers".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urljoin

import msgspec
import requests

from edge_ai_assets.delivery import base, durable, metadata
from edge_ai_assets.delivery import release as releases
from edge_ai_assets.delivery.distribution import joined
from edge_ai_assets.delivery.errors import (
    DeniedError,
    ForeignError,
    MalformedError,
    MismatchError,
    MissingError,
    RollbackError,
    TooLargeError,
    UnreachableError,
)
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import (
    INDEX,
    MANIFEST,
    MAX_DOCUMENT,
    Blobs,
    Descriptor,
    Index,
    Manifest,
    decode,
    encode,
    read_manifest,
)
from edge_ai_assets.delivery.registry import Registry
from edge_ai_assets.delivery.signed import parsed

PIECE = 16 << 20
"""Bytes sent in one request: after a cut no more than so many are sent again."""
_OCTETS = {"Content-Type": "application/octet-stream"}
_RANGE = re.compile(r"(?:bytes=)?0-([1-9][0-9]{0,17})")


@dataclass
class Pushed:
    """What was sent."""

    blobs: int = 0
    bytes: int = 0
    """Of blobs and manifests."""
    tags: int = 0


def push(layout: Layout, registry: Registry) -> Pushed:
    """Publish what a layout holds and the registry lacks. Doing it again is harmless, and goes on.

    One at a time, others wait: who has read the tags before another would put back what that one pushed.

    Raises:
        RollbackError: the registry has a release that is newer than those in `layout`, or newer metadata.
        ForeignError: it has another release under one of the versions, or metadata of the same age.
        UnreachableError: it was cut off; what came is there.
        DeliveryError: it does not let us, or a blob in `layout` is missing or damaged.
    """
    with durable.locked(layout.path / "ingest" / "push.lock"):
        return _pushed(layout, registry)


def _pushed(layout: Layout, registry: Registry) -> Pushed:
    tags, done = layout.tags(), Pushed()
    last = [name for name in (metadata.TAG, releases.LATEST) if name in tags]
    if last and all(registry.head(name) == tags[name].digest for name in last):
        return done
    versions = releases.versions(tags)
    newer = f"release-{max(versions, default=0) + 1}"
    if registry.head(newer) is not None:
        raise RollbackError(
            f"{registry.repository} has {newer} and {layout.path} has not: is this folder an old copy, or do "
            "two publish to one repository?"
        )
    if metadata.TAG in tags and registry.head(metadata.TAG) not in (None, tags[metadata.TAG].digest):
        _require_newer(layout, tags[metadata.TAG], registry)
    missing = []
    for version in reversed(versions):
        there = registry.head(f"release-{version}")
        if there == tags[f"release-{version}"].digest:
            break  # it was tagged after its own content, and after all that came before it
        if there is not None:
            raise ForeignError(
                f"release {version} refused: {registry.repository} has another release {version}"
            )
        missing.append(version)
    names = [base.TAG] if base.TAG in tags else []
    for version in reversed(missing):
        own = sorted(name for name in tags if name.endswith(f"-{version}"))
        names += sorted(own, key=lambda name: name.startswith("release-"))
    for name in names + last:
        if registry.head(name) != tags[name].digest:
            _tag(layout, name, tags[name], registry, done)
    return done


def _require_newer(layout: Layout, own: Descriptor, registry: Registry) -> None:
    """Refuse to take trust metadata back: sites that have the newer would take nothing from there then."""
    try:
        there = _age(registry, registry.resolve(metadata.TAG))
    except (MalformedError, MismatchError, MissingError, TooLargeError):
        return  # no site can read it: it is to be replaced
    here = _age(layout, own)
    if there > here:
        raise RollbackError(
            f"{registry.repository} has newer trust metadata ({there}) than {layout.path} ({here}): is this "
            "folder an old copy, or do two publish to one repository?"
        )
    if there == here:
        raise ForeignError(
            f"{registry.repository} has other trust metadata {here} than {layout.path}: do two publish to "
            "one repository?"
        )


def _age(blobs: Blobs, top: Descriptor) -> int:
    """How often trust metadata was signed anew, as it says itself."""
    return parsed(metadata.read(blobs, top).only("timestamp"), "timestamp").signed.version


def _tag(layout: Layout, name: str, top: Descriptor, registry: Registry, done: Pushed) -> None:
    manifest = read_manifest(layout, top)
    for part in {part.digest: part for part in (manifest.config, *manifest.layers)}.values():
        _blob(layout, part, registry, done)
    data = layout.get(top.digest, max_bytes=MAX_DOCUMENT)
    listed = _document(registry, name, MANIFEST, data)
    if manifest.subject and not listed:
        _refer(registry, manifest, manifest.subject, top)
    done.tags += 1
    done.bytes += len(data)


def _document(registry: Registry, name: str, media_type: str, data: bytes) -> bool:
    """Put a document as it is, byte by byte; whether the registry by itself lists what refers to another."""
    headers = {"Content-Type": media_type}
    doing = f"pushing {name}"
    with registry.at.ask("PUT", f"manifests/{name}", doing=doing, headers=headers, data=data) as answer:
        return "OCI-Subject" in answer.headers


def _refer(registry: Registry, manifest: Manifest, subject: Descriptor, top: Descriptor) -> None:
    """List an artifact under the tag of its subject, as a registry without the referrers API wants it."""
    name = subject.digest.replace(":", "-")
    found = registry.manifest(name, MAX_DOCUMENT)
    index = decode(found, Index, f"index {name}") if found else Index(manifests=())
    entry = Descriptor(
        MANIFEST, top.digest, top.size, manifest.annotations, artifact_type=manifest.artifact_type
    )
    if entry not in index.manifests:
        changed = msgspec.structs.replace(index, manifests=(*index.manifests, entry))
        _document(registry, name, INDEX, encode(changed))


def _blob(layout: Layout, part: Descriptor, registry: Registry, done: Pushed) -> None:
    """Push a blob that the registry lacks."""
    doing = f"pushing blob {part.digest}"
    with registry.at.ask("HEAD", f"blobs/{part.digest}", doing=doing, also=frozenset({404})) as answer:
        if answer.status_code != 404:
            return
    with layout.open(part.digest, max_bytes=part.size) as file:
        where = _begin(registry, doing)
        if part.size > PIECE:
            where, rest = _pieces(file, part, where, registry, doing), b""
        else:
            rest = file.read()
        mark = "&" if "?" in where else "?"
        end = f"{where}{mark}digest={part.digest}"
        with registry.at.ask("PUT", end, doing=doing, headers=_OCTETS, data=rest):
            done.blobs += 1
            done.bytes += part.size


def _pieces(file: BinaryIO, part: Descriptor, where: str, registry: Registry, doing: str) -> str:
    """Send a blob in pieces; after a cut it goes on where the registry says that it is, or else begins anew:
    Distribution 2.8, for one, gives up an upload that was cut within a piece.
    """
    offset, stuck = 0, False
    while offset < part.size:
        file.seek(offset)
        piece = file.read(PIECE)
        headers = {**_OCTETS, "Content-Range": f"{offset}-{offset + len(piece) - 1}"}
        try:
            with registry.at.ask("PATCH", where, doing=doing, headers=headers, data=piece) as answer:
                where, offset, stuck = _next(answer), offset + len(piece), False
        except (UnreachableError, DeniedError) as error:
            if stuck:
                raise
            stuck = True
            with registry.at.ask("GET", where, doing=doing, also=frozenset({404})) as answer:
                match = _RANGE.fullmatch(answer.headers.get("Range", ""))
                if answer.ok and match and isinstance(error, UnreachableError):
                    where, offset = _next(answer), int(match[1]) + 1
                    continue
            where, offset = _begin(registry, doing), 0
    return where


def _begin(registry: Registry, doing: str) -> str:
    with registry.at.ask("POST", "blobs/uploads/", doing=doing) as answer:
        return _next(answer)


def _next(answer: requests.Response) -> str:
    """Where an upload goes on."""
    where = answer.headers.get("Location", "")
    if not where:
        raise MalformedError(f"{urljoin(answer.url, '/')} takes an upload and does not say where it goes on")
    return joined(answer.url, where)
