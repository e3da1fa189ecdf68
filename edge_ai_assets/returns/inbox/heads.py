"""Where each site's chain of packages stands on Azure: the Delta table `watermarks`, a row a site.

It is written last of all tables when packages are received, so what it says was merged was. It is small
whatever came over the years, and answers what is new without a look at what is old. What it means for people
is `watermark`'s matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from edge_ai_assets.returns.inbox import tables as deltas

NAME = "watermarks"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Head(msgspec.Struct, frozen=True):
    """The last package of a site's chain without gaps."""

    number: int = 0
    """0 before the first package."""
    digest: str = ""
    """SHA-256 of its file."""
    complete: int | None = None
    """Every score with a sequence up to this came or is not to come; None when the site does not say so."""
    waiting: int | None = None
    """Scores that were still to leave the site when it made the package; None when it does not say so."""
    lineage: int = 0
    """Number of the last lineage event that came."""
    created_at: int = 0
    """µs since 1970, UTC, by the site's clock."""
    received_at: int = 0
    """The same, by ours."""


def read(tables: Path) -> dict[str, Head]:
    """The heads of all sites that sent something, by site."""
    table = deltas.existing(tables, NAME)
    if table is not None:
        return {row["site"]: _head(row) for row in deltas.rows(tables, NAME)}
    # Tables of a version that had no watermarks: once, from all that was received.
    packages = deltas.existing(tables, "packages")
    if packages is None:
        return {}
    known = {field.name for field in packages.schema().fields}
    wanted = {"site", "number", "digest", "complete", "waiting", "lineage_last", "created_at", "received_at"}
    found: dict[str, Head] = {}
    for row in sorted(
        deltas.rows(tables, "packages", sorted(wanted & known)), key=lambda row: int(row["number"])
    ):
        last = row.get("lineage_last") or found.get(row["site"], Head()).lineage
        found[row["site"]] = _head({"complete": None, "waiting": None, **row, "lineage": last})
    return found


def write(tables: Path, heads: Mapping[str, Head]) -> None:
    """Put these in place of what the table holds, in one commit."""
    import pyarrow as pa
    from deltalake import write_deltalake

    rows = [{"site": site, **msgspec.structs.asdict(head)} for site, head in sorted(heads.items())]
    write_deltalake(
        str(tables / NAME),
        pa.Table.from_pylist(rows, deltas.schemas()[NAME]),
        mode="overwrite",
        schema_mode="overwrite",
    )


def _head(row: Mapping[str, Any]) -> Head:
    times = {name: _microseconds(row[name]) for name in ("created_at", "received_at")}
    return Head(
        number=row["number"],
        digest=row["digest"],
        complete=row["complete"],
        waiting=row["waiting"],
        lineage=row["lineage"],
        **times,
    )


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
