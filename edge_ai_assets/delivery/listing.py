"""What verified trust metadata lists: which statements are releases. How it was verified is `trust`'s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_ai_assets.delivery.errors import UntrustedError
from edge_ai_assets.delivery.manifest import Digest, digest_of


@dataclass(frozen=True)
class Listed:
    """The targets of verified metadata."""

    targets: Mapping[str, tuple[Digest, int]] = field(default_factory=dict)
    """Digest and size in bytes, by path."""
    online: tuple[Ed25519PublicKey, ...] = ()
    """The Ed25519 keys of the role `timestamp`, which also sign acknowledgements."""

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


def path_of(usecase: str, version: int) -> str:
    """Where a release's statement stands among the targets."""
    return f"releases/{usecase}/{version}.dsse"
