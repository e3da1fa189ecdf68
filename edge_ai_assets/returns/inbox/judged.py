"""How good each release was on the sites, by the word of the people there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge_ai_assets.returns.inbox import tables as deltas


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
        predicted = json.loads(row["fields"]).get("_predicted")
        if predicted is not None and row["correct"] is not None:
            truth, answers = groups[row["release"]] = groups.pop(row["release"], ([], []))
            truth.append(row["correct"])
            answers.append(bool(predicted))
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
