"""What single documents of trust metadata say, and whether enough keys signed them.

Nothing here looks at a clock or at what was accepted before: that is `trust`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_ai_assets.delivery import metadata
from edge_ai_assets.delivery.errors import MalformedError, UntrustedError
from edge_ai_assets.delivery.listing import Listed, said_of
from edge_ai_assets.delivery.manifest import Digest

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, Root, Targets, Timestamp

ISSUED = "x-edge-ai-issued"
"""Field of the timestamp: when it was signed, ISO 8601, by the signer's clock."""


@dataclass(frozen=True)
class Lease:
    """How long what was accepted may be relied upon, by the clock of who signed it."""

    issued: datetime
    until: datetime


def parsed(data: bytes, kind: str) -> Metadata[Root] | Metadata[Targets] | Metadata[Timestamp]:
    """A document of that role; nothing in it is verified. MalformedError when it is none."""
    from tuf.api.metadata import Metadata
    from tuf.api.serialization import DeserializationError

    try:
        found = Metadata.from_bytes(data)
    except (DeserializationError, RecursionError) as error:
        raise MalformedError(
            f"trust metadata is refused: a document of role {kind!r} cannot be read"
        ) from error
    if found.signed.type != kind:
        raise MalformedError(f"trust metadata is refused: a document is {found.signed.type!r}, not {kind!r}")
    return found


def root_of(data: bytes) -> Metadata[Root]:
    """Root metadata that is signed as it demands itself.

    Raises:
        MalformedError, UntrustedError: it is not.
    """
    from tuf.api.exceptions import RepositoryError

    found = cast("Metadata[Root]", parsed(data, "root"))
    try:
        found.signed.verify_delegate("root", found.signed_bytes, found.signatures)
    except (RepositoryError, ValueError) as error:
        raise UntrustedError(f"root metadata is refused: {error}") from error
    return found


def latest_root(first: bytes, documents: metadata.Documents) -> bytes:
    """The newest root that a chain of signatures leads to from `first`."""
    from tuf.api.exceptions import RepositoryError

    trusted = root_of(first)
    while data := documents.files.get(f"{trusted.signed.version + 1}.root.json"):
        following = root_of(data)
        try:
            trusted.signed.verify_delegate("root", following.signed_bytes, following.signatures)
        except (RepositoryError, ValueError) as error:
            raise UntrustedError(f"root {following.signed.version} is refused: {error}") from error
        if following.signed.version != trusted.signed.version + 1:
            raise MalformedError(
                f"root {following.signed.version} stands where {trusted.signed.version + 1} must be"
            )
        first, trusted = data, following
    return first


def newest_root(first: bytes, documents: metadata.Documents) -> Root:
    """What the newest root says; errors of `latest_root`."""
    return root_of(latest_root(first, documents)).signed


def listed(first: bytes, documents: metadata.Documents) -> Listed:
    """What documents list, signatures checked, expiry not."""
    from tuf.api.exceptions import RepositoryError

    root = newest_root(first, documents)
    targets = cast("Metadata[Targets]", parsed(documents.only("targets"), "targets"))
    try:
        root.verify_delegate("targets", targets.signed_bytes, targets.signatures)
    except (RepositoryError, ValueError) as error:
        raise UntrustedError(f"the trust metadata is refused: {error}") from error
    files: dict[str, tuple[Digest, int]] = {
        path: (f"sha256:{file.hashes.get('sha256', '')}", file.length)
        for path, file in targets.signed.targets.items()
    }
    said = {path: said_of(file.custom) for path, file in targets.signed.targets.items()}
    return Listed(files, online(root), {path: each for path, each in said.items() if each})


def online(root: Root) -> tuple[Ed25519PublicKey, ...]:
    """The Ed25519 keys of the role `timestamp`."""
    held = (root.keys[keyid] for keyid in root.roles["timestamp"].keyids)
    return tuple(
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.keyval["public"]))
        for key in held
        if key.scheme == "ed25519"
    )


def lease_of(documents: metadata.Documents) -> Lease:
    """From when to when what is current may be relied upon; MalformedError when it does not say."""
    stamp = cast("Metadata[Timestamp]", parsed(documents.only("timestamp"), "timestamp")).signed
    issued = stamp.unrecognized_fields.get(ISSUED)
    try:
        return Lease(datetime.fromisoformat(str(issued)).astimezone(UTC), stamp.expires)
    except ValueError as error:
        raise MalformedError(f"the timestamp says that it was signed {issued!r}, which is no time") from error
