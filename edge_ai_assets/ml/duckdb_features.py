"""The default engine of features: DuckDB, in this process, from Parquet to Parquet in bounded memory.

What the features are is the plan's; an engine for more rows than one machine takes is `spark_features`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ai_assets.ml import feature_plan
from edge_ai_assets.ml.feature_plan import Manifest
from edge_ai_assets.ml.features import quoted
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    import duckdb

MEMORY = "2GB"
"""That DuckDB keeps; the rest goes to disk. It is a constant, as other steps of a run share the machine."""


def make(raw: Path, usecase: UseCase, into: Path) -> Manifest:
    """Features of all readings.

    Args:
        raw: folder of Parquet files with canonical readings, at least one.
        into: folder to make; gets `features.parquet`.
    """
    import pyarrow.parquet as parquet

    plan = feature_plan.plan(usecase, [file.name for file in raw.glob("*.parquet")])
    into.mkdir(parents=True)
    with bounded(into) as connection:
        files = [str(raw / name) for name in plan.files]
        _register(connection, files, plan.columns)
        target = into / "features.parquet"
        connection.execute(f"COPY ({plan.query}) TO {text(target)} (FORMAT parquet, COMPRESSION zstd)")
        version = connection.sql("SELECT version()").fetchall()[0][0]
    return Manifest(
        plan=plan.name,
        usecase=plan.usecase,
        engine=f"duckdb {version.removeprefix('v')}",
        rows_read=sum(parquet.read_metadata(file).num_rows for file in files),
        rows=parquet.read_metadata(target).num_rows,
    )


@contextmanager
def bounded(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that takes no more than MEMORY and puts the rest into a folder."""
    import duckdb

    spill = str(scratch / "spilled")
    with duckdb.connect(
        config={"memory_limit": MEMORY, "temp_directory": spill, "preserve_insertion_order": False}
    ) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def text(value: object) -> str:
    """A literal as it stands in SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def _register(connection: duckdb.DuckDBPyConnection, files: list[str], columns: dict[str, str]) -> None:
    """The table that a plan's query reads, with a column for what no file has."""
    found = f"read_parquet([{', '.join(map(text, files))}], union_by_name=true, filename='_path')"
    # Spark does not tell upper from lower case; DuckDB does beyond ASCII, so each spelling is asked for.
    spelt: dict[str, list[str]] = {}
    for name, *_ in connection.sql(f"DESCRIBE SELECT * FROM {found}").fetchall():  # noqa: S608
        spelt.setdefault(name.lower(), []).append(quoted(name))
    selected = [
        f"COALESCE({', '.join(spelt.get(name.lower(), [f'CAST(NULL AS {kind})']))}) AS {quoted(name)}"
        for name, kind in columns.items()
    ]
    connection.execute(
        f"CREATE VIEW {feature_plan.TABLE} AS SELECT {', '.join(selected)}, "  # noqa: S608
        f"parse_filename(_path) AS _file FROM {found}"
    )
