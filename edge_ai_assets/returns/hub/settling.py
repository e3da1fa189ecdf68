"""Receipts of the function, back into outbox and ledger of the site: each once, in the packages' order.

Sending letters is `enqueuing`'s work.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import msgspec

from edge_ai_assets.delivery import durable
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.egress.ledger import Entry, Ledger, of_package
from edge_ai_assets.returns.hub import letters
from edge_ai_assets.returns.hub.forwarding import filed
from edge_ai_assets.returns.hub.handling import TRIES
from edge_ai_assets.returns.hub.letters import LetterError, Receipt
from edge_ai_assets.returns.hub.notes import Notes
from edge_ai_assets.returns.hub.queue import Message, Queue
from edge_ai_assets.returns.outbox.outbox import Outbox, OutboxError, PackageRow
from edge_ai_assets.returns.package import packing
from edge_ai_assets.returns.road.uplink import LOCK

log = logging.getLogger(__name__)

HIDDEN_SECONDS = 60


class Settled(msgspec.Struct, frozen=True):
    """What receipts changed in the outbox."""

    receipts: int
    packages: list[str]
    """Names of packages that the outbox learnt of."""
    withheld: dict[str, int]
    """Scores and feedback that stay, by reason."""
    waiting: int
    """Receipts of packages that follow one whose receipt is not there yet."""
    failed: list[str] = []
    """Why receipts stay on the queue for another try."""
    dead: list[str] = []
    """Reasons of those that are dead letters now."""


def settle(
    outbox: Outbox,
    queue: Queue,
    notes: Notes,
    ledger: Ledger,
    spool: Path,
    *,
    site: str,
    now: clock.Clock = clock.now,
    dead: Queue,
    most: int = 500,
) -> Settled:
    """Take receipts and record in outbox and ledger what they say; each once, in the packages' order.

    A receipt that comes early waits on the queue. One that was lost is looked up in the function's notes.

    Args:
        queue: of the receipts.
        notes: of the function.
        ledger: of the site.
        spool: of the site; whoever writes the ledger, or seals, holds a lock in it.
        site: whose receipts these are.
        dead: where a message goes that is no receipt of this site, and one that contradicts the outbox at
            its TRIES-th try: it must not stand in the others' way.

    Raises:
        LinkDown: the queue or the notes are out of reach.
    """
    names: list[str] = []
    failed: list[str] = []
    buried: list[str] = []
    withheld: Counter[str] = Counter()
    done = waiting = 0

    def bury(message: Message, error: Exception) -> None:
        log.warning("site %s: a receipt is given up: %s", site, error)
        dead.send(letters.bury(message.body, str(error), message.tries, now()))
        queue.delete(message)
        buried.append(str(error)[: letters.REASON_CHARACTERS])

    with packing.lock(spool), durable.locked(spool / LOCK):  # in this order, as whoever packs and sends
        while done + waiting + len(failed) < most and (messages := queue.receive(32, HIDDEN_SECONDS)):
            found = []
            for message in messages:
                try:
                    found.append((_read(outbox, site, message.body), message))
                except LetterError as error:
                    bury(message, error)
            for receipt, message in sorted(found, key=lambda pair: pair[0].number):
                try:
                    learnt, settled = _catch_up(outbox, notes, ledger, receipt, now())
                except (LetterError, OutboxError) as error:
                    if message.tries >= TRIES:
                        bury(message, error)
                    else:
                        failed.append(str(error))
                    continue
                if settled:
                    queue.delete(message)
                done, waiting = done + settled, waiting + (not settled)
                for each in learnt:
                    names += [each.name] if each.number else []
                    for held in (each.withheld, each.withheld_feedback):
                        withheld.update({reason: letters.total(ranges) for reason, ranges in held.items()})
    return Settled(done, names, dict(withheld), waiting, failed, buried)


def retry(dead: Queue, queue: Queue, receipts: Queue, most: int = 1_000) -> int:
    """Put dead letters and receipts back on their queues, once what made them fail is right; how many."""
    moved = 0
    while moved < most and (messages := dead.receive(32, HIDDEN_SECONDS)):
        for message in messages:
            body = letters.exhume(message.body, message.tries, message.sent_at).body
            (receipts if letters.is_receipt(body) else queue).send(body)
            dead.delete(message)
            moved += 1
    return moved


def _read(outbox: Outbox, site: str, body: bytes) -> Receipt:
    """A receipt of this site, about scores that it has given out."""
    receipt = letters.decode_receipt(body)
    _check(outbox, site, receipt)
    return receipt


def _check(outbox: Outbox, site: str, receipt: Receipt) -> None:
    if receipt.site != site:
        raise LetterError(f"a receipt of site {receipt.site!r} came to {site!r}")
    scored = outbox.counts().scored
    last = max((end for ranges in letters.ranges_of(receipt, "scores") for _, end in ranges), default=0)
    if max(last, receipt.complete) > scored:
        raise LetterError(
            f"receipt {receipt.id!r} is about score {max(last, receipt.complete)}, this site's go to {scored}"
        )


def _catch_up(
    outbox: Outbox, notes: Notes, ledger: Ledger, receipt: Receipt, at: int
) -> tuple[list[Receipt], bool]:
    """Record a receipt, after those before it that are missing: what was recorded, and whether all was; one
    may not be to be had yet."""
    if not receipt.number:
        _stay(outbox, receipt)
        return [receipt], True
    learnt: list[Receipt] = []
    last = outbox.last_package()
    known = last.number if last else 0
    for number in range(known + 1, receipt.number + 1):
        one = receipt if number == receipt.number else filed(notes, receipt.site, number)
        if one is None:
            return learnt, False
        _check(outbox, receipt.site, one)
        _record(outbox, ledger, one, at)
        learnt.append(one)
    if not learnt:  # it came before; perhaps a crash kept it from its end
        sealed = next(iter(outbox.packages(receipt.number - 1, 1)), None)
        if sealed and sealed.number == receipt.number and sealed.digest != receipt.digest:
            raise LetterError(
                f"package {receipt.number} is {sealed.digest} here, the receipt says {receipt.digest}"
            )
        outbox.recover()
        outbox.uploaded(receipt.number, at)
        _broken(outbox, receipt)
    return learnt, True


def _record(outbox: Outbox, ledger: Ledger, receipt: Receipt, at: int) -> None:
    last = outbox.last_package()
    if receipt.previous != (last.digest if last else ""):
        raise LetterError(
            f"package {receipt.number} follows {receipt.previous or 'nothing'}, the outbox's last package is "
            f"{last.digest if last else 'none'}: two chains have begun at this site"
        )
    noted = {entry.digest for entry in of_package(ledger.path, receipt.name)}
    for left in receipt.left:
        if left.digest not in noted:
            ledger.append(
                Entry(left.at, left.name, left.digest, 0, left.bytes, left.policy, left.destination)
            )
    package = PackageRow(
        number=receipt.number,
        name=receipt.name,
        digest=receipt.digest,
        previous=receipt.previous,
        rows=letters.total(receipt.uploaded),
        feedback=letters.total(receipt.feedback),
        bytes=receipt.bytes,
        created_at=receipt.created_at,
        uploaded_at=at,  # it is there already: no file of it is in the spool, and none is to be sent
        complete=receipt.complete,
        event_id=last.event_id if last else 0,
        event_number=last.event_number if last else 0,
    )
    outbox.seal(
        package,
        letters.numbers(receipt.uploaded),
        letters.numbers(receipt.feedback),
        {reason: letters.numbers(ranges) for reason, ranges in receipt.withheld.items()},
        {reason: letters.numbers(ranges) for reason, ranges in receipt.withheld_feedback.items()},
    )
    outbox.uploaded(receipt.number, at)
    _broken(outbox, receipt)


def _stay(outbox: Outbox, receipt: Receipt) -> None:
    """Record that nothing of a letter may leave."""
    for held, table in ((receipt.withheld, "scores"), (receipt.withheld_feedback, "feedback")):
        reasons = {reason: letters.numbers(ranges) for reason, ranges in held.items()}
        outbox.dispose("withheld", reasons, table=table)
    _broken(outbox, receipt)


def _broken(outbox: Outbox, receipt: Receipt) -> None:
    reasons = {reason: letters.numbers(ranges) for reason, ranges in receipt.broken.items()}
    outbox.dispose("quarantined", reasons)
