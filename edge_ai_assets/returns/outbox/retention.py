"""What leaves the outbox for good: what is acknowledged and old, and at the quota the least valuable.

Of what is removed a tombstone stays, which says how many scores went and why, so that the counts stay true
and `recount` can still catch a wrong one. Quarantined scores never go, see `deadletters`.
"""

# ruff: noqa: S608 (the SQL is put together from this module's own constants)
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from edge_ai_assets.returns.outbox import store
from edge_ai_assets.returns.outbox.departures import SEALED
from edge_ai_assets.returns.outbox.layout import DONE, PACKED, WAITING
from edge_ai_assets.returns.outbox.schema import KINDS, Expired, Pruned, Tombstone
from edge_ai_assets.returns.outbox.store import GIVEN, Store

ROWS = 500
"""Most scores or feedback that one transaction removes, if store.CHUNK is not less."""
KEYS = 1_000
"""Idempotency keys that are looked at in one step."""
ACKNOWLEDGED = "(SELECT coalesce(max(number), 0) FROM packages WHERE acknowledged_at IS NOT NULL)"
UNASKED = """NOT EXISTS (SELECT 1 FROM feedback
    WHERE feedback.sequence = scores.sequence AND feedback.disposition IS NULL)"""
"""No feedback needs the score to be packed itself."""
BURY = """
INSERT INTO tombstones(package, state, kind, reason, first, last, rows, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (package, state, kind, reason) DO UPDATE SET first = min(first, excluded.first),
    last = max(last, excluded.last), rows = rows + excluded.rows, at = excluded.at"""


