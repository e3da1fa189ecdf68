"""What was decided about releases on their way to the sites, by an operator or by evidence: one small file.

Durable, replaced whole, with who, when and why. What follows of it is asked here (`allows`, `stopped`); what
is done about it is the sensors' and `steps`'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated
from unicodedata import category

import msgspec

from edge_ai_assets.delivery import durable
from edge_ai_assets.delivery.errors import MalformedError
from edge_ai_assets.home import Home
from edge_ai_assets.stack_hub.rollout.rings import Decision, Kind
from edge_ai_assets.usecase import Ring

FORMAT = 1
MAX_BYTES = 4 << 20
KEPT = 20
"""Accepted rings that are remembered; of those before, newer releases are out long since."""
MAX_WHO, MAX_WHY = 200, 2_000
"""Characters: what is decided must stay below MAX_BYTES, or it could not be read back."""


class RolloutError(ValueError):
    """What was asked for cannot be done; the message says what can."""


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who decided something, when and why."""

    who: str
    why: str
    at: Annotated[datetime, msgspec.Meta(tz=True)]

    def __str__(self) -> str:
        return f"by {self.who} on {self.at:%Y-%m-%d %H:%M}: {self.why}"


class Halt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A release that evidence stopped."""

    release: int
    ring: Ring
    said: Said


class Back(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sites that were rolled back: they run nothing above `to`, up to `release`; a newer one they take.

    Of several that cover a site the last one counts.
    """

    to: int
    release: int
    """The newest one when it was decided."""
    sites: tuple[str, ...] | None
    """None: all, those that come later included."""
    said: Said

    def covers(self, site: str) -> bool:
        return self.sites is None or site in self.sites

    @property
    def where(self) -> str:
        return "everywhere" if self.sites is None else f"at {', '.join(self.sites)}"


class Accepted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ring that an operator takes as it is."""

    release: int
    ring: Ring
    said: Said


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`rollout.json`"""

    paused: Said | None = None
    halted: Halt | None = None
    backs: tuple[Back, ...] = ()
    accepted: tuple[Accepted, ...] = ()
    format: int = FORMAT

    def allows(self, site: str, release: int) -> bool:
        """Whether a site may run a release: not one that it was rolled back from."""
        return self.back(site, release) is None

    def back(self, site: str, release: int | None) -> Back | None:
        """Why a site may not run a release; None when it may, or runs nothing."""
        last = next((back for back in reversed(self.backs) if back.covers(site)), None)
        if last is None or release is None:
            return None
        return last if last.to < release <= last.release else None

    def stopped(self, release: int) -> Decision | None:
        """Why nobody is asked to run a release at all; None when sites may be."""
        if self.paused:
            return Decision(Kind.PAUSED, release, f"releases are paused {self.paused}", at=self.paused.at)
        for back in reversed(self.backs):
            if back.to < release <= back.release:
                reason = f"release {release} was rolled back {back.where} {back.said}"
                return Decision(Kind.ROLLED_BACK, release, reason, at=back.said.at)
        if self.halted and self.halted.release == release:
            return Decision(Kind.HALTED, release, self.halted.said.why, self.halted.ring)
        return None

    def rings(self, release: int) -> frozenset[Ring]:
        """The rings that an operator accepted for a release."""
        return frozenset(each.ring for each in self.accepted if each.release == release)


def read(home: Home) -> State:
    """What holds now; nothing before the first decision.

    Raises:
        MalformedError: the file is damaged, or of another version: nobody is asked anything then.
    """
    if not home.rollout.exists():
        return State()
    try:
        found = msgspec.json.decode(durable.read_bounded(home.rollout, MAX_BYTES), type=State)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        lost = "what was paused or rolled back is lost: remove it, and decide it again at once"
        raise MalformedError(f"{home.rollout} cannot be read: {error}; {lost}") from error
    if found.format != FORMAT:
        raise MalformedError(f"{home.rollout} has format {found.format}, this version reads {FORMAT}")
    return found


def pause(home: Home, who: str, why: str) -> State:
    """Ask no site for a new release, until `resume`."""
    return _change(home, lambda state: msgspec.structs.replace(state, paused=said(who, why)))


