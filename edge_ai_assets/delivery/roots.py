"""Root metadata: whose keys count for which role, and how many of them must sign. Made, and followed by more.

Each version is signed by enough keys of the one before it, so a site follows them in order however many it
missed. Source: TUF specification 1.0.33, 5.3 and 6.1. What else is signed is `authority`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edge_ai_assets.delivery.authority import LONG, add_signature
from edge_ai_assets.delivery.errors import KeyFileError
from edge_ai_assets.delivery.keyring import NAME, Keyring
from edge_ai_assets.delivery.signed import root_of

if TYPE_CHECKING:
    from securesystemslib.signer import Key
    from tuf.api.metadata import Root

ROLES = ("root", "targets", "snapshot", "timestamp")


def first(roles: Mapping[str, Sequence[Key]], thresholds: Mapping[str, int], keys: Keyring) -> bytes:
    """Version 1 of root metadata.

    Args:
        roles: the keys of each role.
        thresholds: how many of them must sign; 1 when absent.
        keys: with the private halves of enough keys of `root`.

    Raises:
        KeyFileError: a role has no key, or fewer than must sign.
    """
    from tuf.api.metadata import Root

    made = Root(expires=_expires())
    for role in ROLES:
        for key in roles[role]:
            made.add_key(key, role)
        made.roles[role].threshold = thresholds.get(role, 1)
    _check(made)
    return _signed(made, made, keys)


def following(root: bytes, change: Callable[[Root], None], keys: Keyring) -> bytes:
    """The version after `root`, changed, and signed as both demand.

    Raises:
        KeyFileError: too few keys of `root` are here, or a role would be left with too few.
    """
    before, made = root_of(root).signed, root_of(root).signed
    change(made)
    made.version += 1
    made.expires = _expires()
    _check(made)
    return _signed(made, before, keys)


def replaced(role: str, old: str, new: Key) -> Callable[[Root], None]:
    """Give a key's place in a role to another."""

    def change(root: Root) -> None:
        root.revoke_key(keyid_of(root, role, old), role)
        root.add_key(new, role)

    return change


def revoked(role: str, old: str) -> Callable[[Root], None]:
    """Take a key out of a role. Those left must still be enough."""

    def change(root: Root) -> None:
        root.revoke_key(keyid_of(root, role, old), role)

    return change


def keyid_of(root: Root, role: str, name: str) -> str:
    """The key that people call `name` in a role, or whose id begins with it; KeyFileError when none does."""
    found = [
        keyid
        for keyid in root.roles[role].keyids
        if root.keys[keyid].unrecognized_fields.get(NAME) == name
        or (len(name) >= 8 and keyid.startswith(name))
    ]
    if len(found) != 1:
        there = ", ".join(
            str(root.keys[keyid].unrecognized_fields.get(NAME)) for keyid in root.roles[role].keyids
        )
        raise KeyFileError(f"role {role} has {len(found)} keys {name!r}; it has: {there}")
    return found[0]


def described(root: bytes) -> dict[str, Any]:
    """Root metadata for people: version, end, and of each role its threshold and keys."""
    found = root_of(root).signed
    return {
        "version": found.version,
        "expires": found.expires.isoformat(),
        "roles": {
            role: {
                "threshold": found.roles[role].threshold,
                "keys": [
                    {
                        "name": found.keys[keyid].unrecognized_fields.get(NAME, ""),
                        "scheme": found.keys[keyid].scheme,
                        "id": keyid,
                    }
                    for keyid in found.roles[role].keyids
                ],
            }
            for role in ROLES
        },
    }


def _check(root: Root) -> None:
    for role in ROLES:
        there, needed = len(root.roles[role].keyids), root.roles[role].threshold
        if not 1 <= needed <= there:
            raise KeyFileError(f"role {role} would have {there} keys, of which {needed} must sign")


def _signed(made: Root, before: Root, keys: Keyring) -> bytes:
    """Signed by all keys at hand that count for `root` in either version."""
    from tuf.api.metadata import Metadata

    document = Metadata(made)
    for keyid in dict.fromkeys([*before.roles["root"].keyids, *made.roles["root"].keyids]):
        signer = keys.signer(before.keys.get(keyid) or made.keys[keyid])
        if signer is not None:
            add_signature(document, signer)
    for demanding in (before, made):
        result = demanding.get_verification_result("root", document.signed_bytes, document.signatures)
        if not result:
            names = ", ".join(str(key.unrecognized_fields.get(NAME, "")) for key in result.unsigned.values())
            raise KeyFileError(
                f"root metadata needs {demanding.roles['root'].threshold} root keys, {len(result.signed)} "
                f"are here: bring the folder that holds {names}"
            )
    return document.to_bytes()


def _expires() -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + LONG
