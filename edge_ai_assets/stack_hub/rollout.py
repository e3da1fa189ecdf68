"""Which sites are asked next to run a release: ring by ring, the next only when the former proved itself.

Pure: the state of the sites goes in, names come out, so a restart of anything changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_ai_assets.usecase import Ring, UseCase


@dataclass(frozen=True)
class SiteState:
    """What is known of one site."""

    serving: int | None
    """Version of the release that answers; None when nothing does."""
    failed: str | None = None
    """Why the newest release did not take over, if it was tried."""
    since: str | None = None
    """When the release that answers, or that last did, began to."""
    linked: bool = True
    healthy: bool = True
    """Whether its checks pass."""


def next_sites(usecase: UseCase, target: int, states: Mapping[str, SiteState]) -> tuple[list[str], str]:
    """Sites to ask to run release `target`, and a sentence that says why these or why none.

    A site without a link does not hold the others back; it is asked when its link returns. One that the
    release failed at stops it there and then, before more sites of the ring are tried.
    """
    for ring in Ring:
        sites = [name for name in usecase.ring(ring) if name in states]
        for name in sites:
            if (reason := states[name].failed) and states[name].serving != target:
                return [], f"release {target} stopped at ring {ring}: site {name}: {reason}"
        behind = [name for name in sites if states[name].serving != target and states[name].linked]
        if behind:
            return behind, f"release {target} goes to ring {ring}"
        for name in sites:
            if states[name].serving == target and not states[name].healthy:
                return [], f"release {target} waits at ring {ring}: the checks of site {name} do not pass"
        if sites and not any(states[name].serving == target for name in sites):
            return [], f"release {target} waits at ring {ring}: none of its sites has a link"
    return [], f"every site that can be reached runs release {target}"
