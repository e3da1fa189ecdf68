"""Lots: the scores of a sheet as long as they share one fate, in one row instead of one each.

A score that is unfolded is in exactly one row of `lots` or of `scores`. What is done to all scores of a lot
is done to its row. Before something is done to some of them only, the lot is divided, for good: each of its
scores gets a row of `scores`, in the same state, which says in what sheet its record stands. Whoever changes
the fate of scores keeps others from changing that of the same ones meanwhile, see `packing.lock`.
"""

# ruff: noqa: S608 (the SQL is put together from this module's own constants)
from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from edge_ai_assets.returns.outbox import sheets
from edge_ai_assets.returns.outbox.layout import STATE
from edge_ai_assets.returns.outbox.schema import RECORD_SCHEMA
from edge_ai_assets.returns.outbox.sheets import Made, Sheet
from edge_ai_assets.returns.outbox.store import Store

WINDOW = 5_000
"""Sequences whose lots are looked at together."""
SPAN = "(SELECT coalesce(max(last - first), 0) FROM lots)"
INSERT = """
INSERT INTO lots(first, last, rows, offsets, oldest, newest, release, kind) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
INSERT_ROW = f"""
INSERT INTO scores(record, schema, sequence, scored_at, score, predicted, outside, release, kind, disposition,
    reason, package, sheet)
VALUES (x'', {RECORD_SCHEMA}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


class Lot(NamedTuple):
    """Where a lot stands among the sequences."""

    first: int
    """Its key, and that of its sheet."""
    last: int
    rows: int
    offsets: bytes
    """Of each from the first: uint32, little-endian, shape (rows,). Empty if none between is missing."""
    oldest: int
    """When the first of its scores was scored, µs."""
    release: str
    kind: str

    @property
    def sequences(self) -> Sequence[int]:
        """Rising."""
        if not self.offsets:
            return range(self.first, self.last + 1)
        return [self.first + offset for offset in struct.unpack(f"<{self.rows}I", self.offsets)]


COLUMNS = ", ".join(Lot._fields)


class Lots(Store):
    """Rows of `lots`."""

    def _lay(self, made: Made) -> None:
        """Add a sheet and its lot, in a transaction that also counts its scores. Without a kind they are no
        lot: each gets its own later."""
        first, last, rows = made.numbers[0], made.numbers[-1], len(made.numbers)
        self._db.execute("INSERT INTO sheets VALUES (?, ?, ?, ?)", (first, last, rows, made.data))
        if made.kind is None:
            own = sheets.rows(sheets.opened(made.data))
            about = (made.release, None, None, None, None, first)
            self._db.executemany(INSERT_ROW, ((*row, *about) for row in own))
            return
        offsets = b""
        if last - first + 1 > rows:
            offsets = struct.pack(f"<{rows}I", *(number - first for number in made.numbers))
        values = (first, last, rows, offsets, made.oldest, made.newest, made.release, made.kind)
        self._db.execute(INSERT, values)

    def _lots(self, first: int, last: int) -> list[Lot]:
        """Those that may have a score from first to last, in order."""
        # None reaches further than SPAN, so that what lies far before is not looked at.
        where = f"first BETWEEN ?1 - {SPAN} AND ?2 AND last >= ?1"
        found = self._db.execute(f"SELECT {COLUMNS} FROM lots WHERE {where} ORDER BY first", (first, last))
        return [Lot(*row) for row in found]

    def _lots_with(self, sequences: set[int]) -> Iterator[tuple[Lot, set[int]]]:
        """The lots that have some of these scores, once each, and which."""
        ordered, seen = sorted(sequences), set[int]()
        start = 0
        while start < len(ordered):
            end = bisect_left(ordered, ordered[start] + WINDOW)
            for lot in self._lots(ordered[start], ordered[end - 1]):
                if lot.first not in seen and (inside := sequences.intersection(lot.sequences)):
                    seen.add(lot.first)
                    yield lot, inside
            start = end

    def _whole_lots(self, sequences: Iterable[int], *, apart: bool) -> tuple[list[int], list[int]]:
        """The lots, by their first, all of whose scores are among these, and the scores that are in none of
        them. A lot of which only some are is divided; with `apart` each lot that has one of them."""
        wanted = set(sequences)
        whole = []
        for lot, inside in list(self._lots_with(wanted)):
            if apart or len(inside) < lot.rows:
                self._divide(lot.first)
            else:
                whole.append(lot)
        wanted.difference_update(*(lot.sequences for lot in whole))
        return [lot.first for lot in whole], sorted(wanted)

    def _divide(self, first: int) -> None:
        """Give each score of a lot a row of its own, in the state of the lot."""
        with self._transaction(redone=True):  # both ways to write it mean the same
            query = f"SELECT {COLUMNS}, {STATE}, disposition, reason, package FROM lots WHERE first = ?"
            if not (found := self._db.execute(query, (first,)).fetchone()):
                return  # somebody else has done it meanwhile
            *own, state, disposition, reason, package = found
            lot = Lot(*own)
            about = lot.release, lot.kind, disposition, reason, package, first
            made = self._rows_of(lot, self._sheet(lot))
            self._db.executemany(INSERT_ROW, ((*row, *about) for row in made))
            self._db.execute("DELETE FROM lots WHERE first = ?", (first,))
            self._db.execute("UPDATE tally SET rows = rows + ? WHERE state = ?", (lot.rows, state))

    def _rows_of(self, lot: Lot, sheet: Sheet | None) -> Iterable[tuple[Any, ...]]:
        """As `sheets.rows`; of a damaged sheet without what nobody knows any more."""
        if sheet:
            return sheets.rows(sheet)
        return ((sequence, lot.oldest, None, 0, 0) for sequence in lot.sequences)

    def _sheet(self, lot: Lot) -> Sheet | None:
        """None if it is damaged."""
        (data,) = self._db.execute("SELECT sheet FROM sheets WHERE first = ?", (lot.first,)).fetchone()
        try:
            sheet = sheets.opened(data)
        except ValueError:
            return None
        return sheet if sheets.sequences(sheet) == tuple(lot.sequences) else None
