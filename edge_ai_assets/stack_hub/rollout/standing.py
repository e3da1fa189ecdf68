"""How releases stand on their way to the sites: the answer of `edge-ai rollout status --json`.

Reads; only a site whose release nobody noted gets its note.
"""

from __future__ import annotations

from typing import Any

import msgspec

from edge_ai_assets.delivery import pack
from edge_ai_assets.home import Home
from edge_ai_assets.stack_hub import delivery, withdrawn
from edge_ai_assets.stack_hub.rollout import control, telling
from edge_ai_assets.stack_hub.rollout.control import State
from edge_ai_assets.stack_hub.rollout.course import Course
from edge_ai_assets.stack_hub.rollout.rings import Decision
from edge_ai_assets.usecase import UseCase


def standing(home: Home, usecase: UseCase) -> dict[str, Any]:
    """How the newest release stands.

    Returns:
        `{release, decision, ring, reason, next: [SITE], sites: {NAME: {ring, release, linked, held,
        withdrawn, fell_back, evidence: {says, because, challenger_…, champion_…}}}, paused, halted,
        rolled_back, accepted, withdrawn: [{release, who, why, at}]}`. `release` is None before the first,
        and where only one site is, which knows of none but its own. `evidence` is None where none was
        counted for the decision.
    """
    target = None if home.own_site else pack.newest(home.registry, home.keys)
    if own := home.own_site:
        taken_back = withdrawn.versions(home.site(own))
    else:
        taken_back = pack.withdrawn(home.registry, home.keys)
    state = control.read(home)
    sites = [site for site in usecase.sites if home.own_site in (None, site.name)]
    states = {site.name: delivery.state(home.site(site.name), target, site.road) for site in sites}
    course = Course(home, usecase, target) if target else None
    decision = course.decide(states, state) if course else None
    return {
        "release": target.version if target else None,
        "decision": str(decision.kind) if decision else "none",
        "ring": str(decision.ring) if decision and decision.ring else None,
        "reason": decision.reason if decision else "no release is on its way here",
        "next": list(decision.sites) if decision else [],
        "sites": {
            site.name: {
                "ring": str(site.ring),
                "release": states[site.name].serving,
                "linked": states[site.name].linked,
                "held": _held(state, site.name, target.version if target else None),
                "withdrawn": str(why) if (why := taken_back.get(states[site.name].serving or 0)) else None,
                "fell_back": fell.reason if (fell := states[site.name].fell) else None,
                "evidence": _evidence(course, decision, site.name),
            }
            for site in sites
        },
        **controls(state),
        "withdrawn": [
            {"release": version, **msgspec.to_builtins(why)} for version, why in sorted(taken_back.items())
        ],
    }


def controls(state: State) -> dict[str, Any]:
    """What operators and evidence decided, as it stands in the file."""
    found: dict[str, Any] = msgspec.to_builtins(state)
    return {
        "paused": found["paused"],
        "halted": found["halted"],
        "rolled_back": found["backs"],
        "accepted": found["accepted"],
    }


def _held(state: State, site: str, newest: int | None) -> str | None:
    """The rollback that holds at a site. One that a newer release ended is not told any more."""
    found = [back for back in state.backs if back.covers(site) and (newest or 0) <= back.release]
    return f"rolled back to {found[-1].to} {found[-1].said}" if found else None


def _evidence(course: Course | None, decision: Decision | None, site: str) -> dict[str, Any] | None:
    if course is None or decision is None or site not in decision.judged:
        return None
    verdict, (found, champion) = decision.judged[site], course.seen.get(site, (None, None))
    return {
        "says": str(verdict.word),
        "because": verdict.reason,
        **telling.numbers("challenger", found),
        **telling.numbers("champion", champion),
    }
