"""What the columns of an unknown file are for: time, site, run, label, features, and what is better left out.

Guesses, each with its reason, for a person to check in the drafted YAML. Writing that is `draft`'s work.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from edge_ai_assets.readings import clock, labels
from edge_ai_assets.readings.profile import Column, Profile, profile
from edge_ai_assets.readings.raw import ReadingsError
from edge_ai_assets.readings.runs import floor
from edge_ai_assets.usecase import Time

SUFFIX = r"([ _.-]?(id|name|no|nr|code|number|key))?$"
SITE_WORDS = "site|station|plant|machine|unit|device|location|asset|turbine|pump|well|factory|line"
SITE = re.compile(f"^({SITE_WORDS}){SUFFIX}", re.I)
RUN = re.compile(f"^(run|batch|cycle|experiment|shift|test|trial|session|campaign|profile){SUFFIX}", re.I)
MOST_SITES = 1000
PERIODS = ("1d", "7d", "12h", "6h", "1h", "30d", "30min", "10min", "1min")
ENOUGH = 20


@dataclass
class Guess:
    """Everything that was guessed about a file."""

    profile: Profile
    time: Time | None
    site: str | None
    run: str | None
    label: labels.LabelGuess
    features: list[Column] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    every: str | None = None
    rows: int | None = None
    doubts: list[str] = field(default_factory=list)
    """What should be checked and belongs to no single line."""


def guess(path: Path) -> Guess:
    """Look at a CSV or Parquet file; ReadingsError when it cannot be read or has no column to learn from."""
    seen = profile(path)
    columns = seen.columns
    found = clock.find(columns)
    time, stamps = found if found else (None, None)
    taken = set(time.columns) if time else set()
    free = {name: column for name, column in columns.items() if name not in taken}
    site = _first(free, SITE, min(MOST_SITES, max(1, seen.rows // ENOUGH)))
    run = _first(free, RUN, seen.rows // 5)
    doubts: list[str] = []
    if time and stamps is not None:
        keys = [columns[name].words for name in (site, run) if name]
        if _repeats(stamps, keys) > 0.03:
            parallel = None if site else _telling_apart(stamps, free, keys)
            if parallel:
                site = parallel
                doubts.append(f"times repeat, but not within one value of {site!r}: is it the site?")
            else:
                doubts.append(
                    f"times in {' '.join(time.columns)!r} repeat, so rows are taken in file order instead"
                )
                time = stamps = None
    # Time columns stay taken even when the time was given up: they are no features.
    free = {name: column for name, column in free.items() if name not in (site, run)}
    if not free:
        raise ReadingsError(f"{path}: no column is left for a label; a use case needs one and a feature")
    label = labels.find(free)
    result = Guess(seen, time, site, run, label, doubts=doubts)
    result.left_out |= {name: f"it holds {kind}" for name, kind in seen.unreadable.items()}
    result.left_out |= {name: "a time" for name in taken if not time}
    _features(result, free)
    if not run:
        _periods(result, stamps)
    return result


def _first(columns: dict[str, Column], named: re.Pattern[str], most: int) -> str | None:
    """The first column of such a name with 1 to `most` different values."""
    return next(
        (n for n, column in columns.items() if named.match(n) and 1 <= len(column.values) <= most), None
    )


def _repeats(stamps: pd.Series, keys: list[pd.Series]) -> float:
    present = stamps.notna()
    frame = pd.concat([stamps, *keys], axis=1)[present]
    return float(frame.duplicated().mean()) if len(frame) else 0.0


def _telling_apart(stamps: pd.Series, columns: dict[str, Column], keys: list[pd.Series]) -> str | None:
    """A column with few values that makes times unique: what the file holds side by side."""
    for name, column in columns.items():
        few = 2 <= len(column.values) <= min(MOST_SITES, len(stamps) // ENOUGH)
        if few and not labels.LABEL.search(name) and _repeats(stamps, [*keys, column.words]) < 0.01:
            return name
    return None


def _features(result: Guess, columns: dict[str, Column]) -> None:
    label = columns[result.label.column]
    positive = labels.is_positive(label, result.label)
    flags = {name for name, column in columns.items() if len(column.values) == 2 and name != label.name}
    leaks = {name for name in flags if labels.leaks(columns[name], positive)}
    leaks |= labels.neighbours(list(columns), flags, leaks, label.name)
    for name, column in columns.items():
        if name == label.name:
            continue
        if why := _why_not(column, leaks):
            result.left_out[name] = why
        else:
            result.features.append(column)
    for column in result.features[1000:]:
        result.left_out[column.name] = "a use case has at most 1,000 features"
    del result.features[1000:]
    if not result.features:
        raise ReadingsError(f"{result.profile.path}: no column is left for a feature: {result.left_out}")


def _why_not(column: Column, leaks: set[str]) -> str:
    name, size = column.name, len(column.values)
    if size == 0:
        return "it is empty"
    if size == 1:
        return f"it is always {labels.plain(column.values.index[0])!r}"
    if name.startswith("_") or len(name) > 200 or not name:
        return "its name cannot be a feature's: rename the column"
    if labels.CHANGEPOINT.search(name):
        return "it marks changes of the label, which nobody knows beforehand"
    if name in leaks:
        return "it gives the label away"
    if labels.LABEL.search(name) and size <= labels.MOST_CATEGORIES:
        return "it looks like another label"
    if labels.is_identifier(column):
        return "it numbers or names rows"
    if not column.is_number and size > labels.MOST_CATEGORIES:
        return f"it is text with {size:,} different values"
    return ""


def _periods(result: Guess, stamps: pd.Series | None) -> None:
    """A period with enough runs of enough rows, or else blocks of rows."""
    rows = result.profile.rows
    present = stamps.dropna() if stamps is not None else None
    if result.time and present is not None and len(present):
        site = (
            result.profile.columns[result.site].words[present.index].fillna("").to_numpy(object)
            if result.site
            else 0
        )
        for every in PERIODS:
            sizes = pd.DataFrame({"site": site, "run": floor(present, every)}).groupby(["site", "run"]).size()
            if (sizes >= ENOUGH).sum() >= ENOUGH and sizes.median() >= ENOUGH:
                result.every = every
                return
    result.rows = int(np.clip(rows // 40, 10, 1000))
