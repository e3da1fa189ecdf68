"""How many scores the outbox holds in which state, how far they are complete, how old they are.

All but `recount` and `may_be_packed` cost the same with a billion scores as with none. Nothing is
changed here.
"""

# ruff: noqa: S608 (the SQL is put together from this module's own constants)
from __future__ import annotations

from collections.abc import Set as AbstractSet
from contextlib import closing
from itertools import starmap

from edge_ai_assets.returns.outbox import sheets
from edge_ai_assets.returns.outbox.departures import SEALED
from edge_ai_assets.returns.outbox.layout import DONE, PACKED, STATE, UNCLASSIFIED, WAITING
from edge_ai_assets.returns.outbox.lots import COLUMNS, Lot, Lots
from edge_ai_assets.returns.outbox.retention import ACKNOWLEDGED
from edge_ai_assets.returns.outbox.schema import KINDS, Counts, Sample, Tally

LAST = """coalesce((SELECT first + rows - 1 FROM journal ORDER BY first DESC LIMIT 1),
    (SELECT seq FROM sqlite_sequence WHERE name = 'scores'), 0)"""
OLDEST_BLOCK = "(SELECT first FROM journal ORDER BY first LIMIT 1)"
OF_A_KIND = [f"kind = '{kind}' AND {WAITING}" for kind in KINDS]


