"""The site's side of the connected form: letters from the outbox to the queue. Receipts are for `settling`.

What was put on the queue stays pending in the outbox until its receipt. A small file, `queued.json`, says how
far each kind was sent; what is about to be sent stands in it first, so after a crash the same letters are
sent again under the same names, and the function knows them. Losing the file sends what waits again, in
letters of other names: the function leaves out what it packed since the last package that the letter knows
of, so nothing is counted twice.

A site packs by itself (`packing`) or has its function do it, not both: they would give out the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edge_ai_assets.delivery import durable
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.hub.letters import FEEDBACK, LETTER_BYTES, Letter, Row, Said
from edge_ai_assets.returns.hub.queue import Queue
from edge_ai_assets.returns.outbox.outbox import Outbox, ScoreRow
from edge_ai_assets.returns.outbox.schema import KINDS

PAGE = 2_000
"""Scores looked at in one go."""
MOST_QUEUED = 1_000
"""Letters that wait on the queue before no more are sent: the outbox has room, and outlives a queue."""
TOO_LARGE = "it does not fit into a message of the queue"


class _Planned(msgspec.Struct, frozen=True):
    """A letter that is about to be sent."""

    kind: str
    first: int
    last: int
    at: int
    number: int
    digest: str
    complete: int


class _Queued(msgspec.Struct, frozen=True):
    """What `queued.json` holds."""

    through: dict[str, int] = {}
    """By kind, the last sequence (feedback: id) that was looked at."""
    planned: tuple[_Planned, ...] = ()


class Sent(msgspec.Struct, frozen=True):
    """What one call put on the queue."""

    letters: int
    rows: int
    feedback: int
    full: bool
    """More waits, but the queue is full, or the call's bound was reached."""


def enqueue(
    outbox: Outbox, site: str, queue: Queue, folder: Path, *, now: clock.Clock = clock.now, most: int = 64
) -> Sent:
    """Put what waits on the queue, feedback and anomalies first, at most `most` letters.

    Args:
        folder: of the site; it holds `queued.json`.

    Raises:
        LinkDown: the queue is out of reach; nothing is lost, the next call goes on.
    """
    note = folder / "queued.json"
    with durable.locked(folder / ".queued.lock"):
        queued = _read(note)
        # What a crash interrupted: perhaps it was sent, perhaps not.
        sent = [_send(outbox, site, queue, plan) for plan in queued.planned]
        queued = msgspec.structs.replace(queued, planned=())
        room = max(0, min(most, MOST_QUEUED - queue.count()))
        through, planned = _plan(outbox, dict(queued.through), room, now())
        if planned or queued.through != through or sent:
            _write(note, _Queued(through, tuple(planned)))
        sent += [_send(outbox, site, queue, plan) for plan in planned]
        if planned:
            _write(note, _Queued(through))
    rows, feedback = sum(rows for rows, _ in sent), sum(words for _, words in sent)
    return Sent(len([one for one in sent if any(one)]), rows, feedback, len(planned) == room)


def _plan(
    outbox: Outbox, through: dict[str, int], room: int, at: int
) -> tuple[dict[str, int], list[_Planned]]:
    """Which letters to send next, and how far that is."""
    last = outbox.last_package()
    number, digest = (last.number, last.digest) if last else (0, "")
    complete, planned = outbox.complete_through(), list[_Planned]()
    for kind in (FEEDBACK, *reversed(KINDS)):
        for first, end, seen in _parts(outbox, kind, through.get(kind, 0)):
            if first:
                if len(planned) == room:
                    break
                planned.append(_Planned(kind, first, end, at, number, digest, complete))
            through[kind] = seen
    return through, planned


def _parts(outbox: Outbox, kind: str, after: int) -> Iterator[tuple[int, int, int]]:
    """What fits into a letter each: its first and last number, and up to where was looked; (0, 0, …) for a
    stretch of which nothing is to be sent."""
    first = end = size = 0
    seen = after
    for number, length in _sizes(outbox, kind, after):
        if length and size + length > LETTER_BYTES - 1024 and first:
            yield first, end, seen
            first = size = 0
        seen = number
        if length:
            first, end, size = first or number, number, size + length
    if seen > after:
        yield (first, end, seen) if first else (0, 0, seen)


def _sizes(outbox: Outbox, kind: str, after: int) -> Iterator[tuple[int, int]]:
    """Numbers after a given one with the bytes they take in a letter, 0 for what is not to be sent."""
    if kind == FEEDBACK:
        for item in outbox.waiting_feedback(10 * PAGE):
            if item.id > after:
                length = len(msgspec.json.encode(Said.of(item, _row(outbox, item.sequence)))) + 1
                if length > LETTER_BYTES - 1024:
                    outbox.dispose("quarantined", {TOO_LARGE: [item.id]}, table="feedback")
                    length = 0
                yield item.id, length
        return
    scored = outbox.counts().scored
    for begin in range(after + 1, scored + 1, PAGE):
        for row in outbox.rows(begin, begin + PAGE - 1):
            if row.kind is None and row.disposition is None:
                return  # and those behind it have no kind yet either
            length = len(msgspec.json.encode(Row.of(row))) + 1 if _waits(row, kind) else 0
            if length > LETTER_BYTES - 1024:
                outbox.dispose("quarantined", {TOO_LARGE: [row.sequence]})
                length = 0
            yield row.sequence, length


def _send(outbox: Outbox, site: str, queue: Queue, plan: _Planned) -> tuple[int, int]:
    """Send a planned letter; how many scores and feedback it holds. Nothing is sent of what is settled."""
    rows: list[Row] = []
    words: list[Said] = []
    if plan.kind == FEEDBACK:
        for item in outbox.waiting_feedback(10 * PAGE):
            if plan.first <= item.id <= plan.last:
                words.append(Said.of(item, _row(outbox, item.sequence)))
    else:
        rows = [Row.of(row) for row in outbox.rows(plan.first, plan.last) if _waits(row, plan.kind)]
    if rows or words:
        letter = Letter(
            site=site,
            id=f"{plan.kind}-{plan.first}-{plan.last}",
            at=plan.at,
            number=plan.number,
            digest=plan.digest,
            complete=plan.complete,
            rows=tuple(rows),
            feedback=tuple(words),
        )
        queue.send(msgspec.json.encode(letter))
    return len(rows), len(words)


def _waits(row: ScoreRow, kind: str) -> bool:
    return row.kind == kind and row.disposition is None and row.package is None


def _row(outbox: Outbox, sequence: int) -> ScoreRow | None:
    return next(iter(outbox.rows(sequence, sequence)), None)


def _read(note: Path) -> _Queued:
    try:
        return msgspec.json.decode(note.read_bytes(), type=_Queued)
    except FileNotFoundError:
        return _Queued()


def _write(note: Path, queued: _Queued) -> None:
    with durable.replacing(note) as file:
        file.write(msgspec.json.encode(queued))


@contextmanager
def starting_over(folder: Path) -> Iterator[None]:
    """Within it, scores may be made to wait once more that lie below what was looked at: all is looked at
    again afterwards, even if it is killed in between. What is under way is sent a second time, and known by
    the function."""
    with durable.locked(folder / ".queued.lock"):
        _write(folder / "queued.json", _Queued())
        yield


@contextmanager
def sent_through(folder: Path) -> Iterator[Mapping[str, int]]:
    """By kind, the last sequence that was put on the queue or looked at for it; no more are while it is held.

    Args:
        folder: as in `enqueue`; of a site that never sent anything to a queue, too.
    """
    with durable.locked(folder / ".queued.lock"):
        yield _read(folder / "queued.json").through
