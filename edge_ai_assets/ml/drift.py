"""How far readings have moved from the training data. Histograms in, a verdict out; numpy only.

A site sends histograms home, not readings. Thresholds are not fixed: real sensors differ so much from run to
run that a PSI of .1 alarms on every batch. Each feature's threshold comes from how much parts of the training
data differ from the rest of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_ai_assets.scoring.contract import Reference
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    import pandas as pd

FEWEST_BLOCKS = 3
"""With fewer there is nothing to calibrate a threshold on, and it is the floor."""


@dataclass(frozen=True)
class Verdict:
    """Whether readings drifted: `exceeded` names the features above threshold, `share` is theirs."""

    drifted: bool
    share: float
    psi: dict[str, float]
    exceeded: tuple[str, ...]


def population_stability_index(reference: np.ndarray, current: np.ndarray) -> float:
    """Population stability index of two binned samples.

    Args:
        reference: counts per bin, shape (bins,), at least one positive.
        current: counts per bin, same bins, shape (bins,).

    Returns:
        PSI >= 0, in nats; 0 when both have the same proportions but for the half counts.

    Raises:
        ValueError: shapes differ, a count is negative, or a sample is empty.

    Source: Siddiqi, Credit Risk Scorecards (2006), ch. 6; empty bins get half a count (Jeffreys).
    """
    if reference.shape != current.shape:
        raise ValueError(f"bins differ: reference {reference.shape}, current {current.shape}")
    if (reference < 0).any() or (current < 0).any() or not reference.any() or not current.any():
        raise ValueError("counts must be >= 0 and each sample must hold at least one observation")
    return float(_psi(reference, current))


def references(frame: pd.DataFrame, usecase: UseCase) -> tuple[Reference, ...]:
    """Distribution and threshold of each numeric feature in training data.

    A threshold is `drift.factor` times the largest PSI that one block of the data has against all others,
    never below `drift.floor`. A block is a run, or consecutive runs of a site that together have the
    `drift.rows` rows from which on a site is judged: short runs differ more from each other than what is
    judged does.

    Args:
        frame: training rows: `_site`, `_run` and the features; `_time` orders the runs, else they are as they
            stand.

    Returns:
        One reference a feature; none for a feature that is missing everywhere.
    """
    block = _blocks(frame, usecase.drift.rows)
    blocks = int(block.max()) + 1 if len(block) else 0
    found = []
    for feature in usecase.numbers:
        values = frame[feature.name].to_numpy(np.float64, na_value=np.nan)
        seen = ~np.isnan(values)
        if not seen.any():
            continue
        edges = _edges(values[seen], usecase.drift.bins)
        bins = len(edges) + 1
        cell = block[seen] * bins + np.searchsorted(edges, values[seen])
        counts = np.bincount(cell, minlength=blocks * bins).reshape(blocks, bins)
        found.append(
            Reference(
                name=feature.name,
                edges=tuple(edges.tolist()),
                counts=tuple(counts.sum(axis=0).tolist()),
                threshold=_threshold(counts, usecase.drift.factor, usecase.drift.floor),
            )
        )
    return tuple(found)


def histogram(values: np.ndarray, reference: Reference) -> np.ndarray:
    """Counts of values per bin of a reference, int64, shape (bins,). NaN is not counted."""
    values = np.asarray(values, np.float64)
    bins = np.searchsorted(np.asarray(reference.edges), values[~np.isnan(values)])
    return np.bincount(bins, minlength=len(reference.edges) + 1)


def judge(counts: Mapping[str, np.ndarray], references: Sequence[Reference], *, share: float) -> Verdict:
    """Compare histograms with the references.

    Args:
        counts: for each feature what `histogram` gave, or the sum over several batches. A feature that is
            left out, or was missing in every row, is not judged.
        share: drift is seen when at least this share of the judged features exceed their threshold (and at
            least one does).

    Raises:
        ValueError: a feature's counts are over other bins than its reference.
    """
    psi = {
        reference.name: population_stability_index(
            np.asarray(reference.counts), np.asarray(counts[reference.name])
        )
        for reference in references
        if reference.name in counts and np.asarray(counts[reference.name]).any()
    }
    exceeded = tuple(r.name for r in references if r.name in psi and psi[r.name] > r.threshold)
    found = len(exceeded) / len(psi) if psi else 0.0
    return Verdict(bool(exceeded) and found >= share, found, psi, exceeded)


def _psi(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """PSI over the last axis."""
    p, q = reference + 0.5, current + 0.5
    p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=-1))


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Inner edges, rising. A bin reaches from above its lower edge up to its upper edge.

    Few distinct values get a bin each and one on either side, so that a constant that changes is seen; a
    change in its last digits is not, for a value may have been float32 on its way.
    """
    distinct = np.unique(values)
    if len(distinct) > bins:
        return np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    hair = 1e-6 * max(1.0, float(np.abs(distinct).max()))
    edges = np.concatenate([[distinct[0] - hair], (distinct[1:] + distinct[:-1]) / 2, [distinct[-1] + hair]])
    return np.unique(edges)


def _threshold(counts: np.ndarray, factor: float, floor: float) -> float:
    """From counts per block and bin, shape (blocks, bins)."""
    counts = counts[counts.any(axis=1)]
    if len(counts) < FEWEST_BLOCKS:
        return floor
    return max(floor, factor * float(_psi(counts.sum(axis=0) - counts, counts).max()))


def _blocks(frame: pd.DataFrame, rows: int) -> np.ndarray:
    """Number of each row's block, 0..blocks-1."""
    run = frame.groupby(["_site", "_run"], sort=False, dropna=False).ngroup().to_numpy()
    runs = frame.assign(_rows=1).groupby(["_site", "_run"], sort=False, dropna=False, as_index=False)
    facts = runs.agg(rows=("_rows", "sum"), **({"start": ("_time", "min")} if "_time" in frame else {}))
    order = ["_site", "start"] if "start" in facts else ["_site"]
    facts = facts.sort_values(order, kind="stable")
    block_of_run = np.empty(len(facts), np.int64)
    block, filled, site = -1, rows, None
    for number, of, size in zip(facts.index, facts["_site"], facts["rows"], strict=True):
        if filled >= rows or of != site:
            block, filled, site = block + 1, 0, of
        block_of_run[number] = block
        filled += size
    return block_of_run[run]
