"""The outbox of a site: one SQLite file that holds every score, from before its answer on.

Here scores and feedback come in and are read. `departures` takes them home, `retention` and `expiry` remove
them, `deadletters` keeps what cannot be read, `census` counts: `Outbox` is made of these. The scoring service
imports it, so all of them need the standard library and msgspec only.

The service appends while Dagster unfolds, classifies, seals, acknowledges and prunes. Dagster's writes go in
transactions of bounded time (`store.HOLD_SECONDS`) or, where rows are only added, of at most `UNFOLD` rows,
so that an answer never waits long for them. One `Outbox` belongs to one thread.
"""

# ruff: noqa: S608 (the SQL is put together from this module's own constants)
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_ai_assets.returns.outbox import journal, sheets
from edge_ai_assets.returns.outbox.census import OLDEST_BLOCK, Census
from edge_ai_assets.returns.outbox.deadletters import DeadLetters
from edge_ai_assets.returns.outbox.departures import Departures
from edge_ai_assets.returns.outbox.expiry import Expiry
from edge_ai_assets.returns.outbox.journal import BLOCK_SCHEMA
from edge_ai_assets.returns.outbox.layout import TABLES, UPGRADES
from edge_ai_assets.returns.outbox.schema import (
    FORMAT,
    RECORD_SCHEMA,
    Batch,
    Counts,
    Feedback,
    FeedbackRow,
    PackageRow,
    Receipt,
    ScoreRow,
)
from edge_ai_assets.returns.outbox.store import BUSY_SECONDS, PAUSE_SECONDS, OutboxError

__all__ = [
    "Batch",
    "Counts",
    "Feedback",
    "FeedbackRow",
    "Outbox",
    "OutboxError",
    "OutboxFull",
    "PackageRow",
    "Receipt",
    "ScoreRow",
]

INSERT_BROKEN = """
INSERT INTO scores(sequence, scored_at, release, predicted, outside, record, schema)
VALUES (?, ?, ?, 0, 0, ?, ?)"""
NUMBERED = "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'scores'"
"""Sequences go on after a lot as after a row."""
UNFOLD = 5_000
"""Rows that one transaction of `unfold` moves, or one block if it has more."""
BLOCKS = 2_000
"""Most blocks that it removes: those of one row take longer than what their rows become."""


class OutboxFull(OutboxError):
    """The outbox has reached its quota; nothing was written."""


