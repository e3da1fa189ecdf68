"""Pictures for a reader of the asset graph, as PNG. What they show is computed elsewhere."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_ai_assets.ml.drift import Verdict
from edge_ai_assets.ml.evaluation import Scores
from edge_ai_assets.scoring.contract import Reference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8C8C8C"
"""Of Okabe and Ito's palette, which every kind of colour vision tells apart."""
BESIDE_BAR: dict[str, Any] = {
    "xytext": (4, 0),
    "textcoords": "offset points",
    "va": "center",
    "fontsize": 8,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5},
}
UNDER_TITLE: dict[str, Any] = {"color": "#595959", "fontsize": 8, "ha": "center", "va": "bottom"}
MOST_FEATURES = 20
"""Bars of the drift picture; of more features those highest above their thresholds are shown."""


def confusion(scores: Scores) -> bytes:
    """Confusion matrix with counts and, in each row, shares."""
    from matplotlib.figure import Figure

    tn, fp, fn, tp = scores.confusion
    counts = np.array([[tn, fp], [fn, tp]])
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    figure = Figure(figsize=(4.2, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = float(shares[row, column])
        axes.text(
            *(column, row, f"{count:,}\n{share:.1%}"),
            ha="center",
            va="center",
            color="white" if share > 0.5 else "black",
        )
    axes.set_xticks([0, 1], ["normal", "fault"])
    axes.set_yticks([0, 1], ["normal", "fault"], rotation=90, va="center")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(
        f"F1 {scores.f1:.3f}, false alarm rate {scores.false_alarm_rate:.3f}\n{scores.rows:,} rows",
        fontsize=10,
    )
    axes.spines[:].set_visible(False)
    return _png(figure)


def drift(
    site: str, verdict: Verdict, references: Sequence[Reference], counts: Mapping[str, np.ndarray]
) -> bytes:
    """Each judged feature's PSI as a multiple of its threshold; those above it in another colour."""
    from matplotlib.figure import Figure

    judged = [reference for reference in references if reference.name in verdict.psi]
    judged.sort(key=lambda reference: _ratio(verdict, reference))
    judged = judged[-MOST_FEATURES:]
    ratios = [_ratio(verdict, reference) for reference in judged]
    over = [reference.name in verdict.exceeded for reference in judged]
    figure = Figure(figsize=(6.4, 1.6 + 0.3 * max(1, len(judged))), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(judged)), ratios, color=[ORANGE if above else BLUE for above in over], height=0.7)
    for at, (ratio, reference) in enumerate(zip(ratios, judged, strict=True)):
        axes.annotate(f"{verdict.psi[reference.name]:.2f}", (ratio, at), **BESIDE_BAR)
    axes.set_yticks(range(len(judged)), [_short(reference.name) for reference in judged])
    axes.axvline(1, color=GREY, linestyle="--", linewidth=1, zorder=0)
    axes.text(1, 1, "threshold", transform=axes.get_xaxis_transform(), **UNDER_TITLE)
    axes.set_xlim(0, 1.15 * max(1.2, *ratios, 0))
    axes.set_xlabel("stability index (at the bar), in multiples of its threshold")
    rows = max((int(np.sum(values)) for values in counts.values()), default=0)
    said = "drift" if verdict.drifted else "no drift"
    axes.set_title(
        f"{_short(site)}, {said}: {len(verdict.exceeded)} of {len(verdict.psi)} features above threshold\n"
        f"{rows:,} recent rows against the training data",
        fontsize=10,
        pad=16,
    )
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _ratio(verdict: Verdict, reference: Reference) -> float:
    return verdict.psi[reference.name] / max(reference.threshold, 1e-9)


def _short(name: str) -> str:
    # A dollar sign would start mathematics.
    return (name if len(name) <= 32 else f"{name[:31]}…").replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=130)
    return written.getvalue()
