"""The egress policy: which values of a score may leave the site, and how. Deny by default.

The only way from the outbox into a package leads through `Policy`. It decides on values; it writes nothing. A
value that is not what its field declares (text where a number belongs, a category nobody listed, no ISO time)
leaves as null: it could carry anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import msgspec
import numpy as np

from edge_ai_assets.returns.egress import rules
from edge_ai_assets.returns.egress.groups import Group, told_apart
from edge_ai_assets.returns.egress.rules import Rule
from edge_ai_assets.returns.outbox import columns
from edge_ai_assets.returns.outbox.columns import Column, Columns
from edge_ai_assets.returns.outbox.schema import FeedbackRow, ScoreRow, Value, decode
from edge_ai_assets.scoring.contract import Contract, Reference
from edge_ai_assets.usecase import UseCase

SMALL_CELL = 5
"""Fewer rows than that, but some, can be told from no histogram."""


class Withheld(msgspec.Struct, frozen=True):
    """The record stays on the site."""

    reason: str


class Histogram(msgspec.Struct, frozen=True):
    """How often a feature's values fell into the bins of a release's reference, without what is hidden."""

    release: str
    feature: str
    rows: int
    """The sum of the counts: with what is hidden in it, that could be told."""
    counts: tuple[int, ...]


class Policy:
    """A use case's egress part, applied.

    Args:
        usecase: declares kinds, fields, notes and the smallest group.
        site_key: secret of this site, at least 16 bytes; pseudonyms are made with it and it never leaves.

    Raises:
        ValueError: the key is too short.
    """

    def __init__(self, usecase: UseCase, site_key: bytes) -> None:
        if len(site_key) < 16:
            raise ValueError(f"the site key has {len(site_key)} bytes, pseudonyms need at least 16")
        self.usecase = usecase
        self.egress = usecase.egress
        self._key = site_key
        self._fields = {field.name: field for field in self.egress.fields}
        self._features = {feature.name: feature for feature in usecase.features}
        self._own = {
            name: self._rule(name, name)
            for name, field in self._fields.items()
            if name.startswith("_") and field.leaves != "aggregated"
        }
        self._rules_of: tuple[Contract | None, dict[str, Rule]] = None, self._rules(None)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the egress part's canonical JSON: the order in which it lists things does not matter.

        With each listed category go the values that it may have: they are what leaves of it.
        """
        part = self.egress.model_dump(mode="json")
        for field in part["fields"]:
            feature = self._features.get(field["name"])
            if feature and feature.categories and field["leaves"] == "as_is":
                field["values"] = feature.categories
            if "values" in field:
                field["values"] = sorted(field["values"])
        part["fields"] = sorted(part["fields"], key=lambda field: field["name"])
        part["kinds"], part["notes"] = sorted(part["kinds"]), sorted(part["notes"])
        return hashlib.sha256(json.dumps(part, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def columns(self, scores: Columns, contract: Contract | None = None) -> dict[str, Column] | Withheld:
        """What of classified scores may leave.

        Args:
            scores: of one kind.
            contract: of the release that scored them; without one, derived inputs stay.

        Returns:
            Columns by input name and, if listed, _time, _run, _asset, _score, _predicted; in an array NaN is
            null. Or why all of them stay. An input that the records have not, as one that their release does
            not keep, is not among them.
        """
        if scores.kind not in self.egress.kinds:
            return Withheld(f"kind {scores.kind} is not listed")
        return self._values(scores, contract)

    def row(self, row: ScoreRow, contract: Contract | None = None) -> dict[str, Value] | Withheld:
        """The same of one score, as values.

        Raises:
            ValueError: the record cannot be read.
        """
        found = self.columns(_alone(row), contract)
        return found if isinstance(found, Withheld) else _only(found)

    def feedback(
        self, row: ScoreRow, feedback: FeedbackRow, contract: Contract | None = None
    ) -> dict[str, Value] | Withheld:
        """What of a user's word on a score may leave: what `row` lets out, _correct, _note and _role.

        The score's own kind need not be listed. A note that `egress.notes` does not list leaves as None.
        """
        if "feedback" not in self.egress.kinds:
            return Withheld("kind feedback is not listed")
        note = feedback.note if feedback.note in self.egress.notes else None
        given: dict[str, Column] = {
            "_correct": [bool(feedback.correct)],
            "_note": [note],
            "_role": [feedback.role],
        }
        return _only(self._values(_alone(row), contract) | self._leave(given))

    def histograms(
        self,
        groups: Mapping[tuple[str, str], Group],
        references: Mapping[str, Iterable[Reference]],
    ) -> list[Histogram]:
        """Counts of values over the reference bins, small cells suppressed; none without kind `histogram`.

        Values that leave in rows anyway are counted as they are: they tell nothing new, and can be taken
        away from the counts. So it is those that stay which are protected. If 1 to SMALL_CELL - 1 of them are
        in a cell, they are not counted there nor in the total. If that hides fewer than SMALL_CELL in all,
        those of the cell with the next fewest are not counted either: the rows of another feature, or the
        manifest's counts, may tell how many are hidden here. If fewer than `minimum_group_size` that stay
        would be counted, none is, and a group of fewer than that in all does not leave. Missing values are no
        cell: how many are missing says nothing of any reading, hiding it would cost a cell of readings
        whenever a sensor drops out, and that a sensor drops out should be seen.

        Args:
            groups: by release and feature, of all scored rows whatever their kind.
            references: by release.
        """
        found = []
        for release, listed in sorted(references.items()):
            for reference in listed:
                group = groups.get((release, reference.name))
                if group is None or reference.name not in self.counted:
                    continue
                counts = _counted(np.array(group.leave, np.float64), reference)
                stay = _suppressed(_counted(np.array(group.stay, np.float64), reference))
                if not told_apart(int(stay.sum()), self.egress.minimum_group_size):
                    counts = counts + stay
                if (rows := int(counts.sum())) >= self.egress.minimum_group_size:
                    found.append(
                        Histogram(release, reference.name, rows, tuple(int(count) for count in counts))
                    )
        return found

    @cached_property
    def counted(self) -> frozenset[str]:
        """Numeric features whose counts may leave: all that are listed. None without kind `histogram`."""
        return frozenset(self._listed_numbers if "histogram" in self.egress.kinds else ())

    @cached_property
    def sketched(self) -> frozenset[str]:
        """Numeric features whose sketches may leave: those that leave as they are or rounded, since a sketch
        holds values of single rows. None without kind `sketch`."""
        return self.in_rows if "sketch" in self.egress.kinds else frozenset()

    @cached_property
    def in_rows(self) -> frozenset[str]:
        """Numeric features that leave with each row that does: as they are or rounded."""
        return frozenset(
            name for name in self._listed_numbers if self._fields[name].leaves in ("as_is", "rounded")
        )

    @cached_property
    def outside_counts(self) -> bool:
        """Whether it may leave how many rows are outside the range of training: any number may be why."""
        return len(self._listed_numbers) == len(self.usecase.numbers)

    @cached_property
    def told_by_run(self) -> int | None:
        """Fewest scores of a run of which lineage may tell how many are anomalies; None if it may of none.

        Anomalies have to leave as rows anyway: lineage does not know which other rows leave by themselves.
        """
        told = {"aggregate", "anomaly"} <= set(self.egress.kinds)
        return self.egress.minimum_group_size if told else None

    def listed(self, name: str) -> bool:
        """Whether a field is listed, if only as `aggregated`."""
        return name in self._fields

    def assets(self, scores: Columns) -> Sequence[Value] | None:
        """The plant asset of each score as it leaves in a row; None if none leaves."""
        rule = self._own.get("_asset")
        return rules.listed(rule(scores.asset)) if rule else None

    def numbers(self, name: str, values: Column) -> np.ndarray:
        """Numbers of a listed field as they go into what leaves of many rows: rounded as in a row, as they
        are when it is `aggregated`; NaN where there is no finite number. float64, shape (rows,)."""
        return rules.numbers(self._fields[name].digits, values)

    @cached_property
    def _listed_numbers(self) -> list[str]:
        return [
            feature.name
            for feature in self.usecase.numbers
            if feature.name in self._fields and self._fields[feature.name].leaves != "pseudonymised"
        ]

    def _values(self, scores: Columns, contract: Contract | None) -> dict[str, Column]:
        if contract is not self._rules_of[0]:
            self._rules_of = contract, self._rules(contract)
        found = self._rules_of[1]
        own: dict[str, Column] = {
            "_time": scores.time,
            "_run": scores.run,
            "_asset": scores.asset,
            "_score": scores.scores,
            "_predicted": scores.predicted.tolist(),
        }
        leaves = {name: found[name](values) for name, values in scores.inputs.items() if name in found}
        return leaves | self._leave(own)

    def _leave(self, own: Mapping[str, Column]) -> dict[str, Column]:
        """What of our own fields leaves in rows, by column."""
        return {name: self._own[name](values) for name, values in own.items() if name in self._own}

    def _rules(self, contract: Contract | None) -> dict[str, Rule]:
        """For each input that leaves in rows, how. A feature leaves by its own rule whatever a contract says,
        and no input has a name of ours."""
        bases = {item.name: item.base for item in contract.inputs} if contract else {}
        bases |= {name: name for name in self._features}
        return {
            name: self._rule(name, base)
            for name, base in bases.items()
            if not name.startswith("_")
            and base in self._features.keys() & self._fields.keys()
            and self._fields[base].leaves != "aggregated"
        }

    def _rule(self, name: str, base: str) -> Rule:
        return rules.of(self._fields[base], self._features.get(base), name, self._key)


def _alone(row: ScoreRow) -> Columns:
    record = decode(row)
    return columns.of_records(row.release, row.kind, tuple(record.inputs), [(row, record)])


def _only(found: Mapping[str, Column]) -> dict[str, Value]:
    """The values of one score."""
    return {name: rules.listed(values)[0] for name, values in found.items()}


def _counted(numbers: np.ndarray, reference: Reference) -> np.ndarray:
    from edge_ai_assets.ml.drift import histogram

    return np.asarray(histogram(numbers, reference))


def _suppressed(counts: np.ndarray) -> np.ndarray:
    """Small cells as 0, and with them the smallest other one if they hide too few rows by themselves."""
    left = np.where(counts < SMALL_CELL, 0, counts)
    if 0 < counts.sum() - left.sum() < SMALL_CELL:
        left[np.where(left, left, np.inf).argmin()] = 0
    return left
