"""Acknowledgements, format 1: Azure's signed word that a site's packages were merged. Made and read here, as
bytes.

What a site may prune because of one is decided by its outbox; how one travels, by the uplink's folder and the
release bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FORMAT = 1
PAYLOAD_TYPE = "application/vnd.edge-ai.acknowledgement+json"
NAME = ".ack"
"""Of the file in a site's folder on the link; the inbox passes over names that start with a dot."""
MAX_BYTES = 64 * 1024

_Number = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
_Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class AckError(ValueError):
    """An acknowledgement that must not be acted upon; the message says what is wrong with it."""


class Ack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All packages of `site` up to `number` were merged. Of two, the one with the higher number holds."""

    site: str
    number: _Number
    digest: _Digest
    """SHA-256 of the file of package `number`, hexadecimal."""
    at: int
    """When it was given, µs since 1970, UTC, by Azure's clock."""
    format: int = FORMAT


def make(site: str, number: int, digest: str, at: int, key: Ed25519PrivateKey) -> bytes:
    """An acknowledgement of packages 1 to `number`, signed with the release key.

    The same arguments give the same bytes.
    """
    from edge_ai_assets.delivery.signing import envelope

    return envelope(msgspec.json.encode(Ack(site, number, digest, at)), PAYLOAD_TYPE, key)


def read(data: bytes, site: str, keys: Sequence[Ed25519PublicKey]) -> Ack:
    """Check an acknowledgement and read it.

    Args:
        data: its file, or the member of a bundle.
        site: the one it must be for.
        keys: the release keys that the site trusts, one of which must have signed it.

    Raises:
        AckError: it has more than `MAX_BYTES`, is malformed, of another format, for another site, or not
            signed by one of the keys.
    """
    from edge_ai_assets.delivery.errors import DeliveryError
    from edge_ai_assets.delivery.signing import open_envelope

    if len(data) > MAX_BYTES:
        raise AckError(f"the acknowledgement has {len(data):,} bytes, at most {MAX_BYTES:,} are read")
    try:
        payload = open_envelope(data, PAYLOAD_TYPE, keys)
    except DeliveryError as error:
        raise AckError(f"the acknowledgement is refused: {error}") from error
    try:
        found = msgspec.json.decode(payload)
        if isinstance(found, dict) and found.get("format") != FORMAT:
            raise AckError(f"acknowledgement format {found.get('format')!r}, this version reads {FORMAT}")
        ack = msgspec.convert(found, Ack)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise AckError(f"the acknowledgement is malformed: {error}") from error
    if ack.site != site:
        raise AckError(f"the acknowledgement is for site {ack.site!r}, it was found at {site!r}")
    return ack
