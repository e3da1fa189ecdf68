"""The global Delta tables that packages are merged into: columns, keys, the merge, and looking up one row.

What is merged, and when, is `inbox`'s work.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge_ai_assets.returns.package import parts

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

KEYS = {
    "insights": ("site", "sequence"),
    "feedback": ("site", "id"),
    "histograms": ("site", "package", "release", "feature"),
    "aggregates": ("site", "package", "release", "window", "asset"),
    "sketches": ("site", "package", "release", "feature"),
    "lineage": ("site", "n"),
    "packages": ("site", "number"),
}
"""Of the tables that packages are merged into: a key comes once, and what has it stays as it is."""
MAY_BE_NULL = "asset"
"""In a key, where it is a value like any other."""
UNKNOWN = "unknown"
"""Kind of a lineage line that this version cannot read: it stands in `raw`, and why in `problem`."""


def schemas() -> dict[str, pa.Schema]:
    """The columns of each table: those of the package's member, and where a row came from."""
    import pyarrow as pa

    time = pa.timestamp("us", tz="UTC")
    members = parts.schemas()
    origin = [pa.field("site", pa.string()), pa.field("package", pa.int64())]
    day = pa.field("day", pa.date32())
    return {
        "insights": pa.schema([*origin, day, *members[parts.INSIGHTS]]),
        "feedback": pa.schema([*origin, day, *members[parts.FEEDBACK]]),
        "histograms": pa.schema([*origin, *members[parts.HISTOGRAMS]]),
        "aggregates": pa.schema([*origin, day, *members[parts.AGGREGATES]]),
        "sketches": pa.schema([*origin, *members[parts.SKETCHES]]),
        "lineage": pa.schema(
            {
                "site": pa.string(),
                "n": pa.int64(),
                "kind": pa.string(),
                "asset": pa.string(),
                "partition": pa.string(),
                "at": time,
                "run": pa.string(),
                "job": pa.string(),
                "metadata": pa.string(),
                "check": pa.string(),
                "package": pa.int64(),
                "imported_at": time,
                "raw": pa.binary(),
                "problem": pa.string(),
            }
        ),
        # Only ever grows at its end: what an older version made is widened by these columns.
        "packages": pa.schema(
            {
                "site": pa.string(),
                "number": pa.int64(),
                "name": pa.string(),
                "digest": pa.string(),
                "previous": pa.string(),
                "policy": pa.string(),
                "rows": pa.int64(),
                "feedback": pa.int64(),
                "first": pa.int64(),
                "last": pa.int64(),
                "created_at": time,
                "received_at": time,
                "format": pa.int64(),
                "complete": pa.int64(),
                "scored": pa.int64(),
                "packed": pa.int64(),
                "withheld": pa.int64(),
                "quarantined": pa.int64(),
                "expired": pa.int64(),
                "waiting": pa.int64(),
                "expired_for": pa.string(),
                "inventory": pa.list_(pa.string()),
                "running": pa.string(),
                "lineage_first": pa.int64(),
                "lineage_last": pa.int64(),
            }
        ),
        "watermarks": pa.schema(
            {
                "site": pa.string(),
                "number": pa.int64(),
                "digest": pa.string(),
                "complete": pa.int64(),
                "waiting": pa.int64(),
                "lineage": pa.int64(),
                "created_at": time,
                "received_at": time,
            }
        ),
    }


def existing(tables: Path, name: str) -> DeltaTable | None:
    """A table, or None when nothing was merged into it yet."""
    from deltalake import DeltaTable

    path = str(tables / name)
    return DeltaTable(path) if DeltaTable.is_deltatable(path) else None


def rows(tables: Path, name: str, columns: Sequence[str] = (), **key: str | int) -> list[dict[str, Any]]:
    """Rows of a table, those whose columns have the values of `key`; none when there is no table.

    Args:
        columns: those that are wanted; all when empty.
    """
    import pyarrow as pa
    from deltalake import QueryBuilder

    table = existing(tables, name)
    if table is None:
        return []
    # Not by pyarrow's filters: they do not know the type that strings have in a file that a merge wrote.
    wanted = ", ".join(f'"{column}"' for column in columns) or "*"
    where = " AND ".join(f'"{column}" = {_literal(value)}' for column, value in key.items()) or "true"
    found = QueryBuilder().register("t", table).execute(f"SELECT {wanted} FROM t WHERE {where}")  # noqa: S608
    listed: list[dict[str, Any]] = pa.table(found.read_all()).to_pylist()
    return listed


def count(tables: Path, name: str) -> int:
    """Rows of a table; 0 when there is none."""
    table = existing(tables, name)
    return int(table.to_pyarrow_dataset().count_rows()) if table else 0


def merge(tables: Path, name: str, rows: pa.Table) -> int:
    """Add the rows whose key the table does not have, in one commit; the number added.

    A row that is there stays as it is. Of rows with the same key the first is taken. The table is made when
    missing, so that whoever reads it finds its columns, and gets those that an older version did not have:
    empty for the rows that are there.
    """
    import numpy as np
    from deltalake import DeltaTable, Schema

    key, schema = list(KEYS[name]), schemas()[name]
    table = existing(tables, name) or DeltaTable.create(str(tables / name), schema, mode="ignore")
    known = {field.name for field in table.schema().fields}
    if added := [field for field in Schema.from_arrow(schema).fields if field.name not in known]:
        table.alter.add_columns(added)
    if not rows.num_rows:
        return 0
    rows = rows.select(schema.names).cast(schema)
    firsts = rows.append_column("_row", [np.arange(rows.num_rows)]).group_by(key).aggregate([("_row", "min")])
    rows = rows.take(firsts["_row_min"].sort())
    done = (
        table.merge(
            rows,
            predicate=" AND ".join(_same(column) for column in key),
            source_alias="new",
            target_alias="old",
        )
        .when_not_matched_insert_all()
        .execute()
    )
    return int(done["num_target_rows_inserted"])


def duplicates(tables: Path) -> int:
    """Rows of insights, feedback and lineage beyond one per key: 0, or something is broken."""
    import duckdb

    extra = 0
    for name in ("insights", "feedback", "lineage"):
        if table := existing(tables, name):
            key = ", ".join(f'"{column}"' for column in KEYS[name])
            with duckdb.connect() as db:
                db.register("t", table.to_pyarrow_dataset())
                grouped = f"SELECT count(*) - 1 AS more FROM t GROUP BY {key}"  # noqa: S608
                query = f"SELECT coalesce(sum(more), 0)::BIGINT FROM ({grouped})"  # noqa: S608
                extra += db.execute(query).fetchall()[0][0]
    return extra


def insight(tables: Path, site: str, sequence: int) -> dict[str, Any]:
    """One insight by its key, `fields` decoded, with its `package` row and the `feedback` on it.

    Raises:
        KeyError: there is none.
    """
    found = rows(tables, "insights", site=site, sequence=sequence)
    if not found:
        raise KeyError(f"there is no insight {sequence} of site {site!r}")
    row = found[0]
    package = next(iter(rows(tables, "packages", site=site, number=row["package"])), None)
    feedback = [_decoded(item) for item in rows(tables, "feedback", site=site, sequence=sequence)]
    return {**_decoded(row), "package": package, "feedback": feedback}


def _same(column: str) -> str:
    compared = "IS NOT DISTINCT FROM" if column == MAY_BE_NULL else "="
    return f"new.{column} {compared} old.{column}"


def _literal(value: str | int) -> str:
    return str(int(value)) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "fields": msgspec.json.decode(row["fields"])}
