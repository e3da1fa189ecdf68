"""What the lines of an egress ledger amount to: which packages left, whole or in part, and to where.

The chain proves that no line was changed or taken out of the middle. It cannot prove that none was cut off at
the end: for that the packages that count as sent are compared with it (`Coverage.missing`).

A ledger may have millions of lines, so what they say is gathered in a temporary SQLite file, not in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import msgspec

from edge_ai_assets.returns.egress.ledger import MEDIA, Entry, LedgerError, entries
from edge_ai_assets.returns.outbox.outbox import Outbox, PackageRow

ROWS = """
CREATE TABLE runs(
    package TEXT NOT NULL, digest TEXT NOT NULL, policy TEXT NOT NULL, destination TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, lines INTEGER NOT NULL, bytes INTEGER NOT NULL,
    began INTEGER NOT NULL, ended INTEGER NOT NULL)"""

NAMED = 20
OF = """
SELECT first, last, lines, bytes, began, ended, policy, destination FROM runs
WHERE package = ? AND digest = ? ORDER BY first"""

RANGES = """
SELECT first, last FROM runs WHERE package = ? AND digest = ? AND destination GLOB ? ORDER BY first"""


class Left(msgspec.Struct, frozen=True):
    """What left of one package's file."""

    package: str
    digest: str
    lines: int
    bytes: int
    """That left, those that were sent again included."""
    covered: int
    """Bytes of the file, from its start, that left at least once without a gap."""
    began: int
    """Time of its first line, µs since 1970, UTC."""
    ended: int
    policies: list[str]
    destinations: list[str]


class Checked(msgspec.Struct, frozen=True):
    """What `check` found of a ledger whose chain holds."""

    lines: int
    packages: int
    """Of which something left."""
    uncovered: int
    """Packages that count as sent or exported, and are not covered by the lines."""
    names: list[str]
    """Of the first `NAMED` of those."""


def check(path: Path, outbox: Outbox | None) -> Checked:
    """Check a site's ledger: its chain, and against its outbox that nothing was cut off at the end.

    Packages may leave meanwhile.

    Args:
        outbox: None when there is none yet.

    Raises:
        LedgerError: the chain is broken.
    """
    with Coverage(path) as coverage:
        lines, packages = coverage.lines, coverage.packages
        missing = [row.number for row in coverage.missing(_all(outbox))]
    names: list[str] = []
    if missing and outbox is not None:
        # What left while the ledger was read is in it by now.
        with Coverage(path) as coverage:
            found = (
                row for number in missing for row in outbox.packages(number - 1, 1) if row.number == number
            )
            names = [row.name for row in coverage.missing(found)]
    return Checked(lines, packages, len(names), names[:NAMED])


def _all(outbox: Outbox | None) -> Iterator[PackageRow]:
    after = 0
    while outbox is not None and (some := outbox.packages(after)):
        yield from some
        after = some[-1].number


class Coverage:
    """A ledger that was read and checked; a context manager.

    Args:
        path: of the ledger.
        as_far: read it as far as the chain holds; `error` then says where it breaks.

    Raises:
        LedgerError: the chain is broken, without `as_far`.
    """

    def __init__(self, path: Path, *, as_far: bool = False) -> None:
        self.lines = 0
        self.error: LedgerError | None = None
        self._as_far = as_far
        self._db = sqlite3.connect("", isolation_level=None)  # a temporary file, gone when it is closed
        try:
            self._db.execute(ROWS)
            self._db.execute("BEGIN")
            insert = "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            self._db.executemany(insert, self._runs(entries(path)))
            self._db.execute("CREATE INDEX runs_package ON runs(package, digest, first)")
            self._db.execute("COMMIT")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    @property
    def packages(self) -> int:
        """How many packages, as files, something left of."""
        query = "SELECT count(*) FROM (SELECT DISTINCT package, digest FROM runs)"
        return int(self._db.execute(query).fetchone()[0])

    def of(self, package: str, digest: str) -> Left | None:
        """What left of a package's file; None when nothing did."""
        runs = self._db.execute(OF, (package, digest)).fetchall()
        if not runs:
            return None
        firsts, lasts, lines, size, began, ended, policies, destinations = zip(*runs, strict=True)
        return Left(
            package,
            digest,
            sum(lines),
            sum(size),
            _from_start(zip(firsts, lasts, strict=True)),
            min(began),
            max(ended),
            sorted(set(policies)),
            sorted(set(destinations)),
        )

    def newest(self, limit: int) -> Iterator[Left]:
        """What left last, package by package, newest first."""
        query = "SELECT package, digest FROM runs GROUP BY 1, 2 ORDER BY max(rowid) DESC LIMIT ?"
        for package, digest in self._db.execute(query, (limit,)).fetchall():
            left = self.of(package, digest)
            assert left is not None
            yield left

    def missing(self, packages: Iterable[PackageRow]) -> Iterator[PackageRow]:
        """Those packages that count as sent or carried away although the ledger does not cover them: by lines
        of a medium those that were put on one, by any lines the others, whose acknowledgement may have come
        whatever road they took."""
        for package in packages:
            if package.uploaded_at is None and package.exported_at is None:
                continue
            where = f"{MEDIA}*" if package.exported_at is not None else "*"
            ranges = self._db.execute(RANGES, (package.name, package.digest, where))
            if _from_start(ranges) < package.bytes:
                yield package

    def _held(self, lines: Iterable[Entry]) -> Iterator[Entry]:
        try:
            yield from lines
        except LedgerError as error:
            if not self._as_far:
                raise
            self.error = error

    def _runs(self, lines: Iterable[Entry]) -> Iterator[tuple[str | int, ...]]:
        """Lines that follow each other within a file, as one row."""
        run: list[int] = []
        whose: tuple[str, str, str, str] | None = None
        for entry in self._held(lines):
            self.lines += 1
            about = (entry.package, entry.digest, entry.policy, entry.destination)
            if about == whose and run[0] <= entry.first <= run[1]:
                run[1:4] = max(run[1], entry.last), run[2] + 1, run[3] + entry.last - entry.first
                run[4:] = min(run[4], entry.time), max(run[5], entry.time)
                continue
            if whose:
                yield (*whose, *run)
            whose = about
            run = [entry.first, entry.last, 1, entry.last - entry.first, entry.time, entry.time]
        if whose:
            yield (*whose, *run)


def _from_start(ranges: Iterable[tuple[int, int]]) -> int:
    """How many bytes ranges cover, in the order of their first, from 0 on without a gap."""
    covered = 0
    for first, last in ranges:
        if first > covered:
            break
        covered = max(covered, last)
    return covered
