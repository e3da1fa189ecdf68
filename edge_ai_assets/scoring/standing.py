"""How the service stands: its status, its newest scores, its metrics. Reads the outbox, writes nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import parse_qs

import msgspec

from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.outbox.schema import decode as decode_record
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.scoring.answers import time_text
from edge_ai_assets.scoring.lease import Lease
from edge_ai_assets.scoring.messages import Request, Response
from edge_ai_assets.scoring.metrics import Metrics
from edge_ai_assets.scoring.model import Model
from edge_ai_assets.scoring.refused import Refused

if TYPE_CHECKING:
    from edge_ai_assets.returns.outbox.schema import ScoreRow

T = TypeVar("T")
MAX_RECENT = 1_000


class Release(NamedTuple):
    """A release that is served: its model, its digest, its number, for people."""

    model: Model
    digest: str
    version: int


class Standing:
    """Answers how it stands, from a connection to the outbox of its own: reading keeps no commit waiting.

    Args:
        release: the one that serves.
        path: the outbox.
        lease: how long the site may rely on what it has.
        waiting: how many rows wait in memory.
    """

    def __init__(
        self,
        site: str,
        release: Release,
        path: Path,
        metrics: Metrics,
        lease: Lease,
        waiting: Callable[[], int],
    ) -> None:
        self._site, self._release, self._path, self._lease = site, release, path, lease
        self._metrics, self._waiting = metrics, waiting
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox-reader")
        self._outbox = self._thread.submit(Outbox, path, create=False).result()
        self._started = time.time()
        self._installed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(release.model.installed))

    def close(self) -> None:
        self._thread.submit(self._outbox.close)
        self._thread.shutdown()

    async def read(self, job: Callable[[Outbox], T]) -> T:
        """Ask the outbox, on a connection of its own: reading keeps no commit waiting."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, job, self._outbox)

    async def status(self, request: Request) -> Response:
        counts = await self.read(lambda outbox: outbox.counts())
        release = self._release
        link = Link(self._path.parent).state
        return _json(
            {
                "site": self._site,
                "release": release.digest,
                "version": release.version,
                "release_since": self._installed,
                "trust": self._lease.trust()._asdict(),
                "withdrawn": self._lease.withdrawn(release.digest),
                "uptime_seconds": round(time.time() - self._started, 3),
                "pid": os.getpid(),
                "link": {"state": link.state, "since": link.since or None},
                "outbox": counts,
            }
        )

    async def recent(self, request: Request) -> Response:
        given = parse_qs(request.query, keep_blank_values=True).get("limit", ["200"])[-1]
        if not (given.isascii() and given.isdecimal() and len(given) < 9 and 1 <= int(given) <= MAX_RECENT):
            raise Refused(422, f"limit must be a whole number from 1 to {MAX_RECENT}, it is {given[:60]!r}")
        return await self.read(lambda outbox: self._newest(outbox, int(given)))

    def _newest(self, outbox: Outbox, number: int) -> Response:
        return _json({"scores": [self._shown(row) for row in reversed(outbox.newest(number))]})

    def _shown(self, row: ScoreRow) -> dict[str, Any]:
        try:
            record: Any = decode_record(row)
        except ValueError:  # it will be quarantined; here it is shown without what cannot be read
            record = {"inputs": {}, "context": {}}
        return {
            "id": f"{self._site}/{row.sequence}",
            "scored_at": time_text(row.scored_at),
            "release": row.release,
            "score": row.score,
            "predicted": bool(row.predicted),
            "outside": bool(row.outside),
            **msgspec.to_builtins(record),
        }

    async def metrics(self, request: Request) -> Response:
        waiting = self._waiting()
        text = await self.read(lambda outbox: self._rendered(outbox, waiting))
        return Response(200, text, b"text/plain; version=0.0.4; charset=utf-8")

    def _rendered(self, outbox: Outbox, waiting: int) -> bytes:
        oldest = outbox.oldest_pending()
        return self._metrics.render(
            site=self._site,
            release=self._release.digest,
            version=self._release.version,
            outbox=msgspec.structs.asdict(outbox.counts()),
            outbox_bytes=outbox.size(),
            oldest_pending=None if oldest is None else max(0.0, time.time() - oldest / 1e6),
            disk_free=_free(self._path.parent),
            waiting=waiting,
        )


def _free(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _json(value: Any) -> Response:
    return Response(200, msgspec.json.encode(value))
