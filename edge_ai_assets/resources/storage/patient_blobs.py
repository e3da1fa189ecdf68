"""Blobs of one container, for work that lasts hours: an outage is waited for, and said.

Which blobs there are and what they mean is the business of the modules that use them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import dagster as dg

from edge_ai_assets.resources.calling.patience import Patience, Refused, Unavailable
from edge_ai_assets.resources.storage import blob_content, blob_names
from edge_ai_assets.resources.storage.account import Account, Busy, missing
from edge_ai_assets.returns.road.link import LinkDown

if TYPE_CHECKING:
    from azure.storage.blob import BlobProperties, ContainerClient

T = TypeVar("T")


@dataclass(frozen=True)
class PatientBlobs:
    """One container.

    Each method may raise `Unavailable`, when an outage lasts for longer than there is patience, and `Refused`
    when trying again does not help.
    """

    account: Account = field(repr=False)
    container: str
    patience: Patience = field(repr=False)

    def put(self, name: str, data: bytes) -> None:
        """Make or replace a blob."""
        self._persist(f"sending {name}", lambda: self._client.upload_blob(name, data, overwrite=True))

    def get(self, name: str) -> bytes | None:
        """What a blob holds; None if there is none."""
        from azure.core.exceptions import ResourceNotFoundError

        def ask() -> bytes | None:
            try:
                return bytes(self._client.download_blob(name).readall())
            except ResourceNotFoundError as error:
                if missing(error):
                    return None
                raise

        return self._persist(f"fetching {name}", ask)

    def has(self, name: str) -> bool:
        blob = self._client.get_blob_client(name)
        return self._persist(f"asking for {name}", lambda: blob_content.properties(blob)) is not None

    def names(self, folder: str) -> set[str]:
        """Names of the files in a folder, relative to it."""
        found = self._persist(f"listing {folder}", lambda: self._list(folder))
        return {blob.name.removeprefix(f"{folder}/") for blob in found}

    def fetch(self, folder: str, into: Path) -> None:
        """Bring the files of a folder here, into a new folder; those of folders below it too."""
        found = self._persist(f"listing {folder}", lambda: self._list(folder))
        into.mkdir(parents=True)
        for blob in found:
            name = blob.name.removeprefix(f"{folder}/")
            if reason := blob_names.refused(name):
                raise Refused(f"{self.container}/{blob.name}: {reason}")
            path = into / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._persist(f"fetching {blob.name}", partial(self._bring, blob, path))

    def _list(self, folder: str) -> list[BlobProperties]:
        found = self._client.list_blobs(f"{folder}/", include=["metadata"])
        # In a lake with folders of its own they are listed too.
        return [blob for blob in found if (blob.metadata or {}).get("hdi_isfolder") != "true"]

    def _bring(self, blob: BlobProperties, path: Path) -> None:
        if wrong := blob_content.fetch(self._client, blob, path):
            raise Unavailable(wrong)

    def _persist(self, doing: str, ask: Callable[[], T]) -> T:
        def attempt() -> T:
            try:
                with self.account.talking(doing, Refused):
                    return ask()
            except LinkDown as error:
                after = error.after if isinstance(error, Busy) else None
                outage = Unavailable(str(error), wait=after)
            except Unavailable as error:
                outage = error
            dg.get_dagster_logger().warning(f"{outage}; trying again")
            raise outage

        return self.patience.persist(attempt)

    @cached_property
    def _client(self) -> ContainerClient:
        return self.account.container(self.container)
