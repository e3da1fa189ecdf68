"""What the columns of an unknown file look like: numbers or words, missing values, how often which value.

Only observations. What a column is for (time, site, label, feature) is guessed in `guess`, and written down
in `draft`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from edge_ai_assets.readings import rules
from edge_ai_assets.readings.files import files_of
from edge_ai_assets.readings.raw import RawFile, ReadingsError
from edge_ai_assets.usecase import Source

HEAD = 300_000
"""Rows that are looked at, in equal parts from each file, and"""
FEWEST = 2_000
"""at least so many of each."""
CHUNK = 50_000
MOSTLY = 0.9
TIME = re.compile(r"[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}([ T][0-9]|$)|[0-9]{1,2}:[0-9]{2}(:|$)")
MISSING_WORDS = frozenset(
    {"?", "-", "--", "*", ".", "none", "missing", "unknown", "no data", "nodata", "bad", "nil"}
)
SENTINELS = (-200, -99, -999, -9999, -99999, -999.25, -999.9, -1000, 9999, 99999, 999999)


@dataclass(frozen=True)
class Column:
    """One column over the rows looked at, shape (n,)."""

    name: str
    words: pd.Series
    """Trimmed text, missing where missing."""
    numbers: np.ndarray
    """float64, NaN where missing or no number."""

    @property
    def present(self) -> pd.Series:
        return self.words.dropna()

    @property
    def is_number(self) -> bool:
        present = int(self.words.notna().sum())
        return present > 0 and int((~np.isnan(self.numbers)).sum()) >= MOSTLY * present

    @property
    def values(self) -> pd.Series:
        """How often each value stands there, most frequent first. As numbers, 1 and 1.0 are the same."""
        if self.is_number:
            return pd.Series(self.numbers).dropna().value_counts()
        return self.present.value_counts()


@dataclass(frozen=True)
class Profile:
    """A file, as far as it was looked at."""

    path: Path
    """A file or a folder."""
    files: list[Path]
    source: Source
    columns: dict[str, Column]
    unreadable: dict[str, str]
    """Columns that are neither numbers nor text, and what they are instead."""
    rows: int
    whole: bool
    """Whether all rows were looked at."""
    file: np.ndarray
    """Position in `files` of each row looked at, shape (n,)."""


def profile(path: Path) -> Profile:
    """Look at the first `HEAD` rows of a CSV or Parquet file, or of the files of a folder.

    Raises:
        ReadingsError: as `files.read`; or the first line holds readings where names of columns should be.
    """
    paths = files_of(path)
    encoding = max((_encoding(file) for file in paths), key=lambda found: found != "utf-8")
    files = [RawFile(file, Source(encoding=encoding)) for file in paths]
    for file in files:
        _check_header(file)
    names = [name for name in files[0].columns if all(name in file.columns for file in files)]
    if not names:
        raise ReadingsError(f"{path}: its files have no column in common: {paths[0].name}, {paths[-1].name}")
    cells: dict[str, list[pa.Array]] = {name: [] for name in names}
    sizes, whole = [0] * len(files), True
    for position, file in enumerate(files):
        for chunk in file.chunks(CHUNK):
            if sizes[position] >= max(FEWEST, HEAD // len(files)):
                whole = False
                break
            keep = np.ones(chunk.rows, dtype=bool)
            keep[list(chunk.broken)] = False
            for name in names:
                cells[name].append(chunk.cells[name].filter(pa.array(keep)))
            sizes[position] += int(keep.sum())
    if not sum(sizes):
        raise ReadingsError(f"{path}: the file has a header and no rows")
    texts, unreadable = _texts(cells)
    delimiter = None if files[0].is_parquet else files[0].delimiter
    decimal: Literal[".", ","] = (
        "," if not files[0].is_parquet and delimiter != "," and _has_decimal_commas(texts) else "."
    )
    source = Source(delimiter=delimiter, decimal=decimal, encoding=encoding)
    source = source.model_copy(update={"missing": _sentinels(texts, source)})
    columns = {name: _column(name, words, source) for name, words in texts.items()}
    where = np.repeat(np.arange(len(files)), sizes)
    return Profile(path, paths, source, columns, unreadable, len(where), whole, where)


def _encoding(path: Path) -> str:
    """UTF-8, or Windows' Western encoding when the file is not UTF-8."""
    file = RawFile(path, Source())
    if file.is_parquet:
        return "utf-8"
    try:
        first = next(file.chunks(5_000), None)
    except ReadingsError as error:
        if "set source.encoding" not in str(error):
            raise
        return "cp1252"
    return "cp1252" if first and "not utf-8" in " ".join(first.broken.values()) else "utf-8"


