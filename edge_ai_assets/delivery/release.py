"""A release: the signed statement that a certain image is version N of a use case.

In a registry it is an OCI artifact about the image (its `subject`), so any registry can carry it: a manifest
with the DSSE envelope as its only layer, tagged `release-N`, and the newest also `latest`; the image itself
is tagged `image-N`. Tags are not trusted: whatever they lead to, only what the statement says counts. Which
releases a site accepts is `store`'s decision, how they travel offline `bundle`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_ai_assets.delivery import image as images
from edge_ai_assets.delivery import metadata, signing
from edge_ai_assets.delivery.authority import Authority
from edge_ai_assets.delivery.errors import ForeignError, MalformedError, MismatchError, WithdrawnError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.listing import Listed, path_of
from edge_ai_assets.delivery.manifest import (
    EMPTY,
    MANIFEST,
    MAX_DOCUMENT,
    Blobs,
    Descriptor,
    Digest,
    Manifest,
    decode,
    digest_of,
    encode,
    read_manifest,
)
from edge_ai_assets.delivery.source import Source
from edge_ai_assets.delivery.trust import Accepted, Trust, Trusted, withdrawal

FORMAT = 3
"""Of a container that somebody else made. A model's release is of format 2 with something attached, and of
format 1 without, which every version reads."""
LATEST = "latest"
PAYLOAD = "application/vnd.edge-ai.release+json"
ARTIFACT = "application/vnd.edge-ai.release.v1"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
NOTHING = b"{}"
"""The config of an artifact that has none, as OCI wants it."""
MAX_STATEMENT = 1 << 20
MAX_MODEL = 8 << 30
"""Bytes of the largest model layer that is published or installed."""
_NUMBERED = re.compile(r"release-([1-9][0-9]{0,8})")


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What the signature covers."""

    usecase: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
    version: Annotated[int, msgspec.Meta(ge=1, lt=10**9)]
    image: Digest
    created: Annotated[datetime, msgspec.Meta(tz=True)]
    model: Digest | None = None
    """SHA-256 of model.onnx; None of a container that somebody else made, whatever is in it."""
    run_id: str
    data_version: str
    metrics: dict[str, float]
    attached: dict[Annotated[str, msgspec.Meta(pattern=r"^(sbom|provenance)\Z")], Digest] = {}
    """Manifests of artifacts about the image, by what they are."""
    format: int = msgspec.field(default_factory=lambda: 1)


class _Format(msgspec.Struct):
    format: int


@dataclass(frozen=True)
class Statement:
    """A verified release and the blobs that make it up."""

    release: Release
    blobs: tuple[Descriptor, ...]
    """Each once: the artifact's manifest, the envelope, the image's manifest, manifests of what is attached,
    then configs and layers."""
    below: frozenset[Digest] = frozenset()
    """The layers that only a container engine needs: those below the model's."""

    @property
    def documents(self) -> int:
        """So many first blobs are what `read` reads."""
        return 3 + len(self.release.attached)

    @property
    def tags(self) -> dict[str, Descriptor]:
        """The tags that name this release alone."""
        version = self.release.version
        attached = zip(sorted(self.release.attached), self.blobs[3:], strict=False)
        return {
            f"image-{version}": self.blobs[2],
            f"release-{version}": self.blobs[0],
            **{f"{name}-{version}": descriptor for name, descriptor in attached},
        }