class Outbox(Departures, Census, Expiry, DeadLetters):
    """An open outbox; a context manager.

    Args:
        path: the file; its folder must exist.
        create: make the file when there is none.
        quota: bytes that the file may hold before `append` refuses; None for no bound.
        patience: seconds that a transaction waits for another process's.

    Raises:
        OutboxError: there is no file and create is false, or a newer version wrote it.
    """

    def __init__(
        self, path: Path, *, create: bool = True, quota: int | None = None, patience: float = BUSY_SECONDS
    ) -> None:
        if not create and not path.exists():
            raise OutboxError(
                f"{path}: there is no outbox; the site's scoring service makes it when it starts"
            )
        super().__init__(path, TABLES, FORMAT, UPGRADES, patience=patience)
        self._quota = quota

    def append(self, batches: Sequence[Batch]) -> list[Receipt]:
        """Write batches in one transaction; on return they are on disk.

        Sequences have no gaps: a transaction that fails gives its numbers back.

        Returns:
            A receipt for each batch, in order. A batch whose key was seen before writes nothing and gets the
            receipt of that time, whatever it holds now.

        Raises:
            OutboxFull: the quota is reached.
            OutboxError: a batch has no row. In both cases none of the batches is written.
        """
        if any(rows < 1 for batch in batches for rows, _ in batch.blocks or [(0, b"")]):
            raise OutboxError("a batch needs at least one block, and each block at least one row")
        receipts = []
        with self._transaction():
            if self._quota is not None and self._exceeds(self._quota):
                raise OutboxFull(f"{self.path} holds {self.size()} bytes, its quota is {self._quota}")
            last = self._last_sequence()
            for batch in batches:
                if batch.key is not None:
                    if seen := self.find(batch.key, batch.fingerprint):
                        receipts.append(seen)
                        continue
                    request = (batch.key, last + 1, batch.rows, batch.fingerprint)
                    self._db.execute("INSERT INTO requests VALUES (?, ?, ?, ?)", request)
                receipts.append(Receipt(last + 1, batch.rows, repeated=False))
                for rows, block in batch.blocks:
                    self._db.execute(
                        "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)",
                        (last + 1, rows, batch.scored_at, batch.release, BLOCK_SCHEMA, block),
                    )
                    last += rows
        return receipts

    def find(self, key: str, fingerprint: bytes) -> Receipt | None:
        """The receipt of the request with an idempotency key; None if there was none."""
        query = "SELECT first, rows, fingerprint FROM requests WHERE key = ?"
        row = self._db.execute(query, (key,)).fetchone()
        return Receipt(row[0], row[1], repeated=True, same=row[2] in (b"", fingerprint)) if row else None

    def scored_under(self, prefix: str) -> int:
        """Rows of the requests whose idempotency keys begin so."""
        query = "SELECT total(rows) FROM requests WHERE key >= ? AND key < ?"
        after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        return int(self._db.execute(query, (prefix, after)).fetchone()[0])

    def unfold(self, limit: int, kind: Callable[[bool], str] | None = None) -> Counter[str | None]:
        """Make sheets and lots of the oldest blocks of the journal, until it is empty or they hold `limit`
        scores.

        A block that cannot be read becomes rows whose schema is minus that of the block, the first with the
        whole block as its record: they are quarantined, and `requeue` can read them later.

        Args:
            limit: a block is unfolded whole, though it has more.
            kind: gives scores that can be read their kind, by whether they were predicted; without it they
                have none, and a row each.

        Returns:
            How many scores they were, by kind.
        """
        made: Counter[str | None] = Counter()
        while made.total() < limit and (blocks := self._oldest_blocks()):
            first, last, number = blocks[0][0], blocks[-1][0], sum(block[1] for block in blocks)
            end = last + blocks[-1][1] - 1
            found = sheets.unfolded(blocks, kind)
            # On disk, though it could be done again: what has its kind may go on a queue at once.
            with self._transaction():
                if self._db.execute(f"SELECT {OLDEST_BLOCK}").fetchone()[0] != first:
                    continue  # somebody else has unfolded it meanwhile
                for sheet in found.sheets:
                    self._lay(sheet)
                self._db.executemany(INSERT_BROKEN, found.broken)
                self._db.execute("DELETE FROM journal WHERE first BETWEEN ? AND ?", (first, last))
                self._db.execute("UPDATE tally SET rows = rows + ? WHERE state = 'pending'", (number,))
                self._db.execute(NUMBERED, (end,))
            for sheet in found.sheets:
                made[sheet.kind] += len(sheet.numbers)
            made[None] += len(found.broken)
            time.sleep(PAUSE_SECONDS)
        return +made

    def _oldest_blocks(self) -> list[Any]:
        """At most UNFOLD rows, or one block."""
        # Their sequences have no gaps.
        query = f"SELECT * FROM journal WHERE first < {OLDEST_BLOCK} + ? ORDER BY first LIMIT ?"
        found = self._db.execute(query, (UNFOLD, BLOCKS)).fetchall()
        too_many = len(found) > 1 and found[-1][0] + found[-1][1] > found[0][0] + UNFOLD
        return found[:-1] if too_many else found

    def add_feedback(self, items: Sequence[Feedback]) -> list[int]:
        """Write what users said of scores, all or nothing; the ids, in order.

        Raises:
            OutboxError: a sequence that was never given out, or whose score is no longer kept.
        """
        ids = []
        with self._transaction():
            for item in items:
                if not self._kept(item.sequence):
                    raise OutboxError(self._unknown(item.sequence))
                cursor = self._db.execute(
                    "INSERT INTO feedback(sequence, correct, note, role, given_at) VALUES (?, ?, ?, ?, ?)",
                    (item.sequence, bool(item.correct), item.note, item.role, item.given_at),
                )
                ids.append(int(cursor.lastrowid or 0))
        return ids

    def _kept(self, sequence: int) -> bool:
        if any(sequence in lot.sequences for lot in self._lots(sequence, sequence)):
            return True
        unfolded = "SELECT 1 FROM scores WHERE sequence = ?1"
        before = "SELECT first + rows AS next FROM journal WHERE first <= ?1 ORDER BY first DESC LIMIT 1"
        block = f"SELECT 1 FROM ({before}) WHERE ?1 < next"
        row = self._db.execute(f"SELECT EXISTS ({unfolded}) OR EXISTS ({block})", (sequence,)).fetchone()
        return bool(row[0])

    def _unknown(self, sequence: int) -> str:
        last = self._last_sequence()
        if 0 < sequence <= last:
            return f"score {sequence} is no longer kept here"
        return f"there is no score {sequence}: this site's scores go to {last}"

    def rows(self, first: int, last: int) -> list[ScoreRow]:
        """The scores with sequences first to last, both included, in order."""
        begin = "(SELECT coalesce(max(first), 0) FROM journal WHERE first <= ?)"
        query = f"SELECT * FROM journal WHERE first BETWEEN {begin} AND ? ORDER BY first"
        with self._snapshot():  # else a block that is unfolded between the two queries is in neither answer
            found = self._between(first, last)
            blocks = self._db.execute(query, (first, last)).fetchall()
        for block in blocks:
            found += [row for row in _folded(*block) if first <= row.sequence <= last]
        return found

    def newest(self, limit: int) -> list[ScoreRow]:
        """The last scores, in order; those that are no longer kept are missing."""
        last = self._last_sequence()
        return self.rows(last - limit + 1, last)


def _folded(
    first: int, number: int, scored_at: int, release: str, schema: int, block: bytes
) -> Iterator[ScoreRow]:
    """The scores of a block as they will be when it is unfolded, without their kind."""
    nothing = [None] * 4
    try:
        rows = journal.rows(block, schema, number)
    except ValueError:
        broken = -max(schema, 1)
        for place in range(number):
            record = b"" if place else block
            yield ScoreRow(first + place, scored_at, release, None, 0, 0, record, broken, *nothing)
    else:
        for sequence, row in enumerate(rows, first):
            yield ScoreRow(sequence, scored_at, release, *row, RECORD_SCHEMA, *nothing)
