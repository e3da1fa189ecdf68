"""The model card: what a model was trained on, how good it is and where its limits lie, on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_ai_assets.ml.training import Candidate
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    import pandas as pd


def model_card(candidate: Candidate, usecase: UseCase, frame: pd.DataFrame) -> str:
    """Markdown; the same candidate and training set give the same text."""
    contract, cv = candidate.contract, candidate.cv
    train = frame[frame["_split"] == "train"] if "_split" in frame else frame
    sites = sorted(train["_site"].dropna().astype(str).unique())
    lines = [f"# Model card: {usecase.name}", "", usecase.description, ""]
    if usecase.simulated:
        lines += ["**Trained on simulated readings; no real plant is behind it.**", ""]
    lines += [
        "## Data",
        "",
        f"- {candidate.rows} labelled rows of {candidate.runs} runs, sites {', '.join(sites)}"
        f"{_period(train)}.",
        *([f"- Of these, {_feedback(train)} rows are feedback from sites."] if _feedback(train) else []),
        f"- {len(frame) - len(train)} rows of other, later runs were held back to judge it.",
        f"- Positive: column `{usecase.label.column}`; {int(train['_label'].fillna(False).sum())} rows.",
        "",
        "## Model",
        "",
        f"- {usecase.estimator.name}, parameters "
        f"{usecase.estimator.parameters or 'as scikit-learn has them'}.",
        f"- {len(contract.inputs)} inputs from {len(usecase.features)} features; a score of at least "
        f"{contract.threshold:.4g} is a fault.",
        "",
        "## Quality",
        "",
    ]
    if cv:
        lines += [
            f"- Cross-validation by run: F1 {cv.f1:.3f}, false alarm rate {cv.false_alarm_rate:.3f}, "
            f"miss rate {cv.miss_rate:.3f}, ROC AUC {cv.roc_auc:.3f}. The threshold was chosen on them, "
            "flattering F1; the champion's gate judges on held-back runs.",
        ]
    lines += [f"- {note}" for note in candidate.notes]
    lines += [
        "",
        "## Limits",
        "",
        "- It knows the kinds of faults it was shown. A fault of another kind may well be missed.",
        "- Outside the ranges of its training data (marked with every score) it extrapolates.",
        "- It is retrained when the sites' readings drift; until then its figures do not hold for them.",
    ]
    if usecase.windows.baseline_rows:
        lines.append(
            f"- The first {usecase.windows.baseline_rows} rows of a run are taken as normal and not scored: "
            "a fault that is there from the start is not seen."
        )
    return "\n".join(lines) + "\n"


def _period(frame: pd.DataFrame) -> str:
    known = frame["_time"].dropna() if "_time" in frame else frame["_run"].iloc[:0]
    return f", {known.min():%Y-%m-%d} to {known.max():%Y-%m-%d}" if len(known) else ""


def _feedback(frame: pd.DataFrame) -> int:
    return int((frame["_origin"] == "feedback").sum()) if "_origin" in frame else 0
