"""Files that were landed in a container, brought into the landing zone of the home, once each.

A blob is known by its name and its etag: one that was put there anew comes again, one that came does not,
whether or not its file was taken into the lake by now. The container is only read. What is in a file is
`readings`' matter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ai_assets.delivery import durable
from edge_ai_assets.resources.storage import blob_content, blob_names
from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets.resources.storage.noted import Noted
from edge_ai_assets.returns.road.link import LinkDown

if TYPE_CHECKING:
    from azure.storage.blob import BlobProperties, ContainerClient

MAX_BYTES = 4 * 1024**3
"""Of one file: it is to fit beside what it becomes in the lake."""
LIMIT = 1_000
"""Files that one call brings at most, so that they are taken in bit by bit."""


class LandingError(RuntimeError):
    """Nothing can be fetched until somebody does what the message says."""


@dataclass(frozen=True)
class Fetched:
    """What one call brought."""

    files: tuple[str, ...] = ()
    """Their names, below the landing zone."""
    bytes: int = 0
    left: tuple[tuple[str, str], ...] = ()
    """Blobs that were left where they are, and why."""
    interrupted: str | None = None
    """Why it stopped early: the account was out of reach. The rest comes with the next call."""


class BlobLanding:
    """A container and the landing zone that it fills.

    Args:
        account: with the endpoint of its blobs.
        container: its name; it must exist.
        folder: the landing zone; sub-folders are those of the names.
        max_bytes: a larger blob is left.
    """

    def __init__(self, account: Account, container: str, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._account, self._container, self._folder = account, container, folder
        self._max_bytes = max_bytes

    def waiting(self) -> list[tuple[str, str]]:
        """Name and etag of the blobs that `fetch` would bring, by name. The container is listed, no more: all
        of it, so give it a rule that removes what is old.

        Raises:
            LinkDown: the account is out of reach.
            LandingError: it refuses.
        """
        with self._noted() as noted, self._account.talking(self._looking, LandingError):
            client = self._account.container(self._container)
            return [(blob.name, blob.etag) for blob in self._new(client, noted) if not self._refused(blob)]

    def fetch(self) -> Fetched:
        """Bring what waits, LIMIT files at most: each appears whole under its name, or not at all.

        Cut or killed anywhere, the next call goes on; what came of a large file is kept.

        Raises:
            LandingError: the account refuses.
        """
        files: list[str] = []
        left: list[tuple[str, str]] = []
        size, interrupted = 0, None
        with durable.locked(self._hidden / "lock"), self._noted() as noted:
            listed: list[BlobProperties] = []
            try:
                with self._account.talking(self._looking, LandingError):
                    client = self._account.container(self._container)
                    listed = list(self._new(client, noted))
                self._forget_but(listed)
                for blob in listed:
                    if len(files) == LIMIT:
                        break
                    if reason := self._refused(blob) or self._fetch(client, blob):
                        left.append((blob.name, reason))
                        continue
                    noted.put(blob.name, blob.etag)
                    files.append(blob.name)
                    size += blob.size
            except LinkDown as error:
                interrupted = str(error)
        return Fetched(tuple(files), size, tuple(left), interrupted)

    @property
    def _looking(self) -> str:
        return f"looking for landed files in {self._container}"

    @property
    def _hidden(self) -> Path:
        return self._folder / ".landing"

    def _noted(self) -> Noted:
        return Noted(self._hidden / "taken.db", f"{self._account.endpoint}/{self._container}")

    def _new(self, client: ContainerClient, noted: Noted) -> Iterator[BlobProperties]:
        """Blobs that did not come. One without content is a folder, or is being written."""
        for blob in client.list_blobs(include=["metadata"]):
            if blob.size and noted.get(blob.name) != blob.etag:
                yield blob

    def _refused(self, blob: BlobProperties) -> str | None:
        """Why a blob does not become a file here; None when it does."""
        from edge_ai_assets.readings import landing

        if reason := blob_names.refused(blob.name):
            return reason
        if blob.name.split("/")[0] in (landing.TAKEN, landing.UNREADABLE):
            return "the landing zone keeps the folders 'taken' and 'unreadable' for itself"
        if blob.size > self._max_bytes:
            return f"it has {blob.size} bytes, the limit is {self._max_bytes}: land it in several files"
        return None

    def _fetch(self, client: ContainerClient, blob: BlobProperties) -> str | None:
        """Bring one; why it was not taken, None when it was."""
        from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError

        fresh, final = self._hidden / "arriving" / blob_content.partial_name(blob), self._folder / blob.name
        durable.make_folder(fresh.parent)
        with self._account.talking(f"fetching {blob.name}", LandingError):
            try:
                if reason := blob_content.fetch(client, blob, fresh):
                    return f"{reason}; it is fetched anew by the next call"
            except (ResourceModifiedError, ResourceNotFoundError) as error:
                if getattr(error, "error_code", None) not in ("ConditionNotMet", "BlobNotFound"):
                    raise
                return "it was put there anew, or removed, while it was fetched"
        try:
            durable.make_folder(final.parent)
            os.replace(fresh, final)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            return "its name is that of a folder here, or goes through that of a file"
        durable.sync_folder(final.parent)
        return None

    def _forget_but(self, listed: Sequence[BlobProperties]) -> None:
        """Remove what came of blobs that are not there any more as they were."""
        known = {blob_content.partial_name(blob) for blob in listed}
        arriving = self._hidden / "arriving"
        for path in arriving.iterdir() if arriving.exists() else ():
            if path.name not in known:
                path.unlink()
