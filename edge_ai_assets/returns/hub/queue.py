"""Queues between a site and the function that forwards: the interface, and the embedded one in a SQLite file.

A message that is received is hidden for a time, not gone: who received it deletes it when it is dealt with,
or it comes back. It can come twice, and in another order. What is in a message is `letters`' matter.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from edge_ai_assets.returns import clock
from edge_ai_assets.returns.outbox.store import BUSY_SECONDS, Store

MAX_BODY = 48 * 1024
"""Bytes of a message. In base64, as Azure's functions want it, that is the 64 KiB a Storage queue takes."""
FORMAT = 1
TABLES = """
CREATE TABLE messages(
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, body BLOB NOT NULL, sent_at INTEGER NOT NULL,
    visible_at INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0, receipt TEXT NOT NULL DEFAULT '');
CREATE INDEX messages_visible ON messages(queue, visible_at);
"""


class QueueError(RuntimeError):
    """A queue cannot be used, and trying again will not help; the message says why."""


class Message(msgspec.Struct, frozen=True):
    """One message as it was received."""

    id: str
    body: bytes
    tries: int
    """How often it was received, this time included."""
    sent_at: int
    """µs since 1970, UTC, by the queue's clock."""
    receipt: str
    """Whoever received it last may delete it with that; '' of one that was only looked at."""


class Queue(Protocol):
    """One queue. Its methods raise LinkDown when it is out of reach, QueueError when it refuses."""

    def send(self, body: bytes) -> None:
        """Add a message of at most MAX_BODY bytes; on return it is kept."""

    def receive(self, limit: int, hidden_seconds: int) -> list[Message]:
        """Up to `limit` (1 to 32) of the messages that are not hidden, which they then are for so long."""

    def delete(self, message: Message) -> bool:
        """Remove a message for good; False when it is gone, or was received by another meanwhile."""

    def peek(self, limit: int) -> list[Message]:
        """The first up to `limit` (1 to 32) messages that are not hidden; nothing changes."""

    def count(self) -> int:
        """About how many messages there are, hidden ones included."""


class EmbeddedQueue(Store):
    """A queue in a SQLite file of the site; a context manager.

    Args:
        path: the file, made when missing; it may hold several queues.
        name: of the queue.
        now: the clock.
    """

    def __init__(self, path: Path, name: str, now: Callable[[], int] = clock.now) -> None:
        super().__init__(path, TABLES, FORMAT, {}, patience=BUSY_SECONDS)
        self.name, self._now = name, now

    def send(self, body: bytes) -> None:
        check_size(body)
        at = self._now()
        with self._transaction():
            self._db.execute(
                "INSERT INTO messages(queue, body, sent_at, visible_at) VALUES (?, ?, ?, ?)",
                (self.name, body, at, at),
            )

    def receive(self, limit: int, hidden_seconds: int) -> list[Message]:
        at = self._now()
        with self._transaction():
            found = self._visible(at, limit)
            taken = [
                msgspec.structs.replace(each, tries=each.tries + 1, receipt=secrets.token_hex(8))
                for each in found
            ]
            self._db.executemany(
                "UPDATE messages SET visible_at = ?, tries = ?, receipt = ? WHERE id = ?",
                [(at + hidden_seconds * 1_000_000, each.tries, each.receipt, int(each.id)) for each in taken],
            )
        return taken

    def delete(self, message: Message) -> bool:
        with self._transaction():
            removed = self._db.execute(
                "DELETE FROM messages WHERE id = ? AND receipt = ?", (int(message.id), message.receipt)
            )
        return removed.rowcount == 1

    def peek(self, limit: int) -> list[Message]:
        return self._visible(self._now(), limit)

    def count(self) -> int:
        query = "SELECT count(*) FROM messages WHERE queue = ?"
        return int(self._db.execute(query, (self.name,)).fetchone()[0])

    def _visible(self, at: int, limit: int) -> list[Message]:
        query = (
            "SELECT id, body, tries, sent_at FROM messages WHERE queue = ? AND visible_at <= ? "
            "ORDER BY visible_at, id LIMIT ?"
        )
        rows = self._db.execute(query, (self.name, at, limit)).fetchall()
        return [Message(str(number), body, tries, sent, "") for number, body, tries, sent in rows]


def check_size(body: bytes) -> None:
    """Raise QueueError for a body that no queue takes."""
    if len(body) > MAX_BODY:
        raise QueueError(f"a message of {len(body)} bytes cannot be sent, a queue takes {MAX_BODY}")