class Retention(Store):
    """Removes scores in transactions of at most ROWS, so that no answer waits long for it.

    The file does not shrink: pages that are freed are used by what comes next, so that it stays as large as
    it was when it held most.
    """

    def prune(self, before: int) -> Pruned:
        """Remove scores and feedback that are home, or never leave, and that were made before a time in µs.

        Home are those in a package that is acknowledged. Those that were withheld without a package go when
        an acknowledged package has told that they do not come. A score on which feedback waits stays; an
        idempotency key goes with the last score of its request. Killed anywhere, the next call goes on.

        Returns:
            How much, and the files that may go from the spool: they are named until `forget` is told.
        """
        query = "SELECT number, complete, name, created_at FROM packages WHERE number <= {} ORDER BY number"
        packages = self._db.execute(query.format(ACKNOWLEDGED)).fetchall()
        rows = feedback = 0
        for number, *_ in packages:
            rows += self._prune_scores(f"{DONE} AND package = {number}", before)
            rows += self._prune_scores(f"{PACKED} AND reason IS NULL AND package = {number}", before)
            feedback += self._prune_feedback(f"package = {number}", before)
        if packages:
            rows += self._prune_scores(
                f"{DONE} AND package IS NULL AND sequence <= {packages[-1][1]}", before
            )
            feedback += self._prune_feedback("package IS NULL", before)
        if rows:
            self._forget_requests()
        empty = [name for number, _, name, at in packages if at < before and not self._holds(number)]
        return Pruned(rows, feedback, empty)

    def forget(self, names: Iterable[str]) -> int:
        """Remove the packages that `prune` named, once their files are gone; how many.

        The last acknowledged package stays known: its digest says where the chain goes on.
        """
        known = dict(self._db.execute(f"SELECT name, number FROM packages WHERE number < {ACKNOWLEDGED}"))
        empty = [known[name] for name in names if name in known and not self._holds(known[name])]
        return self._chunks(f"DELETE FROM packages WHERE number IN {GIVEN}", [(empty,)], redone=True)

    def drop_withheld(self, bytes_to_free: int, at: int) -> int:
        """Remove scores that were withheld and that no package accounts for, the oldest first: under a policy
        that lists nothing no package is ever made, and `prune` would wait for its acknowledgement for ever.

        They stay counted as withheld, and a score on which feedback waits stays.

        Args:
            bytes_to_free: stops when so many are free that were not; a transaction may free more.
            at: µs, for the tombstones.

        Returns:
            How many scores went.
        """
        some = f"{DONE} AND package IS NULL AND disposition = 'withheld' AND {UNASKED} ORDER BY scored_at"
        aim, dropped = self.size() - bytes_to_free, 0
        while self.size() > aim and (gone := self._remove(some, (), at)):
            dropped += gone
            time.sleep(store.PAUSE_SECONDS)
        if dropped:
            self._forget_requests()
        return dropped

    def expire(
        self, bytes_to_free: int, at: int, reason: str, sent: Mapping[str, int] | None = None
    ) -> Expired:
        """Remove the least valuable of what waits: in the order of schema.KINDS, the oldest first.

        What is in a package stays, and a score on which feedback waits; what is in the journal can expire
        only after it was unfolded. Nobody may seal meanwhile: the next package tells of what expired before.

        Args:
            bytes_to_free: stops when so many are free that were not; a transaction may free more.
            at: µs.
            reason: in words, for the tombstone and the next package.
            sent: by kind, up to which sequence scores may be under way already, on a queue say: they stay.

        Returns:
            What went; less than asked for when nothing more may go.
        """
        by_kind: Counter[str] = Counter()
        freed, under_way = 0, sent or {}
        for kind in KINDS:
            while freed < bytes_to_free:
                rows, size = self._expire_some(kind, at, reason, under_way.get(kind, 0))
                if not rows:
                    break
                by_kind[kind] += rows
                freed += size
                time.sleep(store.PAUSE_SECONDS)
        if by_kind:
            self._forget_requests()
        return Expired(by_kind.total(), dict(by_kind), freed)

    def _expire_some(self, kind: str, at: int, reason: str, after: int = 0) -> tuple[int, int]:
        """In one transaction; rows and bytes that went."""
        oldest = f"kind = ? AND sequence > ? AND {WAITING} AND {UNASKED} ORDER BY sequence LIMIT {_some()}"
        with self._transaction():
            size = self.size()
            found = self._db.execute(
                f"SELECT sequence, sheet FROM scores WHERE {oldest}", (kind, after)
            ).fetchall()
            if found:
                (package,) = self._db.execute(f"SELECT {SEALED} + 1").fetchone()
                self._delete(found)
                self._bury(package, "expired", kind, reason, [sequence for sequence, _ in found], at)
            return len(found), size - self.size()

    def tombstones(self) -> list[Tombstone]:
        """Of all that was removed, by package and reason."""
        columns = ", ".join(Tombstone.__struct_fields__)
        found = self._db.execute(f"SELECT {columns} FROM tombstones ORDER BY package, state, kind, reason")
        return [Tombstone(*row) for row in found]

    def expired_for(self, number: int) -> dict[str, int]:
        """How many scores expired after the package before this one, by reason."""
        query = "SELECT reason, sum(rows) FROM tombstones WHERE package = ? AND state = 'expired' GROUP BY 1"
        return dict(self._db.execute(query, (number,)).fetchall())

    def _prune_scores(self, where: str, before: int) -> int:
        pruned = 0
        while gone := self._remove(f"{where} AND scored_at < ? AND {UNASKED}", (before,), before):
            pruned += gone
            time.sleep(store.PAUSE_SECONDS)
        return pruned

    def _remove(self, where: str, values: tuple[int, ...], at: int) -> int:
        """Some of the scores that no package has to tell of any more, in one transaction; how many."""
        columns = (
            "coalesce(disposition, 'uploaded'), coalesce(kind, ''), iif(disposition = 'withheld', reason, '')"
        )
        some = f"SELECT {columns}, sequence, sheet FROM scores WHERE {where} LIMIT"
        if not self._db.execute(f"{some} 1", values).fetchone():
            return 0
        with self._transaction(redone=True):
            found = self._db.execute(f"{some} {_some()}", values).fetchall()
            self._delete([row[3:] for row in found])
            groups: dict[tuple[str, str, str], list[int]] = {}
            for state, kind, reason, sequence, _ in found:
                groups.setdefault((state, kind, reason or ""), []).append(sequence)
            for (state, kind, reason), sequences in groups.items():
                self._bury(0, state, kind, reason, sequences, at)
        return len(found)

    def _delete(self, rows: Sequence[tuple[int, int | None]]) -> None:
        """Scores by sequence and sheet, and the sheets of which no score is left."""
        self._db.executemany("DELETE FROM scores WHERE sequence = ?", ((sequence,) for sequence, _ in rows))
        left = "EXISTS (SELECT 1 FROM scores WHERE sequence BETWEEN first AND last AND scores.sheet = first)"
        touched = {(sheet,) for _, sheet in rows}
        self._db.executemany(f"DELETE FROM sheets WHERE first = ? AND NOT {left}", touched)

    def _bury(self, package: int, state: str, kind: str, reason: str, sequences: list[int], at: int) -> None:
        """Count what was deleted in this transaction: the trigger took it from the tally."""
        ends = min(sequences), max(sequences), len(sequences)
        self._db.execute(BURY, (package, state, kind, reason, *ends, at))
        self._db.execute("UPDATE tally SET rows = rows + ? WHERE state = ?", (len(sequences), state))

    def _prune_feedback(self, where: str, before: int) -> int:
        some = f"SELECT id FROM feedback WHERE {DONE} AND {where} AND given_at < ? LIMIT"
        delete = f"DELETE FROM feedback WHERE id IN ({some} {_some()})"
        pruned = 0
        while self._db.execute(f"{some} 1", (before,)).fetchone():
            with self._transaction(redone=True):
                pruned += self._db.execute(delete, (before,)).rowcount
            time.sleep(store.PAUSE_SECONDS)
        return pruned

    def _forget_requests(self) -> None:
        """Remove the keys of requests of which no score is left.

        All keys are looked at, KEYS at a time and without the write lock: an index by sequence would make
        each scoring request with a key write one page more.
        """
        kept = "EXISTS (SELECT 1 FROM scores WHERE sequence BETWEEN first AND first + requests.rows - 1)"
        folded = "first + rows > (SELECT first FROM journal ORDER BY first LIMIT 1)"
        page = f"SELECT key, {kept} OR coalesce({folded}, false) FROM requests"
        page += " WHERE key {} ? ORDER BY key LIMIT ?"
        found = self._db.execute(page.format(">="), ("", KEYS)).fetchall()
        while found:
            gone = [key for key, stays in found if not stays]
            self._chunks(f"DELETE FROM requests WHERE key IN {GIVEN}", [(gone,)], redone=True)
            found = self._db.execute(page.format(">"), (found[-1][0], KEYS)).fetchall()

    def _holds(self, package: int) -> bool:
        """Whether a score or feedback of a package is kept."""
        tables = [
            f"EXISTS (SELECT 1 FROM {table} WHERE package = ?1 AND {state})"
            for table in ("scores", "feedback")
            for state in (DONE, "disposition IS NULL")
        ]
        return bool(self._db.execute(f"SELECT {' OR '.join(tables)}", (package,)).fetchone()[0])


def _some() -> int:
    return min(store.CHUNK, ROWS)