def _check_header(file: RawFile) -> None:
    """ReadingsError when the names of half the columns are times, or numbers that do not rise.

    Numbers that rise are names all right: channels, or wavelengths.
    """
    if file.is_parquet:
        return
    values, numeric = rules.parse_numbers(pa.array(file.columns), ".")
    times = np.array([bool(TIME.match(name)) for name in file.columns])
    rising = bool((np.diff(values[numeric]) > 0).all()) and not times.any()
    if 2 * (numeric | times).sum() >= len(file.columns) and not rising:
        raise ReadingsError(
            f"{file.path}: the first line holds readings ({', '.join(file.columns[:4])}, …) where the names "
            "of the columns should stand: add a line with names"
        )


def _texts(cells: dict[str, list[pa.Array]]) -> tuple[dict[str, pa.Array], dict[str, str]]:
    texts, unreadable = {}, {}
    for name, parts in cells.items():
        try:
            texts[name] = pa.concat_arrays([rules.text(name, part) for part in parts])
        except ReadingsError:
            unreadable[name] = str(parts[0].type)
    return texts, unreadable


def _column(name: str, words: pa.Array, source: Source) -> Column:
    values, _ = rules.parse_numbers(words, source.decimal)
    values = values.copy()
    missing = rules.is_missing(words, source) | np.isin(values, rules.sentinels(source))
    values[missing] = np.nan
    kept = pc.if_else(pa.array(missing), pa.scalar(None, pa.string()), words)
    return Column(name, pd.Series(kept.to_pandas(), dtype="str"), values)


def _has_decimal_commas(texts: dict[str, pa.Array]) -> bool:
    only_comma = only_point = 0
    for words in texts.values():
        commas, points = (rules.parse_numbers(words, decimal)[1] for decimal in (",", "."))
        only_comma += int((commas & ~points).sum())
        only_point += int(pc.sum(pc.match_substring_regex(words, r"^[+-]?[0-9]+\.[0-9]+$")).as_py() or 0)
    return only_comma > only_point


def _sentinels(texts: dict[str, pa.Array], source: Source) -> tuple[str | int | float, ...]:
    """Values that stand for a missing one: words among numbers, and numbers far off that come repeatedly."""
    words: set[str] = set()
    for_numbers: dict[float, bool] = {}
    for cells in texts.values():
        values, numeric = rules.parse_numbers(cells, source.decimal)
        present = ~rules.is_missing(cells, source)
        told = ~rules.is_missing(cells, Source(missing=tuple(MISSING_WORDS)))
        if numeric.sum() < max(1, 0.5 * told.sum()):
            continue
        strange = pd.Series(
            cells.filter(pa.array(present & ~numeric)).to_pandas(), dtype="str"
        ).value_counts()
        words |= {
            str(word)
            for word, count in strange.items()
            if str(word).lower() in MISSING_WORDS
            or (count > 0.01 * len(cells) and not str(word).startswith("#"))
        }
        distinct, counts = np.unique(values[~np.isnan(values)], return_counts=True)
        for sentinel in set(SENTINELS) & set(distinct.tolist()):
            at = int(np.searchsorted(distinct, sentinel))
            next_to = distinct[:2][-1] if sentinel < 0 else distinct[-2:][0]
            outermost = at == (0 if sentinel < 0 else len(distinct) - 1)
            far = abs(next_to - sentinel) > 0.5 * abs(sentinel)
            stands_out = outermost and far and counts[at] >= 2
            for_numbers[sentinel] = for_numbers.get(sentinel, True) and bool(stands_out)
    found = sorted(value for value, everywhere in for_numbers.items() if everywhere)
    return (*(int(value) if value == int(value) else value for value in found), *sorted(words))
