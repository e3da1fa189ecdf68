"""What goes over the queues between a site and the function that forwards: letters, receipts, dead letters.

Letters hold scores and feedback as they stand in the outbox, unfiltered: they never leave the site. What is
made of them is `forwarding`'s work, when they are sent `enqueuing`'s, how they are settled `settling`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec

from edge_ai_assets.returns.hub.queue import MAX_BODY
from edge_ai_assets.returns.outbox.schema import FeedbackRow, ScoreRow

T = TypeVar("T", "Letter", "Receipt")
FORMAT = 1
LETTER_BYTES = MAX_BODY - 3 * 1024
"""So that a letter fits into a message beside the reason why it is dead."""
REASON_CHARACTERS = 500
LARGEST = 2**63 - 1
FEEDBACK = "feedback"
_ID = re.compile(r"(?P<kind>[a-z]+)-(?P<first>[0-9]{1,19})-(?P<last>[0-9]{1,19})")
Spans = list[tuple[int, int]]
"""Ranges of sequences or ids, first and last, both included."""


class LetterError(ValueError):
    """Not a letter or receipt that this version reads; the message says what is wrong with it."""


class Row(msgspec.Struct, frozen=True):
    """A classified score, as in the outbox."""

    sequence: int
    scored_at: int
    release: str
    kind: str | None
    score: float | None
    predicted: int
    outside: int
    schema: int
    record: msgspec.Raw
    """JSON as it stands in the outbox."""

    @classmethod
    def of(cls, row: ScoreRow) -> Row:
        return cls(
            row.sequence,
            row.scored_at,
            row.release,
            row.kind,
            row.score,
            row.predicted,
            row.outside,
            row.schema,
            msgspec.Raw(row.record),
        )

    def stored(self) -> ScoreRow:
        return ScoreRow(
            self.sequence,
            self.scored_at,
            self.release,
            self.score,
            self.predicted,
            self.outside,
            bytes(self.record),
            self.schema,
            self.kind,
            None,
            None,
            None,
        )


class Said(msgspec.Struct, frozen=True):
    """Feedback, with the score it is about; None if that is no longer kept."""

    id: int
    sequence: int
    correct: int
    note: str | None
    role: str
    given_at: int
    row: Row | None

    @classmethod
    def of(cls, item: FeedbackRow, row: ScoreRow | None) -> Said:
        said = (item.id, item.sequence, item.correct, item.note, item.role, item.given_at)
        return cls(*said, Row.of(row) if row else None)

    def stored(self) -> FeedbackRow:
        return FeedbackRow(
            self.id, self.sequence, self.correct, self.note, self.role, self.given_at, None, None, None
        )


class Letter(msgspec.Struct, frozen=True):
    """Scores of one kind, or feedback, on their way to the function."""

    site: str
    id: str
    """`<kind>-<first>-<last>`: a letter that is sent again has the same."""
    at: int
    """When it was first sent, µs since 1970, UTC, by the site's clock."""
    number: int
    """Of the last package that the site knew then, 0 for none."""
    digest: str
    """Of that package; '' for none."""
    complete: int
    """Every score up to this was in that package or an earlier one, or is not to come."""
    rows: tuple[Row, ...] = ()
    feedback: tuple[Said, ...] = ()
    v: int = FORMAT


class Left(msgspec.Struct, frozen=True):
    """Bytes that were about to leave: the ledger of the site needs to know of them."""

    at: int
    name: str
    digest: str
    bytes: int
    policy: str
    destination: str


