"""A SQLite file that survives a power cut: opened durable and versioned, written in bounded transactions.

Which tables stand in it, and what they mean, is the business of who opens it.
"""

# ruff: noqa: S608 (the SQL is put together from constants)
from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

import msgspec

CHUNK = 3_000
"""Most rows that one transaction of `_chunks` and `_sweep` changes."""
HOLD_SECONDS = 0.01
"""After that it ends in any case, so that a slow machine keeps nobody waiting longer than a fast one."""
STEP = 100
"""Rows that one statement changes: after each it is looked how late it is."""
GIVEN = "(SELECT value FROM json_each(?))"
"""The keys that a statement of `_chunks` is for."""
PAUSE_SECONDS = 0.003
"""Between two such transactions, so that a writer that waits gets its turn after one of them."""
RETRY_SECONDS = 0.001
BUSY_SECONDS = 30.0
WAL_BYTES = 64 * 1024 * 1024
PAGE_BYTES = 16 * 1024
"""Four times what SQLite takes: a large request's block has 72 KB, and each page costs four system calls."""
CHECKPOINT_BYTES = 4 * 1024 * 1024
"""Of the WAL, after which a commit moves it to the file: as much as with SQLite's own pages."""


class OutboxError(RuntimeError):
    """The outbox refuses; the message says what and why. Nothing was written."""


