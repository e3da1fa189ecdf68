"""What the columns of an unknown file are for: time, site, run, label, features, and what is better left out.

Guesses, each with its reason, for a person to check in the drafted YAML. Writing that is `draft`'s work.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from edge_ai_assets.readings import clock, histories, labels
from edge_ai_assets.readings.files import stem
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
    """The column that names the site, if one does."""
    run: str | None
    label: labels.LabelGuess
    features: list[Column] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    every: str | None = None
    rows: int | None = None
    history: float = 0.5
    history_doubt: str = ""
    places: list[str] = field(default_factory=list)
    """Sites as folders or files are named, when those tell sites apart and no column does."""
    doubts: list[str] = field(default_factory=list)
    """What should be checked and belongs to no single line."""


def guess(path: Path) -> Guess:
    """Look at a CSV or Parquet file, or a folder of them.

    Raises:
        ReadingsError: a file cannot be read, or there is no column to learn from.
    """
    seen = profile(path)
    columns = seen.columns
    found = clock.find(columns)
    time, stamps = found if found else (None, None)
    taken = set(time.columns) if time else set()
    free = {name: column for name, column in columns.items() if name not in taken}
    site = _first(free, SITE, min(MOST_SITES, max(1, seen.rows // ENOUGH)))
    run = _first(free, RUN, seen.rows // 5)
    doubts: list[str] = []
    places = _places(seen, stamps) if not site else None
    keys = [columns[name].words for name in (site, run) if name]
    if places is not None:
        keys.append(places)
    if time and stamps is not None and _repeats(stamps, keys) > 0.03:
        parallel = None if site or places is not None else _telling_apart(stamps, free, keys)
        if parallel:
            site = parallel
            doubts.append(f"times repeat, but not within one value of {site!r}: is it the site?")
        else:
            shown = " ".join(time.columns)
            doubts.append(f"times in {shown!r} repeat, so rows are taken in file order instead")
            time = stamps = None
    # Time columns stay taken even when the time was given up: they are no features.
    free = {name: column for name, column in free.items() if name not in (site, run)}
    if not free:
        raise ReadingsError(f"{path}: no column is left for a label; a use case needs one and a feature")
    label = labels.find(free)
    result = Guess(seen, time, site, run, label, doubts=doubts)
    result.places = sorted(places.unique().tolist()) if places is not None else []
    result.left_out |= {name: f"it holds {kind}" for name, kind in seen.unreadable.items()}
    result.left_out |= {name: "a time" for name in taken if not time}
    _features(result, free)
    sites = columns[site].words.fillna("") if site else places
    if not run:
        _periods(result, stamps, sites)
    result.history, result.history_doubt = histories.share(
        labels.is_positive(columns[label.column], label), sites, _runs(result, stamps), stamps
    )
    return result


def _places(seen: Profile, stamps: pd.Series | None) -> pd.Series | None:
    """The folder's or else the file's name, by row, when files with different names were written at once.

    Files that follow each other in time are parts of one log; without a time only folders tell sites apart.
    """
    folders = [path.parent.name if path.parent != seen.path else "" for path in seen.files]
    for names in (folders, [stem(path) for path in seen.files]):
        if not 1 < len(set(names)) <= MOST_SITES or "" in names:
            continue
        rows = pd.Series(names, dtype="str").iloc[seen.file].reset_index(drop=True)
        if stamps is None:
            return rows if names is folders else None
        spans = stamps.groupby(rows).agg(["min", "max"]).sort_values("min")
        if (spans["min"].iloc[1:].to_numpy() < spans["max"].iloc[:-1].to_numpy()).mean() > 0.5:
            return rows
    return None


def _runs(result: Guess, stamps: pd.Series | None) -> pd.Series:
    """Each row's run, as the guessed use case will cut them."""
    if result.run:
        return result.profile.columns[result.run].words.fillna("")
    if result.every and stamps is not None:
        runs = pd.Series("", index=stamps.index, dtype=object)
        runs[stamps.notna()] = floor(stamps.dropna(), result.every)
        return runs
    return pd.Series(np.arange(result.profile.rows) // (result.rows or 1)).astype(str)


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


def _periods(result: Guess, stamps: pd.Series | None, sites: pd.Series | None) -> None:
    """A period with enough runs of enough rows, or else blocks of rows."""
    rows = result.profile.rows
    present = stamps.dropna() if stamps is not None else None
    if result.time and present is not None and len(present):
        site = sites[present.index].to_numpy(object) if sites is not None else 0
        for every in PERIODS:
            sizes = pd.DataFrame({"site": site, "run": floor(present, every)}).groupby(["site", "run"]).size()
            if (sizes >= ENOUGH).sum() >= ENOUGH and sizes.median() >= ENOUGH:
                result.every = every
                return
    result.rows = int(np.clip(rows // 40, 10, 1000))