def publish(
    layout: Layout,
    *,
    image: Digest,
    usecase: str,
    run_id: str,
    data_version: str,
    metrics: Mapping[str, float],
    key: Ed25519PrivateKey,
    keys: Sequence[Ed25519PublicKey] = (),
    created: datetime | None = None,
    attached: Mapping[str, Digest] | None = None,
    authority: Authority | None = None,
    container: bool = False,
) -> Release:
    """Make an image in `layout` the next release, or return the latest one if it is of this very image.

    Args:
        key: signs; keep it where only the publisher can read it.
        keys: further keys that earlier releases may have been signed with.
        created: with a time zone; now when absent.
        attached: manifests in `layout` about the image: `sbom`, `provenance`.
        authority: lists the release in the registry's trust metadata.
        container: whether the image is one that somebody else made, and holds no model of ours.

    Raises:
        MissingError: the image is not in `layout`, or holds no model.
        ForeignError: `layout` holds releases of another use case.
        UntrustedError: the latest release in `layout` is not listed, or without an authority, not signed by
            `key` or one of `keys`.
        WithdrawnError: a release of this image was withdrawn.
    """
    with layout.editing() as tags:
        own = [key.public_key(), *keys]
        trusted = Trust(authority.root, layout).held() if authority and metadata.TAG in tags else own
        last = read(layout, tags[LATEST], trusted).release if LATEST in tags else None
        if last and last.usecase != usecase:
            raise ForeignError(
                f"{layout.path} holds releases of {last.usecase!r}, {usecase!r} needs a registry of its own"
            )
        for number in versions(tags):
            said = withdrawal(trusted, usecase, number)
            if said and read(layout, tags[f"release-{number}"], trusted).release.image == image:
                raise WithdrawnError(f"{image} is not released again: as release {number} it was {said}")
        if last and last.image == image:
            return last
        subject = images.describe(layout, image)
        release = Release(
            usecase=usecase,
            version=max(versions(tags), default=0) + 1,
            image=image,
            created=created or datetime.now(UTC),
            model=None if container else images.model_digest(layout, image, max_bytes=MAX_MODEL),
            run_id=run_id,
            data_version=data_version,
            metrics={name: float(value) for name, value in metrics.items()},
            attached=dict(attached or {}),
            format=FORMAT if container else 2 if attached else 1,
        )
        payload = encode(release)
        release = _decoded(payload)  # a wrong name or a NaN is refused here and not on a site
        signed = signing.envelope(payload, PAYLOAD, key)
        statement = layout.put(signed, ENVELOPE)
        layout.put(NOTHING, EMPTY)
        top = layout.put(encode(_artifact(statement.size, statement.digest, subject)), MANIFEST)
        tags |= read(layout, top, own).tags | {LATEST: top}
        if authority:
            path = path_of(release.usecase, release.version)
            tags[metadata.TAG] = authority.listed(layout, tags, {path: signed})
        return release


def read(blobs: Blobs, top: Descriptor, keys: Trusted) -> Statement:
    """The release that a descriptor leads to, verified.

    Only documents are read; configs and layers are checked where they are used.

    Raises:
        UntrustedError: it is not listed, or none of `keys` signed it.
        MalformedError: it is no release, or of a format this version does not read.
        MismatchError: the statement is about another image than the artifact.
    """
    what = f"release {top.digest}"
    manifest = read_manifest(blobs, top)
    image = manifest.subject
    if manifest.artifact_type != ARTIFACT or len(manifest.layers) != 1 or image is None:
        raise MalformedError(
            f"{what} is refused: it is no release but {manifest.artifact_type or 'an image'!r}"
        )
    (envelope,) = manifest.layers
    data = blobs.get(envelope.digest, max_bytes=MAX_STATEMENT)
    if manifest != _artifact(len(data), envelope.digest, image) or digest_of(encode(manifest)) != top.digest:
        raise MalformedError(f"{what} is refused: its manifest is not in the one form allowed")
    release = _believed(data, keys)
    if release.image != image.digest:
        raise MismatchError(
            f"{what} is refused: its statement is about {release.image}, it refers to {image.digest}"
        )
    parts, rest = [top, envelope, image], [manifest.config]
    content = read_manifest(blobs, image)
    rest += [content.config, *content.layers]
    for _, digest in sorted(release.attached.items()):
        size = len(blobs.get(digest, max_bytes=MAX_DOCUMENT))
        parts.append(Descriptor(MANIFEST, digest, size))
        about = read_manifest(blobs, parts[-1])
        if about.subject is None or about.subject.digest != release.image:
            raise MismatchError(f"{what} is refused: {digest} is attached to it and about something else")
        rest += [about.config, *about.layers]
    parts += rest
    unique = {part.digest: Descriptor(part.media_type, part.digest, part.size) for part in reversed(parts)}
    below = frozenset(layer.digest for layer in content.layers[: None if release.model is None else -1])
    ordered = dict.fromkeys(part.digest for part in parts)
    return Statement(release, tuple(unique[digest] for digest in ordered), below)


