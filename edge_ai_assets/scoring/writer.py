"""Group commit: many requests, one transaction, and no answer before it is on disk.

One thread owns the outbox. While it waits for the disk, requests queue; all that queued goes into its next
transaction, so a busy service commits as often as an idle one. What is written is the outbox's matter.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from edge_ai_assets.scoring.logs import logger

if TYPE_CHECKING:
    from edge_ai_assets.returns.outbox import Batch, Outbox, Receipt

T = TypeVar("T")
WAITING_ROWS = 200_000
STOP_SECONDS = 30.0


class Busy(RuntimeError):
    """More is waiting for the disk than is kept in memory; nothing was written, try again later."""


class DiskFull(RuntimeError):
    """The disk is full; nothing of the request was written."""


class Stopped(RuntimeError):
    """The writer does not run; the message says why. What waited may or may not have been written."""


class _Item(NamedTuple):
    work: Batch | Callable[[Outbox], Any]
    rows: int
    future: asyncio.Future[Any]


class Writer:
    """The thread that writes, and the queue before it. Its methods are called on one event loop.

    Args:
        open_outbox: opens the outbox, in the writer's thread.
        waiting_rows: rows that may wait; a request that finds none waiting is always taken.
    """

    def __init__(self, open_outbox: Callable[[], Outbox], *, waiting_rows: int = WAITING_ROWS) -> None:
        self._open = open_outbox
        self._limit = waiting_rows
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        # These are touched on the event loop only, so they need no lock.
        self._waiting: set[asyncio.Future[Any]] = set()
        self._rows = 0
        self.failure: str | None = "the writer was not started"
        self._thread = threading.Thread(target=self._run, name="outbox-writer", daemon=True)

    async def start(self) -> None:
        """Start the thread; returns when the outbox is open, raises what opening it raised."""
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.create_future()
        self._thread.start()
        await self._opened
        self.failure = None

    async def stop(self) -> None:
        """Write what waits, then close the outbox."""
        if self._thread.is_alive():
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join, STOP_SECONDS)

    async def write(self, batch: Batch) -> Receipt:
        """Write a batch; returns when it is on disk.

        Raises:
            Busy: too much is waiting, or another process holds the outbox; nothing was written.
            DiskFull: nothing was written.
            Stopped: the writer has failed.
            OutboxError: the outbox refuses the batch.
        """
        receipt: Receipt = await self._enqueue(batch, len(batch.records))
        return receipt

    async def run(self, job: Callable[[Outbox], T], *, rows: int = 1) -> T:
        """Call `job` with the outbox between two transactions; raises what `write` or the job raises."""
        result: T = await self._enqueue(job, rows)
        return result

    def _enqueue(self, work: Any, rows: int) -> asyncio.Future[Any]:
        if self.failure is not None:
            raise Stopped(self.failure)
        if self._rows and self._rows + rows > self._limit:
            raise Busy(f"{self._rows} rows are waiting to be written, at most {self._limit} may")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.add(future)
        self._rows += rows
        self._queue.put(_Item(work, rows, future))
        return future

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            with self._open() as outbox:
                self._loop.call_soon_threadsafe(self._opened.set_result, None)
                while group := self._next():
                    self._loop.call_soon_threadsafe(self._deliver, group, _work(outbox, group))
        except BaseException as caught:  # whatever it is, those who wait must be told
            logger.exception("the outbox's writer failed")
            error = caught
        self._loop.call_soon_threadsafe(self._stopped, error)

    def _next(self) -> list[_Item]:
        """All that waits, at least one; empty when the writer is to stop."""
        group: list[_Item] = []
        item = self._queue.get()
        while item is not None:
            group.append(item)
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group
        if group:
            self._queue.put(None)  # asked to stop: first this group, then nothing more
        return group

    def _deliver(self, group: list[_Item], results: Sequence[Any]) -> None:
        for item, result in zip(group, results, strict=True):
            self._rows -= item.rows
            self._waiting.discard(item.future)
            if item.future.done():  # its request was cancelled meanwhile
                continue
            if isinstance(result, Exception):
                item.future.set_exception(result)
            else:
                item.future.set_result(result)

    def _stopped(self, error: BaseException | None) -> None:
        """Runs on the loop after the last delivery: whoever still waits would wait for ever."""
        self.failure = (
            "the service is stopping" if error is None else f"the outbox's writer failed: {error!r}"
        )
        if error is not None and not self._opened.done():
            self._opened.set_exception(error)
        for future in self._waiting:
            if not future.done():
                future.set_exception(Stopped(self.failure))
        self._waiting.clear()


def _work(outbox: Outbox, group: Sequence[_Item]) -> list[Any]:
    """The result of each item, or the exception that is its result."""
    batches = [(place, item.work) for place, item in enumerate(group) if not callable(item.work)]
    results: list[Any] = [None] * len(group)
    if batches:
        receipts = _append(outbox, [batch for _, batch in batches])
        for (place, _), receipt in zip(batches, receipts, strict=True):
            results[place] = receipt
    for place, item in enumerate(group):
        if callable(item.work):
            try:
                results[place] = item.work(outbox)
            except Exception as error:
                results[place] = _translated(error)
    return results


def _append(outbox: Outbox, batches: Sequence[Batch]) -> Sequence[Any]:
    try:
        return outbox.append(batches)
    except sqlite3.Error as error:
        return [_translated(error)] * len(batches)
    except Exception as error:
        if len(batches) == 1:
            return [error]
        # One request that the outbox refuses must not fail those that happened to come with it.
        return [result for batch in batches for result in _append(outbox, [batch])]


def _translated(error: Exception) -> Exception:
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_FULL:
        return DiskFull(f"the disk of the outbox is full, nothing was written: {error}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(f"another process holds the outbox, nothing was written: {error}")
    return error
