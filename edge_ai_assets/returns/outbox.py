"""The outbox of a site: one SQLite file that holds every score, from before its answer on.

Only what is stored and how it is asked for lives here. What a score means is `insights`' work, what may leave
is `policy`'s, the files that leave are `packing`'s. The scoring service imports this module, so it needs the
standard library and msgspec only.

The service appends while Dagster unfolds, classifies, seals and acknowledges. Dagster's writes go in
transactions of at most `store.CHUNK` rows, or `UNFOLD` where rows are only added, so that an answer never
waits long for them. One `Outbox` belongs to one thread.
"""

# ruff: noqa: S608 (the SQL is put together from this module's own constants)
from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import msgspec

from edge_ai_assets.returns import journal
from edge_ai_assets.returns.journal import BLOCK_SCHEMA
from edge_ai_assets.returns.schema import (
    FORMAT,
    RECORD_SCHEMA,
    TABLES,
    UPGRADES,
    Batch,
    Counts,
    Feedback,
    FeedbackRow,
    PackageRow,
    Receipt,
    ScoreRow,
)
from edge_ai_assets.returns.store import BUSY_SECONDS, PAUSE_SECONDS, OutboxError, Store

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

INSERT = """
INSERT INTO scores(sequence, scored_at, release, score, predicted, outside, record, schema)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
LAST = """coalesce((SELECT first + rows - 1 FROM journal ORDER BY first DESC LIMIT 1),
    (SELECT seq FROM sqlite_sequence WHERE name = 'scores'), 0)"""
UNREADABLE = -1
"""Record schema of scores whose block could not be read."""
UNFOLD = 1_000
"""Rows that one transaction of `unfold` moves, or one block if it has more."""
SEALED = "(SELECT coalesce(max(number), 0) FROM packages)"


class OutboxFull(OutboxError):
    """The outbox has reached its quota; nothing was written."""


class Outbox(Store):
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
            if self._quota is not None and (size := self.size()) > self._quota:
                raise OutboxFull(f"{self.path} holds {size} bytes, its quota is {self._quota}")
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

    def size(self) -> int:
        """Bytes that the file holds, without those that are free for what comes next."""
        pragma: Callable[[str], int] = lambda name: self._db.execute(f"PRAGMA {name}").fetchone()[0]  # noqa: E731
        return (pragma("page_count") - pragma("freelist_count")) * pragma("page_size")

    def unfold(self, limit: int) -> int:
        """Make rows of `scores` from the oldest blocks of the journal, until it is empty or `limit` are made.

        A block that cannot be read becomes rows whose schema is not known, the first with the whole block as
        its record: they are quarantined as any such score, and nothing is lost.

        Returns:
            How many rows were made.
        """
        made = 0
        while made < limit:
            with self._transaction():
                moved = 0
                while (found := self._oldest_block()) and (not moved or moved + found[1] <= UNFOLD):
                    first, number, *_ = found
                    self._db.executemany(INSERT, _unfolded(*found))
                    self._db.execute("DELETE FROM journal WHERE first = ?", (first,))
                    moved += number
                if not moved:
                    break
                self._db.execute("UPDATE tally SET rows = rows + ? WHERE state = 'pending'", (moved,))
            made += moved
            time.sleep(PAUSE_SECONDS)
        return made

    def _oldest_block(self) -> Any:
        return self._db.execute("SELECT * FROM journal ORDER BY first LIMIT 1").fetchone()

    def add_feedback(self, items: Sequence[Feedback]) -> list[int]:
        """Write what users said of scores, all or nothing; the ids, in order.

        Raises:
            OutboxError: a sequence that was never given out.
        """
        ids = []
        with self._transaction():
            for item in items:
                if not self._kept(item.sequence):
                    raise OutboxError(
                        f"there is no score {item.sequence}: this site's scores go to {self._last_sequence()}"
                    )
                cursor = self._db.execute(
                    "INSERT INTO feedback(sequence, correct, note, role, given_at) VALUES (?, ?, ?, ?, ?)",
                    (item.sequence, bool(item.correct), item.note, item.role, item.given_at),
                )
                ids.append(int(cursor.lastrowid or 0))
        return ids

    def _kept(self, sequence: int) -> bool:
        unfolded = "SELECT 1 FROM scores WHERE sequence = ?1"
        before = "SELECT first + rows AS next FROM journal WHERE first <= ?1 ORDER BY first DESC LIMIT 1"
        block = f"SELECT 1 FROM ({before}) WHERE ?1 < next"
        row = self._db.execute(f"SELECT EXISTS ({unfolded}) OR EXISTS ({block})", (sequence,)).fetchone()
        return bool(row[0])

    def rows(self, first: int, last: int) -> list[ScoreRow]:
        """The scores with sequences first to last, both included, in order."""
        begin = "(SELECT coalesce(max(first), 0) FROM journal WHERE first <= ?)"
        query = f"SELECT * FROM journal WHERE first BETWEEN {begin} AND ? ORDER BY first"
        with self._snapshot():  # else a block that is unfolded between the two queries is in neither answer
            found = self._scores("sequence BETWEEN ? AND ? ORDER BY sequence", first, last)
            blocks = self._db.execute(query, (first, last)).fetchall()
        for block in blocks:
            found += (ScoreRow(*row, *[None] * 4) for row in _unfolded(*block) if first <= row[0] <= last)
        return found

    def newest(self, limit: int) -> list[ScoreRow]:
        """The last scores, in order; those that are no longer kept are missing."""
        last = self._last_sequence()
        return self.rows(last - limit + 1, last)

    def unclassified(self, limit: int) -> list[ScoreRow]:
        """The oldest unfolded scores that have neither a kind nor a disposition."""
        return self._scores("kind IS NULL AND disposition IS NULL ORDER BY sequence LIMIT ?", limit)

    def untouched(self) -> bool:
        """Whether a score waits for its kind, unfolded or not."""
        new = "kind IS NULL AND disposition IS NULL"
        query = f"SELECT EXISTS (SELECT 1 FROM journal) OR EXISTS (SELECT 1 FROM scores WHERE {new})"
        return bool(self._db.execute(query).fetchone()[0])

    def waiting(self, limit: int) -> list[ScoreRow]:
        """The oldest scores that are classified, and neither disposed of nor packed."""
        where = "kind IS NOT NULL AND disposition IS NULL AND package IS NULL ORDER BY sequence LIMIT ?"
        return self._scores(where, limit)

    def waiting_feedback(self, limit: int) -> list[FeedbackRow]:
        """The oldest feedback that is neither disposed of nor packed."""
        query = "SELECT * FROM feedback WHERE disposition IS NULL AND package IS NULL ORDER BY id LIMIT ?"
        return [FeedbackRow(*row) for row in self._db.execute(query, (limit,))]

    def classify(self, kinds: Mapping[int, str]) -> None:
        """Give scores their kind, by sequence; a kind once given stays."""
        rows = ((kind, sequence) for sequence, kind in kinds.items())
        self._chunks("UPDATE scores SET kind = ? WHERE sequence = ? AND kind IS NULL", rows)

    def dispose(
        self, disposition: str, reasons: Mapping[str, Iterable[int]], *, table: str = "scores"
    ) -> None:
        """End the way of scores (or of feedback) that no package holds: withheld, quarantined or expired.

        Args:
            disposition: see the table.
            reasons: reason to the sequences (or feedback ids) it holds for.
            table: scores or feedback.
        """
        key = {"scores": "sequence", "feedback": "id"}[table]
        update = f"UPDATE {table} SET disposition = ?, reason = ? WHERE {key} = ?"
        rows = ((disposition, *pair) for pair in _pairs(reasons))
        self._chunks(f"{update} AND disposition IS NULL AND package IS NULL", rows)

    def seal(
        self,
        package: PackageRow,
        sequences: Iterable[int],
        feedback_ids: Iterable[int],
        withheld: Mapping[str, Iterable[int]],
        withheld_feedback: Mapping[str, Iterable[int]],
    ) -> None:
        """Record what a finished package file holds, and what it accounts for but holds back, by reason.

        Rows are claimed for the package's number chunk by chunk, one small transaction then adds the package:
        that moment seals it. Killed before, `recover` gives the claims back; killed after, it completes the
        dispositions.

        Raises:
            OutboxError: the number is not the one after the last.
        """
        self.recover()
        last = self.last_package()
        expected = last.number + 1 if last else 1
        if package.number != expected:
            raise OutboxError(f"package {package.number} cannot be sealed, the next number is {expected}")
        for key, table, packed, held in (
            ("sequence", "scores", sequences, withheld),
            ("id", "feedback", feedback_ids, withheld_feedback),
        ):
            claim = f"UPDATE {table} SET package = {package.number}, reason = ? WHERE {key} = ?"
            self._chunks(
                f"{claim} AND disposition IS NULL",
                chain(zip(repeat(None), packed, strict=False), _pairs(held)),
            )
        with self._transaction():
            values = msgspec.structs.astuple(package)
            self._db.execute("INSERT INTO packages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        self.recover()

    def recover(self) -> None:
        """Bring to its end, or back, what a killed `seal` left. One process at a time may seal or recover."""
        for key, table in (("sequence", "scores"), ("id", "feedback")):
            back = f"package > {SEALED} AND disposition IS NULL"
            self._sweep(table, key, "package = NULL, reason = NULL", back)
            done = f"package >= {SEALED} AND reason IS NOT NULL AND disposition IS NULL"
            self._sweep(table, key, "disposition = 'withheld'", done)

    def uploaded(self, number: int, at: int) -> None:
        """Record that the other side has a package, at a time in µs. Done again, it changes nothing."""
        for key, table in (("sequence", "scores"), ("id", "feedback")):
            sent = f"package = {int(number)} AND reason IS NULL AND disposition IS NULL"
            self._sweep(table, key, "disposition = 'uploaded'", sent)
        with self._transaction():
            update = "UPDATE packages SET uploaded_at = coalesce(uploaded_at, ?) WHERE number = ?"
            if not self._db.execute(update, (at, number)).rowcount:
                raise OutboxError(f"there is no package {number}")

    def unsent(self) -> list[PackageRow]:
        """Sealed packages that the other side is not known to have, in order."""
        query = "SELECT * FROM packages WHERE uploaded_at IS NULL ORDER BY number"
        return [PackageRow(*row) for row in self._db.execute(query)]

    def last_package(self) -> PackageRow | None:
        row = self._db.execute("SELECT * FROM packages ORDER BY number DESC LIMIT 1").fetchone()
        return PackageRow(*row) if row else None

    def oldest_pending(self) -> int | None:
        """When the oldest score that still has a way to go was scored, in µs; None if there is none."""
        waiting = [
            f"SELECT min(sequence) AS sequence FROM scores WHERE {where}"
            for where in (
                "kind IS NULL AND disposition IS NULL",
                "kind IS NOT NULL AND disposition IS NULL AND package IS NULL",
                "disposition IS NULL AND package = "
                "(SELECT min(package) FROM scores WHERE package IS NOT NULL AND disposition IS NULL)",
            )
        ]
        unfolded = f"SELECT scored_at FROM scores WHERE sequence IN ({' UNION ALL '.join(waiting)})"
        blocks = "SELECT * FROM (SELECT scored_at FROM journal ORDER BY first LIMIT 1)"
        row = self._db.execute(f"SELECT min(scored_at) FROM ({unfolded} UNION ALL {blocks})").fetchone()
        return None if row[0] is None else int(row[0])

    def counts(self) -> Counts:
        """What became of the scores, from the tally: as fast with a billion rows as with none."""
        # The journal's sequences have no gaps, so its two ends tell how many they are.
        oldest = "SELECT first FROM journal ORDER BY first LIMIT 1"
        ends = f"SELECT 'pending', {LAST} - first + 1 FROM ({oldest})"
        return self._counts(f"SELECT state, sum(rows) FROM (SELECT * FROM tally UNION ALL {ends}) GROUP BY 1")

    def recount(self) -> Counts:
        """The same counted from the rows themselves: slow, and independent of the tally."""
        unfolded = "SELECT coalesce(disposition, 'pending') AS state, count(*) AS rows FROM scores GROUP BY 1"
        blocks = "SELECT 'pending', coalesce(sum(rows), 0) FROM journal"
        return self._counts(f"SELECT state, sum(rows) FROM ({unfolded} UNION ALL {blocks}) GROUP BY 1")

    def _counts(self, query: str) -> Counts:
        states = dict.fromkeys(Counts.__struct_fields__, 0)
        states.update(self._db.execute(f"SELECT 'scored', {LAST} UNION ALL {query}").fetchall())
        return Counts(**states)

    def _scores(self, where: str, *values: int) -> list[ScoreRow]:
        return [ScoreRow(*row) for row in self._db.execute(f"SELECT * FROM scores WHERE {where}", values)]

    def _last_sequence(self) -> int:
        return int(self._db.execute(f"SELECT {LAST}").fetchone()[0])


def _unfolded(
    first: int, number: int, scored_at: int, release: str, schema: int, block: bytes
) -> Iterator[tuple[Any, ...]]:
    """The columns of INSERT for each score of a block."""
    try:
        rows = journal.rows(block, schema, number)
    except ValueError:
        empty = (None, False, False)
        yield (first, scored_at, release, *empty, block, UNREADABLE)
        yield from ((first + row, scored_at, release, *empty, b"", UNREADABLE) for row in range(1, number))
    else:
        for sequence, row in enumerate(rows, first):
            yield (sequence, scored_at, release, *row, RECORD_SCHEMA)


def _pairs(reasons: Mapping[str, Iterable[int]]) -> Iterator[tuple[str, int]]:
    return ((reason, number) for reason, numbers in reasons.items() for number in numbers)
