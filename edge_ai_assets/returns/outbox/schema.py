"""The records and rows of the outbox, and what is told about them.

How they stand in its file is `layout`'s matter, reading and writing them is `outbox`'s work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from edge_ai_assets.returns.outbox.journal import BLOCK_SCHEMA

FORMAT = 5
"""Of the file, in `PRAGMA user_version`."""
RECORD_SCHEMA = 1
"""Version of the records: {"inputs": {name: value}, "context": {"_time": iso, "_run": text, "_row": n,
"_asset": text}}. What is added to the context is passed over by a version that does not know it."""
KINDS = ("normal", "anomaly")
"""What a score may be, the least valuable first: in this order they expire."""

Value = float | int | str | bool | None


class Context(msgspec.Struct, frozen=True):
    """Where a scored row came from; each may be unknown."""

    time: str | None = msgspec.field(default=None, name="_time")
    run: str | None = msgspec.field(default=None, name="_run")
    row: int | None = msgspec.field(default=None, name="_row")
    asset: str | None = msgspec.field(default=None, name="_asset")


class Record(msgspec.Struct, frozen=True):
    """The decoded `record` of a score."""

    inputs: dict[str, Value]
    context: Context = Context()


DECODERS: dict[int, Callable[[bytes], Record]] = {1: msgspec.json.Decoder(Record).decode}
"""What makes today's record of a stored one, by its schema: each that was ever written stays."""


def decode(row: ScoreRow) -> Record:
    """The record of a score, whatever version wrote it.

    Raises:
        ValueError: its schema is not known here, or it is not what its schema says.
    """
    if row.schema < 0:
        known = -row.schema <= BLOCK_SCHEMA
        why = ": it is damaged" if known else f" by a version that knows {BLOCK_SCHEMA}"
        raise ValueError(f"its block, of schema {-row.schema}, could not be read{why}")
    if not (read := DECODERS.get(row.schema)):
        raise ValueError(f"record schema {row.schema} is not known, this version reads {_known()}")
    try:
        return read(row.record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"unreadable record: {error}") from error


def _known() -> str:
    return ", ".join(str(schema) for schema in sorted(DECODERS))


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
    """One row of `scores`, with its record wherever that stands, and uploaded if its package is."""

    sequence: int
    scored_at: int
    release: str
    score: float | None
    predicted: int
    outside: int
    record: bytes
    schema: int
    """Of the record; of a score whose block could not be read, minus the schema of the block."""
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
    """When the other side was known to have it."""
    complete: int = 0
    """Scores up to this are accounted for by it and those before, or are not to come."""
    event_id: int = 0
    """Storage id of the last lineage event in it and those before."""
    event_number: int = 0
    """How many lineage events are in it and those before."""
    exported_at: int | None = None
    """When it was last put on a medium."""
    acknowledged_at: int | None = None
    """When it was learnt that the other side merged it."""


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


class Tally(msgspec.Struct, frozen=True):
    """The same for the manifest of a package: what left the outbox's hands, whatever was acknowledged."""

    scored: int
    packed: int
    """In a sealed package."""
    withheld: int
    quarantined: int
    expired: int
    waiting: int


class Sample(msgspec.Struct, frozen=True):
    """Some scores of one release, added up."""

    rows: int
    anomalies: int
    newest: int | None
    """When the last of them was scored, µs; None when there is none."""


class Tombstone(msgspec.Struct, frozen=True):
    """Scores of which only this is left: `rows` of those from `first` to `last`."""

    package: int
    """Number of the package that tells of them; 0 for those that an earlier one held or accounted for."""
    state: str
    """What had become of them: uploaded, withheld or expired."""
    kind: str
    reason: str
    first: int
    last: int
    rows: int
    at: int
    """When the last of them went, µs."""


class Pruned(msgspec.Struct, frozen=True):
    """What one `prune` removed."""

    rows: int
    feedback: int
    packages: list[str]
    """Files of which nothing is left in the outbox: they may go from the spool, see `Outbox.forget`."""


class Expired(msgspec.Struct, frozen=True):
    """What one `expire` removed."""

    rows: int
    by_kind: dict[str, int]
    bytes: int
    """That are free now."""
