"""The manifest of a return package as a signed envelope, and back.

Nothing in it is believed before its signature and its form are right. The file around it is `packages`' work,
its fields are in `parts`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from edge_ai_assets.returns.package.parts import (
    FEEDBACK,
    FORMAT,
    HISTOGRAMS,
    INSIGHTS,
    MAX_INVENTORY,
    SINCE_2,
    Manifest,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.edge-ai.return-package+json"
FORMAT_1 = (INSIGHTS, FEEDBACK, HISTOGRAMS)


class PackageError(ValueError):
    """A package that must not be used; the message names the member or field and what is wrong with it."""


def sealed(manifest: Manifest, key: Ed25519PrivateKey) -> bytes:
    """The envelope of a manifest, signed with the site's private key."""
    from edge_ai_assets.delivery.signing import envelope

    return envelope(msgspec.json.encode(manifest), PAYLOAD_TYPE, key)


def opened(signed: bytes, keys: Sequence[Ed25519PublicKey]) -> Manifest:
    """The manifest in an envelope.

    Raises:
        PackageError: none of the keys signed it, it holds anything else, or is of a newer format.
    """
    from edge_ai_assets.delivery.errors import DeliveryError
    from edge_ai_assets.delivery.signing import open_envelope

    try:
        payload = open_envelope(signed, PAYLOAD_TYPE, keys)
    except DeliveryError as error:
        raise PackageError(f"the package's signature is refused: {error}") from error
    try:
        alone = any(signed == _envelope(payload, key, signed) for key in keys)
    except (ValueError, RecursionError):  # of what stands beside the signature that is right
        alone = False
    if not alone:
        raise PackageError("the envelope around the manifest holds more than manifest and signature")
    return _manifest(payload)


def _manifest(payload: bytes) -> Manifest:
    """The manifest, with all the fields of its format and no other."""
    try:
        found = msgspec.json.decode(payload)
        if not isinstance(found, dict):
            raise PackageError("the manifest is malformed: it is no object")
        version = found.get("format")
        if version not in range(1, FORMAT + 1):
            raise PackageError(f"package format {version}, this version reads 1 to {FORMAT}")
        manifest = msgspec.convert(found, Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PackageError(f"the manifest is malformed: {error}") from error
    wanted = set(Manifest.__struct_fields__) - (SINCE_2 if version == 1 else set())
    if set(found) != wanted:
        raise PackageError(f"the manifest is malformed: it must have the fields {sorted(wanted)}")
    if version == 1 and list(manifest.members) != list(FORMAT_1):
        raise PackageError(f"the manifest lists {sorted(manifest.members)}, format 1 has {sorted(FORMAT_1)}")
    if len(manifest.inventory) > MAX_INVENTORY:
        raise PackageError(f"the manifest is malformed: its inventory has more than {MAX_INVENTORY} digests")
    if not all(member.rows for member in manifest.members.values()) and version != 1:
        raise PackageError("the manifest is malformed: a member without rows is left out")
    return manifest


def _envelope(payload: bytes, key: Ed25519PublicKey, like: bytes) -> bytes:
    """The one form of an envelope with this payload and signer, and the valid signature that `like` holds."""
    from edge_ai_assets.delivery.signing import key_id

    signature = base64.b64decode(msgspec.json.decode(like)["signatures"][0]["sig"])
    entry = {"keyid": key_id(key), "sig": base64.b64encode(signature).decode()}
    text = base64.b64encode(payload).decode()
    return msgspec.json.encode({"payload": text, "payloadType": PAYLOAD_TYPE, "signatures": [entry]})
