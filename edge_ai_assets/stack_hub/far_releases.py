"""Whether the registry elsewhere has another release than a site: what the site's own Dagster waits for.

Where Azure's Dagster brings releases to the sites, ring by ring, that is `rollout_sensor`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.stack_hub.far_ends import FarEnds
from edge_ai_assets.stack_hub.rollout import control
from edge_ai_assets.usecase import UseCase

LOOK_SECONDS = 60.0
"""Between two looks: each is a request of some hundred bytes, and a tick comes every few seconds."""


class FarReleases:
    """A marker of `automation.something_waits`: what the newest release in the registry is, while the site
    has another. What was seen last is remembered, no more: losing it looks again."""

    def __init__(self, far: FarEnds, usecase: UseCase, seconds: Callable[[], float] = time.monotonic) -> None:
        self._far, self._usecase, self._seconds = far, usecase, seconds
        self._seen: dict[str, tuple[float, str | None]] = {}

    def __call__(self, site: SiteHome) -> str | None:
        """The digest that `latest` means there; None when the site has it, releases are paused, or there is
        no way there.

        Raises:
            MalformedError: what was decided here about releases cannot be read.
            DeniedError: the registry does not let us in.
            SecretError: the registry's secret cannot be fetched.
        """
        from edge_ai_assets.delivery.release import LATEST
        from edge_ai_assets.delivery.store import SiteStore

        if not (self._usecase.at(site.name).road.pulls and Link(site.root).up):
            return None
        if control.read(site.home).paused:
            return None
        there = self._there(site.name)
        return None if there == SiteStore(site.root).layout.head(LATEST) else there

    def _there(self, site: str) -> str | None:
        from edge_ai_assets.delivery.errors import UnreachableError
        from edge_ai_assets.delivery.release import LATEST

        now = self._seconds()
        looked, found = self._seen.get(site, (-LOOK_SECONDS, None))
        if now - looked >= LOOK_SECONDS:
            registry = self._far.registry()
            try:
                found = registry.head(LATEST) if registry else None
            except UnreachableError:
                found = None  # a link that comes and goes is no error, and `edge-ai doctor` tells why
            self._seen[site] = now, found
        return found
