"""The outbox of a site: one SQLite file that holds every score, from before its answer on.

Only what is stored and how it is asked for lives here. What a score means is `insights`' work, what may leave
is `policy`'s, the files that leave are `packing`'s. The scoring service imports this module, so it needs the
standard library and msgspec only.

The service appends while Dagster classifies, seals and acknowledges. Dagster's writes go in transactions of
at most `store.CHUNK` rows, so that an answer never waits long for them. One `Outbox` belongs to one thread.
"""

# ruff: noqa: S608 (the SQL is put together from this module's own constants)
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import msgspec

from edge_ai_assets.returns.schema import (
    FORMAT,
    RECORD_SCHEMA,
    TABLES,
    Batch,
    Counts,
    Feedback,
    FeedbackRow,
    PackageRow,
    Receipt,
    ScoreRow,
)
from edge_ai_assets.returns.store import OutboxError, Store

__all__ = [
    "Batch",
    "Counts",
    "Feedback",
    "FeedbackRow",
    "Outbox",
    "OutboxError",
    "PackageRow",
    "Receipt",
    "ScoreRow",
]

INSERT = """
INSERT INTO scores(sequence, scored_at, release, score, predicted, outside, record, schema)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
SEALED = "(SELECT coalesce(max(number), 0) FROM packages)"


class Outbox(Store):
    """An open outbox; a context manager.

    Args:
        path: the file; its folder must exist.
        create: make the file when there is none.

    Raises:
        OutboxError: there is no file and create is false, or a newer version wrote it.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        if not create and not path.exists():
            raise OutboxError(
                f"{path}: there is no outbox; the site's scoring service makes it when it starts"
            )
        super().__init__(path, TABLES, FORMAT)

    def append(self, batches: Sequence[Batch]) -> list[Receipt]:
        """Write the batches of several requests in one transaction; on return they are on disk.

        Sequences have no gaps: a transaction that fails gives its numbers back.

        Returns:
            A receipt for each batch, in order. A batch whose key was seen before writes nothing and gets the
            receipt of that time, whatever it holds now.

        Raises:
            OutboxError: a batch is empty or its sequences have different lengths; none of the batches is
                written.
        """
        for batch in batches:
            lengths = {len(batch.scores), len(batch.predicted), len(batch.outside), len(batch.records)}
            if len(lengths) != 1 or 0 in lengths:
                raise OutboxError(
                    f"a batch needs one length of at least 1 for all its sequences, not {sorted(lengths)}"
                )
        receipts = []
        with self._transaction():
            last = before = self._last_sequence()
            for batch in batches:
                if batch.key is not None:
                    seen = self._db.execute(
                        "SELECT first, rows FROM requests WHERE key = ?", (batch.key,)
                    ).fetchone()
                    if seen:
                        receipts.append(Receipt(seen[0], seen[1], repeated=True))
                        continue
                    self._db.execute(
                        "INSERT INTO requests VALUES (?, ?, ?)", (batch.key, last + 1, len(batch.scores))
                    )
                rows = zip(
                    range(last + 1, last + 1 + len(batch.scores)),
                    repeat(batch.scored_at),
                    repeat(batch.release),
                    _plain(batch.scores),
                    _plain(batch.predicted),
                    _plain(batch.outside),
                    batch.records,
                    repeat(RECORD_SCHEMA),
                    strict=False,
                )
                self._db.executemany(INSERT, rows)
                receipts.append(Receipt(last + 1, len(batch.scores), repeated=False))
                last += len(batch.scores)
            self._db.execute("UPDATE tally SET rows = rows + ? WHERE state = 'pending'", (last - before,))
        return receipts

    def add_feedback(self, items: Sequence[Feedback]) -> list[int]:
        """Write what users said of scores, all or nothing; the ids, in order.

        Raises:
            OutboxError: a sequence that was never given out.
        """
        ids = []
        with self._transaction():
            for item in items:
                if not self.rows(item.sequence, item.sequence):
                    raise OutboxError(
                        f"there is no score {item.sequence}: this site's scores go to {self._last_sequence()}"
                    )
                cursor = self._db.execute(
                    "INSERT INTO feedback(sequence, correct, note, role, given_at) VALUES (?, ?, ?, ?, ?)",
                    (item.sequence, bool(item.correct), item.note, item.role, item.given_at),
                )
                ids.append(int(cursor.lastrowid or 0))
        return ids

    def rows(self, first: int, last: int) -> list[ScoreRow]:
        """The scores with sequences first to last, both included, in order."""
        return self._scores("sequence BETWEEN ? AND ? ORDER BY sequence", first, last)

    def unclassified(self, limit: int) -> list[ScoreRow]:
        """The oldest scores that have neither a kind nor a disposition."""
        return self._scores("kind IS NULL AND disposition IS NULL ORDER BY sequence LIMIT ?", limit)

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

    def counts(self) -> Counts:
        """What became of the scores, from the tally: as fast with a billion rows as with none."""
        return self._counts("SELECT state, rows FROM tally")

    def recount(self) -> Counts:
        """The same counted from the rows themselves: slow, and independent of the tally."""
        return self._counts("SELECT coalesce(disposition, 'pending'), count(*) FROM scores GROUP BY 1")

    def _counts(self, query: str) -> Counts:
        sequence = "SELECT 'scored', coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'scores'"
        states = dict.fromkeys(Counts.__struct_fields__, 0)
        states.update(self._db.execute(f"{sequence} UNION ALL {query}").fetchall())
        return Counts(**states)

    def _scores(self, where: str, *values: int) -> list[ScoreRow]:
        return [ScoreRow(*row) for row in self._db.execute(f"SELECT * FROM scores WHERE {where}", values)]

    def _last_sequence(self) -> int:
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'scores'").fetchone()
        return int(row[0]) if row else 0


def _plain(values: Sequence[Any]) -> Sequence[Any]:
    """A numpy array as a list: sqlite3 does not know numpy's scalars."""
    return values.tolist() if hasattr(values, "tolist") else values


def _pairs(reasons: Mapping[str, Iterable[int]]) -> Iterator[tuple[str, int]]:
    return ((reason, number) for reason, numbers in reasons.items() for number in numbers)
