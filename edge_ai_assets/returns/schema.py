"""The outbox's tables and the records that stand in them. Reading and writing them is `outbox`'s work.

Format version 2, in `PRAGMA user_version`. A score is first written in a block of `journal`, with the others
of its commit, and unfolded to a row of `scores` when the way home takes it up. Each is in one state: pending
(no disposition yet) or one of the dispositions. `tally` counts the rows of `scores`, so that the counts of a
large outbox cost nothing: what is unfolded is added by the code that unfolds (a trigger would cost as much as
the insert), every change and every deletion by a trigger, whoever does it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

FORMAT = 2
RECORD_SCHEMA = 1
"""Version of the records: {"inputs": {name: value}, "context": {"_time": iso, "_run": text, "_row": n}}"""

JOURNAL = """
CREATE TABLE journal(
    first INTEGER PRIMARY KEY, rows INTEGER NOT NULL, scored_at INTEGER NOT NULL, release TEXT NOT NULL,
    schema INTEGER NOT NULL, block BLOB NOT NULL);
"""
UPGRADES = {1: f"{JOURNAL}ALTER TABLE requests ADD COLUMN fingerprint BLOB NOT NULL DEFAULT x'';"}
"""What makes each earlier format the next one."""
TABLES = f"""{JOURNAL}
CREATE TABLE scores(
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, scored_at INTEGER NOT NULL, release TEXT NOT NULL, score REAL,
    predicted INTEGER NOT NULL, outside INTEGER NOT NULL, record BLOB NOT NULL,
    schema INTEGER NOT NULL, kind TEXT,
    disposition TEXT CHECK (disposition IN ('withheld', 'uploaded', 'quarantined', 'expired')),
    reason TEXT, package INTEGER);
CREATE INDEX scores_unclassified ON scores(sequence) WHERE kind IS NULL AND disposition IS NULL;
CREATE INDEX scores_waiting ON scores(sequence)
    WHERE kind IS NOT NULL AND disposition IS NULL AND package IS NULL;
CREATE INDEX scores_packed ON scores(package, sequence) WHERE package IS NOT NULL AND disposition IS NULL;
CREATE TABLE feedback(
    id INTEGER PRIMARY KEY AUTOINCREMENT, sequence INTEGER NOT NULL, correct INTEGER NOT NULL, note TEXT,
    role TEXT NOT NULL, given_at INTEGER NOT NULL,
    disposition TEXT CHECK (disposition IN ('withheld', 'uploaded', 'quarantined', 'expired')),
    reason TEXT, package INTEGER);
CREATE INDEX feedback_waiting ON feedback(id) WHERE disposition IS NULL AND package IS NULL;
CREATE INDEX feedback_packed ON feedback(package, id) WHERE package IS NOT NULL AND disposition IS NULL;
CREATE TABLE requests(
    key TEXT PRIMARY KEY, first INTEGER NOT NULL, rows INTEGER NOT NULL,
    fingerprint BLOB NOT NULL DEFAULT x'') WITHOUT ROWID;
CREATE TABLE packages(
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, previous TEXT NOT NULL,
    rows INTEGER NOT NULL, feedback INTEGER NOT NULL, bytes INTEGER NOT NULL, created_at INTEGER NOT NULL,
    uploaded_at INTEGER);
CREATE INDEX packages_unsent ON packages(number) WHERE uploaded_at IS NULL;
CREATE TABLE tally(state TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO tally VALUES ('pending', 0), ('withheld', 0), ('uploaded', 0), ('quarantined', 0), ('expired', 0);
CREATE TRIGGER scores_moved AFTER UPDATE OF disposition ON scores
    WHEN OLD.disposition IS NOT NEW.disposition BEGIN
    UPDATE tally SET rows = rows - 1 WHERE state = coalesce(OLD.disposition, 'pending');
    UPDATE tally SET rows = rows + 1 WHERE state = coalesce(NEW.disposition, 'pending');
END;
CREATE TRIGGER scores_removed AFTER DELETE ON scores BEGIN
    UPDATE tally SET rows = rows - 1 WHERE state = coalesce(OLD.disposition, 'pending');
END;
"""  # noqa: S608 (our own constants)


Value = float | int | str | bool | None


class Context(msgspec.Struct, frozen=True):
    """Where a scored row came from; each may be unknown."""

    time: str | None = msgspec.field(default=None, name="_time")
    run: str | None = msgspec.field(default=None, name="_run")
    row: int | None = msgspec.field(default=None, name="_row")


class Record(msgspec.Struct, frozen=True):
    """The decoded `record` of a score."""

    inputs: dict[str, Value]
    context: Context = Context()


_decode = msgspec.json.Decoder(Record).decode


def decode(row: ScoreRow) -> Record:
    """The record of a score.

    Raises:
        ValueError: its schema is not known here, or it is not what its schema says.
    """
    if row.schema != RECORD_SCHEMA:
        raise ValueError(f"record schema {row.schema} is not known, this version reads {RECORD_SCHEMA}")
    try:
        return _decode(row.record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"unreadable record: {error}") from error


class Batch(msgspec.Struct, frozen=True):
    """What is scored and written together, with sequences that follow each other."""

    key: str | None
    """Idempotency key of the request whose rows these are, and only these."""
    release: str
    scored_at: int
    """µs since 1970, UTC."""
    blocks: Sequence[tuple[int, bytes]]
    """Rows and bytes of each, as in journal.BLOCK_SCHEMA; at most journal.MAX_ROWS rows in one."""
    fingerprint: bytes = b""
    """Digest of the request with that key, so that the key cannot be used for another."""

    @property
    def rows(self) -> int:
        return sum(rows for rows, _ in self.blocks)


class Receipt(msgspec.Struct, frozen=True):
    """Where a batch stands: sequences first to first + rows - 1."""

    first: int
    rows: int
    repeated: bool
    """The key was seen before: nothing was written, this is what was written then."""
    same: bool = True
    """Whether it was seen for the same request."""


class Feedback(msgspec.Struct, frozen=True):
    """What a user said of one score. `given_at` in µs since 1970, UTC."""

    sequence: int
    correct: bool
    note: str | None
    role: str
    given_at: int


class ScoreRow(msgspec.Struct, frozen=True):
    """One row of `scores`, as its columns stand."""

    sequence: int
    scored_at: int
    release: str
    score: float | None
    predicted: int
    outside: int
    record: bytes
    schema: int
    kind: str | None
    disposition: str | None
    reason: str | None
    package: int | None


class FeedbackRow(msgspec.Struct, frozen=True):
    """One row of `feedback`, as its columns stand."""

    id: int
    sequence: int
    correct: int
    note: str | None
    role: str
    given_at: int
    disposition: str | None
    reason: str | None
    package: int | None


class PackageRow(msgspec.Struct, frozen=True):
    """One sealed return package."""

    number: int
    name: str
    digest: str
    """SHA-256 of its file."""
    previous: str
    """SHA-256 of the file of the package before; '' for the first."""
    rows: int
    feedback: int
    bytes: int
    created_at: int
    uploaded_at: int | None = None


class Counts(msgspec.Struct, frozen=True):
    """Scores by what became of them."""

    scored: int
    """The last sequence given out: counted independently of the others."""
    uploaded: int
    withheld: int
    quarantined: int
    expired: int
    pending: int

    @property
    def conserved(self) -> bool:
        """Whether the promise holds: scored = uploaded + withheld + quarantined + expired + pending."""
        return self.scored == self.uploaded + self.withheld + self.quarantined + self.expired + self.pending
