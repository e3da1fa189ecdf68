"""Files of readings through the scoring service: the same contract, the same outbox as an end user's request.

Runs in the site's Dagster or command line, not in the service: pandas is welcome here. Interrupted, a file
is scored again from its start, and every slice that was already answered is answered from the outbox by its
idempotency key.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ai_assets.delivery import durable
from edge_ai_assets.home import SiteHome
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    import pandas as pd

    from edge_ai_assets.scoring.client import Client

SLICE = 2_000
"""Rows a request: large enough for onnxruntime to run flat out, small enough for one quick commit."""
OPEN_RUNS = 20
"""Runs whose last rows are kept for windows of later files."""


@dataclass(frozen=True)
class FileScored:
    """What scoring one file did; every row of it is in exactly one of the first three."""

    scored: int
    rejected: int
    baseline: int
    """Rows that only show a run's normal state and are not scored."""
    anomalies: int
    outside: int


def waiting(site: SiteHome) -> list[Path]:
    """Files that wait to be scored, by name. Hidden ones are still being written."""
    if not site.readings.is_dir():
        return []
    return sorted(
        path for path in site.readings.iterdir() if path.is_file() and not path.name.startswith(".")
    )


def hidden_copy(path: Path, site: SiteHome) -> Path:
    """Copy a file to where it can be scored from, out of the sensors' sight; the original stays."""
    site.readings.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(path, site.readings / f".{path.name}"))


def score_file(
    path: Path,
    *,
    usecase: UseCase,
    site: SiteHome,
    client: Client,
    progress: Callable[[int], None] = lambda rows: None,
) -> FileScored:
    """Score one waiting file and move it to `scored/`.

    Raises:
        ReadingsError: the file is not readable, or columns are missing.
        ServiceError: the service is away or refuses; the file stays and is taken up again where it stopped.
    """
    # Runs that go on over files must be taken up in order: one file at a time, whoever scores it.
    with durable.locked(site.root / ".scoring.lock"):
        return _score_file(path, usecase, site, client, progress)


def _score_file(
    path: Path, usecase: UseCase, site: SiteHome, client: Client, progress: Callable[[int], None]
) -> FileScored:
    import pandas as pd

    from edge_ai_assets.ml import features
    from edge_ai_assets.readings.files import read

    digest = _digest(path)
    kept = Lookback(site.lookback)
    total = [0, 0, 0, 0, 0]
    if kept.file == digest or any(site.scored.glob(f"{digest}-*")):
        # Killed just before the move, or delivered twice: every row of it has been scored.
        _move(path, site.scored, digest)
        return FileScored(*total)
    for number, batch in enumerate(read(path, usecase, site=site.name)):
        if len(batch.rejected):
            site.rejected.mkdir(parents=True, exist_ok=True)
            batch.rejected.to_parquet(site.rejected / f"{digest}-{number:05}.parquet", index=False)
        fresh = kept.continue_runs(batch.readings)
        whole = pd.concat([kept.before(fresh), fresh], ignore_index=True)
        made = features.compute(whole, usecase).iloc[len(whole) - len(fresh) :]
        to_score = made[features.scorable(made, usecase)]
        anomalies, outside = _score(to_score, usecase, client, f"{digest}/{number}", progress)
        kept.remember(features.lookback(whole, usecase))
        for position, count in enumerate(
            (len(to_score), len(batch.rejected), len(fresh) - len(to_score), anomalies, outside)
        ):
            total[position] += count
    kept.write(digest)
    _move(path, site.scored, digest)
    return FileScored(*total)


class Lookback:
    """The rows of open runs that features of later rows need, kept between files in one Parquet file.

    `file` is the digest of the last file that was scored whole.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as parquet

        self.path = path
        self.file: str | None = None
        self.rows: pd.DataFrame | None = None
        self._next: pd.Series[int] | None = None
        if path.exists():
            table = parquet.read_table(path)
            self.file = table.schema.metadata[b"last_file"].decode()
            self.rows = table.to_pandas()
            # As the file begins: within it, from chunk to chunk, its rows are numbered on already.
            self._next = self.rows.groupby("_run")["_row"].max() + 1

    def continue_runs(self, readings: pd.DataFrame) -> pd.DataFrame:
        """Readings of a file, rows numbered on from where their runs stopped in earlier files."""
        if self._next is None or readings.empty:
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
        self.rows = rows[rows["_run"].isin(open_runs)].reset_index(drop=True)

    def write(self, file: str) -> None:
        """Put what is kept on disk, atomically, as the state after `file`."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        table = pa.Table.from_pandas(self.rows, preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"last_file": file.encode()})
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        parquet.write_table(table, fresh)
        os.replace(fresh, self.path)


def _score(
    frame: pd.DataFrame, usecase: UseCase, client: Client, key: str, progress: Callable[[int], None]
) -> tuple[int, int]:
    from edge_ai_assets.ml import features

    inputs = features.inputs(usecase)
    anomalies = outside = 0
    for start in range(0, len(frame), SLICE):
        part = frame.iloc[start : start + SLICE]
        columns = {item.name: _plain(part[item.name]) for item in inputs}
        context = {
            "_time": [None if time != time else time.isoformat() for time in part["_time"]],
            "_run": part["_run"].tolist(),
            "_row": part["_row"].tolist(),
        }
        answer = client.score(columns, context, key=f"{key}/{start}")
        anomalies += sum(answer.predicted)
        outside += sum(answer.outside)
        progress(len(part))
    return anomalies, outside


def _plain(values: pd.Series) -> list[object]:
    """Column values as JSON has them: missing is None."""
    return [None if value != value else value for value in values.tolist()]


def _move(path: Path, folder: Path, digest: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.replace(path, folder / f"{digest}-{path.name.removeprefix('.')}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
