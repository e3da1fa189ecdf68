"""What a return package holds: its manifest, its rows, the columns of its members. Format 1.

How these become a file, and are checked coming back, is `packages`' work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edge_ai_assets.returns.schema import Value

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
INSIGHTS, FEEDBACK, HISTOGRAMS = MEMBERS = ("insights.parquet", "feedback.parquet", "histograms.parquet")


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    size: int
    """Bytes."""
    rows: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a package says of itself, under its signature."""

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
    """Sequence of the first score it accounts for, withheld ones included; 0 when it holds feedback only."""
    last: int
    releases: tuple[str, ...]
    members: dict[str, Member]
    format: int = FORMAT

    @property
    def name(self) -> str:
        return name_of(self.site, self.number)


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


def name_of(site: str, number: int) -> str:
    return f"{site}-{number:08}.zip"


def schemas() -> dict[str, pa.Schema]:
    """The columns of each member; times are µs UTC, `fields` is JSON text with sorted keys."""
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
    }
