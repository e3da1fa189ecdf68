"""Notes as blobs of a container, those of an Azure Stack Hub included: `returns.hub.notes.Notes`."""

from __future__ import annotations

from edge_ai_assets.resources.storage.account import Account, missing
from edge_ai_assets.returns.hub.notes import Note
from edge_ai_assets.returns.hub.queue import QueueError


class BlobNotes:
    """Notes in a container that exists, see `create`.

    Args:
        account: with the endpoint of its blobs; of a hub with `api_version=HUB_API_VERSION`.
        container: its name.
    """

    def __init__(self, account: Account, container: str) -> None:
        self._account, self._client = account, account.container(container)

    def create(self) -> None:
        """Make the container; nothing when it is there."""
        from azure.core.exceptions import ResourceExistsError

        with self._account.talking(f"creating the container {self._client.container_name}", QueueError):
            try:
                self._client.create_container()
            except ResourceExistsError:
                return

    def read(self, name: str) -> Note | None:
        from azure.core.exceptions import ResourceNotFoundError

        with self._account.talking(f"reading the note {name}", QueueError):
            try:
                found = self._client.get_blob_client(name).download_blob()
                return Note(found.readall(), str(found.properties.etag))
            except ResourceNotFoundError as error:
                if missing(error):
                    return None
                raise

    def write(self, name: str, data: bytes, tag: str | None) -> bool:
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError

        unchanged = (
            {"match_condition": MatchConditions.IfMissing}
            if tag is None
            else {"etag": tag, "match_condition": MatchConditions.IfNotModified}
        )
        with self._account.talking(f"writing the note {name}", QueueError):
            try:
                self._client.get_blob_client(name).upload_blob(data, overwrite=True, **unchanged)
            except (ResourceExistsError, ResourceModifiedError):
                return False
            except ResourceNotFoundError as error:
                if missing(error):
                    return False
                raise
        return True
