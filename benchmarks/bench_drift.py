"""Drift of 1,000,000 rows by 10 features: `ml.drift` against pandas and against SciPy.

- pandas: `cut` over the same edges and `value_counts`, then the same index: what one writes without thinking.
  The counts are checked to be equal.
- SciPy: the two-sample Kolmogorov-Smirnov test a column, the usual alternative. It needs the training rows
  themselves (100,000 of them here), where histograms need 10 numbers a feature: it could not be run on Azure
  about readings that stay on a site.

Why: drift is looked at whenever packages arrive, and a site counts every score it sends counts of.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from measure import side_by_side, tell
from scipy import stats

from edge_ai_assets import usecase as usecases
from edge_ai_assets.ml import drift
from edge_ai_assets.scoring.contract import Reference

ROWS, TRAINING_ROWS, FEATURES = 1_000_000, 100_000, 10
NAMES = [f"sensor {number}" for number in range(FEATURES)]
USECASE = f"""
name: bench
runs: {{column: run}}
label: {{column: fault, positive: [1]}}
features: [{", ".join(f"{{name: {name}}}" for name in NAMES)}]
sites: [{{name: bergen}}]
"""


def main() -> None:
    rng = np.random.default_rng(1)
    # Column by column, as they come from Parquet.
    training = pd.DataFrame({name: rng.normal(size=TRAINING_ROWS) for name in NAMES})
    current = pd.DataFrame({name: rng.normal(0.3, 1.1, size=ROWS) for name in NAMES})
    labelled = training.assign(_site="bergen", _run=np.arange(TRAINING_ROWS) // 1000)
    references = drift.references(labelled, usecases.loads(USECASE))
    # Otherwise the comparison would not be of the same thing.
    assert ours(current, references) == plain_pandas(current, references)

    seconds = side_by_side(
        {
            "ours": lambda: ours(current, references),
            "pandas": lambda: plain_pandas(current, references),
            "ks": lambda: kolmogorov_smirnov(training, current),
        },
        rounds=7,
    )
    tell(
        "drift",
        {f"{name}_seconds": value for name, value in seconds.items()} | {"rows": ROWS, "features": FEATURES},
        {
            "pandas_to_ours": seconds["pandas"] / seconds["ours"],
            "ks_to_ours": seconds["ks"] / seconds["ours"],
        },
    )


def ours(frame: pd.DataFrame, references: tuple[Reference, ...]) -> dict[str, float]:
    counts = {item.name: drift.histogram(frame[item.name].to_numpy(), item) for item in references}
    return rounded(drift.judge(counts, references, share=0.5).psi)


def plain_pandas(frame: pd.DataFrame, references: tuple[Reference, ...]) -> dict[str, float]:
    found = {}
    for item in references:
        bins = pd.cut(frame[item.name], [-np.inf, *item.edges, np.inf], labels=False)
        counts = bins.value_counts().reindex(range(len(item.counts)), fill_value=0)
        p, q = np.asarray(item.counts) + 0.5, counts.to_numpy() + 0.5
        p, q = p / p.sum(), q / q.sum()
        found[item.name] = float(((q - p) * np.log(q / p)).sum())
    return rounded(found)


def kolmogorov_smirnov(training: pd.DataFrame, current: pd.DataFrame) -> list[float]:
    return [
        float(stats.ks_2samp(training[name].to_numpy(), current[name].to_numpy(), method="asymp").pvalue)
        for name in NAMES
    ]


def rounded(found: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 9) for name, value in found.items()}


if __name__ == "__main__":
    main()
