"""What is remembered from chunk to chunk of one file: run names, positions in runs, times already seen."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from edge_ai_assets.usecase import Runs


class Codes:
    """Small integers for pairs of texts, the same over all chunks."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], int] = {}

    def of(self, first: Iterable[str], second: Iterable[str]) -> np.ndarray:
        """Codes of the pairs, int64, shape (n,)."""
        (left, firsts), (right, seconds) = (_factorized(texts) for texts in (first, second))
        local, distinct = pd.factorize(left * max(1, len(seconds)) + right)
        pairs = [(firsts[pair // len(seconds)], seconds[pair % len(seconds)]) for pair in distinct.tolist()]
        known = [self._codes.setdefault(pair, len(self._codes)) for pair in pairs]
        return np.asarray(np.array(known, np.int64)[local])

    def __len__(self) -> int:
        return len(self._codes)


class Counter:
    """Positions of rows within their group, counted on over all chunks."""

    def __init__(self) -> None:
        self._counts = np.zeros(0, np.int64)

    def positions(self, codes: np.ndarray) -> np.ndarray:
        """Position of each row in its group, from 0; int64, shape (n,)."""
        size = int(codes.max(initial=-1)) + 1
        self._counts = _grown(self._counts, size, 0)
        positions = self._counts[codes] + pd.Series(codes).groupby(codes).cumcount().to_numpy()
        self._counts += np.bincount(codes, minlength=len(self._counts))
        return np.asarray(positions)


class Seen:
    """Which (group, time) pairs came before. Exact; 16 bytes a row, and no search while times rise."""

    def __init__(self) -> None:
        self._latest = np.zeros(0, np.int64)
        self._past: list[pd.DataFrame] = []

    def repeated(self, codes: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Mask of rows whose pair came before, in this chunk or an earlier one; remembers the others."""
        pairs = pd.DataFrame({"code": codes, "time": times.astype("datetime64[us]").astype(np.int64)})
        repeated = pairs.duplicated().to_numpy(copy=True)
        self._latest = _grown(self._latest, int(codes.max(initial=-1)) + 1, np.iinfo(np.int64).min)
        back = pairs[(pairs["time"].to_numpy() <= self._latest[codes]) & ~repeated]
        for past in self._past if len(back) else ():
            near = past[past["time"].between(back["time"].min(), back["time"].max())]
            repeated[back.index[pd.MultiIndex.from_frame(back).isin(pd.MultiIndex.from_frame(near))]] = True
        np.maximum.at(self._latest, codes, pairs["time"].to_numpy())
        self._past.append(pairs[~repeated])
        return repeated


class RunNames:
    """Names of runs that no column gives: periods of time, or blocks of rows within a site."""

    def __init__(self, runs: Runs, stem: str) -> None:
        self._runs, self._stem = runs, stem
        self._sites, self._rows = Codes(), Counter()

    def of(self, sites: np.ndarray, times: pd.Series) -> np.ndarray:
        """Names of the runs, object, shape (n,)."""
        if self._runs.every:
            return floor(times, self._runs.every)
        positions = self._rows.positions(self._sites.of(sites, [""] * len(sites)))
        blocks, distinct = pd.factorize(positions // (self._runs.rows or 1))
        return np.array([f"{self._stem}-{block:05d}" for block in distinct], dtype=object)[blocks]


def _factorized(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray | pd.Index]:
    # A Series of `str` is Arrow's, which takes a tenth of the time that objects take.
    values = texts if isinstance(texts, pd.Series) else np.asarray(texts, dtype=object)
    return pd.factorize(values, use_na_sentinel=False)


def floor(times: pd.Series, every: str) -> np.ndarray:
    """When each time's period (`1d`, `6h`, …, from 1970) began, as ISO 8601 text; object, shape (n,)."""
    step = int(pd.Timedelta(every.replace("d", "D")).total_seconds()) * 1_000_000
    starts = times.to_numpy("datetime64[us]").astype(np.int64) // step * step
    codes, distinct = pd.factorize(starts)
    return distinct.astype("datetime64[us]").astype("datetime64[s]").astype(str).astype(object)[codes]


def _grown(values: np.ndarray, size: int, fill: int) -> np.ndarray:
    if size <= len(values):
        return values
    return np.concatenate([values, np.full(max(size, 2 * len(values)) - len(values), fill, values.dtype)])
