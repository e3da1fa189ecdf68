"""Files of a plant as the canonical table of readings, and the rows that break the use case's contract.

Rows in = readings + rejected, always. Cutting files into cells is `raw`'s work, what a cell means is
`rules`', what goes beyond one chunk is `runs`'; where the tables are kept is decided in `ingest`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from edge_ai_assets.readings import rules
from edge_ai_assets.readings.cut import RawChunk
from edge_ai_assets.readings.raw import RawFile, ReadingsError
from edge_ai_assets.readings.runs import Codes, Counter, RunNames, Seen
from edge_ai_assets.usecase import UseCase

__all__ = ["Batch", "ReadingsError", "files_of", "read", "stem"]

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".parquet")


@dataclass(frozen=True)
class Batch:
    """Some consecutive rows of a file, told apart.

    `readings`: `_site`, `_run` (str), `_row` (int64, position in the run, from 0), `_time` (datetime64[us],
    naive UTC, NaT without a time column), `_asset` if the use case names plant assets (str, missing where not
    known), each feature under its own name (float64, NaN = missing; str for categories), `_label` (nullable
    boolean, NA = not known). In file order.

    `rejected`: `_file`, `_line` (line of a CSV, row of a Parquet file, from 1), `_problem` (a few words that
    can be counted), `_reason` (a sentence with field, value and bound), `_row_text` (the raw row as JSON).
    """

    readings: pd.DataFrame
    rejected: pd.DataFrame


def read(
    path: Path,
    usecase: UseCase,
    *,
    site: str | None = None,
    chunk_rows: int = 100_000,
    first_rows: int | None = None,
) -> Iterator[Batch]:
    """Read CSV, gzipped CSV or Parquet in bounded memory; found out from the file's content, not its name.

    Args:
        path: the file.
        usecase: says which columns there are and what they may hold.
        site: where the file comes from, by name or value. Needed when the use case has no site column; when
            it has one, rows of another site are rejected.
        chunk_rows: most rows in a batch; wide files get fewer.
        first_rows: most rows in the first batch, for a caller that waits for it; each further one may have
            twice as many as the one before, up to `chunk_rows`. As many as those when absent.

    Raises:
        ReadingsError: the file cannot be read, is empty, lacks a column, or its site is not known. What the
            header shows is raised here, what comes later while iterating.
    """
    file = RawFile(path, usecase.source)
    check_columns(file, usecase)
    if site is not None:
        site = rules.known_site(usecase, site)
    elif usecase.site is None:
        raise ReadingsError(
            f"{path}: the use case has no site column, so the site of this file must be given"
        )
    return _batches(file, usecase, site, file.chunks(chunk_rows, first_rows))


def check_columns(file: RawFile, usecase: UseCase) -> None:
    """ReadingsError when the file lacks a column that the use case reads."""
    names = [*(usecase.time.columns if usecase.time else ()), *(feature.name for feature in usecase.features)]
    names += [part.column for part in (usecase.site, usecase.plant_asset, usecase.label) if part]
    names += [usecase.runs.column] if usecase.runs.column else []
    if lacking := [name for name in names if name not in file.columns]:
        there = ", ".join(map(repr, file.columns[:30]))
        raise ReadingsError(f"{file.path}: column {lacking[0]!r} is missing; there is {there}")


def files_of(data: Path) -> list[Path]:
    """The file, or those in the folder that can hold readings; ReadingsError when there is none."""
    if data.is_file():
        return [data]
    files = sorted(path for path in data.rglob("*") if path.is_file() and path.name.lower().endswith(ENDINGS))
    if not files:
        raise ReadingsError(f"{data}: there is no file or folder with files that end in {', '.join(ENDINGS)}")
    return files


def stem(path: Path) -> str:
    """The file's name without its endings: `a.b.csv.gz` gives `a.b`."""
    name = path.name
    for ending in (".gz", ".csv", ".txt", ".tsv", ".parquet"):
        name = name.removesuffix(ending)
    return name or path.name


