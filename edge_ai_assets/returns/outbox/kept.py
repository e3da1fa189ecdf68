"""Unfolded scores as they are read: lots and rows, with the records that stand in sheets.

Which of them are asked for, and what becomes of them, is the matter of those that the outbox is made of.
"""

# ruff: noqa: S608 (the SQL is put together from this module's own constants)
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import cache, partial
from heapq import merge
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import msgspec

from edge_ai_assets.returns.outbox import journal, sheets
from edge_ai_assets.returns.outbox.layout import STATE, WAITING
from edge_ai_assets.returns.outbox.lots import Lot, Lots
from edge_ai_assets.returns.outbox.schema import RECORD_SCHEMA, ScoreRow
from edge_ai_assets.returns.outbox.store import GIVEN

PAGE = 1_000
LOTS = 8
"""Of a page: with their sheets."""
COLUMNS = ", ".join(
    f"nullif({STATE}, 'pending')" if name == "disposition" else name for name in ScoreRow.__struct_fields__
)


class Part(NamedTuple):
    """Scores of one kind, in order: some of a sheet, or some with records of their own."""

    kind: str
    sequences: list[int]
    release: str
    """Of the sheet."""
    sheet: bytes
    of: int
    """Rows of the sheet."""
    rows: list[ScoreRow]
    """With records of their own: a version before this one unfolded them, or they were read again."""

    def sizes(self) -> list[int]:
        """Bytes of what is known of each score; of a sheet, of each as much."""
        if self.rows:
            return [len(row.record) for row in self.rows]
        return [len(self.sheet) // self.of] * len(self.sequences)

    def first(self, number: int) -> Part:
        return self._replace(sequences=self.sequences[:number], rows=self.rows[:number])


class Kept(Lots):
    """Rows of `lots` and `scores`."""

    def parts(self, kind: str) -> Iterator[Part]:
        """The classified scores of a kind that are neither disposed of nor packed, the oldest first.

        Nothing may be disposed of or packed while they are read.
        """
        return merge(self._whole(kind), self._single(kind), key=lambda part: part.sequences[0])

    def _whole(self, kind: str) -> Iterator[Part]:
        """Those in lots."""
        columns = ", ".join(f"lots.{name}" for name in Lot._fields)
        query = f"SELECT {columns}, sheet FROM lots JOIN sheets ON sheets.first = lots.first"
        query += f" WHERE kind = ? AND {WAITING} AND lots.first > ? ORDER BY lots.first LIMIT {LOTS}"
        after = 0
        while found := self._db.execute(query, (kind, after)).fetchall():
            for *about, sheet in found:
                lot = Lot(*about)
                yield Part(kind, list(lot.sequences), lot.release, sheet, lot.rows, [])
            after = lot.first

    def _single(self, kind: str) -> Iterator[Part]:
        """Those with rows of their own."""
        held = f"iif(schema = {RECORD_SCHEMA} AND record = x'', sheet, NULL)"
        query = f"SELECT sequence, {held} FROM scores WHERE kind = ? AND {WAITING} AND sequence > ?"
        after = 0
        while found := self._db.execute(f"{query} ORDER BY sequence LIMIT {PAGE}", (kind, after)).fetchall():
            # Scores of several sheets may take turns: each sheet is read, and held, once a page.
            cut = cache(partial(self._cut, kind))
            for sheet, alike in groupby(found, itemgetter(1)):
                sequences = [sequence for sequence, _ in alike]
                if sheet is None:
                    yield self._part(kind, sequences)
                else:
                    yield cut(sheet)._replace(sequences=sequences)
            after = found[-1][0]

    def _part(self, kind: str, sequences: list[int]) -> Part:
        keys = msgspec.json.encode(sequences).decode()
        rows = self._scores(f"sequence IN {GIVEN} ORDER BY sequence", keys)
        return Part(kind, sequences, "", b"", 0, rows)

    def _cut(self, kind: str, first: int) -> Part:
        """Of a sheet, without sequences."""
        of_one = "SELECT release FROM scores WHERE scores.sheet = first AND sequence BETWEEN first AND last"
        query = f"SELECT ({of_one}), sheet, rows FROM sheets WHERE first = ?"
        found, sheet, rows = self._db.execute(query, (first,)).fetchone()
        return Part(kind, [], found, sheet, rows, [])

    def _between(self, first: int, last: int) -> list[ScoreRow]:
        """Those with sequences first to last, both included, in order."""
        found = self._scores("sequence BETWEEN ? AND ?", first, last)
        for lot in self._lots(first, last):
            if inside := {number for number in lot.sequences if first <= number <= last}:
                found += self._of_lot(lot, inside)
        return sorted(found, key=attrgetter("sequence"))

    def _chosen(self, sequences: set[int]) -> list[ScoreRow]:
        """Those with these sequences, in order."""
        found = self._scores(f"sequence IN {GIVEN}", msgspec.json.encode(sorted(sequences)).decode())
        for lot, inside in self._lots_with(sequences):
            found += self._of_lot(lot, inside)
        return sorted(found, key=attrgetter("sequence"))

    def _of_lot(self, lot: Lot, chosen: set[int]) -> Iterator[ScoreRow]:
        """Some of its scores, with their records; empty if its sheet is damaged."""
        query = f"SELECT nullif({STATE}, 'pending'), reason, package FROM lots WHERE first = ?"
        fate = self._db.execute(query, (lot.first,)).fetchone()
        sheet = self._sheet(lot)
        for place, (sequence, at, *said) in enumerate(self._rows_of(lot, sheet)):
            if sequence in chosen:
                record = journal.record(sheet, place) if sheet else b""
                own = (sequence, at, lot.release, *said, record, RECORD_SCHEMA, lot.kind, *fate)
                yield ScoreRow(*own)

    def _scores(self, where: str, *values: Any) -> list[ScoreRow]:
        """Rows of `scores`, each with its record."""
        with nullcontext() if self._db.in_transaction else self._snapshot():
            found = self._db.execute(f"SELECT {COLUMNS}, sheet FROM scores WHERE {where}", values).fetchall()
            held = {sheet: self._records(sheet) for sheet in {row[-1] for row in found} - {None}}
        return [ScoreRow(*_own(row, held)) for row in found]

    def _records(self, first: int) -> tuple[sheets.Sheet, dict[int, int]] | None:
        """A sheet and where in it each sequence stands; None if it is damaged."""
        (data,) = self._db.execute("SELECT sheet FROM sheets WHERE first = ?", (first,)).fetchone()
        try:
            sheet = sheets.opened(data)
        except ValueError:
            return None
        return sheet, {sequence: place for place, sequence in enumerate(sheets.sequences(sheet))}


def _own(row: tuple[Any, ...], held: dict[int, Any]) -> Iterable[Any]:
    *own, sheet = row
    if not own[6] and sheet is not None and (found := held[sheet]) and own[0] in found[1]:
        own[6] = journal.record(found[0], found[1][own[0]])
    return own
