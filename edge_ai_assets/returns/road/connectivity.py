"""Whether the other side can be reached, as a state machine. Pure: no I/O, the time and chance are passed in.

The state follows what real operations met (`succeeded`, `failed`); it is not guessed from an interface being
up. When none was needed for a while, a probe of the very target is due. One failure is followed by one quick
retry, only the second means disconnected; then retries get rarer, with jitter so that a thousand sites whose
link came back at once do not all knock together. The same states as Azure IoT Edge's connectivity manager.

Who keeps the state and who probes is the caller's business (`stack_hub.connecting`).

Time is µs since 1970, by the site's clock: the only one that is comparable after a restart, and one that may
be off by years. Hence nothing is due at a moment, but after a wait since `last`: when the time that passed is
negative or longer than the wait, it is due now. A clock set back costs one attempt too early, never a wait
that is too long.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Literal

import msgspec

SECOND = 1_000_000
MAX_DOUBLINGS = 40
"""2^40 s is longer than any bound, and its product with one still a float of full precision."""

Due = Literal["operate", "probe", "wait"]
Chance = Callable[[], float]
"""A number in [0, 1), as random.random gives it."""


class State(StrEnum):
    UNKNOWN = "unknown"
    """Nothing was tried yet."""
    CONNECTED = "connected"
    TRYING = "trying"
    """The last operation failed, the one before did not: a retry will tell."""
    DISCONNECTED = "disconnected"


class Timing(msgspec.Struct, frozen=True):
    """How long to wait, in seconds, all > 0."""

    idle: float = 60.0
    """After an operation that worked, before a probe is due."""
    quick: float = 1.0
    """Before the retry that follows the first failure."""
    first: float = 5.0
    """Before the first retry when disconnected; each further one waits twice as long."""
    most: float = 300.0
    """Before any retry. Jitter shortens a wait to no less than half."""


TIMING = Timing()


class Connectivity(msgspec.Struct, frozen=True):
    """What is known of a link; `Connectivity()` before anything is."""

    state: State = State.UNKNOWN
    since: int = 0
    """When the state began, µs; 0 before the first operation."""
    last: int = 0
    """When the last operation or probe ended, µs."""
    wait: int = 0
    """After `last`, before the next one is due, µs."""
    failures: int = 0
    """In a row, up to now."""
    flaps: int = 0
    """How often it became disconnected."""
    reason: str = ""
    """What the last failure said; '' when connected."""


class Change(msgspec.Struct, frozen=True):
    """That the state became another one."""

    before: State
    after: State
    at: int
    """µs since 1970."""
    seconds: float
    """How long the former state lasted, by the site's clock; 0 if that was set back, or nothing was known."""
    flaps: int


def due(link: Connectivity, now: int) -> Due:
    """What may be done now.

    Returns:
        `operate`: it is connected, whatever waits may be sent at once, and no probe is needed.
        `probe`: the target should be asked, or operated upon: it was idle, or a retry is due.
        `wait`: nothing; the retry is due later.
    """
    rested = not 0 <= now - link.last < link.wait
    if link.state is State.CONNECTED and not rested:
        return "operate"
    return "probe" if rested else "wait"


def seconds_in(link: Connectivity, now: int) -> float:
    """How long the present state lasts; 0 when nothing was tried, or the clock is before its beginning."""
    return max(0.0, (now - link.since) / SECOND) if link.state is not State.UNKNOWN else 0.0


def succeeded(link: Connectivity, now: int, timing: Timing = TIMING) -> tuple[Connectivity, Change | None]:
    """The link after an operation or probe that worked."""
    after = msgspec.structs.replace(link, last=now, wait=round(timing.idle * SECOND), failures=0, reason="")
    return _become(State.CONNECTED, link, after, now)


def failed(
    link: Connectivity, now: int, reason: str, chance: Chance, timing: Timing = TIMING
) -> tuple[Connectivity, Change | None]:
    """The link after an operation or probe that did not reach the other side.

    Args:
        reason: a sentence that says why.
        chance: gives the jitter.
    """
    failures = link.failures + 1
    if failures == 1:
        state, wait = State.TRYING, timing.quick
    else:
        state = State.DISCONNECTED
        longest = min(timing.most, timing.first * 2.0 ** min(failures - 2, MAX_DOUBLINGS))
        wait = longest * (1 - chance() / 2)
    flap = state is State.DISCONNECTED and link.state is not State.DISCONNECTED
    after = msgspec.structs.replace(
        link,
        last=now,
        wait=max(1, round(wait * SECOND)),
        failures=failures,
        flaps=link.flaps + flap,
        reason=reason,
    )
    return _become(state, link, after, now)


def _become(
    state: State, before: Connectivity, after: Connectivity, now: int
) -> tuple[Connectivity, Change | None]:
    if state is before.state:
        return after, None
    after = msgspec.structs.replace(after, state=state, since=now)
    return after, Change(before.state, state, now, seconds_in(before, now), after.flaps)
