"""Where a release is on its way: the sites as they are, what was decided, and what follows now.

Used by the sensor and by `edge-ai rollout status`, so that both say the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from edge_ai_assets.delivery.release import Release
from edge_ai_assets.home import Home
from edge_ai_assets.runtimes.choice import runtime
from edge_ai_assets.stack_hub.rollout import control, looking
from edge_ai_assets.stack_hub.rollout.evidence import Evidence, Verdict, Word, judge
from edge_ai_assets.stack_hub.rollout.rings import Decision, SiteState, decide
from edge_ai_assets.usecase import UseCase

SILENT = 5
"""So many services that do not answer in one look, and no further one is asked: each takes its seconds."""


class Course:
    """One look at a release and its sites.

    Attributes:
        release: its version.
        seen: the evidence that was counted for it, by site, and the champion's.
    """

    def __init__(self, home: Home, usecase: UseCase, release: Release) -> None:
        self._home, self._usecase, self.release = home, usecase, release.version
        self.seen: dict[str, tuple[Evidence, Evidence | None]] = {}
        self._silent = 0

    def decide(
        self,
        states: Mapping[str, SiteState],
        state: control.State,
        judge: Callable[[str], Verdict] | None = None,
    ) -> Decision:
        """What is to be done now; evidence is counted only at the rings that the next one waits for.

        Args:
            judge: says what a site says, in place of counting.
        """
        if stopped := state.stopped(self.release):
            return stopped
        return decide(self._usecase, self.release, states, judge or self.verdict, state.rings(self.release))

    def verdict(self, name: str) -> Verdict:
        """What one site says of the release. Evidence that cannot be counted counts for nothing."""
        if self._silent >= SILENT:
            return Verdict(Word.WAITING, f"not looked at: {SILENT} other services do not answer")
        site = self._home.site(name)
        try:
            serves = runtime(site.root, name).status()
            if serves is None:
                return Verdict(Word.WAITING, "nothing serves there now")
            found, champion = looking.count(site, serves)
        except Exception as error:  # whatever it is, it is that site's, and holds the next ring
            return Verdict(Word.WAITING, f"it cannot be looked at: {type(error).__name__}: {error}")
        self.seen[name] = found, champion
        self._silent += found.silent is not None
        return judge(found, champion, self._usecase.delivery.rollout, self.release, time.time())
