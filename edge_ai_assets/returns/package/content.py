"""What the policy makes of the scores and feedback that one package shall account for.

Nothing is written here. Which rows these are, and what becomes of the result, is `packing`'s work.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from edge_ai_assets.returns.egress import groups
from edge_ai_assets.returns.egress.groups import Group
from edge_ai_assets.returns.egress.policy import Histogram, Policy, Withheld
from edge_ai_assets.returns.outbox.columns import Columns
from edge_ai_assets.returns.outbox.schema import FeedbackRow, ScoreRow, Value
from edge_ai_assets.returns.package import sketches
from edge_ai_assets.returns.package.aggregates import aggregates
from edge_ai_assets.returns.package.insights import insights
from edge_ai_assets.returns.package.parts import Aggregate, Sketch, Word
from edge_ai_assets.scoring.contract import Contract

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T", float, bool, str)
Groups = defaultdict[tuple[str, str], Group]
"""By release and feature."""


class Content:
    """What leaves, and what stays and why.

    Args:
        policy: says what may leave.
        contracts: by release; without one, derived inputs and histograms stay.
    """

    def __init__(self, policy: Policy, contracts: Mapping[str, Contract]) -> None:
        self._policy, self._contracts = policy, contracts
        self.insights: pa.Table = insights([])
        """As in parts.INSIGHTS, in order of their sequences, with `fields` as a struct."""
        self.words: list[Word] = []
        self.histograms: list[Histogram] = []
        self.aggregates: list[Aggregate] = []
        self.sketches: list[Sketch] = []
        self.withheld: defaultdict[str, list[int]] = defaultdict(list)
        self.broken: defaultdict[str, list[int]] = defaultdict(list)
        """Scores that cannot be read, by reason."""
        self.withheld_feedback: defaultdict[str, list[int]] = defaultdict(list)
        self.notes_dropped = 0
        self._counted: list[Columns] = []

    def __bool__(self) -> bool:
        """Whether anything leaves."""
        return bool(self.packed or self.words or self.histograms or self.aggregates or self.sketches)

    @property
    def sequences(self) -> list[int]:
        """Of the scores that are packed or withheld."""
        return [one for scores in self._counted for one in scores.sequences.tolist()]

    @property
    def packed(self) -> list[int]:
        """Of the insights."""
        return list(self.insights.column("sequence").to_numpy().tolist())

    @property
    def reasons(self) -> dict[str, int]:
        """How many scores and feedback stay, by reason."""
        found: Counter[str] = Counter()
        for held in (self.withheld, self.withheld_feedback):
            found.update({reason: len(numbers) for reason, numbers in held.items()})
        return dict(found)

    def add_scores(self, parts: Iterable[Columns], window_minutes: int) -> None:
        """Apply the policy to the scores of a package, all at once and after its feedback: some of what
        leaves is of all of them, and must not tell of those that stay."""
        found_in: Groups = defaultdict(Group)
        watched = sorted(self._policy.counted | self._policy.sketched)
        spoken = {word.sequence for word in self.words}
        leave = []
        for scores in parts:
            self._counted.append(scores)
            alone = groups.leaves(scores, self._policy.egress.kinds, spoken)
            for feature in watched:
                if feature in scores.inputs:  # else it is kept out
                    found_in[scores.release, feature].add(
                        self._policy.numbers(feature, scores.inputs[feature]),
                        alone if feature in self._policy.in_rows else np.zeros(len(scores), bool),
                    )
            values = self._policy.columns(scores, self._contracts.get(scores.release))
            if isinstance(values, Withheld):
                self.withheld[values.reason] += scores.sequences.tolist()
            else:
                leave.append((scores, values))
        self.insights = insights(leave)
        releases = {scores.release for scores in self._counted}
        references = {name: self._contracts[name].references for name in releases & self._contracts.keys()}
        self.histograms = self._policy.histograms(found_in, references)
        self.aggregates = aggregates(self._counted, self._policy, window_minutes, spoken)
        self.sketches = list(_sketches(found_in, self._policy))

    def add_feedback(self, item: FeedbackRow, row: ScoreRow | None) -> None:
        """Apply the policy to feedback and the score it is about; None if that is no longer kept.

        Raises:
            RuntimeError: the scores were added before: what leaves of all of them hangs on what feedback lets
                out.
        """
        if self._counted:
            raise RuntimeError("feedback was added after scores, it must come before them")
        if row is None:
            self.withheld_feedback["its score is no longer kept"].append(item.id)
            return
        try:
            values = self._policy.feedback(row, item, self._contracts.get(row.release))
        except ValueError as error:
            values = Withheld(f"its score: {error}")
        if isinstance(values, Withheld):
            self.withheld_feedback[values.reason].append(item.id)
        else:
            self.words.append(_word(row, item, values))
            self.notes_dropped += item.note is not None and self.words[-1].note is None


def _sketches(found: Groups, policy: Policy) -> Iterable[Sketch]:
    """Of the values as the policy lets them out, since a sketch holds some of them; no small group."""
    for (release, feature), group in sorted(found.items(), key=itemgetter(0)):
        told = group.told(policy.egress.minimum_group_size)
        if feature in policy.sketched and told:
            yield Sketch(release, feature, len(told), sketches.K, sketches.make(np.array(told)))


def _word(row: ScoreRow, item: FeedbackRow, values: dict[str, Value]) -> Word:
    return Word(
        id=item.id,
        sequence=row.sequence,
        given_at=item.given_at,
        release=row.release,
        correct=_column(values, "_correct", bool),
        note=_column(values, "_note", str),
        role=_column(values, "_role", str),
        fields=values,
    )


def _column(values: dict[str, Value], name: str, kind: type[T]) -> T | None:
    """Take a value that has a column of its own; a number's pseudonym has none and stays among the fields."""
    value = values.get(name)
    if value is not None and not isinstance(value, kind):
        return None
    values.pop(name, None)
    return value
