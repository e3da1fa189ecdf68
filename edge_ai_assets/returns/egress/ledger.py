"""The egress ledger of a site: a hash-chained line for each range of bytes that left, only ever appended to.

`ledger.jsonl` holds one JSON object a line: time, package, digest, first and last byte (last not included),
policy, destination, `previous` (the hash of the line before, '' at the start) and `hash` (SHA-256 of the
others). A line is on disk before its bytes leave, so the ledger may name a block that a cut kept here, but
never misses one that left. What the lines of a package amount to is `coverage`'s work.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edge_ai_assets.delivery.durable import sync_folder

MEDIA = "media:"
"""What the destination begins with of what left on a medium."""
READ = 4_096
"""Bytes that are read in one go, from the end back to a line feed."""


class LedgerError(ValueError):
    """The ledger was changed or damaged; the message names the line."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A range of bytes of a package that was about to leave."""

    time: int
    """µs since 1970, UTC."""
    package: str
    digest: str
    """SHA-256 of the package's file."""
    first: int
    last: int
    """Bytes first to last - 1 of the file."""
    policy: str
    """Digest of the policy that let the content out."""
    destination: str
    previous: str = ""
    hash: str = ""

    def chained(self, previous: str) -> Entry:
        """This entry as it stands after a line with that hash."""
        bare = msgspec.structs.replace(self, previous=previous, hash="")
        return msgspec.structs.replace(bare, hash=hashlib.sha256(msgspec.json.encode(bare)).hexdigest())


class Ledger:
    """The ledger at a path; it need not exist yet. One process at a time may append."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._named = False
        """Whether its name is durable: who made it may have been killed before that."""

    def append(self, entry: Entry) -> Entry:
        """Write one entry; on return it is on disk.

        A last line that a crash cut short is removed: its bytes never left.

        Raises:
            LedgerError: the last line is not what was written.
        """
        with self.path.open("a+b") as file:
            previous = _last_hash(file.fileno(), self.path)
            entry = entry.chained(previous)
            file.write(msgspec.json.encode(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if not self._named:
            sync_folder(self.path.parent)
            self._named = True
        return entry


def entries(path: Path) -> Iterator[Entry]:
    """The entries of the whole chain, oldest first, each checked against the one before; none if there is no
    ledger yet.

    What stands behind the last line feed is left out: a crash cut that line short, so none of its bytes left.

    Raises:
        LedgerError: a line was changed, left out or moved; the message has its number.
    """
    previous = ""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            entry = _checked(line, f"{path}:{number}", previous)
            previous = entry.hash
            yield entry


def verify(path: Path) -> int:
    """Check the whole chain; the number of entries. A ledger that was never written to has none.

    Lines that somebody cut off at the end leave a chain that is whole: `coverage` finds those.

    Raises:
        LedgerError: as in `entries`.
    """
    return sum(1 for _ in entries(path))


def of_package(path: Path, name: str) -> Iterator[Entry]:
    """The entries of one package, oldest first: each is what was written, the chain between them is not
    looked at. Fast in a ledger of any length.

    Raises:
        LedgerError: the next one was changed; the message has its number.
    """
    if not path.exists():
        return
    wanted = b'"package":%b,' % msgspec.json.encode(name)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if wanted in line and line.endswith(b"\n"):
                yield _checked(line, f"{path}:{number}", None)


def _checked(line: bytes, where: str, previous: str | None) -> Entry:
    try:
        entry = msgspec.json.decode(line, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LedgerError(f"{where}: no ledger entry: {error}") from error
    if previous is not None and entry.previous != previous:
        raise LedgerError(
            f"{where}: follows {entry.previous or 'nothing'!r}, the line before is {previous!r}"
        )
    if msgspec.json.encode(entry.chained(entry.previous)) != line.removesuffix(b"\n"):
        raise LedgerError(f"{where}: the entry was changed after it was written")
    return entry


def _last_hash(file: int, path: Path) -> str:
    """The hash of the last whole line, after removing what a crash left behind it."""
    size = os.fstat(file).st_size
    end = _end_of_line(file, size)
    if end < size:
        os.ftruncate(file, end)
    if not end:
        return ""
    start = _end_of_line(file, end - 1)
    return _checked(os.pread(file, end - start, start), f"{path}: last line", None).hash


def _end_of_line(file: int, before: int) -> int:
    """Where the last line ends that does so at or before a position, its line feed included; 0 if none does.

    However long the lines are: what is looked at is not bounded, only what is looked at in one go.
    """
    while before:
        first = max(0, before - READ)
        if (found := os.pread(file, before - first, first).rfind(b"\n")) >= 0:
            return first + found + 1
        before = first
    return 0
