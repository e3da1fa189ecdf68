"""The outbox as the service uses it: written on the event loop, no answer before it is on disk.

Everything else waits while a transaction reaches the disk. That is meant: what comes meanwhile is the next
group, and a thread that wrote beside the loop would cost more in handing over than it saves (docs/adr/0004).
What is written is the outbox's matter.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.scoring.logs import logger

if TYPE_CHECKING:
    from edge_ai_assets.returns.outbox.outbox import Batch, Receipt

T = TypeVar("T")
PATIENCE_SECONDS = 2.0
"""How long a transaction waits for another process's: Dagster's take some 40 ms."""

REMEMBERED_SECONDS = 5.0


class Busy(RuntimeError):
    """Another process holds the outbox; nothing was written, try again soon."""


class DiskFull(RuntimeError):
    """The disk is full; nothing of the request was written."""


class Failed(RuntimeError):
    """The outbox cannot be written; nothing of the request was."""


class Writer:
    """An open outbox. It belongs to the thread that opened it.

    Args:
        path: the outbox; made if there is none.
        quota: see Outbox.

    Raises:
        OutboxError, sqlite3.Error: it cannot be opened.
    """

    def __init__(self, path: Path, *, quota: int | None = None) -> None:
        self.path = path
        self._failure: tuple[float, str] | None = None
        self._outbox = Outbox(path, quota=quota, patience=PATIENCE_SECONDS)

    @property
    def failure(self) -> str | None:
        """Why nothing could be written the last time; None if it could, or that was a while ago.

        Who asks nothing of a service that is not ready would otherwise never learn that it is again.
        """
        if self._failure is None or self._failure[0] + REMEMBERED_SECONDS < time.monotonic():
            return None
        return self._failure[1]

    def close(self) -> None:
        self._outbox.close()

    def write(self, batches: Sequence[Batch]) -> list[Receipt]:
        """Write batches; on return they are on disk. A receipt for each.

        Raises:
            Busy, DiskFull, Failed: nothing was written.
            OutboxError: the outbox refuses a batch; OutboxFull: it has reached its quota.
        """
        return self.run(lambda outbox: outbox.append(batches))

    def run(self, job: Callable[[Outbox], T]) -> T:
        """Call `job` with the outbox; raises what `write` or the job raises."""
        try:
            result = job(self._outbox)
        except sqlite3.Error as error:
            failure = _translated(error)
            if not isinstance(failure, Busy):
                self._failure = time.monotonic(), str(failure)
                logger.error(str(failure))
            raise failure from error
        self._failure = None
        return result


def _translated(error: sqlite3.Error) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFull(f"the disk of the outbox is full, nothing was written: {error}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(f"another process holds the outbox, nothing was written: {error}")
    return Failed(f"the outbox cannot be written: {error}")
