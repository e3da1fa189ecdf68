"""A SQLite file that survives a power cut: opened durable and versioned, written in bounded transactions.

Which tables stand in it, and what they mean, is the business of who opens it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Self

CHUNK = 300
"""Most rows that one transaction of `_chunks` and `_sweep` changes: it holds the write lock for 10 to 40
ms.
"""
PAUSE_SECONDS = 0.003
"""Between two such transactions, so that a writer that waits gets its turn after one of them."""
RETRY_SECONDS = 0.001
BUSY_SECONDS = 30.0
WAL_BYTES = 64 * 1024 * 1024


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
        self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            if self._version() == 0:
                self._run({0: script}, {0: version})
            if self._version() in upgrades:
                self._run(upgrades, {earlier: earlier + 1 for earlier in upgrades})
            if (found := self._version()) != version:
                raise OutboxError(
                    f"{path}: outbox format {found}, this version reads {version}; use a newer one"
                )
        except sqlite3.DatabaseError as error:
            self._db.close()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
                raise OutboxError(f"{path} is no outbox: it is no SQLite file") from error
            raise
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _run(self, scripts: Mapping[int, str], leads_to: Mapping[int, int]) -> None:
        """Bring the file from the format it has as far as the scripts lead, whole or not at all."""
        with self._transaction():
            while (found := self._version()) in scripts:  # unless somebody else has done it meanwhile
                for statement in _statements(scripts[found]):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {leads_to[found]}")

    def _begin(self) -> None:
        """Take the write lock, asking every millisecond: SQLite's own waiting slows down and starves."""
        deadline = time.monotonic() + self._patience
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    self._db.execute("BEGIN IMMEDIATE")
                    return
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                        raise
                time.sleep(RETRY_SECONDS)
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {round(BUSY_SECONDS * 1000)}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
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

    def _chunks(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """One statement for each row, CHUNK rows a transaction."""
        rows = iter(rows)
        while chunk := list(islice(rows, CHUNK)):
            with self._transaction():
                self._db.executemany(statement, chunk)
            time.sleep(PAUSE_SECONDS)

    def _sweep(self, table: str, key: str, change: str, where: str) -> None:
        """UPDATE … WHERE, CHUNK rows a transaction; the change must make the condition false."""
        some = f"SELECT {key} FROM {table} WHERE {where} LIMIT"  # noqa: S608 (our own constants)
        while self._db.execute(f"{some} 1").fetchone():
            with self._transaction():
                self._db.execute(f"UPDATE {table} SET {change} WHERE {key} IN ({some} {CHUNK})")  # noqa: S608
            time.sleep(PAUSE_SECONDS)


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; `executescript` would commit the transaction they belong to."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
