"""What every runtime does, in the same words. Nothing here knows which there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_ai_assets.scoring.supervisor import DeploymentFailed, Failure

__all__ = ["DeploymentFailed", "Failure", "Release", "Running", "Runtime"]


@dataclass(frozen=True)
class Release:
    """What is to run: an image that is on the site, and its model's files."""

    release_id: str
    """Digest of the image, `sha256:` and 64 hexadecimal digits."""
    version: int
    path: Path
    """Folder with model.onnx and contract.json, unpacked; it must stay."""
    quota: int | None = None
    """Bytes that the outbox may hold; scoring is refused beyond. None for no bound."""


@dataclass(frozen=True)
class Running:
    """What serves a site."""

    release_id: str
    version: int
    url: str | None
    """Where programs of the site reach it."""
    failed: Failure | None = None
    """The last release that was not taken into service, until another one is."""


class Runtime(Protocol):
    """Runs one release of one site."""

    def deploy(self, release: Release, *, timeout: float) -> Running:
        """Take a release into service: the former one serves until it is ready, and goes on if it is not.

        Again, with the release that serves, changes nothing.

        Args:
            timeout: seconds in which it must be ready.

        Raises:
            DeploymentFailed: it was not ready in time or was refused; the message says why, and what serves.
        """
        ...

    def status(self) -> Running | None:
        """What serves now; None when nothing does.

        Raises:
            DeploymentFailed: it cannot be found out.
        """
        ...

    def trust(self, note: bytes) -> None:
        """Give the service the note of how long the site may rely on what it has. Again changes nothing.

        Args:
            note: `lease.json`, as `scoring.lease` reads it.

        Raises:
            DeploymentFailed: it cannot be given.
        """
        ...

    def stop(self) -> None:
        """End the service: requests in flight are finished, scores stay. Again changes nothing.

        Raises:
            TimeoutError: it did not end in time.
            DeploymentFailed: nobody could be told to end it.
        """
        ...
