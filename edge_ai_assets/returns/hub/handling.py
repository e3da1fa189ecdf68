"""What becomes of one message of the queue: the same in Azure's function and in the site's own sensor."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edge_ai_assets.returns import clock
from edge_ai_assets.returns.hub import letters
from edge_ai_assets.returns.hub.letters import Letter, Receipt
from edge_ai_assets.returns.hub.queue import Queue
from edge_ai_assets.returns.road.link import LinkDown

TRIES = 5
"""After so many a message is a dead letter. As in `deploy/functions/host.json`."""
HIDDEN_SECONDS = 600
"""How long a message is hidden while it is dealt with: more than that takes on a slow link."""


class Outcome(msgspec.Struct, frozen=True):
    """What to send where before the message is deleted; at most one of them is not None."""

    receipt: bytes | None = None
    dead: bytes | None = None
    again: bytes | None = None


def handle(
    body: bytes, tries: int, forward: Callable[[Letter], Receipt], now: clock.Clock = clock.now
) -> Outcome:
    """Forward a letter; on the last try, say what becomes of it if that fails.

    A link that is down is no fault of the letter: at the last try it goes back to the queue as a new one.

    Args:
        tries: how often it was received, this time included.

    Raises:
        Exception: whatever `forward` raises, and LetterError, before the last try: the message stays on the
            queue and comes again.
    """
    try:
        return Outcome(receipt=msgspec.json.encode(forward(letters.decode_letter(body))))
    except LinkDown:
        if tries < TRIES:
            raise
        return Outcome(again=body)
    except Exception as error:  # whatever it is, the letter must not be lost, nor stand in the others' way
        if tries < TRIES:
            raise
        return Outcome(dead=letters.bury(body, f"{type(error).__name__}: {error}", tries, now()))


class Worked(msgspec.Struct, frozen=True):
    """What one call of `work` did."""

    receipts: int
    dead: list[str]
    """Reasons of the letters that are dead now."""
    failed: list[str]
    """Why letters stay on the queue for another try."""


def work(
    queue: Queue,
    receipts: Queue,
    dead: Queue,
    forward: Callable[[Letter], Receipt],
    *,
    most: int = 100,
    hidden_seconds: int = HIDDEN_SECONDS,
    now: clock.Clock = clock.now,
) -> Worked:
    """Deal with up to `most` letters, as the host of Azure's functions would; stops when the link is down."""
    done, reasons, failed = 0, list[str](), list[str]()
    while done + len(reasons) + len(failed) < most and (found := queue.receive(1, hidden_seconds)):
        message = found[0]
        if message.tries > TRIES:  # each try ended with the process
            outcome = Outcome(dead=message.body)
        else:
            try:
                outcome = handle(message.body, message.tries, forward, now)
            except LinkDown as error:
                failed.append(str(error))
                break
            except Exception as error:  # it is tried again, and its reason noted at the last try
                failed.append(f"{type(error).__name__}: {error}")
                continue
        if outcome.receipt is not None:
            receipts.send(outcome.receipt)
            done += 1
        if outcome.dead is not None:
            dead.send(outcome.dead)
            reasons.append(letters.exhume(outcome.dead, message.tries, now()).reason)
        if outcome.again is not None:
            queue.send(outcome.again)
        queue.delete(message)
        if outcome.again is not None:
            break
    return Worked(done, reasons, failed)
