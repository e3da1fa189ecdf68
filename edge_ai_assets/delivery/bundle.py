"""Offline bundles: one file that carries one release to a site without a link, and back Azure's word of what
came home.

What is in the file, and how it is checked, is `bundlefile`'s; what a site does with an imported release is
`store`'s decision.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge_ai_assets.delivery import archive, durable, metadata, withdrawing
from edge_ai_assets.delivery import release as releases
from edge_ai_assets.delivery.bundlefile import (
    Contents,
    ack_name,
    acks_of,
    begin,
    checked,
    contents_of,
    heads,
    index_of,
    name_of,
    trust_of,
)
from edge_ai_assets.delivery.errors import ForeignError, MismatchError, MissingError, WithdrawnError
from edge_ai_assets.delivery.layout import MARK, Layout
from edge_ai_assets.delivery.manifest import Descriptor, Digest, encode
from edge_ai_assets.delivery.release import Release
from edge_ai_assets.delivery.trust import Trust, Trusted, believed


def build(
    layout: Layout,
    version: int,
    out: Path,
    trust: Trust | Trusted,
    *,
    have: frozenset[Digest] = frozenset(),
    acks: Mapping[str, bytes] | None = None,
) -> Path:
    """Write the bundle of a release: the same release, `have` and `acks` give the same bytes.

    Args:
        out: the folder that gets `<usecase>-<version>.bundle`, whole or not at all.
        trust: by what the release in `layout` is believed. The bundle brings the trust metadata that `layout`
            has; without any, a site that trusts by a key can take it, and none other.
        have: digests that the site has (its `Layout.blobs()`), left out but for the documents.
        acks: acknowledgements that ride along, by site.

    Returns:
        The path of the bundle.

    Raises:
        DeliveryError: the release does not check out, one of its blobs is missing or damaged, or an
            acknowledgement is too large or for what is no name of a site.
    """
    acks = acks or {}
    statement = releases.find(layout, version, believed(trust))
    top = layout.tags().get(metadata.TAG)
    brought = trust_of(layout, top) if top else ()
    path = out / f"{statement.release.usecase}-{version}.bundle"
    contents = contents_of(statement, have, acks_of(acks), brought)
    index = index_of(statement, brought)
    with durable.locked(out / ".lock"), durable.replacing(path) as file:
        file.writelines(archive.pack(_members(layout, index, contents, acks)))
    return path


def inspect(path: Path) -> dict[str, Any]:
    """What a bundle says that it holds: bundle.json, and `bytes`, its size. Nothing of it is verified yet."""
    with durable.open_regular(path) as file:
        contents, _ = begin(path, file)
        size = os.fstat(file.fileno()).st_size
    return {**msgspec.json.decode(encode(contents)), "bytes": size}


def acks(path: Path) -> dict[str, bytes]:
    """The acknowledgements in a bundle, by site: at most `bundlefile.MAX_ACKS` bytes.

    They are what bundle.json lists, and no more is known of them: each site checks its own by its signature.

    Raises:
        DeliveryError: the file is no bundle, or torn before its blobs.
    """
    with durable.open_regular(path) as file:
        contents, members = begin(path, file)
        return heads(path, contents, members)[1]


def verify(path: Path, trust: Trust | Trusted) -> Release:
    """Check every byte of a bundle: form, digests, signatures, age. Nothing is written.

    Raises:
        WithdrawnError: its release was withdrawn.
        DeliveryError: see `bundlefile.checked`.
    """
    found = checked(path, trust)
    withdrawing.require(found.statement.release, found.keys)
    return found.statement.release


def import_bundle(path: Path, layout: Layout, trust: Trust | Trusted, *, runs_images: bool = True) -> Release:
    """Bring the release of a bundle into `layout`.

    Doing it again is harmless, and goes on where it was cut off. The whole bundle is checked before anything
    is written, and each blob again as it is written. Tags, that of the trust metadata among them, come last
    and all at once.

    Args:
        runs_images: see `store.SiteStore`; without, layers below a model are neither kept nor missed.

    Raises:
        WithdrawnError: its release was withdrawn, as it says itself; that was taken in, so the site knows.
        MissingError: a blob was left out of the bundle that is not in `layout` either.
        ForeignError: `layout` holds releases of another use case, or another release of this version; or it
            is a container where none runs.
        DeliveryError: see `verify`. In every other case the tags are as they were.
    """
    found = checked(path, trust)
    statement = found.statement
    try:
        withdrawing.require(statement.release, found.keys)
    except WithdrawnError as error:
        if found.accepted:
            with layout.editing() as tags:
                found.accepted.take(layout, tags)
        raise WithdrawnError(f"{path} refused: {error}") from None
    releases.require_model(statement.release, runs_images)
    needed = {part.digest for part in statement.blobs} - (frozenset() if runs_images else statement.below)
    with layout.writing():
        last = releases.latest(layout, believed(trust))
        if last and last.usecase != statement.release.usecase:
            raise ForeignError(
                f"{path} refused: it is of use case {statement.release.usecase!r}, not {last.usecase!r}"
            )
        wanted: dict[str, Descriptor] = {}
        for part, blob in zip(found.parts, found.contents.blobs, strict=True):
            if part.digest not in needed:
                continue  # or trust metadata, of which what was accepted is kept
            if blob.included:
                wanted[name_of(part.digest)] = part
            elif not layout.intact(part):
                raise MissingError(
                    f"{path} refused: it leaves out blob {part.digest}, which {layout.path} has not either; "
                    "build it for what this site has"
                )
        with durable.open_regular(path) as file:
            for member in archive.members(file, str(path)):
                missing = wanted.pop(member.name, None)
                if missing and not layout.intact(missing):
                    layout.put_chunks(member.chunks, missing.media_type, expect=missing)
        if wanted:
            raise MismatchError(
                f"{path} refused: it changed while it was imported, {min(wanted)} is gone from it"
            )
        releases.record(layout, statement, found.keys, found.accepted)
    return statement.release


def _members(
    layout: Layout, index: bytes, contents: Contents, acks: Mapping[str, bytes]
) -> Iterator[archive.Member]:
    first = {"bundle.json": encode(contents), "oci-layout": MARK, "index.json": index}
    first |= {ack_name(ack.site): acks[ack.site] for ack in contents.acks}
    for name, data in first.items():
        yield archive.Member(name, len(data), [data])
    for blob in contents.blobs:
        if blob.included:
            with layout.open(blob.digest, max_bytes=blob.size) as file:
                yield archive.Member(name_of(blob.digest), blob.size, durable.chunks_of(file))
