"""Where releases come from, whatever it is: names for documents, and blobs by digest.

A layout folder is one (`layout`), a registry elsewhere is another (`registry`). Nothing that comes out of one
is trusted: whoever takes it checks digests, and what the digests hang on.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from edge_ai_assets.delivery.blobs import BlobFolder
from edge_ai_assets.delivery.manifest import Descriptor, Digest


class Source(Protocol):
    """See the module."""

    def head(self, name: str) -> Digest | None:
        """The digest that a tag means, as cheap as can be and not checked; None when there is no such tag."""
        ...

    def resolve(self, name: str) -> Descriptor:
        """What a tag means; MissingError when there is no such tag."""
        ...

    def names(self) -> Collection[str]:
        """All tags."""
        ...

    def get(self, digest: Digest, *, max_bytes: int) -> bytes:
        """A document; MissingError, TooLargeError, or MismatchError for content of another digest."""
        ...

    def give(self, part: Descriptor, into: BlobFolder) -> None:
        """Put a blob into a folder, checked on the way. Nothing incomplete ever has its name there."""
        ...
