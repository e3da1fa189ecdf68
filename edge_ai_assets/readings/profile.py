"""What the columns of an unknown file look like: numbers or words, missing values, how often which value.

Only observations. What a column is for (time, site, label, feature) is guessed in `guess`, and written down
in `draft`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from edge_ai_assets.readings import rules
from edge_ai_assets.readings.raw import RawFile, ReadingsError
from edge_ai_assets.usecase import Source

HEAD = 300_000
"""Rows that are looked at."""
CHUNK = 50_000
MOSTLY = 0.9
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
    source: Source
    columns: dict[str, Column]
    unreadable: dict[str, str]
    """Columns that are neither numbers nor text, and what they are instead."""
    rows: int
    whole: bool
    """Whether all rows were looked at."""


def profile(path: Path) -> Profile:
    """Look at the first `HEAD` rows of a CSV or Parquet file; ReadingsError as `files.read`."""
    file, encoding = _opened(path)
    cells: dict[str, list[pa.Array]] = {name: [] for name in file.columns}
    rows, whole = 0, True
    for chunk in file.chunks(CHUNK):
        if rows >= HEAD:
            whole = False
            break
        keep = np.ones(chunk.rows, dtype=bool)
        keep[list(chunk.broken)] = False
        for name, column in chunk.cells.items():
            cells[name].append(column.filter(pa.array(keep)))
        rows += chunk.rows
    if not rows:
        raise ReadingsError(f"{path}: the file has a header and no rows")
    texts, unreadable = _texts(cells)
    delimiter = None if file.is_parquet else file.delimiter
    decimal: Literal[".", ","] = (
        "," if not file.is_parquet and delimiter != "," and _has_decimal_commas(texts) else "."
    )
    source = Source(delimiter=delimiter, decimal=decimal, encoding=encoding)
    source = source.model_copy(update={"missing": _sentinels(texts, source)})
    columns = {name: _column(name, words, source) for name, words in texts.items()}
    return Profile(path, source, columns, unreadable, rows, whole)


def _opened(path: Path) -> tuple[RawFile, str]:
    """The file in UTF-8, or in Windows' Western encoding when it is not UTF-8."""
    file = RawFile(path, Source())
    if file.is_parquet:
        return file, "utf-8"
    try:
        first = next(file.chunks(5_000), None)
        if first is None or "not utf-8" not in " ".join(first.broken.values()):
            return file, "utf-8"
    except ReadingsError as error:
        if "set source.encoding" not in str(error):
            raise
    return RawFile(path, Source(encoding="cp1252")), "cp1252"


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
