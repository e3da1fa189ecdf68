"""The egress policy: which values of a score may leave the site, and how. Deny by default.

The only way from the outbox into a package leads through `Policy`. It decides on values; it writes nothing. A
value that is not what its field declares (text where a number belongs, a category nobody listed, no ISO time)
leaves as null: it could carry anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property

import msgspec
import numpy as np

from edge_ai_assets.returns import rules
from edge_ai_assets.returns.rules import Rule
from edge_ai_assets.returns.schema import FeedbackRow, Record, ScoreRow, Value, decode
from edge_ai_assets.scoring.contract import Contract, Reference
from edge_ai_assets.usecase import UseCase

SMALL_CELL = 5
"""Fewer rows than that, but some, can be told from no histogram."""


class Withheld(msgspec.Struct, frozen=True):
    """The record stays on the site."""

    reason: str


class Histogram(msgspec.Struct, frozen=True):
    """How often a feature's values fell into the bins of a release's reference; small cells are 0."""

    release: str
    feature: str
    rows: int
    """The sum of the counts: what is hidden is not in it, or it could be told."""
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
        """SHA-256 of the egress part's canonical JSON: the order in which it lists things does not matter."""
        part = self.egress.model_dump(mode="json")
        part["fields"] = sorted(part["fields"], key=lambda field: field["name"])
        part["kinds"], part["notes"] = sorted(part["kinds"]), sorted(part["notes"])
        return hashlib.sha256(json.dumps(part, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def row(
        self, row: ScoreRow, contract: Contract | None = None, record: Record | None = None
    ) -> dict[str, Value] | Withheld:
        """What of a classified score may leave.

        Args:
            row: a score with a kind.
            contract: of the release that scored it; without one, derived inputs stay.
            record: of the row, if the caller has decoded it already.

        Returns:
            Values by input name and, if listed, _time, _run, _score, _predicted; or why all of it stays. An
            input that the record has not, as one that its release does not keep, is not among them.

        Raises:
            ValueError: the record cannot be read.
        """
        if row.kind not in self.egress.kinds:
            return Withheld(f"kind {row.kind} is not listed")
        return self._values(row, contract, record or decode(row))

    def feedback(
        self, row: ScoreRow, feedback: FeedbackRow, contract: Contract | None = None
    ) -> dict[str, Value] | Withheld:
        """What of a user's word on a score may leave: what `row` lets out, _correct, _note and _role.

        The score's own kind need not be listed. A note that `egress.notes` does not list leaves as None.
        """
        if "feedback" not in self.egress.kinds:
            return Withheld("kind feedback is not listed")
        note = feedback.note if feedback.note in self.egress.notes else None
        given: dict[str, Value] = {"_correct": bool(feedback.correct), "_note": note, "_role": feedback.role}
        return self._values(row, contract, decode(row)) | self._leave(given)

    def histograms(
        self,
        values: Mapping[tuple[str, str], Iterable[float | None]],
        references: Mapping[str, Iterable[Reference]],
    ) -> list[Histogram]:
        """Counts of values over the reference bins, small cells suppressed; none without kind `histogram`.

        A group of fewer than `minimum_group_size` values, before or after suppression, does not leave at all.
        A cell with 1 to SMALL_CELL - 1 rows leaves as 0 and is not in the total. If it hides fewer than
        SMALL_CELL rows in all, the smallest other cell is hidden as well: the rows of another feature, or the
        manifest's counts, may tell how many are hidden here. Missing values are no cell: how many are missing
        says nothing of any reading, hiding it would cost a cell of readings whenever a sensor drops out, and
        that a sensor drops out should be seen.

        Args:
            values: by release and feature, of all scored rows whatever their kind; None and NaN are left out.
            references: by release.
        """
        found = []
        for release, listed in sorted(references.items()):
            for reference in listed:
                if reference.name not in self.counted:
                    continue
                numbers = np.array(
                    [v for v in values.get((release, reference.name), ()) if v is not None], np.float64
                )
                numbers = numbers[np.isfinite(numbers)]
                if len(numbers) < self.egress.minimum_group_size:
                    continue
                counts = _suppressed(_counted(numbers, reference))
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
        if "sketch" not in self.egress.kinds:
            return frozenset()
        return frozenset(
            name for name in self._listed_numbers if self._fields[name].leaves in ("as_is", "rounded")
        )

    @cached_property
    def outside_counts(self) -> bool:
        """Whether it may leave how many rows are outside the range of training: any number may be why."""
        return len(self._listed_numbers) == len(self.usecase.numbers)

    def listed(self, name: str) -> bool:
        """Whether a field is listed, if only as `aggregated`."""
        return name in self._fields

    def number(self, name: str, value: Value) -> float | None:
        """A number of a listed field as it goes into what leaves of many rows: rounded as in a row, and as it
        is when it is `aggregated`. None if it is no finite number."""
        return rules.rounded(self._fields[name].digits, value)

    @cached_property
    def _listed_numbers(self) -> list[str]:
        return [
            feature.name
            for feature in self.usecase.numbers
            if feature.name in self._fields and self._fields[feature.name].leaves != "pseudonymised"
        ]

    def _values(self, row: ScoreRow, contract: Contract | None, record: Record) -> dict[str, Value]:
        if contract is not self._rules_of[0]:
            self._rules_of = contract, self._rules(contract)
        found = self._rules_of[1]
        values = {name: found[name](value) for name, value in record.inputs.items() if name in found}
        own: dict[str, Value] = {"_time": record.context.time, "_run": record.context.run}
        return values | self._leave({**own, "_score": row.score, "_predicted": bool(row.predicted)})

    def _leave(self, own: Mapping[str, Value]) -> dict[str, Value]:
        """What of our own fields leaves in rows."""
        return {name: self._own[name](value) for name, value in own.items() if name in self._own}

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


def _counted(numbers: np.ndarray, reference: Reference) -> np.ndarray:
    from edge_ai_assets.ml.drift import histogram

    return np.asarray(histogram(numbers, reference))


def _suppressed(counts: np.ndarray) -> np.ndarray:
    """Small cells as 0, and with them the smallest other one if they hide too few rows by themselves."""
    left = np.where(counts < SMALL_CELL, 0, counts)
    if 0 < counts.sum() - left.sum() < SMALL_CELL:
        left[np.where(left, left, np.inf).argmin()] = 0
    return left
