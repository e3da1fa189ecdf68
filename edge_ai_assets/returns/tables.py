"""The global Delta tables that packages are merged into: columns, keys, the merge, and looking up one row.

What is merged, and when, is `inbox`'s work.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge_ai_assets.returns import parts

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

KEYS = {
    "insights": ("site", "sequence"),
    "feedback": ("site", "id"),
    "histograms": ("site", "package", "release", "feature"),
    "packages": ("site", "number"),
}


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
    missing, so that whoever reads it finds its columns.
    """
    import numpy as np
    from deltalake import DeltaTable

    key, schema = list(KEYS[name]), schemas()[name]
    table = existing(tables, name) or DeltaTable.create(str(tables / name), schema, mode="ignore")
    if not rows.num_rows:
        return 0
    rows = rows.select(schema.names).cast(schema)
    firsts = rows.append_column("_row", [np.arange(rows.num_rows)]).group_by(key).aggregate([("_row", "min")])
    rows = rows.take(firsts["_row_min"].sort())
    done = (
        table.merge(
            rows,
            predicate=" AND ".join(f"new.{column} = old.{column}" for column in key),
            source_alias="new",
            target_alias="old",
        )
        .when_not_matched_insert_all()
        .execute()
    )
    return int(done["num_target_rows_inserted"])


def duplicates(tables: Path) -> int:
    """Rows of insights and feedback beyond one per key: 0, or something is broken."""
    extra = 0
    for name in ("insights", "feedback"):
        if table := existing(tables, name):
            rows = table.to_pyarrow_table(columns=list(KEYS[name]))
            extra += rows.num_rows - rows.group_by(list(KEYS[name])).aggregate([]).num_rows
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


def _literal(value: str | int) -> str:
    return str(int(value)) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "fields": msgspec.json.decode(row["fields"])}
