"""From the outbox to the spool: one step of a site's egress makes one sealed return package.

The policy decides what goes in (`policy`), `packages` gives it its form, the outbox records it. Sending it is
`uplink`'s work.

The order makes it safe to be killed anywhere: the file is written first, then the outbox seals it. An
unsealed file is overwritten by the next attempt under the same number; no row is in two sealed packages.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from edge_ai_assets.delivery import durable
from edge_ai_assets.returns import packages
from edge_ai_assets.returns.outbox import FeedbackRow, Outbox, PackageRow, ScoreRow
from edge_ai_assets.returns.parts import Insight, Word, name_of
from edge_ai_assets.returns.policy import Histogram, Policy, Withheld
from edge_ai_assets.returns.schema import Value, decode
from edge_ai_assets.scoring.contract import Contract

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


T = TypeVar("T", float, bool, str)


class Sealed(msgspec.Struct, frozen=True):
    """What one step packed and held back."""

    package: PackageRow
    path: Path
    withheld: dict[str, int]
    """Scores and feedback that stay, by reason."""
    histograms: int
    notes_dropped: int
    """Feedback whose free text stayed because nobody listed it."""


class _Content:
    """What the policy made of the rows at hand."""

    def __init__(self) -> None:
        self.insights: list[Insight] = []
        self.words: list[Word] = []
        self.histograms: list[Histogram] = []
        self.withheld: defaultdict[str, list[int]] = defaultdict(list)
        self.broken: defaultdict[str, list[int]] = defaultdict(list)
        self.withheld_feedback: defaultdict[str, list[int]] = defaultdict(list)
        self.notes_dropped = 0

    def __bool__(self) -> bool:
        return bool(self.insights or self.words or self.histograms)


def pack(
    outbox: Outbox,
    site: str,
    policy: Policy,
    contracts: Mapping[str, Contract],
    key: Ed25519PrivateKey,
    spool: Path,
    *,
    at: int,
    limit: int = 50_000,
) -> Sealed | None:
    """Apply the policy to what waits, oldest first, and seal what may leave as one package.

    Args:
        outbox: of the site.
        site: its name.
        policy: says what may leave.
        contracts: by release; scores of a release without one leave without derived inputs and histograms.
        key: the site's private signing key.
        spool: folder of sealed packages, made when missing.
        at: now, µs since 1970, UTC.
        limit: most scores, and most feedback, that one package accounts for.

    Returns:
        What was sealed; None when nothing is left that may leave. Either way, records that may not leave are
        withheld, and those that cannot be read are quarantined.
    """
    with durable.locked(spool / ".packing.lock"):
        outbox.recover()
        while True:
            rows, feedback = outbox.waiting(limit), outbox.waiting_feedback(limit)
            if not rows and not feedback:
                return None
            content = _apply(outbox, policy, contracts, rows, feedback)
            outbox.dispose("quarantined", content.broken)
            if content:
                return _seal(outbox, site, policy, key, spool, at, rows, content)
            outbox.dispose("withheld", content.withheld)
            outbox.dispose("withheld", content.withheld_feedback, table="feedback")


def _apply(
    outbox: Outbox,
    policy: Policy,
    contracts: Mapping[str, Contract],
    rows: list[ScoreRow],
    feedback: list[FeedbackRow],
) -> _Content:
    content = _Content()
    numbers: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    for row in rows:
        try:
            inputs = decode(row).inputs
        except ValueError as error:  # a newer version classified it
            content.broken[str(error)].append(row.sequence)
            continue
        for feature in policy.aggregates & inputs.keys():
            if isinstance(inputs[feature], int | float):
                numbers[row.release, feature].append(inputs[feature])
        values = policy.row(row, contracts.get(row.release))
        if isinstance(values, Withheld):
            content.withheld[values.reason].append(row.sequence)
        else:
            content.insights.append(_insight(row, values))
    for item in feedback:
        (row,) = outbox.rows(item.sequence, item.sequence)
        try:
            values = policy.feedback(row, item, contracts.get(row.release))
        except ValueError as error:
            values = Withheld(f"its score: {error}")
        if isinstance(values, Withheld):
            content.withheld_feedback[values.reason].append(item.id)
        else:
            content.words.append(_word(row, item, values))
            content.notes_dropped += item.note is not None and content.words[-1].note is None
    releases = {row.release for row in rows}
    references = {name: contract.references for name, contract in contracts.items() if name in releases}
    content.histograms = policy.histograms(numbers, references)
    return content


def _insight(row: ScoreRow, values: dict[str, Value]) -> Insight:
    return Insight(
        sequence=row.sequence,
        scored_at=row.scored_at,
        release=row.release,
        kind=str(row.kind),
        score=_column(values, "_score", float),
        predicted=_column(values, "_predicted", bool),
        fields=values,
    )


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


def _seal(
    outbox: Outbox,
    site: str,
    policy: Policy,
    key: Ed25519PrivateKey,
    spool: Path,
    at: int,
    rows: list[ScoreRow],
    content: _Content,
) -> Sealed:
    last = outbox.last_package()
    number, previous = (last.number + 1, last.digest) if last else (1, "")
    data = packages.build(
        site=site,
        number=number,
        previous=previous,
        policy=policy.digest,
        created_at=at,
        first=rows[0].sequence if rows else 0,
        last=rows[-1].sequence if rows else 0,
        insights=content.insights,
        feedback=content.words,
        histograms=content.histograms,
        key=key,
    )
    package = PackageRow(
        number=number,
        name=name_of(site, number),
        digest=hashlib.sha256(data).hexdigest(),
        previous=previous,
        rows=len(content.insights),
        feedback=len(content.words),
        bytes=len(data),
        created_at=at,
    )
    path = spool / package.name
    with durable.replacing(path) as file:
        file.write(data)
    outbox.seal(
        package,
        [item.sequence for item in content.insights],
        [item.id for item in content.words],
        content.withheld,
        content.withheld_feedback,
    )
    withheld = Counter({reason: len(numbers) for reason, numbers in content.withheld.items()})
    withheld.update({reason: len(numbers) for reason, numbers in content.withheld_feedback.items()})
    return Sealed(package, path, dict(withheld), len(content.histograms), content.notes_dropped)
