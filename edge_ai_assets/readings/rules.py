"""What a raw cell means, and which rows are thereby broken: the rules of a use case, one column at a time.

Everything is vectorised over one chunk. What needs more than one chunk (runs, positions, duplicates) is in
`runs`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from edge_ai_assets.readings.raw import ReadingsError
from edge_ai_assets.scoring.context import MAX_ASSET, MAX_RUN
from edge_ai_assets.usecase import Feature, Label, Source, Time, UseCase

EMPTY = frozenset({"", "na", "n/a", "nan", "nat", "null", "<na>"})
"""Cells that are missing whatever the use case says, in lower case."""
EPOCHS = {"epoch s": 1e6, "epoch ms": 1e3, "epoch us": 1.0, "epoch ns": 1e-3}
"""Formats of times that count from 1970, UTC, and microseconds in one of their units."""
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"

LARGEST = float(np.finfo(np.float32).max)
"""Models compute in float32."""


class Verdict:
    """Which rows of a chunk are rejected, and why. The first reason a row gets is the one it keeps."""

    def __init__(self, rows: int) -> None:
        self.good = np.ones(rows, dtype=bool)
        self.problems: dict[int, tuple[str, str]] = {}
        """By row: a short class of problem, and a sentence that names field, value and bound."""

    def reject(self, rows: np.ndarray, problem: str, sentence: str | Callable[[int], str]) -> None:
        """Reject the rows of a mask; a `sentence` by row is asked only for those that were still good."""
        for row in np.flatnonzero(rows & self.good).tolist():
            self.problems[row] = (problem, sentence if isinstance(sentence, str) else sentence(row))
        self.good &= ~rows


def text(name: str, cells: pa.Array) -> pa.Array:
    """A column as trimmed strings."""
    try:
        if pa.types.is_dictionary(cells.type):
            cells = cells.dictionary_decode()
        return pc.utf8_trim_whitespace(cells.cast(pa.string()))
    except pa.ArrowException as error:
        raise ReadingsError(f"column {name!r} is {cells.type} and cannot be read as text: {error}") from error


def is_missing(cells: pa.Array, source: Source) -> np.ndarray:
    """Which of these trimmed strings stand for a missing value; bool, shape (n,)."""
    words = pa.array(sorted(EMPTY | {str(value).strip().lower() for value in source.missing}))
    return _bools(pc.is_in(pc.utf8_lower(cells.fill_null("")), words))


def distinct(name: str, cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The texts of a column, trimmed, and the place of each row's among them, int32, shape (n,).

    Rules of columns that repeat themselves need to look at these few only.
    """
    kind = cells.type
    if not (pa.types.is_string(kind) or pa.types.is_integer(kind)):
        cells = text(name, cells)
    found = cells.dictionary_encode(null_encoding="encode")
    return text(name, found.dictionary), found.indices.to_numpy()


def parse_numbers(cells: pa.Array, decimal: str) -> tuple[np.ndarray, np.ndarray]:
    """Trimmed strings as float64, NaN where there is no number, and a mask of those that are numbers."""
    values = _finite(cells, decimal)
    if values is not None:
        return values, _bools(cells.is_valid())
    if decimal == ",":
        cells = pc.replace_substring(cells, ",", ".")
    numeric = pc.match_substring_regex(cells, NUMBER).fill_null(False)
    plain = pc.replace_substring_regex(cells, r"^\+", "")
    values = pc.cast(pc.if_else(numeric, plain, pa.scalar(None, pa.string())), pa.float64())
    return values.to_numpy(zero_copy_only=False), _bools(numeric)


def _finite(cells: pa.Array, decimal: str) -> np.ndarray | None:
    """Strings as float64, NaN where null, if all of them are finite numbers without a plus sign; or None.

    Arrow reads what NUMBER describes, but for a plus sign, and beyond that only what is not finite; it takes
    a tenth of the time.
    """
    if decimal == ",":
        cells = pc.replace_substring(cells, ",", ".")
    try:
        found = pc.cast(cells, pa.float64())
    except pa.ArrowInvalid:
        return None
    values = np.array(found.to_numpy(zero_copy_only=False))
    return values if np.isfinite(values).sum() == len(found) - found.null_count else None