class Census(Lots):
    """What is asked of the outbox as a whole."""

    def counts(self) -> Counts:
        """What became of the scores, from the tally: as fast with a billion rows as with none."""
        # The journal's sequences have no gaps, so its two ends tell how many they are.
        ends = f"SELECT 'pending', {LAST} - first + 1 FROM {OLDEST_BLOCK}"
        return self._counts(f"SELECT state, rows FROM tally WHERE state <> 'packed' UNION ALL {ends}")

    def recount(self) -> Counts:
        """The same, counted from rows, lots, blocks and tombstones: slow, and independent of the tally."""
        kept = f"SELECT {STATE}, count(*) FROM scores GROUP BY 1"
        kept += f" UNION ALL SELECT {STATE}, sum(rows) FROM lots GROUP BY 1"
        blocks = "SELECT 'pending', coalesce(sum(rows), 0) FROM journal"
        return self._counts(f"{kept} UNION ALL {blocks} UNION ALL SELECT state, rows FROM tombstones")

    def tally(self) -> Tally:
        """What became of the scores for a package's manifest; scored = the sum of the others.

        What the next package will pack or withhold counts as waiting until it is sealed.
        """
        with self._snapshot():
            counts = self.counts()
            packed = self._db.execute("SELECT rows FROM tally WHERE state = 'packed'").fetchone()[0]
        waiting = counts.uploaded + counts.pending - packed
        return Tally(counts.scored, packed, counts.withheld, counts.quarantined, counts.expired, waiting)

    def complete_through(self, accounted: AbstractSet[int] = frozenset()) -> int:
        """The sequence up to which every score is in a sealed package, or is not to come.

        It steps back when dead letters get another try.

        Args:
            accounted: sequences that the next package, not yet sealed, will pack or withhold.
        """
        claimed = f"package = {SEALED} + 1 AND disposition IS NULL"
        with self._snapshot():
            open_ones = [self._last_sequence() + 1]
            open_ones += [first for (first,) in self._db.execute(f"SELECT first FROM {OLDEST_BLOCK}")]
            for where in (UNCLASSIFIED, *OF_A_KIND, claimed):
                query = f"SELECT sequence FROM scores WHERE {where} ORDER BY sequence"
                with closing(self._db.execute(query)) as found:
                    open_ones += [next((one for (one,) in found if one not in accounted), open_ones[0])]
            for where in (*OF_A_KIND, claimed):
                open_ones += [self._first_open_in_lots(where, min(open_ones), accounted)]
        return int(min(open_ones)) - 1

    def _first_open_in_lots(self, where: str, before: int, accounted: AbstractSet[int]) -> int:
        """The lowest sequence of lots that is not accounted for, if it is lower."""
        query = f"SELECT {COLUMNS} FROM lots WHERE {where} ORDER BY first"
        with closing(self._db.execute(query)) as found:
            for lot in starmap(Lot, found):
                if lot.first >= before:
                    break
                before = next((one for one in lot.sequences if one not in accounted and one < before), before)
        return before

    def oldest_pending(self) -> int | None:
        """When the oldest score that still has a way to go was scored, in µs; None if there is none."""
        unsent = f"SELECT number FROM packages WHERE uploaded_at IS NULL UNION ALL SELECT {SEALED} + 1"
        waiting = " UNION ALL ".join(
            f"SELECT min(sequence) AS sequence FROM scores WHERE {where}"
            for where in (UNCLASSIFIED, *OF_A_KIND)
        )
        unfolded = f"SELECT scored_at FROM scores WHERE sequence IN ({waiting})"
        of_a_kind = "SELECT * FROM (SELECT oldest FROM lots WHERE {} ORDER BY first LIMIT 1)"
        lots = " UNION ALL ".join(map(of_a_kind.format, OF_A_KIND))
        # Of each package for itself, as one may hold no score: its first in the index by package and time.
        oldest = "SELECT min({}) FROM {} WHERE disposition IS NULL AND package = number"
        in_rows, in_lots = oldest.format("scored_at", "scores"), oldest.format("oldest", "lots")
        packed = f"SELECT ({in_rows}) FROM ({unsent}) UNION ALL SELECT ({in_lots}) FROM ({unsent})"
        blocks = "SELECT * FROM (SELECT scored_at FROM journal ORDER BY first LIMIT 1)"
        row = self._db.execute(
            f"SELECT min(scored_at) FROM ({unfolded} UNION ALL {lots} UNION ALL {packed} UNION ALL {blocks})"
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def unacknowledged(self) -> tuple[int, int]:
        """How many packages are not acknowledged, sent or not, and the bytes of their files."""
        query = "SELECT count(*), coalesce(sum(bytes), 0) FROM packages WHERE acknowledged_at IS NULL"
        packages, size = self._db.execute(query).fetchone()
        return int(packages), int(size)

    def may_be_packed(self, size: int) -> int:
        """How many more scores, until those that packages without an acknowledgement hold or account for
        take so many bytes of the file. Reckoned with the mean of all scores that are kept."""
        under_way = " + ".join(
            f"(SELECT {number} FROM {table} WHERE package > {ACKNOWLEDGED} AND {state})"
            for number, table in (("count(*)", "scores"), ("coalesce(sum(rows), 0)", "lots"))
            for state in (PACKED, DONE)
        )
        with self._snapshot():
            packed, removed = self._db.execute(
                f"SELECT {under_way}, (SELECT coalesce(sum(rows), 0) FROM tombstones)"
            ).fetchone()
            kept = self._last_sequence() - int(removed)
            return max(0, size * kept // self.size() - int(packed))

    def sample(self, release: str, after: int, limit: int) -> Sample:
        """What a release made of the newest scores, of those that are unfolded and can be read.

        Args:
            release: its digest.
            after: sequence; only scores that follow it.
            limit: of the sequences that are looked at, the last unfolded, whichever release made them: what
                this costs at most.
        """
        said = "count(*), coalesce(sum(predicted), 0), max(scored_at)"
        where = "sequence BETWEEN ? AND ? AND release = ? AND score IS NOT NULL"
        with self._snapshot():
            (last,) = self._db.execute(f"SELECT coalesce({OLDEST_BLOCK} - 1, {LAST})").fetchone()
            first = max(after, last - limit) + 1
            found = self._db.execute(f"SELECT {said} FROM scores WHERE {where}", (first, last, release))
            rows, anomalies, newest = found.fetchone()
            for lot in self._lots(first, last):
                if lot.release == release and (sheet := self._sheet(lot)):
                    for _, at, _, predicted, _ in (row for row in sheets.rows(sheet) if row[0] >= first):
                        rows, anomalies, newest = rows + 1, anomalies + predicted, max(newest or at, at)
        return Sample(rows, anomalies, newest)

    def untouched(self) -> bool:
        """Whether a score waits for its kind, unfolded or not."""
        query = f"SELECT EXISTS (SELECT 1 FROM journal) OR EXISTS (SELECT 1 FROM scores WHERE {UNCLASSIFIED})"
        return bool(self._db.execute(query).fetchone()[0])

    def _counts(self, query: str) -> Counts:
        found = f"SELECT 'scored' AS state, {LAST} AS rows UNION ALL {query}"
        states = dict.fromkeys(Counts.__struct_fields__, 0)
        states.update(self._db.execute(f"SELECT state, sum(rows) FROM ({found}) GROUP BY 1").fetchall())
        return Counts(**states)

    def _last_sequence(self) -> int:
        return int(self._db.execute(f"SELECT {LAST}").fetchone()[0])
