"""A plan: how the lake's readings become features, as SQL text that DuckDB and Spark both run.

Which features there are is `features`' business; this adds what comes before them: one table of all files,
each reading once, rows numbered over a run. A plan is data: a cluster that runs it needs neither this package
nor its Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge_ai_assets.ml import features
from edge_ai_assets.usecase import UseCase

TABLE = "readings"
"""What the query reads: the readings of all files with the columns of the plan."""
OWN = {"_site": "STRING", "_run": "STRING", "_row": "BIGINT", "_time": "TIMESTAMP", "_label": "BOOLEAN"}
"""Columns of our own, with SQL types."""


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an engine is asked for."""

    usecase: str
    """Digest of the use case."""
    files: tuple[str, ...]
    """Names of the Parquet files to read, in the order in which they count."""
    columns: dict[str, str]
    """What the query reads of them: SQL types by name. A column that no file has is missing in all rows."""
    query: str
    """SQL; reads the table `readings` with these columns and `_file`, the name of the file a row is from."""

    @property
    def text(self) -> str:
        return msgspec.json.encode(self).decode()

    @property
    def name(self) -> str:
        """Names the work by what is asked for: the same question of the same files has the same name."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an engine made. A cluster leaves it beside its Parquet files as `manifest.json`, written last."""

    plan: str
    """Name of the plan."""
    usecase: str
    engine: str
    """As `duckdb 1.4.2`."""
    rows_read: int
    rows: int
    """As many as were read, but for readings that stood in more than one file."""


def manifest(folder: Path) -> Manifest:
    """Raises `msgspec.ValidationError` naming the field of a malformed one."""
    return msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)


def plan(usecase: UseCase, files: Sequence[str], quote: str = '"') -> Plan:
    """The plan of a use case.

    Args:
        files: names of the raw files.
        quote: see `features.sql`.
    """
    kinds = {"number": "DOUBLE", "category": "STRING"}
    columns = {**OWN, **{feature.name: kinds[feature.kind] for feature in usecase.features}}
    return Plan(usecase.digest, tuple(sorted(files)), columns, _query(usecase, columns, quote))


def _query(usecase: UseCase, columns: dict[str, str], quote: str) -> str:
    """Each reading once, numbered, with its features.

    Rows of a run are in the order of their times. Those without one keep the order of the files and within
    the files, and come last. One with the time of another is a reading that stands in two files.
    """
    name = {each: features.quoted(each, quote) for each in (*columns, "_file", "_again")}
    typed = [f"{_typed(kind, name[each])} AS {name[each]}" for each, kind in columns.items()]
    run = f"PARTITION BY {name['_site']}, {name['_run']}"
    order = f"{name['_time']} NULLS LAST, {name['_file']}, {name['_row']}"
    again = f"COALESCE({name['_time']} = LAG({name['_time']}) OVER ({run} ORDER BY {order}), FALSE)"
    row = f"CAST(ROW_NUMBER() OVER ({run} ORDER BY {order}) - 1 AS BIGINT)"
    kept = [f"{row} AS {name['_row']}" if each == "_row" else name[each] for each in columns]
    return (
        f"WITH typed AS (SELECT {', '.join(typed)}, {name['_file']} FROM {TABLE}), "  # noqa: S608
        f"seen AS (SELECT *, {again} AS {name['_again']} FROM typed), "
        f"numbered AS (SELECT {', '.join(kept)} FROM seen WHERE NOT {name['_again']}) "
        f"{features.sql(usecase, 'numbered', quote)}"
    )


def _typed(kind: str, value: str) -> str:
    match kind:
        case "DOUBLE":
            # What is no finite number is missing, as in `features.compute`; in Spark as in DuckDB NaN is the
            # greatest number.
            number = f"CAST({value} AS DOUBLE)"
            return f"CASE WHEN ABS({number}) < CAST('Infinity' AS DOUBLE) THEN {number} END"
        case "TIMESTAMP":
            return value  # a cast would give it the time zone of Spark's session
        case _:
            return f"CAST({value} AS {kind})"