def numbers(feature: Feature, cells: pa.Array, source: Source, verdict: Verdict) -> np.ndarray:
    """A numeric feature as float64, NaN where missing; rejects what is not finite or out of range, which is
    float32's when the feature has none."""
    name, unit = feature.name, f" {feature.unit}" if feature.unit else ""
    if _is_numeric(cells.type):
        values = np.array(cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    else:
        # Mostly nothing needs to be trimmed, which takes nearly as long as reading it.
        clean = _finite(cells, source.decimal) if _whole(cells) else None
        if clean is None:
            words = text(name, cells)
            clean = _finite(words, source.decimal) if _whole(words) else None
        values = _with_gaps(name, words, source, verdict) if clean is None else clean
    values[np.isin(values, sentinels(source))] = np.nan
    verdict.reject(np.isinf(values), "not finite", f"{name!r} is infinite, it must be a finite number")
    if feature.range:
        low, high = feature.range
        verdict.reject(
            (values < low) | (values > high),
            "out of range",
            lambda row: f"{name!r} is {values[row]:.10g}, it must be between {low:g} and {high:g}{unit}",
        )
    else:
        verdict.reject(
            np.abs(values) > LARGEST,
            "too large",
            lambda row: (
                f"{name!r} is {values[row]:.10g}, a model takes from -{LARGEST:g} to {LARGEST:g}{unit}"
            ),
        )
    return values


def _whole(cells: pa.Array) -> bool:
    return pa.types.is_string(cells.type) and not cells.null_count


def _with_gaps(name: str, words: pa.Array, source: Source, verdict: Verdict) -> np.ndarray:
    """Trimmed strings as float64, NaN where one says that it is missing; rejects what is no number."""
    missing = is_missing(words, source) | _bools(pc.equal(pc.utf8_lower(words.fill_null("")), "none"))
    there = pc.if_else(pa.array(missing), pa.scalar(None, pa.string()), words)
    values, numeric = parse_numbers(there, source.decimal)
    verdict.reject(
        ~numeric & ~missing,
        "not a number",
        lambda row: f"{name!r} is {_shown(words[row])}, which is no number",
    )
    return np.array(values)


def categories(feature: Feature, cells: pa.Array, source: Source, verdict: Verdict) -> pd.Series:
    """A category as pandas `str`, missing where missing; rejects what is none of the declared ones."""
    words, of = distinct(feature.name, cells)
    known = _bools(pc.is_in(words, pa.array(feature.categories)))
    missing = is_missing(words, source) & ~known
    verdict.reject(
        (~known & ~missing)[of],
        "unknown category",
        lambda r: f"{feature.name!r} is {_shown(words[of[r]])}, known are {_some(feature.categories or ())}",
    )
    return _texts(pc.if_else(pa.array(known), words, pa.scalar(None, pa.string())), of)


def labels(label: Label, cells: pa.Array, source: Source, verdict: Verdict) -> pd.Series:
    """The label as nullable boolean, NA where missing; rejects what cannot be compared."""
    found, of = distinct(label.column, cells)
    words = pc.utf8_lower(found.fill_null(""))
    plain = pc.replace_substring_regex(pc.replace_substring_regex(words, "^true$", "1"), "^false$", "0")
    values, numeric = parse_numbers(plain, source.decimal)
    if label.above is not None:
        positive, readable, expected = values > label.above, numeric & ~np.isnan(values), "a number"
    else:
        wanted = {str(value).strip().lower() for value in label.positive or ()}
        wanted_words = pa.array(sorted(wanted))
        wanted_numbers = [number for word in wanted if (number := _number(word)) is not None]
        positive = np.isin(values, wanted_numbers) | _bools(pc.is_in(words, wanted_words))
        # With only numbers declared a text cannot be "something else", it is a cell that broke.
        only_numbers = len(wanted_numbers) == len(wanted)
        readable = numeric if only_numbers else ~_bools(pc.starts_with(words, "#"))
        expected = "a number" if only_numbers else "a class"
    missing = (is_missing(words, source) | np.isin(values, sentinels(source))) & ~positive
    if label.blank == "negative":
        readable, missing = readable | missing, np.zeros(len(words), dtype=bool)
    verdict.reject(
        (~readable & ~missing & ~positive)[of],
        "unreadable label",
        lambda row: f"label {label.column!r} is {_shown(words[of[row]])}, which is not {expected}",
    )
    unknown = missing | (~readable & ~positive)
    return pd.Series(pd.arrays.BooleanArray(positive[of], unknown[of]))


def times(time: Time, columns: Sequence[pa.Array], source: Source, verdict: Verdict) -> pd.Series:
    """The time as naive UTC, datetime64[us]; rejects what is missing or does not parse."""
    shown = " ".join(time.columns)
    if len(columns) == 1 and pa.types.is_temporal(columns[0].type) and not pa.types.is_time(columns[0].type):
        stamps = pd.to_datetime(
            pd.Series(columns[0].cast(_timestamp_of(columns[0].type)).to_pandas()), utc=True
        )
        missing = stamps.isna().to_numpy()
        joined = columns[0]
    else:
        words = [text(name, cells) for name, cells in zip(time.columns, columns, strict=True)]
        missing = np.logical_or.reduce([is_missing(part, source) for part in words])
        joined = pc.binary_join_element_wise(*(part.fill_null("") for part in words), " ")
        # A digit first: pandas would read "now" and "today" as the moment of reading.
        clean = pc.if_else(pc.match_substring_regex(joined, "[0-9]"), joined, pa.scalar(None, pa.string()))
        parts = pd.Series(clean.to_pandas(), dtype="str")
        stamps = parse_times(parts, time.format)
    expected = f"the format {time.format!r}" if time.format else "ISO 8601 (or set time.format)"
    verdict.reject(missing, "time missing", f"time {shown!r} is missing")
    verdict.reject(
        stamps.isna().to_numpy(),
        "unreadable time",
        lambda row: f"time {shown!r} is {_shown(joined[row])}, which is not {expected}",
    )
    return stamps.dt.tz_localize(None).astype("datetime64[us]")


def parse_times(words: pd.Series, form: str | None) -> pd.Series:
    """Texts as times in UTC, NaT where they cannot be read: by a strptime format, ISO 8601 or `EPOCHS`."""
    if form not in EPOCHS:
        stamps: pd.Series = pd.to_datetime(words, format=form or "ISO8601", errors="coerce", utc=True)
        return stamps
    since = pd.to_numeric(words, errors="coerce").to_numpy(np.float64, na_value=np.nan) * EPOCHS[form]
    since = np.where(np.abs(since) < 2**53, since, np.nan)
    return pd.Series(pd.to_datetime(since.round(), unit="us", utc=True), index=words.index)


def known_site(usecase: UseCase, site: str) -> str:
    """The name of the use case's site that readings call `site`; ReadingsError when there is none."""
    names = site_names(usecase)
    if site not in names:
        raise ReadingsError(f"site {site!r} is not in the use case, which has {_some(list(names))}")
    return names[site]


def site_names(usecase: UseCase) -> dict[str, str]:
    """Site name by everything that readings may call the site."""
    return {site.name: site.name for site in usecase.sites} | {
        site.value: site.name for site in usecase.sites if site.value is not None
    }


def sites(usecase: UseCase, column: str, cells: pa.Array, only: str | None, verdict: Verdict) -> np.ndarray:
    """Names of the sites, object, None where rejected: missing, unknown, or not `only`."""
    words, of = distinct(column, cells)
    names = site_names(usecase)
    where = pc.index_in(words, pa.array(list(names))).fill_null(-1).to_numpy(zero_copy_only=False)
    missing = is_missing(words, usecase.source) & (where < 0)
    verdict.reject(missing[of], "site missing", f"site {column!r} is missing")
    verdict.reject(
        (where < 0)[of],
        "unknown site",
        lambda row: f"site {column!r} is {_shown(words[of[row]])}, the use case has {_some(list(names))}",
    )
    found: np.ndarray = np.array([*names.values(), None], dtype=object)[where]
    if only is not None:
        verdict.reject(
            (found != only)[of],
            "other site",
            lambda row: f"site {column!r} is {found[of[row]]!r}, not {only!r}",
        )
    return np.asarray(found[of])


def run_names(column: str, cells: pa.Array, source: Source, verdict: Verdict) -> pd.Series:
    """Names of the runs from their column, `str`; rejects missing ones, and those no score may carry."""
    words, of = distinct(column, cells)
    verdict.reject(is_missing(words, source)[of], "run missing", f"run {column!r} is missing")
    lengths = pc.utf8_length(words.fill_null("")).to_numpy(zero_copy_only=False)
    verdict.reject(
        (lengths > MAX_RUN)[of],
        "run too long",
        lambda row: f"run {column!r} has {lengths[of[row]]} characters, it may have {MAX_RUN}",
    )
    return _texts(words, of)


def asset_names(column: str, cells: pa.Array, source: Source, verdict: Verdict) -> pd.Series:
    """Names of the plant assets, `str`, missing where missing; rejects those that no score may carry."""
    words, of = distinct(column, cells)
    lengths = pc.utf8_length(words.fill_null("")).to_numpy(zero_copy_only=False)
    verdict.reject(
        (lengths > MAX_ASSET)[of],
        "plant asset too long",
        lambda row: f"plant asset {column!r} has {lengths[of[row]]} characters, it may have {MAX_ASSET}",
    )
    missing = pa.array(is_missing(words, source))
    return _texts(pc.if_else(missing, pa.scalar(None, pa.string()), words), of)


def _texts(words: pa.Array, of: np.ndarray) -> pd.Series:
    """The word of each row, as pandas `str`."""
    return pd.Series(pd.array(words.take(pa.array(of)), dtype="str"))


def _is_numeric(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    return any(test(kind) for test in tests)


def _timestamp_of(kind: pa.DataType) -> pa.DataType:
    return pa.timestamp("us", tz=kind.tz) if pa.types.is_timestamp(kind) else pa.timestamp("us")


def sentinels(source: Source) -> list[float]:
    """The numbers among the values that stand for a missing one."""
    return [number for value in source.missing if (number := _number(str(value))) is not None]


def _number(word: str) -> float | None:
    truth = {"true": 1.0, "false": 0.0}
    try:
        return truth[word] if (word := word.lower()) in truth else float(word)
    except ValueError:
        return None


def _bools(mask: pa.Array) -> np.ndarray:
    return np.array(mask.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)


def _shown(value: pa.Scalar) -> str:
    shown = repr(str(value.as_py()))
    return shown if len(shown) <= 80 else f"{shown[:77]}…'"


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