def _batches(
    file: RawFile, usecase: UseCase, site: str | None, chunks: Iterator[RawChunk]
) -> Iterator[Batch]:
    names, groups, seen = RunNames(usecase.runs, stem(file.path)), Codes(), Seen()
    runs, positions = Codes(), Counter()
    rows = 0
    for chunk in chunks:
        rows += chunk.rows
        verdict = rules.Verdict(chunk.rows)
        table = _interpreted(chunk, usecase, site, verdict)
        if usecase.time:
            _reject_repeats(table, usecase, groups, seen, verdict)
        good = table if verdict.good.all() else table[verdict.good].reset_index(drop=True)
        if not usecase.runs.column:
            good["_run"] = names.of(good["_site"].to_numpy(object), good["_time"])
        good["_row"] = positions.positions(runs.of(good["_site"], good["_run"]))
        for name in ("_site", "_run"):  # one by one: a table asked for both is put together again from all
            good[name] = good[name].astype("str")
        yield Batch(good, _rejected(chunk, verdict, file.path))
    if not rows:
        raise ReadingsError(f"{file.path}: the file has a header and no rows")


def _reject_repeats(
    table: pd.DataFrame, usecase: UseCase, groups: Codes, seen: Seen, verdict: rules.Verdict
) -> None:
    """Reject rows whose site, run (if a column gives it) and time came before; the first one stays."""
    good = table[verdict.good]
    by_run = usecase.runs.column is not None
    codes = groups.of(good["_site"], good["_run"] if by_run else [""] * len(good))
    again = np.zeros(len(table), dtype=bool)
    again[verdict.good] = seen.repeated(codes, good["_time"].to_numpy())
    times, where = table["_time"], "site and run" if by_run else "site"
    verdict.reject(
        again, "duplicate", lambda row: f"time {times[row]} came before in this file for the same {where}"
    )


def _interpreted(chunk: RawChunk, usecase: UseCase, site: str | None, verdict: rules.Verdict) -> pd.DataFrame:
    """All rows of a chunk in canonical columns; runs and positions only as far as a column gives them."""
    cells, source, broken = chunk.cells, usecase.source, chunk.broken
    bad = np.zeros(chunk.rows, dtype=bool)
    bad[list(broken)] = True
    verdict.reject(bad, "broken line", lambda row: broken[row])
    if chunk.data is not None:
        blank = np.ones(chunk.rows, dtype=bool)
        for column in cells:
            blank &= rules.is_missing(rules.text(column, cells[column]), source)
            if not blank.any():  # the first column says so for most files
                break
        verdict.reject(blank, "empty row", "every cell of the row is empty")
    columns: dict[str, object] = {"_site": site, "_run": None, "_row": 0, "_time": np.datetime64("NaT", "us")}
    if usecase.site:
        columns["_site"] = rules.sites(
            usecase, usecase.site.column, cells[usecase.site.column], site, verdict
        )
    if usecase.time:
        columns["_time"] = rules.times(
            usecase.time, [cells[name] for name in usecase.time.columns], source, verdict
        )
    if name := usecase.runs.column:
        columns["_run"] = rules.run_names(name, cells[name], source, verdict)
    if usecase.plant_asset:
        name = usecase.plant_asset.column
        columns["_asset"] = rules.asset_names(name, cells[name], source, verdict)
    for feature in usecase.features:
        rule = rules.numbers if feature.kind == "number" else rules.categories
        columns[feature.name] = rule(feature, cells[feature.name], source, verdict)
    columns["_label"] = rules.labels(usecase.label, cells[usecase.label.column], source, verdict)
    return pd.DataFrame(columns, index=range(chunk.rows))


def _rejected(chunk: RawChunk, verdict: rules.Verdict, path: Path) -> pd.DataFrame:
    rows = sorted(verdict.problems)
    texts = {
        "_file": [path.name] * len(rows),
        "_problem": [verdict.problems[row][0] for row in rows],
        "_reason": [verdict.problems[row][1] for row in rows],
        "_row_text": [chunk.text(row) for row in rows],
    }
    table = pd.DataFrame({name: pd.array(values, dtype="str") for name, values in texts.items()})
    table.insert(1, "_line", chunk.numbers[rows].astype(np.int64))
    return table
