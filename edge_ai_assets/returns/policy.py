"""The egress policy: which values of a score may leave the site, and how. Deny by default.

The only way from the outbox into a package leads through `Policy`. It decides on values; it writes nothing. A
value that is not what its field declares (text where a number belongs, a category nobody listed, no ISO time)
leaves as null: it could carry anything.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cached_property

import msgspec
import numpy as np

from edge_ai_assets.returns.outbox import FeedbackRow, ScoreRow
from edge_ai_assets.returns.schema import Value, decode
from edge_ai_assets.scoring.contract import Contract, Reference
from edge_ai_assets.usecase import EgressField, UseCase

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

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the egress part's canonical JSON: the order in which it lists things does not matter."""
        part = self.egress.model_dump(mode="json")
        part["fields"] = sorted(part["fields"], key=lambda field: field["name"])
        part["kinds"], part["notes"] = sorted(part["kinds"]), sorted(part["notes"])
        return hashlib.sha256(json.dumps(part, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def row(self, row: ScoreRow, contract: Contract | None = None) -> dict[str, Value] | Withheld:
        """What of a classified score may leave.

        Args:
            row: a score with a kind.
            contract: of the release that scored it; without one, derived inputs stay.

        Returns:
            Values by input name and, if listed, _time, _run, _score, _predicted; or why all of it stays.

        Raises:
            ValueError: the record cannot be read.
        """
        if row.kind not in self.egress.kinds:
            return Withheld(f"kind {row.kind} is not listed")
        return self._values(row, contract)

    def feedback(
        self, row: ScoreRow, feedback: FeedbackRow, contract: Contract | None = None
    ) -> dict[str, Value] | Withheld:
        """What of a user's word on a score may leave: what `row` lets out, _correct, _note and _role.

        The score's own kind need not be listed. A note that `egress.notes` does not list leaves as None.
        """
        if "feedback" not in self.egress.kinds:
            return Withheld("kind feedback is not listed")
        values = self._values(row, contract)
        note = feedback.note if feedback.note in self.egress.notes else None
        given: dict[str, Value] = {"_correct": bool(feedback.correct), "_note": note, "_role": feedback.role}
        return values | {
            name: self._leave(name, name, value) for name, value in given.items() if self._listed(name)
        }

    def histograms(
        self,
        values: Mapping[tuple[str, str], Iterable[float | None]],
        references: Mapping[str, Iterable[Reference]],
    ) -> list[Histogram]:
        """Counts of values over the reference bins, small cells suppressed; none without kind `histogram`.

        A group of fewer than `minimum_group_size` values, before or after suppression, does not leave at all.
        A cell with 1 to SMALL_CELL - 1 rows leaves as 0 and is not in the total. If it hides fewer than
        SMALL_CELL rows in all, the smallest other cell is hidden as well: the rows of another feature, or the
        manifest's `first` and `last`, may tell how many are hidden here.

        Args:
            values: by release and feature, of all scored rows whatever their kind; None and NaN are left out.
            references: by release.
        """
        found = []
        for release, listed in sorted(references.items()):
            for reference in listed:
                if reference.name not in self.aggregates:
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
    def aggregates(self) -> frozenset[str]:
        """Numeric features whose counts may leave: all listed ones, except under a pseudonym.

        None without kind `histogram`.
        """
        if "histogram" not in self.egress.kinds:
            return frozenset()
        return frozenset(
            feature.name
            for feature in self.usecase.numbers
            if self._listed(feature.name, but="pseudonymised")
        )

    def _values(self, row: ScoreRow, contract: Contract | None) -> dict[str, Value]:
        record = decode(row)
        bases = {item.name: item.base for item in contract.inputs} if contract else {}
        own = {"_score": row.score, "_predicted": bool(row.predicted)}
        context = {"_time": record.context.time, "_run": record.context.run}
        values: dict[str, Value] = {}
        inputs = {name: value for name, value in record.inputs.items() if not name.startswith("_")}
        for name, value in {**inputs, **context, **own}.items():
            base = name if name in self._features or name.startswith("_") else bases.get(name, name)
            if self._listed(base, but="aggregated"):
                values[name] = self._leave(name, base, value)
        return values

    def _listed(self, name: str, but: str = "") -> bool:
        return name in self._fields and self._fields[name].leaves != but

    def _leave(self, name: str, base: str, value: Value) -> Value:
        field = self._fields[base]
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return None
        if field.leaves == "pseudonymised":
            text = f"{name}\0{value}".encode()
            return hmac.new(self._key, text, hashlib.sha256).hexdigest()[:16]
        if not self._plausible(base, value):
            return None
        if field.leaves == "as_is":
            return datetime.fromisoformat(str(value)).isoformat() if base == "_time" else value
        return _rounded(field, value)

    def _plausible(self, base: str, value: Value) -> bool:
        if base in self._features:
            feature = self._features[base]
            if feature.kind == "category":
                return isinstance(value, str) and value in (feature.categories or ())
            return _number(value)
        match base:
            case "_time":
                return isinstance(value, str) and _iso(value)
            case "_score":
                return _number(value)
            case "_predicted" | "_correct":
                return isinstance(value, bool)
            case _:
                return isinstance(value, str)


def _counted(numbers: np.ndarray, reference: Reference) -> np.ndarray:
    from edge_ai_assets.ml.drift import histogram

    return np.asarray(histogram(numbers, reference))


def _suppressed(counts: np.ndarray) -> np.ndarray:
    """Small cells as 0, and with them the smallest other one if they hide too few rows by themselves."""
    left = np.where(counts < SMALL_CELL, 0, counts)
    if 0 < counts.sum() - left.sum() < SMALL_CELL:
        left[np.where(left, left, np.inf).argmin()] = 0
    return left


def _rounded(field: EgressField, value: Value) -> Value:
    """Only numbers can be rounded; anything else leaves as null."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return round(float(value), field.digits or 0)


def _number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _iso(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
