"""What is kept of the runs of earlier files, so that later files go on with them. No scoring here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ai_assets.delivery import durable

if TYPE_CHECKING:
    import pandas as pd

OPEN_RUNS = 500
"""Runs whose baseline and last rows are kept for windows of later files. All of it is read and written again
with each file: 60,000 rows of 10 features take 7 MB and 0.2 s."""
KNOWN_RUNS = 10_000
"""Runs of which it is known how many rows came, after their rows were let go."""


class Lookback:
    """The rows of open runs that features of later rows need, kept between files in one Parquet file.

    `file` is the digest of the last file that was scored whole. `let_go` says of runs whose rows are no
    longer kept how many there were: one that comes back is numbered on, and its baseline is not known.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as parquet

        self.path = path
        self.file: str | None = None
        self.rows: pd.DataFrame | None = None
        self.let_go: dict[str, int] = {}
        self._next: dict[str, int] = {}
        if path.exists():
            table = parquet.read_table(path)
            self.file = table.schema.metadata[b"last_file"].decode()
            self.let_go = json.loads(table.schema.metadata.get(b"let_go", b"{}"))
            self.rows = table.to_pandas()
            # As the file begins: within it, from chunk to chunk, its rows are numbered on already.
            self._next = self.let_go | _lengths(self.rows)

    def continue_runs(self, readings: pd.DataFrame) -> pd.DataFrame:
        """Readings of a file, rows numbered on from where their runs stopped in earlier files."""
        if not self._next or readings.empty:
            return readings
        before = readings["_run"].map(self._next).fillna(0).astype("int64")
        return readings.assign(_row=readings["_row"] + before)

    def before(self, readings: pd.DataFrame) -> pd.DataFrame:
        """Kept rows of the same runs."""
        if self.rows is None:
            return readings.iloc[:0]
        return self.rows[self.rows["_run"].isin(readings["_run"].unique())]

    def remember(self, rows: pd.DataFrame) -> None:
        """Keep these rows in place of what was kept of their runs; the runs longest unseen are let go."""
        import pandas as pd

        if self.rows is not None:
            rows = pd.concat(
                [self.rows[~self.rows["_run"].isin(rows["_run"].unique())], rows], ignore_index=True
            )
        open_runs = rows["_run"].drop_duplicates(keep="last").iloc[-OPEN_RUNS:]
        keep = rows["_run"].isin(open_runs)
        for run, length in _lengths(rows[~keep]).items():
            self.let_go.pop(run, None)  # so that it is the newest
            self.let_go[run] = length
        self.let_go = dict(list(self.let_go.items())[-KNOWN_RUNS:])
        self.rows = rows[keep].reset_index(drop=True)

    def write(self, file: str) -> None:
        """Put what is kept on disk, atomically, as the state after `file`."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        table = pa.Table.from_pandas(self.rows, preserve_index=False)
        own = {b"last_file": file.encode(), b"let_go": json.dumps(self.let_go).encode()}
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **own})
        with durable.replacing(self.path) as fresh:
            parquet.write_table(table, fresh)


def _lengths(rows: pd.DataFrame) -> dict[str, int]:
    """How many rows each run has had, those longest unseen first."""
    last = rows.groupby("_run", sort=False)["_row"].max()
    return {str(run): int(row) + 1 for run, row in last.items()}
