"""Power is lost, or the disk full, at seeded moments: what was answered is there, and all is accounted for.

The disk is one in memory that SQLite reaches through a VFS of its own: it knows what was synced. When the
power goes, each write that was not is kept, dropped or torn at a sector, by chance. `apsw` brings the VFS and
its own SQLite; the outbox opens it by `Store._connect`.
"""

from __future__ import annotations

import inspect
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from edge_ai_assets.returns.outbox import insights, retention, store
from edge_ai_assets.returns.outbox import outbox as outboxes
from edge_ai_assets.returns.outbox.outbox import Feedback, Outbox, PackageRow
from edge_ai_assets_tests import blocks

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""SQLite closes files after the power is gone, and what that raises nobody catches."""

SECTOR = 512
SEEDS, LIVES = 120, 3
"""And how often each loses power."""


class PowerLost(BaseException):
    pass


class File:
    """Its content, what of that would survive, and the writes that came since, in order."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.durable = bytearray()
        self.unsynced: list[tuple[int, bytes | None]] = []
        """Offset and bytes; None truncates there."""

    def change(self, offset: int, data: bytes | None) -> None:
        _apply(self.content, offset, data)
        self.unsynced.append((offset, data))

    def sync(self) -> None:
        for offset, data in self.unsynced:
            _apply(self.durable, offset, data)
        self.unsynced.clear()

    def lose(self, chance: random.Random) -> None:
        """Of the writes that were not synced some are there, some not, some in part."""
        for offset, data in self.unsynced:
            fate = chance.random()
            if fate < 0.4:
                _apply(self.durable, offset, data)
            elif fate < 0.7 and data is not None:
                sectors = chance.randrange(-(-len(data) // SECTOR) + 1)
                _apply(self.durable, offset, data[: sectors * SECTOR])
        self.unsynced.clear()
        self.content = bytearray(self.durable)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
    else:
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data


class Disk(apsw.VFS):
    """Files by name. After `left` more writes, syncs and deletions the power is gone: nothing works."""

    def __init__(self, name: str, chance: random.Random) -> None:
        super().__init__(name, "")
        self.name = name
        self.files: dict[str, File] = {}
        self.chance = chance
        self.left: int | None = None
        self.room: int | None = None
        """Bytes that fit in all files; None for no bound."""

    def spend(self) -> None:
        if self.left is not None:
            if self.left <= 0:
                raise PowerLost
            self.left -= 1

    def used(self) -> int:
        return sum(len(file.content) for file in self.files.values())

    def power_on(self) -> None:
        for file in self.files.values():
            file.lose(self.chance)
        self.left = None

    def xFullPathname(self, name: str) -> str:  # noqa: N802 (SQLite's names)
        return name

    def xAccess(self, name: str, flags: int) -> bool:  # noqa: N802
        return name in self.files

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        self.spend()
        self.files.pop(name, None)

    def xOpen(self, name: Any, flags: list[int]) -> Handle:  # noqa: N802
        flags[1] = flags[0]
        key = (
            name.filename() if isinstance(name, apsw.URIFilename) else name or f"temporary {len(self.files)}"
        )
        return Handle(self, self.files.setdefault(key, File()))


class Handle:
    """An open file, for SQLite."""

    def __init__(self, disk: Disk, file: File) -> None:
        self.disk, self.file = disk, file

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return bytes(self.file.content[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self.disk.spend()
        grown = max(0, offset + len(data) - len(self.file.content))
        if grown and self.disk.room is not None and self.disk.used() + grown > self.disk.room:
            raise apsw.FullError
        self.file.change(offset, bytes(data))

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self.disk.spend()
        self.file.change(size, None)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self.disk.spend()
        self.file.sync()

    def xFileSize(self) -> int:  # noqa: N802
        return len(self.file.content)

    def xSectorSize(self) -> int:  # noqa: N802
        return SECTOR

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0

    def xFileControl(self, operation: int, pointer: int) -> bool:  # noqa: N802
        return False

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xLock(self, level: int) -> None: ...  # noqa: N802

    def xUnlock(self, level: int) -> None: ...  # noqa: N802

    def xClose(self) -> None: ...  # noqa: N802


class Cursor:
    """What the outbox asks of sqlite3's cursors."""

    def __init__(self, rows: Any, changed: int, inserted: int) -> None:
        self._rows, self.rowcount, self.lastrowid = rows, changed, inserted

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def fetchone(self) -> Any:
        return next(iter(self._rows), None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def close(self) -> None:
        self._rows.close()


class Database:
    """What the outbox asks of sqlite3's connections. It alone opens the file: no shared memory."""

    def __init__(self, name: str, disk: Disk, synchronous: str) -> None:
        self._database = apsw.Connection(name, vfs=disk.name)
        self._synchronous = synchronous
        """What it does where FULL is asked for."""
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")

    @property
    def in_transaction(self) -> bool:
        return bool(self._database.in_transaction)

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> Cursor:
        return self._run(lambda: self._database.execute(self._meant(statement), values))

    def executemany(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> Cursor:
        return self._run(lambda: self._database.executemany(statement, rows))

    def close(self) -> None:
        self._database.close()

    def _meant(self, statement: str) -> str:
        return statement.replace("synchronous = FULL", f"synchronous = {self._synchronous}")

    def _run(self, work: Callable[[], Any]) -> Cursor:
        before = self._database.total_changes()
        try:
            rows = work()
        except apsw.FullError as error:
            raise sqlite3.OperationalError(str(error)) from error
        return Cursor(rows, self._database.total_changes() - before, self._database.last_insert_rowid())


class Site:
    """An outbox on such a disk, and what it answered."""

    def __init__(self, seed: int, synchronous: str = "FULL") -> None:
        self.chance = random.Random(seed)
        self.disk = Disk(f"disk-{seed}-{synchronous}", self.chance)
        disk = self.disk

        class Powered(Outbox):
            def _connect(self) -> Any:
                return Database("outbox.db", disk, synchronous)

        self.open = lambda: Powered(Path("outbox.db"), patience=0)
        self.answered: dict[int, float] = {}
        """Scores by sequence."""
        self.keys: dict[str, int] = {}
        """First sequences by key."""
        self.words = 0
        """The last feedback."""
        self.sealed = self.acknowledged = 0
        """The last packages: their files may have left since, or may be gone."""
        self.expired = self.unfolded = 0

    def live(self) -> None:
        """Until the power is gone or the disk full; everything that an outbox does, in any order."""
        with suppress(PowerLost, sqlite3.OperationalError), Closing(self.open()) as outbox:
            while True:
                self._step(outbox)

    def _step(self, outbox: Outbox) -> None:
        chance = self.chance
        often = ["append"] * 4 + ["derive", "seal"] * 2
        match chance.choice([*often, "feedback", "acknowledge", "expire", "prune"]):
            case "append":
                self._append(outbox)
            case "feedback" if kept := outbox.newest(1):
                (self.words,) = outbox.add_feedback([Feedback(kept[0].sequence, True, None, "o", 1)])
            case "derive":
                insights.derive(outbox, chance.randint(1, 20))
                self.unfolded = _last(outbox, "scores")
            case "seal":
                self._seal(outbox)
            case "acknowledge" if last := outbox.last_package():
                number = chance.randint(1, last.number)
                outbox.acknowledge(number, f"d{number}", 1)
                self.acknowledged = max(self.acknowledged, number)
            case "expire":
                self.expired += outbox.expire(chance.randrange(1, 20_000), 1, "quota").rows
            case "prune":
                outbox.forget(outbox.prune(chance.randrange(12)).packages)

    def _append(self, outbox: Outbox) -> None:
        batches = []
        for _ in range(2):
            rows, score = self.chance.randint(1, 4), self.chance.random()
            made = blocks.plain(rows, score=score, predicted=score < 0.5, at=self.chance.randrange(9))
            batches.append(msgspec.structs.replace(made, key=str(score)))
        for receipt, batch in zip(outbox.append(batches), batches, strict=True):
            self.keys[str(batch.key)] = receipt.first
            for row in range(receipt.rows):
                assert receipt.first + row not in self.answered, "a sequence was given out twice"
                self.answered[receipt.first + row] = float(str(batch.key))

    def _seal(self, outbox: Outbox) -> None:
        rows = [row.sequence for row in outbox.waiting(self.chance.randint(1, 9))]
        words = [word.id for word in outbox.waiting_feedback(3)]
        last = outbox.last_package()
        number = last.number + 1 if last else 1
        complete = outbox.complete_through(set(rows))
        package = PackageRow(number, f"{number}", f"d{number}", "", 1, 0, 1, 1, complete=complete)
        outbox.seal(package, rows[1:], words, {"no": rows[:1]}, {})
        self.sealed = number

    def check(self) -> None:
        with Closing(self.open()) as outbox:
            for _ in range(2):
                self._check(outbox)
                outbox.recover()
            assert outbox._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def _check(self, outbox: Outbox) -> None:
        counts = outbox.counts()
        assert counts == outbox.recount()
        assert counts.conserved
        assert outbox.tally().waiting >= 0
        assert counts.scored >= max(self.answered, default=0), "a score that was answered is lost"
        kept = {row.sequence: row.score for row in outbox.rows(1, counts.scored)}
        gone = [sequence for sequence in range(1, counts.scored + 1) if sequence not in kept]
        graves = outbox.tombstones()
        assert sum(grave.rows for grave in graves) == len(gone)
        assert all(any(grave.first <= one <= grave.last for grave in graves) for one in gone)
        assert all(kept.get(sequence, score) == score for sequence, score in self.answered.items())
        for key, first in self.keys.items():
            if first in kept:
                assert outbox.find(key, b"").first == first
        assert self.words <= _last(outbox, "feedback"), "feedback that was answered is lost"
        assert self.unfolded <= _last(outbox, "scores"), (
            "what has its kind, and may have left, has none again"
        )
        last_package = outbox.last_package()
        assert self.sealed <= (last_package.number if last_package else 0), "a sealed package is lost"
        query = "SELECT max(number) FROM packages WHERE acknowledged_at IS NOT NULL"
        assert self.acknowledged <= (outbox._db.execute(query).fetchone()[0] or 0), "it unlearnt what is home"
        assert self.expired <= counts.expired, "what expired is back"


def _last(outbox: Outbox, table: str) -> int:
    found = outbox._db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return int(found[0]) if found else 0


class Closing:
    """Closes an outbox, whose disk may be gone."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox

    def __enter__(self) -> Outbox:
        return self.outbox

    def __exit__(self, *error: object) -> None:
        with suppress(PowerLost, apsw.Error):
            self.outbox.close()


@pytest.fixture(autouse=True)
def small_steps(monkeypatch) -> None:
    """Many transactions, without the pauses."""
    monkeypatch.setattr(store, "CHUNK", 3)
    monkeypatch.setattr(outboxes, "UNFOLD", 4)
    monkeypatch.setattr(retention, "KEYS", 3)
    for module in (outboxes, store):
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0)


def lose_power(seed: int, synchronous: str = "FULL") -> Site:
    site = Site(seed, synchronous)
    for _ in range(LIVES):
        site.disk.left = site.chance.randrange(400)
        site.live()
        site.disk.power_on()
        site.check()
    return site


@pytest.mark.parametrize("part", range(4))
def test_what_was_answered_outlives_the_power(part):
    answered = 0
    for seed in range(part, SEEDS, 4):
        answered += len(lose_power(seed).answered)
    assert answered > 10 * SEEDS / 4


@pytest.mark.slow
@pytest.mark.parametrize("careless", ["append", "add_feedback", "unfold", "seal", "acknowledge", "expire"])
def test_each_promise_is_kept_by_its_own_sync(monkeypatch, careless):
    """If what one of them writes could be redone, the power would take back what it said."""
    whole = outboxes.Outbox._transaction

    def weaker(outbox: Outbox, *, redone: bool = False) -> Any:
        called = {frame.function for frame in inspect.stack(0)[1:6]}
        return whole(outbox, redone=redone or careless in called)

    monkeypatch.setattr(store.Store, "_transaction", weaker)
    assert any(lost(seed, "FULL") for seed in range(40))


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
def test_a_weaker_promise_is_noticed(synchronous):
    """Without the syncs that FULL makes, the same tests fail: they can see a loss."""
    assert sum(lost(seed, synchronous) for seed in range(40)) > 10


def lost(seed: int, synchronous: str) -> bool:
    """Whether the checks see a loss."""
    try:
        lose_power(seed, synchronous)
    except (AssertionError, TypeError, apsw.Error):  # TypeError: a row that is always there is not
        return True
    return False


@pytest.mark.parametrize("part", range(2))
def test_a_disk_that_is_full_stops_it_cleanly_and_it_goes_on_when_there_is_room(part):
    for seed in range(part, 100, 2):
        site = Site(seed)
        for room in (site.chance.randrange(800_000), site.chance.randrange(1_600_000)):
            site.disk.room = room
            site.live()
            before, site.disk.room = len(site.answered), None
            site.check()
            with Closing(site.open()) as outbox:
                site._append(outbox)
                assert len(site.answered) > before
