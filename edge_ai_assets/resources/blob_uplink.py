"""The uplink to Azure Blob Storage: a package is a block blob `<site>/<name>` that is created once.

A package is sent in blocks of 1 MiB that wait on the other side until all are there: what a cut leaves is
found again by their names. The last step makes the blob, unless somebody else has made it.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ai_assets.resources.account import Account, missing
from edge_ai_assets.returns.road import acks
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets.returns.road.pace import SLICE, UNBOUNDED, Pace
from edge_ai_assets.returns.road.roads import Leaving, UplinkError
from edge_ai_assets.returns.road.uplink import BLOCK, digest_of

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, BlobProperties

SLOWEST = 10_000
"""Bytes per second below which a link counts as down: a block that the system holds ready to send, all of
it, gets so much longer to be answered."""
DIGEST = "sha256"
"""The metadata of a blob that holds its digest; written with the blob, in one step."""


class BlobUplink:
    """The road from one site to a container.

    Args:
        account: with the endpoint of its blobs.
        container: its name; it must exist.
        site: the site's name, the folder of its packages there.
        pace: bounds the bandwidth.
    """

    answers = True

    def __init__(self, account: Account, container: str, site: str, pace: Pace = UNBOUNDED) -> None:
        self.site = site
        self._account, self._pace = account, pace
        self._client = account.container(container)

    @property
    def destination(self) -> str:
        return f"{self._account.endpoint.rstrip('/')}/{self._client.container_name}/{self.site}"

    def send(self, path: Path, name: str, digest: str, leaving: Leaving) -> int:
        if (found := digest_of(path)) != digest:
            raise UplinkError(f"{path} is {found}, {digest} was sealed: check it against its outbox")
        blob, sent = self._blob(name), 0
        with self._account.talking(f"sending {name}", UplinkError):
            there = _digest_there(blob)
            if there is None:
                sent = self._stage(blob, path, digest, leaving)
                self._commit(blob, digest, path.stat().st_size)
                there = _digest_there(blob)
        if there != digest:
            raise UplinkError(
                f"{self.destination}/{name}: another package ({there}) has this name, this one is {digest}; "
                "neither is lost"
            )
        return sent

    def digest_of(self, name: str) -> str | None:
        """SHA-256 of the package that has this name there, None if none has."""
        with self._account.talking(f"asking for {name}", UplinkError):
            return _digest_there(self._blob(name))

    def probe(self) -> None:
        with self._account.talking("asking for the link", LinkDown):
            _properties(self._blob(acks.NAME))

    def acknowledgement(self) -> bytes | None:
        blob = self._blob(acks.NAME)
        with self._account.talking("fetching the acknowledgement", UplinkError):
            if not (found := _properties(blob)):
                return None
            return blob.download_blob(0, min(found.size, acks.MAX_BYTES + 1)).readall() if found.size else b""

    def _blob(self, name: str) -> BlobClient:
        return self._client.get_blob_client(f"{self.site}/{name}")

    def _stage(self, blob: BlobClient, path: Path, digest: str, leaving: Leaving) -> int:
        """Send the blocks that do not wait there yet; the bytes sent."""
        waiting, size, sent = _waiting(blob), path.stat().st_size, 0
        with path.open("rb") as file:
            for index, first in enumerate(range(0, size, BLOCK)):
                length = min(BLOCK, size - first)
                if waiting.get(block_id(index, digest)) == length:
                    continue
                file.seek(first)
                data = file.read(length)
                leaving(first, first + length)
                # Read piece by piece: of bytes the client would want all sent within one time-out.
                blob.stage_block(
                    block_id(index, digest),
                    _Paced(data, self._pace),
                    length,
                    read_timeout=self._account.read_seconds + length / SLOWEST,
                    transactional_content_md5=_md5(data),
                )
                sent += length
        return sent

    def _commit(self, blob: BlobClient, digest: str, size: int) -> None:
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError
        from azure.storage.blob import BlobBlock

        blocks = [BlobBlock(block_id(index, digest)) for index in range(-(-size // BLOCK))]
        try:
            blob.commit_block_list(
                blocks, metadata={DIGEST: digest}, match_condition=MatchConditions.IfMissing
            )
        except (ResourceExistsError, ResourceModifiedError):
            return  # somebody made it meanwhile: what is there now is judged by its digest


class _Paced(io.BytesIO):
    """A block that is handed out in slices, no faster than the pace."""

    def __init__(self, data: bytes, pace: Pace) -> None:
        super().__init__(data)
        self._pace = pace

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(SLICE if size is None or size < 0 else min(size, SLICE))
        self._pace.take(len(piece))
        return piece


def block_id(index: int, digest: str) -> str:
    """The name of a block: blocks of another file under the same name have others, all of one length."""
    return f"{index:08}-{digest[:16]}"


def _md5(data: bytes) -> bytes:
    """By which the other side checks a block as it comes; no protection, the package has its own."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def _properties(blob: BlobClient) -> BlobProperties | None:
    """What is there under this name; None if nothing.

    Raises:
        LinkDown: what answered is no storage: a captive portal has an answer to everything.
    """
    from azure.core.exceptions import ResourceNotFoundError

    try:
        found = blob.get_blob_properties()
    except ResourceNotFoundError as error:
        if missing(error):
            return None
        raise
    if not found.etag:
        raise LinkDown(f"{blob.primary_hostname}: something else than storage answers there, a portal maybe")
    return found


def _digest_there(blob: BlobClient) -> str | None:
    if not (found := _properties(blob)):
        return None
    if noted := (found.metadata or {}).get(DIGEST):
        return str(noted)
    digest = hashlib.sha256()  # somebody put it there by other means
    for chunk in blob.download_blob().chunks():
        digest.update(chunk)
    return digest.hexdigest()


def _waiting(blob: BlobClient) -> dict[str, int]:
    """The blocks of earlier attempts: name to size."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        _, waiting = blob.get_block_list("uncommitted")
    except ResourceNotFoundError as error:
        if missing(error):
            return {}
        raise
    return {block.id: block.size for block in waiting}
