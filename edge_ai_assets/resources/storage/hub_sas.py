"""Shared access signatures for one container, of the version that the storage of Azure Stack Hub knows.

Azure's own client signs for the newest version only, which a hub refuses; Azure itself takes this one too.
Source: "Create a service SAS", string-to-sign of version 2018-11-09 up to 2020-02-10, Blob Storage.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from edge_ai_assets.resources.storage.account import HUB_API_VERSION

if TYPE_CHECKING:
    from azure.core.credentials import AzureNamedKeyCredential

PERMISSIONS = "racwdl"
"""Read, add, create, write, delete, list: in the order in which they must be written."""


def container_sas(
    key: AzureNamedKeyCredential,
    container: str,
    permissions: str,
    expiry: datetime,
    *,
    start: datetime | None = None,
    https: bool = True,
) -> str:
    """A signature that lets whoever has it do something with the blobs of a container, for a while.

    It cannot be taken back but by another account key, so keep it short-lived.

    Args:
        key: name and key of the account.
        permissions: some of PERMISSIONS, such as "rcw"; in any order.
        expiry: until when, with a time zone; to the second.
        start: from when on; leave it out where clocks differ: then it is at once.
        https: whether it counts only over TLS.

    Returns:
        The query of an address, without the question mark: `AzureSasCredential` takes it.

    Raises:
        ValueError: a permission is unknown, a time has no zone, or the key is no base64.
    """
    if unknown := sorted(set(permissions) - set(PERMISSIONS)):
        raise ValueError(f"permissions {permissions!r}: {unknown} are unknown, they are of {PERMISSIONS!r}")
    if not permissions:
        raise ValueError(f"permissions are empty, they are of {PERMISSIONS!r}")
    account, secret = key.named_key.name, key.named_key.key
    query = {
        "sp": "".join(letter for letter in PERMISSIONS if letter in permissions),
        "st": _moment("start", start) if start else "",
        "se": _moment("expiry", expiry),
        "spr": "https" if https else "https,http",
        "sv": HUB_API_VERSION,
        "sr": "c",
    }
    signed = [
        query["sp"],
        query["st"],
        query["se"],
        f"/blob/{account}/{container}",
        "",  # identifier of a stored access policy
        "",  # addresses that it may be used from
        query["spr"],
        query["sv"],
        query["sr"],
        "",  # snapshot
        *[""] * 5,  # headers that an answer gets: Cache-Control, -Disposition, -Encoding, -Language, -Type
    ]
    try:
        secret_bytes = base64.b64decode(secret, validate=True)
    except binascii.Error:
        raise ValueError(f"the key of account {account!r} is no base64: copy it from the portal") from None
    digest = hmac.new(secret_bytes, "\n".join(signed).encode(), hashlib.sha256).digest()
    query["sig"] = base64.b64encode(digest).decode()
    return urlencode({name: value for name, value in query.items() if value})


def _moment(field: str, at: datetime) -> str:
    if at.tzinfo is None:
        raise ValueError(f"{field} {at.isoformat()} has no time zone: give it one, such as UTC")
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