class Receipt(msgspec.Struct, frozen=True):
    """What became of a letter. Without a number none of it may leave, and no package was made."""

    site: str
    id: str
    number: int = 0
    name: str = ""
    digest: str = ""
    previous: str = ""
    bytes: int = 0
    created_at: int = 0
    complete: int = 0
    uploaded: Spans = []
    feedback: Spans = []
    withheld: dict[str, Spans] = {}
    """Sequences, by reason."""
    withheld_feedback: dict[str, Spans] = {}
    broken: dict[str, Spans] = {}
    """Sequences of records that could not be read, by reason."""
    left: tuple[Left, ...] = ()
    """What was sent, or may have been, under this package's number."""
    v: int = FORMAT


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that could not be dealt with."""

    reason: str
    tries: int
    at: int
    """When it was given up, µs since 1970, UTC."""
    body: bytes
    """As it was."""


class _Head(msgspec.Struct, frozen=True, tag="dead letter", tag_field="is"):
    reason: str
    tries: int
    at: int


def decode_letter(body: bytes) -> Letter:
    """Read a letter; LetterError says why it is none."""
    return _decode(body, Letter)


def decode_receipt(body: bytes) -> Receipt:
    """Read a receipt; LetterError says why it is none."""
    receipt = _decode(body, Receipt)
    _check_ranges(receipt)
    return receipt


def is_receipt(body: bytes) -> bool:
    """Whether a message is a receipt, and not a letter, whose fields would do for one."""
    for decode, receipt in ((decode_letter, False), (decode_receipt, True)):
        with suppress(LetterError):
            decode(body)
            return receipt
    return False


def ranges_of(receipt: Receipt, table: str) -> list[Spans]:
    """All the ranges of a receipt that are of scores, or of feedback."""
    if table == FEEDBACK:
        return [receipt.feedback, *receipt.withheld_feedback.values()]
    return [receipt.uploaded, *receipt.withheld.values(), *receipt.broken.values()]


def overlap(one: str, other: str) -> bool:
    """Whether two letters, by their ids, may hold the same scores or feedback.

    Raises:
        LetterError: one of them is no id of a letter.
    """
    (kind, first, last), (same, begin, end) = map(_range_of, (one, other))
    return kind == same and first <= end and begin <= last


def bury(body: bytes, reason: str, tries: int, at: int) -> bytes:
    """A dead letter as bytes: a line that says why, then the message as it was.

    A message that is too large for both, which is no letter of ours, stays alone.
    """
    data = msgspec.json.encode(_Head(reason[:REASON_CHARACTERS], tries, at)) + b"\n" + body
    return data if len(data) <= MAX_BODY else body


def exhume(body: bytes, tries: int, at: int) -> DeadLetter:
    """Read a dead letter. One that the host of the function gave up by itself has no reason in it."""
    line, _, rest = body.partition(b"\n")
    try:
        head = msgspec.json.decode(line, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return DeadLetter(
            "no reason was noted: the function ended in its last try, or the message is too large",
            tries,
            at,
            body,
        )
    return DeadLetter(head.reason, head.tries, head.at, rest)


def spans(numbers: Iterable[int]) -> Spans:
    """Numbers as ranges, rising."""
    found: Spans = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def numbers(ranges: Sequence[tuple[int, int]]) -> list[int]:
    """The numbers in ranges."""
    return [number for first, last in ranges for number in range(first, last + 1)]


def total(ranges: Sequence[tuple[int, int]]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def _range_of(letter: str) -> tuple[str, int, int]:
    if not (found := _ID.fullmatch(letter)):
        raise LetterError(f"{letter[:100]!r} is no id of a letter")
    return found["kind"], int(found["first"]), int(found["last"])


def _check_ranges(receipt: Receipt) -> None:
    """A receipt is of one letter, and that has no more rows than bytes: so many numbers come of ranges."""
    found = ranges_of(receipt, "scores") + ranges_of(receipt, FEEDBACK)
    ends = [end for ranges in found for span in ranges for end in span]
    if any(not 1 <= first <= last for ranges in found for first, last in ranges) or any(
        end > LARGEST for end in [*ends, receipt.number, receipt.complete, receipt.bytes, receipt.created_at]
    ):
        raise LetterError("no receipt: a range or number in it is not one that can be")
    if (numbered := sum(map(total, found))) > LETTER_BYTES:
        raise LetterError(f"no receipt: it is of {numbered} scores and feedback, a letter holds fewer")


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        found = msgspec.json.decode(body)
        if isinstance(found, dict) and found.get("v") != FORMAT:
            raise LetterError(
                f"{kind.__name__.lower()} format {found.get('v')!r}, this version reads {FORMAT}"
            )
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LetterError(f"no {kind.__name__.lower()}: {error}") from error
