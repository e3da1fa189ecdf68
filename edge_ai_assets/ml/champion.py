"""Champion against challenger, on the same held-back rows. How a score is computed is `evaluation`'s."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_ai_assets.ml import evaluation
from edge_ai_assets.ml.evaluation import Scores
from edge_ai_assets.ml.training_set import TrainingSet
from edge_ai_assets.scoring.contract import ContractError
from edge_ai_assets.usecase import Gates


@dataclass(frozen=True)
class Contest:
    """Outcome of one comparison; `champion` is None when there was none."""

    challenger: Scores
    champion: Scores | None
    promoted: bool
    reason: str


def contest(candidate: Path, champion: Path, training_set: TrainingSet, gates: Gates) -> Contest:
    """Evaluate both on the held-back rows of the newest training set and decide which is to be released.

    A champion that cannot take these rows, because a feature is gone or has another kind, does not count.
    """
    rows = training_set.held_back_frame()
    challenger = evaluation.evaluate(candidate, rows)
    former, unfit = None, ""
    if champion.exists():
        if champion.resolve() == candidate.resolve():
            return Contest(challenger, challenger, False, "the candidate is already the champion")
        try:
            former = evaluation.evaluate(champion, rows)
        except ContractError as error:
            unfit = f" (the champion cannot take today's rows: {error})"
    decision = evaluation.decide(challenger, former, gates)
    return Contest(challenger, former, decision.promote, decision.reason + unfit)


def passes(scores: Scores, gates: Gates) -> bool:
    """Whether a model reaches the gates."""
    return scores.f1 >= gates.f1 and scores.false_alarm_rate <= gates.false_alarm_rate
