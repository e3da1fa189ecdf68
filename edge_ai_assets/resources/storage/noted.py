"""Notes of what is known of the other side, so that it need not be asked: a value under a name, on disk.

A note says less than the truth at worst: it is made after the fact, so a kill leaves one out, and what it is
about is then asked for, or done, once more. The file may be removed at any time, at that price.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_ai_assets.delivery import durable


class NotesError(RuntimeError):
    """The file of notes is damaged, or locked for long; the message says what to do."""


class Noted:
    """Notes of one place, in a file that holds those of several. A context manager; threads may share it.

    Args:
        path: of the file, made when missing.
        place: what the notes are about, such as the address of a container.
    """

    def __init__(self, path: Path, place: str) -> None:
        self._path, self._place, self._lock = path, place, threading.Lock()

    def __enter__(self) -> Self:
        durable.make_folder(self._path.parent)
        self._database = sqlite3.connect(
            self._path, timeout=30.0, isolation_level=None, check_same_thread=False
        )
        try:
            # No write-ahead log: runs in pods of several machines share a home over NFS. And nothing is
            # waited for: what a power cut takes is asked for again.
            self._database.executescript(
                "PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = OFF;"
                "CREATE TABLE IF NOT EXISTS noted"
                "(place TEXT, name TEXT, value TEXT, PRIMARY KEY (place, name)) WITHOUT ROWID"
            )
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise self._broken(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def get(self, name: str) -> str | None:
        found = self._said("SELECT value FROM noted WHERE place = ? AND name = ?", self._place, name)
        return found[0] if found else None

    def names(self) -> list[str]:
        return self._said("SELECT name FROM noted WHERE place = ? ORDER BY name", self._place)

    def put(self, name: str, value: str) -> None:
        self._said("REPLACE INTO noted VALUES (?, ?, ?)", self._place, name, value)

    def remove(self, name: str, value: str) -> None:
        """Remove a note, unless it says something else by now."""
        self._said("DELETE FROM noted WHERE place = ? AND name = ? AND value = ?", self._place, name, value)

    def _said(self, statement: str, *given: str) -> list[str]:
        try:
            with self._lock:
                return [said for (said,) in self._database.execute(statement, given)]
        except sqlite3.DatabaseError as error:
            raise self._broken(error) from error

    def _broken(self, error: sqlite3.DatabaseError) -> NotesError:
        return NotesError(f"{self._path} cannot be used: {error}; remove it if it is damaged")
