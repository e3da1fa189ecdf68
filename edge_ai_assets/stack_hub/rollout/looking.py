"""Counting how a release does at a site: its scores from the outbox, its requests from the service itself.

Bounded: the newest `SAMPLE` scores, and one answer of the service. What it means is `evidence`'s matter.
`trial.json` in the site's folder holds since when a release serves, and how the one before did.
"""

from __future__ import annotations

import logging
import time
from itertools import pairwise
from typing import NamedTuple

import msgspec

from edge_ai_assets.delivery import durable
from edge_ai_assets.delivery.errors import DeliveryError, MalformedError
from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.runtimes.interface import Running
from edge_ai_assets.stack_hub.rollout import control
from edge_ai_assets.stack_hub.rollout.evidence import Evidence

log = logging.getLogger(__name__)

SAMPLE = 10_000
"""Newest scores that are counted; they take some milliseconds."""
ANSWER_SECONDS = 2.0
ROUTES = ("score", "inference")
"""What is asked for scores."""
FAILED = ("422", "500", "503", "507")
MAX_BYTES = 1 << 20


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`trial.json`"""

    version: int
    image: str
    since: float
    """When it began to serve, seconds since 1970."""
    after: int
    """The last score before it, or soon after it began."""
    champion: Evidence | None = None
    """Of the release before it, counted when it was replaced."""

    def of(self, serves: Running) -> bool:
        return (self.version, self.image) == (serves.version, serves.release_id)


class Asked(NamedTuple):
    """What the service says of its requests."""

    requests: int = 0
    failures: int = 0
    seconds: tuple[int, ...] = ()
    silent: str | None = None


def trial(site: SiteHome) -> Trial | None:
    """The trial of the release that serves, or last did; None before the first.

    Raises:
        MalformedError: the note is damaged.
    """
    if not site.trial.exists():
        return None
    try:
        return msgspec.json.decode(durable.read_bounded(site.trial, MAX_BYTES), type=Trial)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedError(f"{site.trial} cannot be read: {error}; remove it to begin anew") from error


def begin(site: SiteHome, serves: Running, champion: Evidence | None) -> Trial:
    """Note that a release serves from now on. Again, for the one that does, changes nothing, unless it began
    in the future: then the clock was ahead, and has been set."""
    with durable.locked(site.root / ".trial.lock"):
        try:
            before = trial(site)
        except MalformedError as error:
            log.error("site %s: its trial begins anew: %s", site.name, error)
            before = None
        if before is not None and before.of(serves) and before.since <= time.time():
            return before
        if before is not None and before.of(serves):
            champion = champion or before.champion
        found = Trial(serves.version, serves.release_id, time.time(), _scored(site), champion)
        with durable.replacing(site.trial) as file:
            file.write(msgspec.json.encode(found))
    return found


def count(site: SiteHome, serves: Running) -> tuple[Evidence, Evidence | None]:
    """How the release that serves does, and how the one before it did when it was replaced.

    One whose trial nobody noted, since it came back by itself say, begins one now.
    """
    known = trial(site)
    if known is None or not known.of(serves) or known.since > time.time():
        known = begin(site, serves, None)
    return _counted(site, serves, known.since, known.after), known.champion


def champion(site: SiteHome, serves: Running | None, release: int) -> Evidence | None:
    """How the release did that `release` is about to replace; None when it replaces none.

    Of all its newest scores, those before a trial included. In place of one that evidence halted, the one
    before that. None also when it cannot be counted: a site that is to be brought back, or up again, must not
    wait for evidence.
    """
    if serves is None or serves.version == release:
        return None
    begun = time.time()
    try:
        known = trial(site)
        if known is not None and known.image == serves.release_id:
            halted = control.read(site.home).halted
            if known.champion is not None and halted is not None and halted.release == serves.version:
                return known.champion
            begun = known.since
    except DeliveryError as error:
        log.error("site %s: %s", site.name, error)
    try:
        return _counted(site, serves, begun, 0)
    except Exception as error:  # a damaged outbox, a service that answers nonsense: see above
        log.error("site %s: how release %s did is not known: %s", site.name, serves.version, error)
        return None


def _counted(site: SiteHome, serves: Running, begun: float, after: int) -> Evidence:
    asked = ask(serves)
    rows, anomalies, newest, conserved = 0, 0, None, True
    if site.outbox.exists():
        with Outbox(site.outbox, create=False) as outbox:
            conserved = outbox.counts().conserved
            sample = outbox.sample(serves.release_id, after, SAMPLE)
        rows, anomalies = sample.rows, sample.anomalies
        newest = None if sample.newest is None else sample.newest / 1e6
    return Evidence(
        version=serves.version,
        since=begun,
        at=time.time(),
        rows=rows,
        anomalies=anomalies,
        newest=newest,
        requests=asked.requests,
        failures=asked.failures,
        seconds=asked.seconds,
        conserved=conserved,
        silent=asked.silent,
    )


def _scored(site: SiteHome) -> int:
    if not site.outbox.exists():
        return 0
    with Outbox(site.outbox, create=False) as outbox:
        return outbox.counts().scored


def ask(serves: Running) -> Asked:
    """What the service counted since its process started.

    One that wants a token is left in peace: what it counts is its operator's, and its scores are here.
    """
    import httpx

    if serves.url is None:
        return Asked()
    try:
        # trust_env off: a proxy from the environment must not see what is meant for this machine.
        with httpx.Client(base_url=serves.url, timeout=ANSWER_SECONDS, trust_env=False) as http:
            answer = http.get("/metrics")
    except httpx.HTTPError as error:
        return Asked(silent=f"{serves.url}: {error}")
    if answer.status_code in (401, 403):
        return Asked()
    if answer.status_code != 200:
        return Asked(silent=f"{serves.url}/metrics answered {answer.status_code}")
    try:
        return _read(answer.text, serves.release_id)
    except ValueError as error:
        return Asked(silent=f"{serves.url}/metrics: {error}")


def _read(text: str, image: str) -> Asked:
    from prometheus_client.parser import text_string_to_metric_families

    requests, failures, digest = 0, 0, None
    within: dict[str, list[int]] = {}
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            if name == "edge_ai_release_info":
                digest = labels["digest"]
            elif labels.get("route") not in ROUTES:
                continue
            elif name == "edge_ai_requests_total":
                requests += int(value)
                failures += int(value) * (labels["code"] in FAILED)
            elif name == "edge_ai_request_seconds_bucket":
                within.setdefault(labels["route"], []).append(int(value))
    if digest != image:
        return Asked(silent=f"it is release {digest} that answers, not {image}")
    buckets = [[b - a for a, b in pairwise([0, *counts])] for counts in within.values()]
    return Asked(requests, failures, tuple(map(sum, zip(*buckets, strict=True))))
