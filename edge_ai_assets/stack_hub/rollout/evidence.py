"""How a release did at a site, and what that says beside the release before it: champion and challenger.

Pure: what was counted goes in, a verdict with its reason comes out. Who counts is `looking`'s matter.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

import msgspec

from edge_ai_assets.scoring.metrics import SECONDS
from edge_ai_assets.stack_hub.rollout.intervals import rise, share
from edge_ai_assets.usecase import Rollout

REQUESTS = 50
"""Fewest requests of which failures and seconds are judged."""
SLOW = 0.05
"""The share of requests that may be slower than the bound: 19 of 20 are not."""
UNFELT_SECONDS = 0.05
"""Answers that are faster than this are fast enough, whatever the release before did."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was counted of one release at one site. Times are seconds since 1970, by the site's clock."""

    version: int
    since: float
    """When it began to serve."""
    at: float
    """When this was counted."""
    rows: int = 0
    """Of its newest scores, `looking.SAMPLE` at most."""
    anomalies: int = 0
    """Of these rows."""
    newest: float | None = None
    """When the newest of them was scored."""
    requests: int = 0
    """For scores, since its process started."""
    failures: int = 0
    """Of these requests: answered 5xx, or 422, which a release that takes other inputs says."""
    seconds: tuple[int, ...] = ()
    """These requests by the buckets of `SECONDS`, and one for what is slower."""
    conserved: bool = True
    """Whether scored = uploaded + withheld + quarantined + expired + pending."""
    silent: str | None = None
    """Why its service told nothing of its requests."""

    @property
    def anomaly_rate(self) -> float | None:
        return self.anomalies / self.rows if self.rows else None

    @property
    def failure_rate(self) -> float | None:
        return self.failures / self.requests if self.requests else None

    @property
    def p95(self) -> float | None:
        """Seconds within which 19 of 20 requests were answered, up to the end of a bucket; None for nothing
        that can be said."""
        whole = sum(self.seconds)
        for bound, within in zip(SECONDS, accumulate(self.seconds), strict=False):
            if whole and within >= (1 - SLOW) * whole:
                return bound
        return None


class Word(StrEnum):
    """What evidence says, the worst last."""

    FINE = "fine"
    BAKING = "baking"
    WAITING = "waiting"
    BAD = "bad"


class Verdict(NamedTuple):
    """What evidence says of one site, and why."""

    word: Word
    reason: str


def judge(found: Evidence, champion: Evidence | None, bounds: Rollout, release: int, now: float) -> Verdict:
    """What a site says of a release that serves there.

    What is bad is said at once; what is fine only after it has baked, and of enough that is new enough.

    Args:
        found: of the release that serves.
        champion: of the release before it at the same site; None when it is the first.
        release: the one that is asked about.
        now: seconds since 1970.
    """
    if found.version != release:
        return Verdict(Word.WAITING, f"its evidence is of release {found.version}, not of {release}")
    if not found.conserved:
        return Verdict(Word.WAITING, "its checks do not pass: its scores do not add up")
    if not bounds.bake_minutes:
        return Verdict(Word.FINE, "its checks pass")
    stale = bounds.stale_minutes * 60
    if not -stale <= now - found.at <= stale:
        return Verdict(Word.WAITING, f"its evidence is stale: counted {_minutes(now - found.at)} ago")
    if reason := _failures(found, champion, bounds) or _slower(found, champion, bounds):
        return Verdict(Word.BAD, reason)
    anomalies = _anomalies(found, champion, bounds)
    if anomalies.word is Word.BAD:
        return anomalies
    if (baked := now - found.since) < (bake := bounds.bake_minutes * 60):
        return Verdict(Word.BAKING, f"it bakes for {_minutes(bake - baked)} more")
    if found.silent:
        return Verdict(Word.WAITING, f"its service does not tell how it does: {found.silent}")
    if not found.rows and not _busy(champion, stale):
        return Verdict(Word.FINE, "nothing was scored there, nor shortly before")
    if found.rows < bounds.rows:
        return Verdict(Word.WAITING, f"too little evidence: {found.rows} of {bounds.rows} scores")
    if found.newest is None or now - found.newest > stale:
        ago = _minutes(now - (found.newest or 0.0))
        return Verdict(Word.WAITING, f"its evidence is stale: the newest score is {ago} old")
    return anomalies


def _busy(champion: Evidence | None, stale: float) -> bool:
    """Whether the release before scored until it was replaced."""
    return champion is not None and champion.newest is not None and champion.at - champion.newest <= stale


def _failures(found: Evidence, champion: Evidence | None, bounds: Rollout) -> str | None:
    if found.requests < REQUESTS:
        return None
    before = (champion.failures, champion.requests) if champion else (0, 0)
    known = before[1] >= REQUESTS
    after = (found.failures, found.requests)
    if (rise(before, after) if known else share(*after)).low <= bounds.failure_rise:
        return None
    beside = f" against {_percent(*before)} before" if known else ""
    return f"{_percent(*after)} of {after[1]} requests fail{beside}"


def _slower(found: Evidence, champion: Evidence | None, bounds: Rollout) -> str | None:
    if champion is None or champion.requests < REQUESTS or found.requests < REQUESTS:
        return None
    before = champion.p95
    if before is None or len(found.seconds) != len(SECONDS) + 1:
        return None
    wanted = max(UNFELT_SECONDS, before * bounds.slower)
    edge = next((place for place, bound in enumerate(SECONDS) if bound >= wanted), None)
    if edge is None:
        return None
    slow, whole = sum(found.seconds[edge + 1 :]), sum(found.seconds)
    if share(slow, whole).low <= SLOW:
        return None
    return (
        f"{_percent(slow, whole)} of {whole} requests take more than {SECONDS[edge]:g} s, where 19 of 20 "
        f"took {before:g} s at most before"
    )


def _anomalies(found: Evidence, champion: Evidence | None, bounds: Rollout) -> Verdict:
    """By the interval of the rise: below the bound is fine, above is bad, across wants more rows."""
    if champion is None or champion.rows < bounds.rows:
        return Verdict(Word.FINE, f"{found.rows} scores, and nothing to hold them against")
    if found.rows < bounds.rows:
        return Verdict(Word.WAITING, f"too little evidence: {found.rows} of {bounds.rows} scores")
    before, after = (champion.anomalies, champion.rows), (found.anomalies, found.rows)
    risen = rise(before, after)
    said = f"{_percent(*after)} of {after[1]} scores are anomalies, {_percent(*before)} of {before[1]} before"
    if risen.low > bounds.anomaly_rise:
        return Verdict(Word.BAD, said)
    if risen.high > bounds.anomaly_rise:
        return Verdict(Word.WAITING, f"too little evidence: {said}; more scores will tell")
    return Verdict(Word.FINE, said)


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _minutes(seconds: float) -> str:
    minutes = max(1, round(abs(seconds) / 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"
