"""Group commit: nobody is answered before the disk, nobody waits for ever, one bad request fails alone."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.returns.outbox import Batch, Outbox, OutboxError
from edge_ai_assets.scoring.writer import Busy, DiskFull, Stopped, Writer


def batch(rows: int = 1, key: str | None = None, record: bytes = b"{}") -> Batch:
    return Batch(key, "sha256:aa", 1, [0.5] * rows, [True] * rows, [False] * rows, [record] * rows)


class Slow(Outbox):
    """An outbox that waits before it writes, and counts its transactions."""

    gate = threading.Event()

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.groups: list[int] = []

    def append(self, batches):
        assert self.gate.wait(5)
        self.groups.append(len(batches))
        return super().append(batches)


def with_writer(
    open_outbox: Callable[[], Outbox], use: Callable[[Writer], Coroutine[Any, Any, None]], **options: int
) -> None:
    async def run() -> None:
        writer = Writer(open_outbox, **options)
        await writer.start()
        try:
            await asyncio.wait_for(use(writer), 10)
        finally:
            await writer.stop()

    asyncio.run(run())


def test_what_queued_meanwhile_is_one_transaction(tmp_path: Path):
    opened: list[Slow] = []

    def open_slow() -> Slow:
        opened.append(Slow(tmp_path / "outbox.db"))
        return opened[0]

    async def use(writer: Writer) -> None:
        first = asyncio.create_task(writer.write(batch()))
        await asyncio.sleep(0.05)  # the thread takes it alone
        others = [asyncio.create_task(writer.write(batch(2))) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert not first.done() and not any(other.done() for other in others)
        opened[0].gate.set()
        assert (await first).first == 1
        receipts = await asyncio.gather(*others)
        assert [receipt.first for receipt in receipts] == list(range(2, 42, 2))
        assert opened[0].groups == [1, 20]

    with_writer(open_slow, use)


def test_an_answer_means_it_can_be_read_by_another_process(tmp_path: Path):
    path = tmp_path / "outbox.db"

    async def use(writer: Writer) -> None:
        for number in range(1, 6):
            await writer.write(batch())
            with sqlite3.connect(path) as other:
                assert other.execute("SELECT count(*) FROM scores").fetchone() == (number,)

    with_writer(lambda: Outbox(path), use)


def test_a_full_queue_refuses_at_once_and_recovers(tmp_path: Path):
    opened: list[Slow] = []

    def open_slow() -> Slow:
        opened.append(Slow(tmp_path / "outbox.db"))
        return opened[0]

    async def use(writer: Writer) -> None:
        waiting = [asyncio.create_task(writer.write(batch(5))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="10 rows are waiting to be written, at most 10 may"):
            await writer.write(batch(1))
        opened[0].gate.set()
        await asyncio.gather(*waiting)
        assert (await writer.write(batch(50))).rows == 50  # larger than the limit, but nothing waits

    with_writer(open_slow, use, waiting_rows=10)


def test_a_full_disk_writes_nothing_of_the_group_and_recovers(tmp_path: Path):
    def open_small() -> Outbox:
        outbox = Outbox(tmp_path / "outbox.db")
        pages = outbox._db.execute("PRAGMA page_count").fetchone()[0]
        outbox._db.execute(f"PRAGMA max_page_count = {pages + 5}")
        return outbox

    async def use(writer: Writer) -> None:
        await writer.write(batch())
        with pytest.raises(DiskFull, match="nothing was written"):
            await writer.write(batch(50, record=b"x" * 2000))
        assert (await writer.run(lambda outbox: outbox.counts())).scored == 1
        assert (await writer.write(batch())).first == 2

    with_writer(open_small, use)


def test_one_refused_batch_does_not_fail_its_neighbours(tmp_path: Path):
    opened: list[Slow] = []

    def open_slow() -> Slow:
        opened.append(Slow(tmp_path / "outbox.db"))
        return opened[0]

    async def use(writer: Writer) -> None:
        bad = Batch(None, "r", 1, [], [], [], [])
        tasks = [asyncio.create_task(writer.write(item)) for item in (batch(), bad, batch())]
        await asyncio.sleep(0)
        opened[0].gate.set()
        first, refused, last = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(refused, OutboxError)
        assert (first.first, last.first) == (1, 2)

    with_writer(open_slow, use)


def test_a_dead_thread_fails_those_who_wait_and_those_who_come(tmp_path: Path):
    class Dying(Slow):
        def append(self, batches):
            assert self.gate.wait(5)
            raise SystemExit("killed")

    opened: list[Dying] = []

    def open_dying() -> Dying:
        opened.append(Dying(tmp_path / "outbox.db"))
        return opened[0]

    async def use(writer: Writer) -> None:
        tasks = [asyncio.create_task(writer.write(batch())) for _ in range(3)]
        await asyncio.sleep(0.02)
        tasks += [asyncio.create_task(writer.write(batch())) for _ in range(3)]
        await asyncio.sleep(0)
        opened[0].gate.set()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, Stopped) and "killed" in str(result)
        with pytest.raises(Stopped, match="killed"):
            await writer.write(batch())

    with_writer(open_dying, use)


def test_any_error_of_the_disk_is_the_request_s(tmp_path: Path):
    class Broken(Outbox):
        def append(self, batches):
            raise sqlite3.OperationalError("disk I/O error")

    async def use(writer: Writer) -> None:
        for _ in range(2):
            with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
                await writer.write(batch())

    with_writer(lambda: Broken(tmp_path / "outbox.db"), use)


def test_an_outbox_that_cannot_be_opened_is_told_at_the_start(tmp_path: Path):
    async def run() -> None:
        writer = Writer(lambda: Outbox(tmp_path / "nowhere" / "outbox.db"))
        with pytest.raises(sqlite3.OperationalError, match="unable to open"):
            await writer.start()
        with pytest.raises(Stopped):
            await writer.write(batch())

    asyncio.run(asyncio.wait_for(run(), 10))


def test_stopping_writes_what_waits(tmp_path: Path):
    path = tmp_path / "outbox.db"

    async def run() -> None:
        writer = Writer(lambda: Outbox(path))
        await writer.start()
        tasks = [asyncio.create_task(writer.write(batch())) for _ in range(50)]
        await asyncio.sleep(0)
        await writer.stop()
        assert [task.first for task in await asyncio.gather(*tasks)] == list(range(1, 51))
        with pytest.raises(Stopped, match="stopping"):
            await writer.write(batch())

    asyncio.run(asyncio.wait_for(run(), 10))
    with Outbox(path) as outbox:
        assert outbox.counts().scored == 50


def test_a_request_that_gives_up_does_not_disturb_the_others(tmp_path: Path):
    async def use(writer: Writer) -> None:
        gone, kept = (asyncio.create_task(writer.write(batch())) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        assert (await kept).first == 2
        assert (await writer.write(batch())).first == 3

    with_writer(lambda: Outbox(tmp_path / "outbox.db"), use)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([None, "a", "b", "c"])), min_size=1, max_size=20)
)
def test_sequences_have_no_gap_and_a_key_counts_once(tmp_path_factory, requests):
    path = tmp_path_factory.mktemp("outbox") / "outbox.db"
    seen: dict[str, int] = {}
    fresh = 0

    async def use(writer: Writer) -> None:
        nonlocal fresh
        receipts = await asyncio.gather(*(writer.write(batch(rows, key)) for rows, key in requests))
        for (rows, key), receipt in zip(requests, receipts, strict=True):
            assert receipt.repeated == (key in seen)
            if receipt.repeated:
                assert receipt.first == seen[key]
            else:
                assert (receipt.first, receipt.rows) == (fresh + 1, rows)
                fresh += rows
                if key:
                    seen[key] = receipt.first

    with_writer(lambda: Outbox(path), use)
    with Outbox(path) as outbox:
        assert outbox.counts().scored == fresh and outbox.counts().conserved
