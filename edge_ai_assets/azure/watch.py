"""How far the sites' readings have moved from what the champion was trained on, from the histograms and
sketches that came home."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from edge_ai_assets.delivery import pack
from edge_ai_assets.home import Home
from edge_ai_assets.returns.inbox import tables
from edge_ai_assets.scoring import contract as contracts
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    import numpy as np

    from edge_ai_assets.ml.drift import Verdict
    from edge_ai_assets.scoring.contract import Reference

RELEASE = "release_looked_at"
"""Metadata of global/drift: the image digest of the release it is about."""
SITES = "sites_that_drift"
"""Metadata of global/drift: their names."""


@dataclass(frozen=True)
class SiteDrift:
    """One site's recent readings against the training data."""

    name: str
    rows: int
    counts: dict[str, np.ndarray]
    references: tuple[Reference, ...]
    verdict: Verdict

    @property
    def nearest(self) -> tuple[str, float]:
        """The feature furthest above its threshold, or nearest below, and its index in multiples of that
        threshold."""
        psi = self.verdict.psi
        judged = [r for r in self.references if r.name in psi]
        multiples = {r.name: psi[r.name] / max(r.threshold, 1e-9) for r in judged}
        return max(multiples.items(), key=lambda item: item[1], default=("", 0.0))


def champion_release(home: Home) -> str | None:
    """Image digest of the newest release; None when there is none."""
    newest = pack.newest(home.registry, home.keys)
    return newest.image if newest else None


def drift(home: Home, usecase: UseCase) -> list[SiteDrift]:
    """Judge each site that sent enough readings scored by the newest release; by name."""
    from edge_ai_assets.ml import drift as drifts

    newest = pack.newest(home.registry, home.keys)
    if newest is None:
        return []
    # Of the model that was released, not of the champion: the next one may be that already, with other bins.
    references = contracts.read(home.trained(newest.run_id) / "contract.json").references
    bins = {reference.name: reference for reference in references}
    rows = _newest_first(home, newest.image)
    sums: defaultdict[str, dict[str, np.ndarray]] = defaultdict(dict)
    # Newest first, and only until there are rows enough: drift is about now, not about all time.
    for (site, _), package in groupby(rows, key=lambda row: (row["site"], row["package"])):
        if _seen(sums[site]) < usecase.drift.rows:
            for row in package:
                if (reference := bins.get(row["feature"])) is None:
                    continue
                binned = _counts(row, reference)
                if len(binned) == len(reference.counts):  # other bins say nothing about these
                    sums[site][reference.name] = sums[site].get(reference.name, 0) + binned
    found = []
    for site, counts in sorted(sums.items()):
        seen = _seen(counts)
        if seen >= usecase.drift.rows:
            verdict = drifts.judge(counts, references, share=usecase.drift.share)
            found.append(SiteDrift(site, seen, counts, references, verdict))
    return found


def feedback_rows(home: Home, sites: list[str]) -> int:
    """How often people on these sites said what was right of a score by the newest release."""
    release = champion_release(home)
    if release is None:
        return 0
    return sum(
        row["site"] in sites for row in tables.rows(home.tables, "feedback", ["site"], release=release)
    )


def _newest_first(home: Home, release: str) -> list[dict[str, Any]]:
    """Rows of histograms and sketches by site, each site's newest package first. What a histogram says of a
    feature in a package goes before what a sketch says: it is exact."""
    found = {
        (row["site"], -row["package"], row["feature"]): row
        for name in ("sketches", "histograms")
        for row in tables.rows(home.tables, name, release=release)
    }
    return [found[key] for key in sorted(found)]


def _counts(row: dict[str, Any], reference: Reference) -> np.ndarray:
    """Rows per bin of the reference, from a histogram's row or a sketch's."""
    import numpy as np

    from edge_ai_assets.returns.package import sketches

    if "counts" in row:
        return np.asarray(row["counts"], np.int64)
    return sketches.counts(row["sketch"], reference.edges)


def _seen(counts: dict[str, np.ndarray]) -> int:
    """Rows in these histograms: those of the feature that has most."""
    return max((int(values.sum()) for values in counts.values()), default=0)