def halt(home: Home, release: int, ring: Ring, why: str) -> State:
    """Ask no further site for a release, because of what a ring said of it, until `resume`.

    Nothing where an operator accepted the ring while evidence was still looked at.
    """
    found = Halt(release, ring, Said("evidence", why, datetime.now(UTC)))

    def change(state: State) -> State:
        return state if ring in state.rings(release) else msgspec.structs.replace(state, halted=found)

    return _change(home, change)


def resume(
    home: Home,
    who: str,
    why: str,
    *,
    sites: Sequence[str] = (),
    accept: tuple[int, Ring] | None = None,
) -> State:
    """End a pause, a halt and rollbacks.

    Args:
        sites: end only their rollbacks.
        accept: a release and a ring whose evidence is taken as it is. Without it what was halted is judged
            anew.

    Raises:
        RolloutError: there is nothing to end, the rollback of these sites was one of all, or both `sites`
            and `accept` are given.
    """
    if sites and accept:
        raise RolloutError("sites and a ring to accept are given: it is one or the other, not both")

    def change(state: State) -> State:
        if sites:
            _resumable(state.backs, sites)
            return msgspec.structs.replace(state, backs=_without(state.backs, sites))
        if not (state.paused or state.halted or state.backs or accept):
            raise RolloutError(
                "nothing is paused, rolled back, or halted by evidence: there is nothing to resume; a ring "
                "where a release failed is passed by accepting it, or by materializing site/deployment there"
            )
        more = (Accepted(*accept, said(who, why)),) if accept else ()
        return State(accepted=(*state.accepted, *more)[-KEPT:])

    return _change(home, change)


def roll_back(home: Home, who: str, why: str, *, to: int, release: int, sites: Sequence[str] | None) -> State:
    """Let sites run nothing above release `to`, until `resume` or a release newer than `release`.

    What was said of these sites before gives way to it.

    Raises:
        RolloutError: `to` is not older than `release`.
    """
    if not 0 < to < release:
        raise RolloutError(f"release {to} is not older than the newest, {release}: nothing to roll back")
    back = Back(to, release, None if sites is None else tuple(sites), said(who, why))

    def change(state: State) -> State:
        # So there are never more than one of all and one a site, and none needs to be forgotten.
        others = () if sites is None else _without(state.backs, sites)
        return msgspec.structs.replace(state, backs=(*others, back))

    return _change(home, change)


def _resumable(backs: Sequence[Back], sites: Sequence[str]) -> None:
    for site in sites:
        found = [back for back in backs if back.covers(site)]
        if not found:
            raise RolloutError(f"site {site} was not rolled back: there is nothing to resume")
        if any(back.sites is None for back in found):
            raise RolloutError(f"site {site} was rolled back with all others: resume without naming sites")


def _without(backs: Sequence[Back], sites: Sequence[str]) -> tuple[Back, ...]:
    """Rollbacks but for these sites; one of all stays what it is."""
    left = (
        back
        if back.sites is None
        else msgspec.structs.replace(back, sites=tuple(one for one in back.sites if one not in sites))
        for back in backs
    )
    return tuple(back for back in left if back.sites is None or back.sites)


def said(who: str, why: str, *, most: int = MAX_WHY) -> Said:
    """Who decides something now, and why; RolloutError unless that can be recorded, in `most` characters."""
    who, why = who.strip(), why.strip()
    for what, text, bound in (("name", who, MAX_WHO), ("reason", why, most)):
        if not text:
            raise RolloutError(f"a {what} is missing: say who decides, and why; it is recorded")
        if len(text) > bound:
            raise RolloutError(f"the {what} has {len(text)} characters, {bound} are allowed")
        if odd := [sign for sign in text if category(sign) in ("Cc", "Cs") and sign not in "\n\r\t"]:
            raise RolloutError(f"the {what} holds {odd[0]!r}, which is no text: leave it out")
    return Said(who, why, datetime.now(UTC))


def _change(home: Home, change: Callable[[State], State]) -> State:
    with durable.locked(home.root / ".rollout.lock"):
        state = change(read(home))
        with durable.replacing(home.rollout) as file:
            file.write(msgspec.json.format(msgspec.json.encode(state)))
    return state
