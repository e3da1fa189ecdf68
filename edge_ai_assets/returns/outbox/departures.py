"""The way home of what stands in the outbox: kinds, packages, uploads, acknowledgements.

What a score means is `insights`' work, what may leave is `policy`'s, the files that leave are `packing`'s.
What is removed afterwards is `retention`'s.
"""

# ruff: noqa: S608 (the SQL is put together from this module's own constants)
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

import msgspec

from edge_ai_assets.returns.outbox.kept import Kept
from edge_ai_assets.returns.outbox.schema import KINDS, FeedbackRow, PackageRow, ScoreRow
from edge_ai_assets.returns.outbox.store import GIVEN, OutboxError

SEALED = "(SELECT coalesce(max(number), 0) FROM packages)"
FREE = "disposition IS NULL AND package IS NULL"
KEYS = {"scores": "sequence", "lots": "first", "feedback": "id"}


class Departures(Kept):
    """What Dagster does with scores and feedback, in transactions of `store.CHUNK` rows or less."""

    def unclassified(self, limit: int) -> list[ScoreRow]:
        """The oldest unfolded scores that have neither a kind nor a disposition."""
        return self._scores("kind IS NULL AND disposition IS NULL ORDER BY sequence LIMIT ?", limit)

    def waiting(self, limit: int, kinds: Sequence[str] = ()) -> list[ScoreRow]:
        """The oldest scores that are classified, and neither disposed of nor packed; only of these kinds."""
        oldest: list[int] = []
        with self._snapshot():  # else a lot may be divided between the queries
            for kind in kinds or KINDS:
                oldest += islice(chain.from_iterable(part.sequences for part in self.parts(kind)), limit)
            return self._chosen(set(sorted(oldest)[:limit]))

    def waiting_feedback(self, limit: int) -> list[FeedbackRow]:
        """The oldest feedback that is neither disposed of nor packed."""
        query = "SELECT * FROM feedback WHERE disposition IS NULL AND package IS NULL ORDER BY id LIMIT ?"
        return [FeedbackRow(*row) for row in self._db.execute(query, (limit,))]

    def classify(self, kinds: Mapping[int, str]) -> None:
        """Give scores their kind, by sequence; a kind once given stays.

        Raises:
            OutboxError: it is none of schema.KINDS.
        """
        if unknown := set(kinds.values()) - set(KINDS):
            raise OutboxError(f"a score is {' or '.join(KINDS)}, not {', '.join(sorted(unknown))}")
        update = f"UPDATE scores SET kind = ? WHERE sequence IN {GIVEN} AND kind IS NULL"
        self._chunks(update, ((kind, [one for one in kinds if kinds[one] == kind]) for kind in KINDS))

    def dispose(
        self, disposition: str, reasons: Mapping[str, Iterable[int]], *, table: str = "scores"
    ) -> None:
        """End the way of scores (or of feedback) that no package holds: withheld, quarantined or expired.

        Args:
            disposition: see the table.
            reasons: reason to the sequences (or feedback ids) it holds for.
            table: scores or feedback.
        """
        apart = disposition == "quarantined"
        for reason, keys in reasons.items():
            for where, some in self._places(table, keys, apart=apart):
                update = f"UPDATE {where} SET disposition = ?, reason = ? WHERE {KEYS[where]} IN {GIVEN}"
                self._chunks(f"{update} AND {FREE}", [(disposition, reason, some)])

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
        packed = self._claim("scores", package.number, sequences, withheld)
        self._claim("feedback", package.number, feedback_ids, withheld_feedback)
        values = msgspec.structs.astuple(package)
        with self._transaction():
            self._db.execute(f"INSERT INTO packages VALUES ({', '.join('?' * len(values))})", values)
            self._db.execute("UPDATE tally SET rows = rows + ? WHERE state = 'packed'", (packed,))
            if package.uploaded_at is not None:
                self._move(packed)
        self.recover()

    def _claim(
        self, table: str, number: int, packed: Iterable[int], held: Mapping[str, Iterable[int]]
    ) -> int:
        """How many are packed."""
        for reason, keys in [*held.items(), (None, packed)]:
            for where, some in self._places(table, keys):
                claim = f"UPDATE {where} SET package = {number}, reason = ? WHERE {KEYS[where]} IN {GIVEN}"
                self._chunks(f"{claim} AND {FREE}", [(reason, some)], redone=True)
        return self._number(table, f"package = {number} AND reason IS NULL AND disposition IS NULL")

    def recover(self) -> None:
        """Bring to its end, or back, what a killed `seal` left. One process at a time may seal or recover."""
        for table in KEYS:
            back = f"package = {SEALED} + 1 AND disposition IS NULL"
            self._settle(table, "package = NULL, reason = NULL", back)
            done = f"package = {SEALED} AND reason IS NOT NULL AND disposition IS NULL"
            self._settle(table, "disposition = 'withheld'", done)

    def _settle(self, table: str, change: str, where: str) -> None:
        """Change rows that one package claims: as many as it may account for."""
        key = KEYS[table]
        found = [one for (one,) in self._db.execute(f"SELECT {key} FROM {table} WHERE {where}")]
        update = f"UPDATE {table} SET {change} WHERE {key} IN {GIVEN} AND {where}"
        self._chunks(update, [(found,)], redone=True)

    def uploaded(self, number: int, at: int) -> None:
        """Record that the other side has a package, at a time in µs. Done again, it changes nothing.

        The scores in it are uploaded by that, whatever their number: see `layout.STATE`.
        """
        sent = f"package = {int(number)} AND reason IS NULL AND disposition IS NULL"
        self._sweep("feedback", "id", "disposition = 'uploaded'", sent, redone=True)
        # Nobody removes them before they are uploaded, so they need not be counted under the lock.
        rows = self._number("scores", sent)
        update = "UPDATE packages SET uploaded_at = ? WHERE number = ? AND uploaded_at IS NULL"
        with self._transaction():
            if self._db.execute(update, (at, number)).rowcount:
                self._move(rows)
            elif not self._package("number = ?", number):
                raise OutboxError(f"there is no package {number}")

    def _places(
        self, table: str, keys: Iterable[int], *, apart: bool = False
    ) -> Iterator[tuple[str, list[int]]]:
        """The tables in which scores (or feedback) stand, and their keys there.

        Args:
            apart: each score in a row of its own, as dead letters: each may get another try.
        """
        if table == "scores":
            lots, keys = self._whole_lots(keys, apart=apart)
            yield "lots", lots
        yield table, list(keys)

    def _number(self, table: str, where: str) -> int:
        """How many scores, in lots or not, or feedback."""
        tables = [("count(*)", table), ("coalesce(sum(rows), 0)", "lots")][: 1 + (table == "scores")]
        query = " + ".join(f"(SELECT {what} FROM {one} WHERE {where})" for what, one in tables)
        return int(self._db.execute(f"SELECT {query}").fetchone()[0])

    def _move(self, rows: int) -> None:
        """Count scores as uploaded that were pending, in the transaction that uploads their package."""
        moved = [(-rows, "pending"), (rows, "uploaded")]
        self._db.executemany("UPDATE tally SET rows = rows + ? WHERE state = ?", moved)

    def exported(self, number: int, at: int) -> None:
        """Note that a package was put on a medium, at a time in µs; what is in it stays pending."""
        with self._transaction():
            update = "UPDATE packages SET exported_at = ? WHERE number = ?"
            if not self._db.execute(update, (at, number)).rowcount:
                raise OutboxError(f"there is no package {number}")

    def acknowledge(self, number: int, digest: str, at: int) -> int:
        """Record that the other side merged the packages up to a number: `Retention.prune` may remove them.

        Killed anywhere, the next call completes it. An older acknowledgement, or one again, changes nothing.

        Args:
            number: of the last package that was merged.
            digest: of that package; the chain of digests makes it stand for all before.
            at: µs.

        Returns:
            How many packages it acknowledges that were not yet.

        Raises:
            OutboxError: there is no such package, or it has another digest. Nothing changes then.
        """
        found = self._package("number = ?", number)
        last = self.last_package()
        if found is None and (last is None or not 0 < number < last.number):  # else it was forgotten
            raise OutboxError(
                f"package {number} was acknowledged, this site's go to {last.number if last else 0}"
            )
        if found and found.digest != digest:
            raise OutboxError(
                f"package {number} was acknowledged with digest {digest}, this site's is {found.digest}"
            )
        while early := self._package("uploaded_at IS NULL AND number <= ? ORDER BY number LIMIT 1", number):
            self.uploaded(early.number, at)
        new = f"number <= {int(number)} AND acknowledged_at IS NULL"
        return self._sweep("packages", "number", f"acknowledged_at = {int(at)}", new)

    def packages(self, after: int = 0, limit: int = 1_000) -> list[PackageRow]:
        """The sealed packages with a number above `after`, in order, without those that were forgotten."""
        query = "SELECT * FROM packages WHERE number > ? ORDER BY number LIMIT ?"
        return [PackageRow(*row) for row in self._db.execute(query, (after, limit))]

    def unsent(self, limit: int = 1_000) -> list[PackageRow]:
        """The oldest sealed packages that the other side is not known to have, in order."""
        query = "SELECT * FROM packages WHERE uploaded_at IS NULL ORDER BY number LIMIT ?"
        return [PackageRow(*row) for row in self._db.execute(query, (limit,))]

    def unsent_total(self) -> int:
        """How many they are in all."""
        query = "SELECT count(*) FROM packages WHERE uploaded_at IS NULL"
        return int(self._db.execute(query).fetchone()[0])

    def last_package(self) -> PackageRow | None:
        """The one that was sealed last: it is always kept."""
        return self._package("true ORDER BY number DESC LIMIT 1")

    def _package(self, where: str, *values: int) -> PackageRow | None:
        row = self._db.execute(f"SELECT * FROM packages WHERE {where}", values).fetchone()
        return PackageRow(*row) if row else None
