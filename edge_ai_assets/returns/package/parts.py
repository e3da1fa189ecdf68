"""What a return package holds: its manifest, its rows, the columns of its members. Format 3.

How rows become the bytes of a member is `members`' work, how members become a file that is checked coming
back `packages`'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from edge_ai_assets.returns.outbox.schema import Tally, Value

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 3
TABLES = INSIGHTS, FEEDBACK, HISTOGRAMS, AGGREGATES, SKETCHES = (
    "insights.parquet",
    "feedback.parquet",
    "histograms.parquet",
    "aggregates.parquet",
    "sketches.parquet",
)
LINEAGE = "lineage.jsonl.zst"
MEMBERS = (*TABLES, LINEAGE)
OPTIONAL = {AGGREGATES: "asset"}
"""By member, the last column, which a file may be without; the formats before 3 have none of them."""
MAX_INVENTORY = 1_000


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    size: int
    """Bytes."""
    rows: int
    """Of lineage: events."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a package says of itself, under its signature. The defaults are what format 1 did not say."""

    site: str
    number: int
    """Counts the site's packages from 1, without gaps."""
    previous: str
    """SHA-256 of the file of the package before; '' for the first."""
    policy: str
    """Digest of the egress policy that let the content out."""
    created_at: int
    """µs since 1970, UTC, by the site's clock."""
    first: int
    """Lowest sequence of the scores it accounts for, withheld ones included; 0 when it accounts for none."""
    last: int
    """Highest; both are only bounds, for what is worth more leaves first."""
    releases: tuple[str, ...]
    members: dict[str, Member]
    format: int = FORMAT
    complete: int = -1
    """Every score up to this sequence is accounted for by this package, by the ones before it, or is not to
    come: withheld, quarantined, expired. -1: unknown."""
    counts: Tally | None = None
    """The site's scores as of this package."""
    expired: dict[str, int] = {}
    """Scores that expired since the package before, by reason."""
    lineage: tuple[int, int] = (0, 0)
    """Numbers of the first and last lineage event in it; 0 if none."""
    inventory: tuple[str, ...] = ()
    """Digests of the blobs that the site's store has, sorted, at most MAX_INVENTORY."""
    running: str = ""
    """Digest of the release image that scores now; '' unknown."""

    @property
    def name(self) -> str:
        return name_of(self.site, self.number)


SINCE_2 = frozenset({"complete", "counts", "expired", "lineage", "inventory", "running"})
"""Fields of the manifest that format 1 has not."""


class Insight(msgspec.Struct, frozen=True):
    """One score that leaves; `fields` are the inputs and context the policy let out."""

    sequence: int
    scored_at: int
    release: str
    kind: str
    score: float | None
    predicted: bool | None
    fields: dict[str, Value]


class Word(msgspec.Struct, frozen=True):
    """One feedback that leaves. `id` counts the site's feedback, `sequence` is the score it is about."""

    id: int
    sequence: int
    given_at: int
    release: str
    correct: bool | None
    note: str | None
    role: str | None
    fields: dict[str, Value]


class Aggregate(msgspec.Struct, frozen=True):
    """Scores of a release, a window of time and a plant asset; partial: what several packages say of one adds
    up."""

    release: str
    window: int
    """Its start, µs since 1970, UTC, by the time of scoring."""
    rows: int
    anomalies: int | None
    """Null when the policy keeps it, as `score_sum`."""
    outside: int | None
    """Rows with a value outside the range that was trained on."""
    score_sum: float | None
    asset: str | None = None
    """As the policy lets it out. Null: of all assets that the package does not tell of by themselves."""


class Sketch(msgspec.Struct, frozen=True):
    """Quantiles of a feature's values: an Apache DataSketches KLL sketch of doubles."""

    release: str
    feature: str
    rows: int
    """Values in it."""
    k: int
    """Its parameter: size against accuracy."""
    sketch: bytes


class EventMark(msgspec.Struct, frozen=True):
    """Where the last package that was sealed stopped in the site's own event log."""

    storage_id: int = 0
    number: int = 0
    """Of the last lineage event that was packed."""


EventSource = Callable[[EventMark, int], tuple[list[bytes], EventMark]]
"""Given a mark and the most events wanted: the lines that follow it, and where they end."""


def name_of(site: str, number: int) -> str:
    return f"{site}-{number:08}.zip"


def schemas() -> dict[str, pa.Schema]:
    """The columns of each table as a reader gets it; times are µs UTC, `fields` is JSON text with sorted
    keys. In a file since format 2, `fields` is a struct with a column for each field. What is OPTIONAL is in
    a file only if a row has a value there.
    """
    import pyarrow as pa

    time = pa.timestamp("us", tz="UTC")
    return {
        INSIGHTS: pa.schema(
            {
                "sequence": pa.int64(),
                "scored_at": time,
                "release": pa.string(),
                "kind": pa.string(),
                "score": pa.float64(),
                "predicted": pa.bool_(),
                "fields": pa.string(),
            }
        ),
        FEEDBACK: pa.schema(
            {
                "id": pa.int64(),
                "sequence": pa.int64(),
                "given_at": time,
                "release": pa.string(),
                "correct": pa.bool_(),
                "note": pa.string(),
                "role": pa.string(),
                "fields": pa.string(),
            }
        ),
        HISTOGRAMS: pa.schema(
            {
                "release": pa.string(),
                "feature": pa.string(),
                "rows": pa.int64(),
                "counts": pa.list_(pa.int64()),
            }
        ),
        AGGREGATES: pa.schema(
            {
                "release": pa.string(),
                "window": time,
                "rows": pa.int64(),
                "anomalies": pa.int64(),
                "outside": pa.int64(),
                "score_sum": pa.float64(),
                "asset": pa.string(),
            }
        ),
        SKETCHES: pa.schema(
            {
                "release": pa.string(),
                "feature": pa.string(),
                "rows": pa.int64(),
                "k": pa.int32(),
                "sketch": pa.binary(),
            }
        ),
    }
