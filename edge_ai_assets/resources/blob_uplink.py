"""The uplink to Azure Blob Storage: a package is a block blob `<site>/<name>` that is created once.

A package is sent in blocks that wait on the other side until all are there: what a cut leaves is found again
by their names. The last step makes the blob, unless somebody else has made it. What is no larger than a block
makes the blob in one request.

Several blocks are under way at once, since a long link is idle while one waits for its answer; how many
follows how fast they come through.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_ai_assets.resources.account import Account, missing
from edge_ai_assets.resources.blob_content import DIGEST, digest_there, properties
from edge_ai_assets.resources.transport import transport
from edge_ai_assets.returns.road import acks
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets.returns.road.pace import SLICE, UNBOUNDED, Pace
from edge_ai_assets.returns.road.roads import Leaving, UplinkError
from edge_ai_assets.returns.road.uplink import digest_of

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

FIRST, MOST = 8, 16
"""Blocks under way at the start, and at most."""
UNDER_WAY = 1024 * 1024
"""Bytes of them together. What of them had not come through is sent again after a cut; on the other hand no
more than these leave in a round trip and the time to mend a loss."""
SLOW_SECONDS = 5.0
"""A block that takes longer had too many others beside it."""
SLOWEST = 10_000
"""Bytes per second below which a link counts as down: what the system holds ready to send gets so much longer
to be answered."""


class BlobUplink:
    """The road from one site to a container.

    Args:
        account: with the endpoint of its blobs.
        container: its name; it must exist.
        site: the site's name, the folder of its packages there.
        pace: bounds the bandwidth.
        under_way: most bytes that are on their way at once, and that a cut may cost. A long link needs
            several times what it carries in a round trip.
    """

    answers = True

    def __init__(
        self, account: Account, container: str, site: str, pace: Pace = UNBOUNDED, under_way: int = UNDER_WAY
    ) -> None:
        self.site = site
        self.block = max(1, under_way // MOST)
        """Bytes."""
        self._account, self._pace, self._turn = account, pace, threading.Lock()
        # What a request with all the blocks beside it may take, see `_guarded`.
        patience = account.read_seconds + under_way / SLOWEST
        way = transport(MOST, patience, **account.connecting())
        self._client = account.container(container, transport=way)
        self._at_once = blocks_at_first(self.block, pace)
        """Blocks under way: one more with each that comes through, one less with each that was slow."""

    @property
    def destination(self) -> str:
        return f"{self._account.endpoint.rstrip('/')}/{self._client.container_name}/{self.site}"

    def send(self, path: Path, name: str, digest: str, leaving: Leaving) -> int:
        if (found := digest_of(path)) != digest:
            raise UplinkError(f"{path} is {found}, {digest} was sealed: check it against its outbox")
        blob, size = self._blob(name), path.stat().st_size
        with self._account.talking(f"sending {name}", UplinkError):
            if size <= self.block:
                sent, made = self._put(blob, path, digest, leaving)
            elif (waiting := _waiting(blob)) is None:
                sent, made = 0, False
            else:
                sent = self._stage(blob, path, digest, waiting, leaving)
                made = self._commit(blob, digest, size)
            there = digest if made else digest_there(blob)
        if there != digest:
            raise UplinkError(
                f"{self.destination}/{name}: another package ({there}) has this name, this one is {digest}; "
                "neither is lost"
            )
        return sent

    def digest_of(self, name: str) -> str | None:
        """SHA-256 of the package that has this name there, None if none has."""
        with self._account.talking(f"asking for {name}", UplinkError):
            return digest_there(self._blob(name))

    def probe(self) -> None:
        with self._account.talking("asking for the link", LinkDown):
            properties(self._blob(acks.NAME))

    def acknowledgement(self) -> bytes | None:
        blob = self._blob(acks.NAME)
        with self._account.talking("fetching the acknowledgement", UplinkError):
            if not (found := properties(blob)):
                return None
            return blob.download_blob(0, min(found.size, acks.MAX_BYTES + 1)).readall() if found.size else b""

    def _blob(self, name: str) -> BlobClient:
        return self._client.get_blob_client(f"{self.site}/{name}")

    def _put(self, blob: BlobClient, path: Path, digest: str, leaving: Leaving) -> tuple[int, bool]:
        """Make the blob in one request; the bytes sent, and whether it was not there."""
        from azure.core.exceptions import ResourceExistsError

        data = path.read_bytes()
        leaving(0, len(data))
        try:
            blob.upload_blob(
                self._paced(data, threading.Event()),
                length=len(data),
                metadata={DIGEST: digest},
                **self._guarded(data, 0),
            )
        except ResourceExistsError:
            return len(data), False
        return len(data), True

    def _stage(
        self, blob: BlobClient, path: Path, digest: str, waiting: dict[str, int], leaving: Leaving
    ) -> int:
        """Send the blocks that do not wait there yet; the bytes sent."""
        size, sent = path.stat().st_size, 0
        under_way: dict[Future[Any], float] = {}
        with path.open("rb") as file, ThreadPoolExecutor(MOST) as workers, self._ending() as ended:
            for first in range(0, size, self.block):
                length, name = min(self.block, size - first), block_id(first, digest, self.block)
                if waiting.get(name) == length:
                    continue
                while len(under_way) >= self._at_once:
                    self._one_through(under_way)
                file.seek(first)
                data = file.read(length)
                leaving(first, first + length)
                paced, options = self._paced(data, ended), self._guarded(data, len(under_way))
                sending = workers.submit(blob.stage_block, name, paced, length, **options)
                under_way[sending] = time.monotonic()
                sent += length
            while under_way:
                self._one_through(under_way)
        return sent

    @contextmanager
    def _ending(self) -> Iterator[threading.Event]:
        """Around what sends blocks: is set when whoever sends is told to stop, by the link or a termination.

        When a block fails, those beside it go on: what of them comes through waits there for the next call.
        """
        from azure.core.exceptions import AzureError

        ended = threading.Event()
        try:
            yield ended
        except BaseException as error:
            if not isinstance(error, AzureError):
                ended.set()
            raise

    def _one_through(self, under_way: dict[Future[Any], float]) -> None:
        """Wait until a block is through, or more are; raises what one of them raised."""
        for done in wait(under_way, return_when=FIRST_COMPLETED).done:
            slow = time.monotonic() - under_way.pop(done) > SLOW_SECONDS
            done.result()
            self._at_once = max(1, min(MOST, self._at_once + (-1 if slow else 1)))

    def _paced(self, data: bytes, ended: threading.Event) -> _Paced:
        # Read piece by piece: of bytes the client would want all sent within one time-out.
        return _Paced(data, self._pace, self._turn, ended)

    def _guarded(self, data: bytes, beside: int) -> dict[str, Any]:
        """Options of a request that carries these bytes, with so many blocks beside it."""
        return {
            "read_timeout": self._account.read_seconds + (len(data) + beside * self.block) / SLOWEST,
            # The other side checks a block as it comes: no protection, the package has its own.
            "transactional_content_md5": hashlib.md5(data, usedforsecurity=False).digest(),
        }

    def _commit(self, blob: BlobClient, digest: str, size: int) -> bool:
        """Make the blob of its blocks; whether it was not there."""
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError
        from azure.storage.blob import BlobBlock

        blocks = [BlobBlock(block_id(first, digest, self.block)) for first in range(0, size, self.block)]
        try:
            blob.commit_block_list(
                blocks, metadata={DIGEST: digest}, match_condition=MatchConditions.IfMissing
            )
        except (ResourceExistsError, ResourceModifiedError):
            return False  # somebody made it meanwhile: what is there now is judged by its digest
        return True


class _Paced(io.BytesIO):
    """A block that is handed out no faster than the pace, until it has `ended`; `turn` is of all that share
    the pace."""

    def __init__(self, data: bytes, pace: Pace, turn: threading.Lock, ended: threading.Event) -> None:
        super().__init__(data)
        self._pace, self._turn, self._ended = pace, turn, ended

    def read(self, size: int | None = -1) -> bytes:
        """As many bytes as are asked for: a client takes fewer for the end."""
        data = super().read(size)
        for first in range(0, len(data), SLICE):
            with self._turn:
                if self._ended.is_set():
                    raise LinkDown("the sending has ended")
                self._pace.take(min(SLICE, len(data) - first))
        return data


def blocks_at_first(block: int, pace: Pace) -> int:
    """How many blocks are under way at the start: no more than the pace lets through before they are slow."""
    return FIRST if pace.rate is None else max(1, min(FIRST, int(SLOW_SECONDS * pace.rate / block)))


def block_id(first: int, digest: str, block: int) -> str:
    """The name of a block, by where it begins, its file, and the size of the file's blocks.

    So two that send the same package in blocks of their own never take each other's. All names have one
    length, as storage wants it.
    """
    return f"{first:08x}-{hashlib.sha256(f'{digest} {block}'.encode()).hexdigest()[:16]}"


def _waiting(blob: BlobClient) -> dict[str, int] | None:
    """The blocks of earlier attempts, name to size; None when the blob itself is there."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        made, waiting = blob.get_block_list("all")
    except ResourceNotFoundError as error:
        if missing(error):
            return {}
        raise
    # A blob that was put there in one request has no blocks.
    if made or (not waiting and properties(blob)):
        return None
    return {block.id: block.size for block in waiting}
