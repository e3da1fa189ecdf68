"""What verified trust metadata lists: which statements are releases, and which of them were withdrawn. How it
was verified is `trust`'s, which release is chosen `newest`'s."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_ai_assets.delivery.errors import UntrustedError
from edge_ai_assets.delivery.manifest import Digest, digest_of

_RELEASE = re.compile(r"releases/[^/]+/([1-9][0-9]{0,8})\.dsse")
WITHDRAWN = "withdrawn"
"""Field of a target's `custom` in the signed list: the release was withdrawn."""


class Withdrawal(msgspec.Struct, frozen=True):
    """Who took a release back, why and when. A later version may say more."""

    who: str
    why: str
    at: Annotated[datetime, msgspec.Meta(tz=True)]

    def __str__(self) -> str:
        """In one line, as logs want it."""
        return f"withdrawn by {self.who} on {self.at:%Y-%m-%d %H:%M}: {' '.join(self.why.split())}"


UNREAD = Withdrawal("Azure", "in a way that this version does not read", datetime.fromtimestamp(0, UTC))


@dataclass(frozen=True)
class Listed:
    """The targets of verified metadata."""

    targets: Mapping[str, tuple[Digest, int]] = field(default_factory=dict)
    """Digest and size in bytes, by path."""
    online: tuple[Ed25519PublicKey, ...] = ()
    """The Ed25519 keys of the role `timestamp`, which also sign acknowledgements."""
    withdrawn: Mapping[str, Withdrawal] = field(default_factory=dict)
    """Those of `targets` that nobody may install any more, by path."""

    def require(self, path: str, data: bytes) -> None:
        """Raise UntrustedError unless exactly these bytes are listed under that path."""
        if path not in self.targets:
            raise UntrustedError(
                f"{path} is not listed in the metadata that is trusted here; was it revoked?"
            )
        if self.targets[path] != (digest_of(data), len(data)):
            raise UntrustedError(
                f"{path} is refused: it has {len(data)} bytes with {digest_of(data)}, the trusted "
                f"metadata lists {self.targets[path][1]} bytes with {self.targets[path][0]}"
            )


def version_of(path: str) -> int | None:
    """The version whose statement stands there; None where no release stands."""
    match = _RELEASE.fullmatch(path)
    return int(match[1]) if match else None


def said_of(custom: Any) -> Withdrawal | None:
    """The withdrawal in the `custom` of a target. One in an unknown form is one all the same."""
    if not isinstance(custom, dict) or custom.get(WITHDRAWN) is None:
        return None
    try:
        return msgspec.convert(custom[WITHDRAWN], Withdrawal)
    except msgspec.ValidationError:
        return UNREAD


def path_of(usecase: str, version: int) -> str:
    """Where a release's statement stands among the targets."""
    return f"releases/{usecase}/{version}.dsse"
