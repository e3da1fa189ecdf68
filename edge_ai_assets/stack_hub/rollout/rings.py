"""Which sites are asked next to run a release: ring by ring, the next only when the former proved itself.

Pure: the state of the sites goes in, a decision comes out, so a restart of anything changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from edge_ai_assets.scoring.folder import Failure
from edge_ai_assets.stack_hub.rollout.evidence import Verdict, Word
from edge_ai_assets.usecase import Ring, UseCase


@dataclass(frozen=True)
class SiteState:
    """What is known of one site."""

    serving: int | None
    """Version of the release that answers; None when nothing does."""
    failed: str | None = None
    """Why the release that is brought to it did not take over, if it was tried."""
    since: str | None = None
    """When the release that answers, or that last did, began to."""
    linked: bool = True
    fell: Failure | None = None
    """The release that failed there last, whichever it was, until another one serves."""


class Kind(StrEnum):
    """What was decided of a release on its way."""

    ASKED = "asked"
    """Sites of a ring are asked to run it."""
    BAKING = "baking"
    """It serves in a ring, for not long enough."""
    WAITING = "waiting"
    """The evidence of a ring does not suffice."""
    HALTED = "halted"
    PAUSED = "paused"
    ROLLED_BACK = "rolled_back"
    COMPLETE = "complete"
    """Every site that can be reached runs it."""


@dataclass(frozen=True)
class Decision:
    """What is to be done about a release now."""

    kind: Kind
    release: int
    reason: str
    ring: Ring | None = None
    sites: tuple[str, ...] = ()
    """To be asked."""
    judged: Mapping[str, Verdict] = field(default_factory=dict)
    """What the sites say that it rests on."""
    at: datetime | None = None
    """When an operator decided it; None for what evidence or the sites' state says."""

    @property
    def key(self) -> str:
        """Tells one decision from another: sentences say how many minutes are left, and change."""
        return f"{self.kind} {self.release} {self.ring or ''}"


def decide(
    usecase: UseCase,
    release: int,
    states: Mapping[str, SiteState],
    judge: Callable[[str], Verdict],
    accepted: Collection[Ring] = (),
) -> Decision:
    """Whom to ask to run a release, or why nobody.

    A site without a link does not hold the others back; it is asked when its link returns. One that the
    release failed at stops it there and then, before more sites of the ring are tried.

    Args:
        states: of the sites that are there.
        judge: what a site says that runs the release; asked only of the ring that the next one waits for.
        accepted: rings that an operator takes as they are: neither evidence nor a failure there holds.
    """
    proven: dict[str, Verdict] = {}
    rings = {ring: [name for name in usecase.ring(ring) if name in states] for ring in Ring}
    for place, (ring, sites) in enumerate(rings.items()):
        failed = [name for name in sites if states[name].failed and states[name].serving != release]
        if failed and ring not in accepted:
            reason = f"release {release} stopped at ring {ring}: site {failed[0]}: {states[failed[0]].failed}"
            return Decision(Kind.HALTED, release, reason, ring)
        if behind := tuple(name for name in sites if name not in failed and _behind(states[name], release)):
            reason = f"release {release} goes to ring {ring}"
            return Decision(Kind.ASKED, release, reason, ring, behind, proven)
        later = [name for after in list(rings.values())[place + 1 :] for name in after]
        if ring in accepted or not any(_behind(states[name], release) for name in later):
            continue
        there = [name for name in sites if states[name].serving == release]
        if sites and not there:
            reason = f"release {release} waits at ring {ring}: none of its sites has a link"
            return Decision(Kind.WAITING, release, reason, ring)
        judged = {name: judge(name) for name in there}
        if (held := _held(release, ring, judged)) is not None:
            return held
        proven |= judged
    return Decision(Kind.COMPLETE, release, f"every site that can be reached runs release {release}")


def _behind(state: SiteState, release: int) -> bool:
    return state.serving != release and state.linked


def _held(release: int, ring: Ring, judged: Mapping[str, Verdict]) -> Decision | None:
    """Why a ring holds the next one back, by its worst site; None when it does not."""
    for word, kind, verb in (
        (Word.BAD, Kind.HALTED, "stopped"),
        (Word.WAITING, Kind.WAITING, "waits"),
        (Word.BAKING, Kind.BAKING, "bakes"),
    ):
        for name, verdict in judged.items():
            if verdict.word is word:
                reason = f"release {release} {verb} at ring {ring}: site {name}: {verdict.reason}"
                return Decision(kind, release, reason, ring, judged=judged)
    return None