def record(layout: Layout, statement: Statement, keys: Trusted, accepted: Accepted | None = None) -> None:
    """Tag a release whose blobs are all in `layout`; `latest` is the newest that was not withdrawn.

    Args:
        keys: by what it is believed.
        accepted: the trust metadata that lists it, which takes the place of what `layout` had.

    Raises:
        ForeignError: `layout` has another release under that version; the tags are as they were.
        MismatchError: other trust metadata was accepted meanwhile; the tags are as they were.
    """
    version = statement.release.version
    with layout.editing() as tags:
        for name, descriptor in statement.tags.items():
            if tags.get(name, descriptor).digest != descriptor.digest:
                raise ForeignError(f"release {version} refused: {layout.path} has another release {version}")
        tags |= statement.tags
        point_latest(tags, statement.release.usecase, keys)
        if accepted:
            accepted.take(layout, tags)


def point_latest(tags: dict[str, Descriptor], usecase: str, keys: Trusted) -> None:
    """Let `latest` mean the newest release that was not withdrawn; where each was, it stays."""
    good = [number for number in versions(tags) if not withdrawal(keys, usecase, number)]
    if good:
        tags[LATEST] = tags[f"release-{good[-1]}"]


def latest(layout: Layout, keys: Trusted) -> Release | None:
    """The release that is tagged `latest`, verified; None when there is none yet. Errors of `read`."""
    top = layout.tags().get(LATEST)
    return read(layout, top, keys).release if top else None


def find(source: Source, version: int, keys: Trusted) -> Statement:
    """Like `get`, with the blobs."""
    statement = read(source, source.resolve(f"release-{version}"), keys)
    if statement.release.version != version:
        raise MismatchError(
            f"release {version} refused: its statement says that it is {statement.release.version}"
        )
    return statement


def get(layout: Layout, version: int, keys: Trusted) -> Release:
    """The release of that version, verified.

    Raises:
        MissingError: there is none.
        MismatchError: what is tagged as it is another version.
        DeliveryError: see `read`.
    """
    return find(layout, version, keys).release


def require_model(release: Release, runs_images: bool) -> None:
    """ForeignError for a container of others where no container engine runs the releases."""
    if release.model is None and not runs_images:
        raise ForeignError(
            f"release {release.version} refused: it is a container that somebody else made, and this site "
            "runs models in a process; one with a container engine, by its runtime.toml, can have it"
        )


def versions(tags: Iterable[str]) -> list[int]:
    """Versions that have a tag, rising; what the tags lead to is not looked at."""
    return sorted(int(match[1]) for name in tags if (match := _NUMBERED.fullmatch(name)))


def _artifact(size: int, envelope: Digest, image: Descriptor) -> Manifest:
    """The one manifest for a statement: as it is not signed, nothing in it is left open."""
    return Manifest(
        Descriptor(EMPTY, digest_of(NOTHING), len(NOTHING)),
        (Descriptor(ENVELOPE, envelope, size),),
        artifact_type=ARTIFACT,
        subject=Descriptor(MANIFEST, image.digest, image.size),
    )


def _believed(envelope: bytes, trusted: Trusted) -> Release:
    if not isinstance(trusted, Listed):
        return _decoded(signing.open_envelope(envelope, PAYLOAD, trusted))
    # What is listed is believed for that, by whomever the envelope says that it is signed.
    release = _decoded(signing.payload_of(envelope, PAYLOAD))
    trusted.require(path_of(release.usecase, release.version), envelope)
    return release


def _decoded(payload: bytes) -> Release:
    what = f"the statement {digest_of(payload)}"
    found = decode(payload, _Format, what).format
    if not 1 <= found <= FORMAT:
        raise MalformedError(
            f"{what} is refused: release format {found}, this version reads 1 to {FORMAT}; upgrade it first"
        )
    release = decode(payload, Release, what)
    if release.format < FORMAT and (release.format == 1) is bool(release.attached):
        raise MalformedError(
            f"{what} is refused: format {release.format} with {len(release.attached)} attachments; "
            "format 1 has none, format 2 at least one"
        )
    if (release.format == FORMAT) is not (release.model is None):
        raise MalformedError(f"{what} is refused: format {FORMAT} is of containers without a model of ours")
    return release
