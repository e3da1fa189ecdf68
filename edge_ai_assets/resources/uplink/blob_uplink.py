"""The uplink to Azure Blob Storage: a package is a block blob `<site>/<name>` that is created once.

A package is sent in blocks that wait on the other side until all are there: what a cut leaves is found again
by their names. The last step makes the blob, unless somebody else has made it. A small package makes the
blob in one request.

Many blocks are under way at once, of several packages, since a long link is idle while one waits for its
answer. Over such a link they are small: one that lost a packet comes through later, and only what came
through whole is kept after a cut. But not smaller: each has headers of its own. Over a short one they are few
and large: each costs the site some CPU.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_ai_assets.resources.storage.account import Account, missing
from edge_ai_assets.resources.storage.blob_content import DIGEST, digest_there, properties
from edge_ai_assets.resources.uplink.transport import transport
from edge_ai_assets.resources.uplink.under_way import SLOW_SECONDS, Paced, UnderWay
from edge_ai_assets.returns.road import acks
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets.returns.road.pace import UNBOUNDED, Pace
from edge_ai_assets.returns.road.roads import Leaving, UplinkError
from edge_ai_assets.returns.road.uplink import digest_of

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

COST, MOST = 43, 52
"""Blocks under way at the start, and at most: of these a cut costs no more than those, since the others have
come through a long link, and their answers are on the way."""
UNDER_WAY = 1024 * 1024
"""Bytes of the blocks that a cut costs."""
LARGE = 8
"""Blocks under way over a short link, where a cut costs all of them."""
LONG_SECONDS = 0.2
"""What takes so long to be answered, setting up a connection included, goes over a long link."""
TOGETHER = 16
"""Packages under way at once: while one waits for its last block, or for being made of them, others go on."""
ONE_REQUEST = 64 * 1024
"""Bytes of a package that is sent in one request."""
RANGE = 4
"""Small blocks that leave with one word: the ledger writes a line for it, durably."""
USER_AGENT = "edge_ai_assets"
"""The client's own is eight times as long, and goes with each block."""
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
        under_way: most bytes that have left and not come through, and that a cut costs, over a long link. One
            that loses packets needs half as much again as it carries in a round trip.
    """

    answers = True
    together = TOGETHER

    def __init__(
        self, account: Account, container: str, site: str, pace: Pace = UNBOUNDED, under_way: int = UNDER_WAY
    ) -> None:
        self.site = site
        self.small, self.large = max(1, under_way // COST), max(1, under_way // LARGE)
        """Bytes of a block, over a long link and over a short one."""
        self._most = under_way
        self._account, self._pace, self._turn = account, pace, threading.Lock()
        # See `_through`.
        patience = account.read_seconds + MOST * self.small / SLOWEST
        way = transport(MOST + TOGETHER, patience, **account.connecting())
        self._client = account.container(container, transport=way, base_user_agent=USER_AGENT)
        first = blocks_at_first(self.small, pace) * self.small
        self._under_way = UnderWay(first, MOST * self.small, self.small)

    @property
    def destination(self) -> str:
        return f"{self._account.endpoint.rstrip('/')}/{self._client.container_name}/{self.site}"

    def send(self, path: Path, name: str, digest: str, leaving: Leaving) -> int:
        if (found := digest_of(path)) != digest:
            raise UplinkError(f"{path} is {found}, {digest} was sealed: check it against its outbox")
        blob, size = self._blob(name), path.stat().st_size
        asked = time.monotonic()
        with self._account.talking(f"sending {name}", UplinkError):
            if size <= ONE_REQUEST:
                sent, made = self._put(blob, path, digest, leaving)
            elif (waiting := _waiting(blob)) is None:
                sent, made = 0, False
            else:
                block = self._block(waiting, digest, size, time.monotonic() - asked)
                sent = self._stage(blob, path, digest, block, waiting, leaving)
                made = self._commit(blob, digest, block, size)
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
        self._under_way.begin(len(data))

        def put(content: Paced, **options: Any) -> None:
            blob.upload_blob(content, length=len(data), metadata={DIGEST: digest}, **options)

        try:
            self._through(put, data, threading.Event())
        except ResourceExistsError:
            return len(data), False
        return len(data), True

    def _block(self, waiting: dict[str, int], digest: str, size: int, seconds: float) -> int:
        """Bytes of this package's blocks: as those that wait there, else by how long an answer took."""
        for block in (self.small, self.large):
            if any(block_id(first, digest, block) in waiting for first in range(0, size, block)):
                return block
        slow = self._pace.rate is not None and self._pace.rate < self.large
        return self.small if slow or seconds > LONG_SECONDS else self.large

    def _stage(
        self,
        blob: BlobClient,
        path: Path,
        digest: str,
        block: int,
        waiting: dict[str, int],
        leaving: Leaving,
    ) -> int:
        """Send the blocks that do not wait there yet; the bytes sent."""
        size = path.stat().st_size
        most = None if block == self.small else self._most
        missing = {
            first: length
            for first in range(0, size, block)
            if waiting.get(block_id(first, digest, block)) != (length := min(block, size - first))
        }
        under_way: list[Future[None]] = []
        told, broken = 0, threading.Event()
        with path.open("rb") as file, ThreadPoolExecutor(MOST) as workers, self._ending() as ended:
            for first, length in missing.items():
                if broken.is_set():
                    break  # before more is said to leave: the room that a failed block gave back is no room
                if first >= told:
                    told = first
                    while told in missing and told < first + RANGE * self.small:
                        told += missing[told]
                    leaving(first, told)
                file.seek(first)
                data = file.read(length)
                stage = partial(blob.stage_block, block_id(first, digest, block), length=length)
                under_way = [one for one in under_way if not _came_through(one)]
                # Nothing may fail between this and the submission: who ends it is `_through`.
                self._under_way.begin(length, most)
                under_way.append(workers.submit(self._through, stage, data, ended, broken))
            for one in as_completed(under_way):
                one.result()
        return sum(missing.values())

    def _through(
        self,
        request: Callable[..., object],
        data: bytes,
        ended: threading.Event,
        broken: threading.Event | None = None,
    ) -> None:
        """Make a request with these bytes, for which there is room; on return they have come through. If they
        do not, `broken` is set before anybody gets their room."""
        began, seconds = time.monotonic(), None
        try:
            # Read piece by piece: of bytes the client would want all sent within one time-out.
            request(
                Paced(data, self._pace, self._turn, ended),
                read_timeout=self._account.read_seconds + self._under_way.bytes / SLOWEST,
                # The other side checks a block as it comes: no protection, the package has its own.
                transactional_content_md5=hashlib.md5(data, usedforsecurity=False).digest(),
            )
            seconds = time.monotonic() - began
        finally:
            if seconds is None and broken:
                broken.set()
            self._under_way.end(len(data), seconds)

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

    def _commit(self, blob: BlobClient, digest: str, block: int, size: int) -> bool:
        """Make the blob of its blocks; whether it was not there."""
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError
        from azure.storage.blob import BlobBlock

        blocks = [BlobBlock(block_id(first, digest, block)) for first in range(0, size, block)]
        try:
            blob.commit_block_list(
                blocks, metadata={DIGEST: digest}, match_condition=MatchConditions.IfMissing
            )
        except (ResourceExistsError, ResourceModifiedError):
            return False  # somebody made it meanwhile: what is there now is judged by its digest
        return True


def _came_through(request: Future[None]) -> bool:
    """Whether it has; raises what it raised."""
    return request.done() and request.result() is None


def blocks_at_first(block: int, pace: Pace) -> int:
    """How many blocks are under way at the start: no more than the pace lets through before they are slow."""
    return COST if pace.rate is None else max(1, min(COST, int(SLOW_SECONDS * pace.rate / block)))


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
