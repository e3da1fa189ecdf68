"""Which columns of an unknown file hold the time, and in which format."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from edge_ai_assets.readings import rules
from edge_ai_assets.readings.profile import MOSTLY, Column
from edge_ai_assets.usecase import Time

DATES = (
    *("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y.%m.%d", "%Y%m%d", "%d/%m/%y"),
    *("%m/%d/%y", "%d.%m.%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d %Y"),
    *("%b %d, %Y", "%Y-%m-%d", "%Y/%m/%d"),
)  # fmt: skip
CLOCKS = (
    *("%H:%M:%S", "%H:%M", "%H.%M.%S", "%H.%M", "%H:%M:%S.%f", "%I:%M:%S %p", "%I:%M %p", "%H%M%S"),
    *("%H%M", "%H", "%H-%M-%S"),
)  # fmt: skip
BOTH = [f"{date} {clock}" for date in DATES for clock in CLOCKS]
SINGLE = (None, *BOTH, *DATES, "%Y%m%d%H%M%S", "%Y%m%d%H%M", "%d%b%Y:%H:%M:%S")
NAMED = re.compile(r"time|date|stamp|clock|epoch|unix|^ts$|^dt$|zeit|datum|fecha|hora|heure", re.I)
YEARS = (pd.Timestamp("1990-01-01"), pd.Timestamp("2100-01-01"))
"""A number is a time since 1970 only when that lies between these."""
PARTS = (
    (r"^(year|yr|yyyy)$", "%Y"),
    (r"^(month|mon|mo|mm)$", "%m"),
    (r"^(day|dd|dom|mday|day.?of.?month)$", "%d"),
    (r"^(hour|hr|hh|h)$", "%H"),
    (r"^(minute|min|mi)$", "%M"),
    (r"^(second|sec|ss)$", "%S"),
)


def find(columns: dict[str, Column]) -> tuple[Time, pd.Series] | None:
    """The columns and format of the time, and the times (naive UTC, NaT where unreadable); None if none."""
    best: tuple[tuple[bool, bool, float], Time, pd.Series] | None = None
    for column in columns.values():
        named = bool(NAMED.search(column.name))
        if (column.is_number and not named) or column.present.empty:
            continue
        # A number is a time only when it is written like 20240131, not when it merely could be a year.
        found = _counted(column) if column.is_number else None
        found = found or _parsed(
            [column], [f for f in SINGLE if not column.is_number or (f and "%Y%m%d" in f)]
        )
        if found and not _has_clock(found[1]):
            found = _with_clock(column, columns) or found
        if not found:
            continue
        time, stamps = found
        rank = (_has_clock(stamps), named, float(stamps.notna().mean()))
        if best is None or rank > best[0]:
            best = rank, time, stamps
    split = _split(columns)
    if split and (best is None or not best[0][0]):
        return split
    return best[1:] if best else None


def _counted(column: Column) -> tuple[Time, pd.Series] | None:
    """Seconds, or parts of them, since 1970."""
    for form in rules.EPOCHS:
        stamps = _stamps(column.words, form)
        if stamps.between(*YEARS).sum() >= MOSTLY * max(1, len(column.present)):
            return Time(columns=(column.name,), format=form), stamps
    return None


def _has_clock(stamps: pd.Series) -> bool:
    present = stamps.dropna()
    return bool((present != present.dt.normalize()).any())


def _with_clock(date: Column, columns: dict[str, Column]) -> tuple[Time, pd.Series] | None:
    """A date and the column with the time of day that goes with it."""
    others = sorted(columns.values(), key=lambda column: not NAMED.search(column.name))
    for other in others:
        if other is date or other.is_number:
            continue
        found = _parsed([date, other], BOTH)
        if found and _has_clock(found[1]):
            return found
    return None


def _split(columns: dict[str, Column]) -> tuple[Time, pd.Series] | None:
    """Year, month, day, and as far as they are there hour, minute and second."""
    names: list[str] = []
    formats: list[str] = []
    for pattern, code in PARTS:
        found = next((name for name in columns if re.match(pattern, name, re.I)), None)
        if found is None:
            break
        names.append(found)
        formats.append(code)
    if len(names) < 3:
        return None
    return _parsed(
        [columns[name] for name in names], [" ".join(formats), " ".join(formats).replace("%Y", "%y")]
    )


def _parsed(columns: Sequence[Column], formats: Sequence[str | None]) -> tuple[Time, pd.Series] | None:
    """The format that reads most of the rows, and of those the one that goes backwards least.

    The second is what tells 3 April from 4 March: read the wrong way round, time jumps.
    """
    words = columns[0].words
    for column in columns[1:]:
        words = words + " " + column.words
    words = words.where(words.str.contains("[0-9]", na=False))
    present = words.dropna()
    if len(present) < MOSTLY * columns[0].words.notna().sum() or present.empty:
        return None
    sample = present.iloc[np.linspace(0, len(present) - 1, min(40, len(present))).astype(int)]
    likely = [form for form in formats if _stamps(sample, form).notna().mean() >= MOSTLY]
    long_sample = present.iloc[:: max(1, len(present) // 20_000)]

    def score(form: str | None) -> tuple[float, float]:
        stamps = _stamps(long_sample, form).dropna()
        return round(len(stamps) / len(long_sample), 2), float((stamps.diff().dt.total_seconds() >= 0).mean())

    scored = {form: score(form) for form in likely}
    scored = {form: value for form, value in scored.items() if value[0] >= MOSTLY}
    if not scored:
        return None
    best = max(scored, key=lambda form: scored[form])
    return Time(columns=tuple(column.name for column in columns), format=best), _stamps(words, best)


def _stamps(words: pd.Series, form: str | None) -> pd.Series:
    stamps: pd.Series = rules.parse_times(words, form).dt.tz_localize(None).astype("datetime64[us]")
    return stamps
