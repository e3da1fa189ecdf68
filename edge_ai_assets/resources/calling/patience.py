"""Going on when a service is out of reach for a while: what is an outage, how long to wait, when to give up.

Whether something may be asked for twice is known to the module that asks.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class Unavailable(Exception):
    """No answer, or one that asks to come again later.

    Args:
        said: the sentence.
        done: whether what was asked may have been done nevertheless.
        wait: seconds that the service asks to wait; None when it does not say.
    """

    def __init__(self, said: str, *, done: bool = False, wait: float | None = None) -> None:
        super().__init__(said)
        self.done = done
        self.wait = wait


class Refused(Exception):
    """Trying again does not help; the message says what to do."""

    def __init__(self, said: str, status: int | None = None, code: str = "") -> None:
        super().__init__(said)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Patience:
    """How long to go on, and how long to wait between attempts.

    Args:
        seconds: after which an outage is given up on.
        first: seconds before the second attempt; twice as long before each later one.
        most: seconds between two attempts at most, whatever a service asks for.
        sleep, clock: for tests.
    """

    seconds: float = 600.0
    first: float = 2.0
    most: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def pauses(self) -> Iterator[float]:
        """Seconds before the next attempt, without end: doubled each time, a tenth of them by chance."""
        pause = self.first
        while True:
            yield pause * random.uniform(0.9, 1.0)  # noqa: S311 (spreads clients, hides nothing)
            pause = min(self.most, 2 * pause)

    def persist(self, attempt: Callable[[], T]) -> T:
        """The first result of `attempt` that is no outage.

        Only for what may be done twice.

        Raises:
            Unavailable: it was one for `seconds`.
        """
        end = self.clock() + self.seconds
        for pause in self.pauses():
            try:
                return attempt()
            except Unavailable as outage:
                wait = min(self.most, max(pause, outage.wait or 0))
                if self.clock() + wait > end:
                    raise
                self.sleep(wait)
        raise AssertionError("pauses have no end")