class Store:
    """An open file; a context manager. It belongs to the thread that opened it.

    Args:
        path: the file; its folder must exist.
        script: SQL that makes the tables of a new file.
        version: format of these tables, kept in `PRAGMA user_version`.
        upgrades: SQL that makes of each earlier format the next one.
        patience: seconds that a transaction waits for another process's.

    Raises:
        OutboxError: it is no SQLite file, or another version wrote it.
    """

    def __init__(
        self, path: Path, script: str, version: int, upgrades: Mapping[int, str], *, patience: float
    ) -> None:
        self.path = path
        self._patience = patience
        self._db = self._connect()
        self._redone: bool | None = None
        try:
            # Not left to SQLite's own waiting: it gives up at once when two make the file at the same time.
            self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a file that is made now
            self._insist("PRAGMA journal_mode = WAL")
            self._synchronous(redone=False)
            self._db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_BYTES // self._page_bytes}")
            if self._version() == 0:
                self._run({0: script}, {0: version})
            if self._version() in upgrades:
                self._run(upgrades, {earlier: earlier + 1 for earlier in upgrades})
            if (found := self._version()) != version:
                raise OutboxError(
                    f"{path}: outbox format {found}, this version reads {version}; use a newer one"
                )
        except BaseException as error:
            self._db.close()
            self._name_damage(error)
            raise

    def _connect(self) -> sqlite3.Connection:
        """The one place where a file is opened: tests put one here that loses power."""
        return sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        self._name_damage(error)

    def close(self) -> None:
        self._db.close()

    def _name_damage(self, error: BaseException | None) -> None:
        """Raise OutboxError if SQLite found that the file itself is broken: it says so without its name."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            raise OutboxError(f"{self.path} is no outbox: it is no SQLite file") from error
        if code == sqlite3.SQLITE_CORRUPT:
            raise OutboxError(
                f"{self.path} is damaged: {error}; stop the site's service, copy the file, and take what is "
                "whole from the copy (sqlite3 FILE .recover)"
            ) from error

    def size(self) -> int:
        """Bytes that the file holds, without those that are free for what comes next."""
        return (self._pragma("page_count") - self._pragma("freelist_count")) * self._page_bytes

    def _exceeds(self, size: int) -> bool:
        """Whether `size()` is above; asked before each commit, so mostly by one question instead of two."""
        return self._pragma("page_count") * self._page_bytes > size and self.size() > size

    @cached_property
    def _page_bytes(self) -> int:
        return self._pragma("page_size")

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def _version(self) -> int:
        return self._pragma("user_version")

    def _run(self, scripts: Mapping[int, str], leads_to: Mapping[int, int]) -> None:
        """Bring the file from the format it has as far as the scripts lead, whole or not at all.

        Another may be upgrading it, which takes its time with a large file: whoever opens it waits.
        """
        patience, self._patience = self._patience, max(self._patience, BUSY_SECONDS)
        try:
            with self._transaction():
                while (found := self._version()) in scripts:  # unless somebody else has done it meanwhile
                    for statement in _statements(scripts[found]):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {leads_to[found]}")
        finally:
            self._patience = patience

    def _begin(self) -> None:
        """Take the write lock."""
        self._insist("BEGIN IMMEDIATE")

    def _insist(self, statement: str) -> None:
        """Execute what needs a lock, asking every millisecond: SQLite's own waiting slows down and
        starves."""
        deadline = time.monotonic() + self._patience
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    self._db.execute(statement)
                    return
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                        raise
                time.sleep(RETRY_SECONDS)
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {round(BUSY_SECONDS * 1000)}")

    def _synchronous(self, *, redone: bool) -> None:
        if redone is not self._redone:
            self._db.execute(f"PRAGMA synchronous = {'NORMAL' if redone else 'FULL'}")
            self._redone = redone

    @contextmanager
    def _transaction(self, *, redone: bool = False) -> Iterator[None]:
        """What is written in it is on disk when it ends.

        Args:
            redone: it need not be. A power cut may take it back, whole, and with it all that came later; what
                is written without `redone` after it puts it on disk, too. So nothing outside of the file may
                rely on it before that, and somebody must do it again.
        """
        self._synchronous(redone=redone)
        self._begin()
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended it already
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """All that is read in it is of one moment, whatever other processes write meanwhile."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    def _chunks(self, statement: str, groups: Iterable[tuple[Any, ...]], *, redone: bool = False) -> int:
        """A statement for each group of keys, in transactions that are held for a short time only.

        Args:
            statement: takes the values of a group, then the keys as GIVEN.
            groups: values, and last the keys that they are for, of any number.
            redone: see `_transaction`.

        Returns:
            How many rows of the table it changed.
        """
        pages = ((*values, page) for *values, keys in groups for page in _pages(iter(keys)))
        return self._in_turns(statement, pages, redone=redone)

    def _sweep(self, table: str, key: str, change: str, where: str, *, redone: bool = False) -> int:
        """UPDATE … WHERE in the order of a key above 0; how many rows it changed.

        One walk over the rows: an index must give them in that order.
        """
        query = f"SELECT {key} FROM {table} WHERE {where} AND {key} > ? ORDER BY {key} LIMIT ?"

        def pages() -> Iterator[tuple[list[int]]]:
            last = 0
            while found := [one for (one,) in self._db.execute(query, (last, min(STEP, CHUNK)))]:
                yield (found,)
                last = found[-1]

        update = f"UPDATE {table} SET {change} WHERE {key} IN {GIVEN} AND {where}"
        return self._in_turns(update, pages(), redone=redone)

    def _in_turns(self, statement: str, pages: Iterator[tuple[Any, ...]], *, redone: bool) -> int:
        """A statement for each page, whose last value is at most STEP keys, many pages a transaction."""
        changed, page = 0, next(pages, None)
        while page:
            with self._transaction(redone=redone):
                deadline = time.monotonic() + HOLD_SECONDS
                for _ in range(max(CHUNK // STEP, 1)):
                    *values, keys = page
                    text = msgspec.json.encode(keys).decode()
                    changed += self._db.execute(statement, (*values, text)).rowcount
                    if not (page := next(pages, None)) or time.monotonic() > deadline:
                        break
            time.sleep(PAUSE_SECONDS)
        return changed


def _pages(keys: Iterator[Any]) -> Iterator[list[Any]]:
    while page := list(islice(keys, min(STEP, CHUNK))):
        yield page


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; `executescript` would commit the transaction they belong to."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
