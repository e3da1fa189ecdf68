"""How good each release was on the sites, by the word of the people there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edge_ai_assets.returns.inbox import tables as deltas


class _Fields(msgspec.Struct, frozen=True):
    """What left of a score, as far as it is needed here."""

    predicted: bool | None = msgspec.field(name="_predicted", default=None)


def by_release(tables: Path) -> list[dict[str, Any]]:
    """Scores of each release over the feedback that came home, the release whose feedback came last at the
    end.

    Returns:
        For each release its image digest, the rows people judged, F1, false alarm rate and miss rate. People
        choose what they judge, so these are figures of that choice. Feedback without a prediction (the policy
        kept it) is left out. The last word on a score counts: last by the site's own numbers, since its clock
        may step back.
    """
    from edge_ai_assets.ml import evaluation

    words = sorted(deltas.rows(tables, "feedback"), key=lambda row: row["id"])
    last = {(row["site"], row["sequence"]): row for row in words}
    groups: dict[str, tuple[list[bool], list[bool]]] = {}
    for row in sorted(last.values(), key=lambda row: row["given_at"]):
        predicted = _predicted(row["fields"])
        if predicted is not None and row["correct"] is not None:
            truth, answers = groups[row["release"]] = groups.pop(row["release"], ([], []))
            truth.append(row["correct"])
            answers.append(predicted)
    found = []
    for release, (truth, answers) in groups.items():
        scores = evaluation.scores(truth, [float(answer) for answer in answers], 0.5)
        found.append(
            {
                "release": release,
                "rows": scores.rows,
                "f1": scores.f1,
                "false_alarm_rate": scores.false_alarm_rate,
                "miss_rate": scores.miss_rate,
            }
        )
    return found


def _predicted(fields: str) -> bool | None:
    """What the model said; None when the policy kept it, or the site signed something else under its name."""
    try:
        return msgspec.json.decode(fields, type=_Fields).predicted
    except msgspec.DecodeError:
        return None
