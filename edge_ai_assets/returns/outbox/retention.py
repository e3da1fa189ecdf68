"""What leaves the outbox for good because it is acknowledged, or is told not to come, and is old.

What leaves it at its quota is `expiry`'s matter. Of what is removed a tombstone stays, which says how many
scores went and why, so that the counts stay true and `recount` can still catch a wrong one. Quarantined
scores never go, see `deadletters`.
"""

# ruff: noqa: S608 (the SQL is put together from this module's own constants)
from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from edge_ai_assets.returns.outbox import store
from edge_ai_assets.returns.outbox.layout import DONE, PACKED
from edge_ai_assets.returns.outbox.lots import SPAN, Lots
from edge_ai_assets.returns.outbox.schema import Pruned, Tombstone
from edge_ai_assets.returns.outbox.sheets import MAX_ROWS
from edge_ai_assets.returns.outbox.store import GIVEN

ROWS = 500
"""Most scores or feedback that one transaction removes, if store.CHUNK is not less."""
KEYS = 1_000
"""Idempotency keys that are looked at in one step."""
ACKNOWLEDGED = "(SELECT coalesce(max(number), 0) FROM packages WHERE acknowledged_at IS NOT NULL)"
UNASKED = """NOT EXISTS (SELECT 1 FROM feedback
    WHERE feedback.sequence = scores.sequence AND feedback.disposition IS NULL)"""
"""No feedback needs the score to be packed itself."""
UNASKED_LOT = """NOT EXISTS (SELECT 1 FROM feedback
    WHERE feedback.sequence BETWEEN lots.first AND lots.last AND feedback.disposition IS NULL)"""
"""None needs a score of the lot, nor one that lies between them."""
EVER = 1 << 62
BURY = """
INSERT INTO tombstones(package, state, kind, reason, first, last, rows, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (package, state, kind, reason) DO UPDATE SET first = min(first, excluded.first),
    last = max(last, excluded.last), rows = rows + excluded.rows, at = excluded.at"""


class Retention(Lots):
    """Removes scores in transactions of at most ROWS, or some lots, so that no answer waits long for it.

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
            for state in (DONE, f"{PACKED} AND reason IS NULL"):
                rows += self._prune_scores(f"{state} AND package = {number}", before)
            feedback += self._prune_feedback(f"package = {number}", before)
        if packages:
            rows += self._prune_scores(f"{DONE} AND package IS NULL", before, packages[-1][1])
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

    def tombstones(self) -> list[Tombstone]:
        """Of all that was removed, by package and reason."""
        columns = ", ".join(Tombstone.__struct_fields__)
        found = self._db.execute(f"SELECT {columns} FROM tombstones ORDER BY package, state, kind, reason")
        return [Tombstone(*row) for row in found]

    def _prune_scores(self, where: str, before: int, through: int = EVER) -> int:
        """Those with a sequence up to `through`; how many."""
        some, lots = (before, through), f"{where} AND oldest < ? AND first <= ?"
        partly = f"SELECT first FROM lots WHERE {lots} AND NOT (newest < ? AND last <= ? AND {UNASKED_LOT})"
        for (first,) in self._db.execute(partly, some * 2).fetchall():
            self._divide(first)
        rows = f"{where} AND scored_at < ? AND sequence <= ? AND {UNASKED}"
        lots += f" AND newest < ? AND last <= ? AND {UNASKED_LOT}"
        pruned = 0
        while gone := self._remove(rows, some, before) or self._remove_lots(lots, some * 2, before):
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
            found = self._db.execute(f"{some} {most()}", values).fetchall()
            self._delete([row[3:] for row in found])
            groups: dict[tuple[str, str, str], list[int]] = {}
            for state, kind, reason, sequence, _ in found:
                groups.setdefault((state, kind, reason or ""), []).append(sequence)
            for about, sequences in groups.items():
                self._bury(0, *about, (min(sequences), max(sequences), len(sequences)), at)
        return len(found)

    def _remove_lots(self, where: str, values: tuple[int, ...], at: int, most: int | None = None) -> int:
        """The same of whole lots."""
        columns = "coalesce(disposition, 'uploaded'), kind, iif(disposition = 'withheld', reason, '')"
        some = f"SELECT {columns}, first, last, rows FROM lots WHERE {where} LIMIT"
        if not self._db.execute(f"{some} 1", values).fetchone():
            return 0
        removed = 0
        with self._transaction(redone=True):
            deadline = time.monotonic() + store.HOLD_SECONDS
            found = self._db.execute(f"{some} {most or max(store.CHUNK // MAX_ROWS, 1)}", values).fetchall()
            for state, kind, reason, *ends in found:
                self._delete_lot(ends[0])
                self._bury(0, state, kind, reason or "", ends, at)
                removed += ends[2]
                if time.monotonic() > deadline:
                    break
        return removed

    def _delete(self, rows: Sequence[tuple[int, int | None]]) -> None:
        """Scores by sequence and sheet, and the sheets of which no score is left."""
        self._db.executemany("DELETE FROM scores WHERE sequence = ?", ((sequence,) for sequence, _ in rows))
        left = "EXISTS (SELECT 1 FROM scores WHERE sequence BETWEEN first AND last AND scores.sheet = first)"
        touched = {(sheet,) for _, sheet in rows}
        self._db.executemany(f"DELETE FROM sheets WHERE first = ? AND NOT {left}", touched)

    def _delete_lot(self, first: int) -> None:
        for table in ("lots", "sheets"):
            self._db.execute(f"DELETE FROM {table} WHERE first = ?", (first,))

    def _bury(self, package: int, state: str, kind: str, reason: str, ends: Sequence[int], at: int) -> None:
        """Count what was deleted in this transaction: the trigger took it from the tally.

        Args:
            ends: lowest and highest sequence, and how many they are.
        """
        self._db.execute(BURY, (package, state, kind, reason, *ends, at))
        self._db.execute("UPDATE tally SET rows = rows + ? WHERE state = ?", (ends[2], state))

    def _prune_feedback(self, where: str, before: int) -> int:
        some = f"SELECT id FROM feedback WHERE {DONE} AND {where} AND given_at < ? LIMIT"
        delete = f"DELETE FROM feedback WHERE id IN ({some} {most()})"
        pruned = 0
        while self._db.execute(f"{some} 1", (before,)).fetchone():
            with self._transaction(redone=True):
                pruned += self._db.execute(delete, (before,)).rowcount
            time.sleep(store.PAUSE_SECONDS)
        return pruned

    def _forget_requests(self) -> None:
        """Remove the keys of requests of which no score is left, nor a lot that lies about them.

        All keys are looked at, KEYS at a time and without the write lock: an index by sequence would make
        each scoring request with a key write one page more.
        """
        end = "requests.first + requests.rows - 1"
        kept = f"EXISTS (SELECT 1 FROM scores WHERE sequence BETWEEN first AND {end})"
        near = f"lots.first BETWEEN requests.first - {SPAN} AND {end}"
        lots = f"EXISTS (SELECT 1 FROM lots WHERE {near} AND last >= requests.first)"
        folded = "first + rows > (SELECT first FROM journal ORDER BY first LIMIT 1)"
        page = f"SELECT key, {kept} OR {lots} OR coalesce({folded}, false) FROM requests"
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
            for table in ("scores", "lots", "feedback")
            for state in (DONE, "disposition IS NULL")
        ]
        return bool(self._db.execute(f"SELECT {' OR '.join(tables)}", (package,)).fetchone()[0])


def most() -> int:
    """Scores or feedback."""
    return min(store.CHUNK, ROWS)
