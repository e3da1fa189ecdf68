"""Sensors of the sites' side. Each looks over all sites, never one a site, with as few runs as it can:
one for a range of neighbouring sites, but one a site for deployments. Releases are `rollout_sensor`'s.

All are driven by the state found, not by events: what a crash or a restart left undone is found again, and
what is done is not found. One run of a job at a time; what comes meanwhile is taken by the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import dagster as dg

from edge_ai_assets.home import Home, SiteHome
from edge_ai_assets.partitions import SITES
from edge_ai_assets.runs import EVERY, in_flight, turn
from edge_ai_assets.stack_hub.far_ends import NOTHING_FAR, FarEnds
from edge_ai_assets.stack_hub.fleet import alone, runs_for
from edge_ai_assets.stack_hub.looking import Looking, known_sites, next_in_turn
from edge_ai_assets.usecase import Road, UseCase

LOOK = 250
"""Sites looked at in one tick."""
BATCH = 50
"""Sites asked for in one tick."""
RUNNING = dg.DefaultSensorStatus.RUNNING

Marker = Callable[[SiteHome], str | None]
"""What waits at a site, as text that changes when more does; None when nothing waits."""


def sites_registered(usecase: UseCase) -> dg.SensorDefinition:
    """A sensor that makes each site of the use case a partition, before anything can happen there."""

    @dg.sensor(
        name="sites_registered",
        minimum_interval_seconds=EVERY,
        default_status=RUNNING,
        description="Makes each site of the use case a partition.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """Register the sites of the use case. An event for a partition that is not registered is invisible
        for ever."""
        known = set(context.instance.get_dynamic_partitions(str(SITES.name)))
        new = [site.name for site in usecase.sites if site.name not in known]
        if not new:
            return dg.SkipReason(f"all {len(known)} sites are registered")
        return dg.SensorResult(dynamic_partitions_requests=[SITES.build_add_request(new)])

    return sensor


def something_waits(
    name: str,
    job: dg.UnresolvedAssetJobDefinition,
    home: Home,
    usecase: UseCase,
    marker: Marker,
    description: str,
    unless: Sequence[dg.UnresolvedAssetJobDefinition] = (),
    apart: bool = False,
) -> dg.SensorDefinition:
    """A sensor that asks for `job` at the sites where something waits, while no run of `unless` is under way.

    `apart`: a run a site, for what waits, fails and is retried alone.
    """

    @dg.sensor(
        name=name, job=job, minimum_interval_seconds=EVERY, default_status=RUNNING, description=description
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """Look at LOOK sites a tick, in turn; the cursor is the last one looked at, and losing it only
        starts over."""
        if in_flight(context.instance, job.name, *(other.name for other in unless)):
            return dg.SkipReason(f"a run of {job.name} is under way, or of a job that does the same")
        looked = next_in_turn(sorted(known_sites(context.instance, usecase)), context.cursor, LOOK)
        markers: dict[str, str] = {}
        looking = Looking(context.log)
        last = context.cursor
        for site in looked:
            if len(markers) == BATCH:
                break
            last = site
            with looking.at(site):
                if waiting := marker(home.site(site)):
                    markers[site] = waiting
        if not markers:
            if last is not None:
                context.update_cursor(last)
            return dg.SkipReason(looking.why(f"nothing waits at {len(looked)} sites"))
        state = hashlib.sha256(repr(sorted(markers.items())).encode()).hexdigest()[:16]
        registered = context.instance.get_dynamic_partitions(str(SITES.name))
        runs = alone(list(markers)) if apart else runs_for(list(markers), registered)
        return requests(runs, state, cursor=last)

    return sensor


def packages_waiting(
    job: dg.UnresolvedAssetJobDefinition,
    home: Home,
    usecase: UseCase,
    observed: dg.AssetKey,
    far: FarEnds = NOTHING_FAR,
) -> dg.SensorDefinition:
    """A sensor that lets packages leave when a site's road is open, and records when it opens and closes."""

    @dg.sensor(
        name="link_up",
        job=job,
        minimum_interval_seconds=EVERY,
        default_status=RUNNING,
        description="Packages wait at a site whose road is open; its link is watched.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """Look at LOOK sites a tick, in turn; the cursor is the last one looked at.

        What is known of a link stands in the site's folder: real uploads change it, and a probe when none was
        needed for a while. Each change becomes an observation of site/upload with the time the former state
        lasted; the site keeps it until it is found in Dagster's log, so that no tick that fails loses one.
        """
        from edge_ai_assets.returns import clock
        from edge_ai_assets.stack_hub import connecting, link_changes, waiting

        if in_flight(context.instance, job.name):
            return dg.SkipReason(f"a run of {job.name} is under way")
        due: dict[str, str] = {}
        seen: list[dg.AssetObservation] = []
        known = known_sites(context.instance, usecase)
        roads = {name: usecase.at(name).road for name in known}
        looked = next_in_turn(sorted(known), context.cursor, LOOK)
        looking = Looking(context.log)
        last = context.cursor
        for name in looked:
            if len(due) == BATCH:
                break
            last, site = name, home.site(name)
            with looking.at(name):
                queued = roads[name] is Road.QUEUE
                if queued and not connecting.unsent(site):
                    continue  # the function sends what it made
                way = (connecting.sealed_before if queued else connecting.road)(
                    site, usecase, home.uplink, far
                )
                if way is None:
                    if number := waiting.to_carry(site):
                        due[name] = number
                elif site.root.exists():
                    found = connecting.look(site, way, clock.now())
                    seen += link_changes.news(context.instance, observed, site, found.changes)
                    if found.upload_due:  # asked again at once when the link was away meanwhile
                        due[name] = f"{waiting.newest_package(site)} {found.link.since}"
        state = hashlib.sha256(repr(sorted(due.items())).encode()).hexdigest()[:16]
        registered = context.instance.get_dynamic_partitions(str(SITES.name))
        return dg.SensorResult(
            run_requests=requests(runs_for(list(due), registered), state).run_requests,
            asset_events=seen,
            cursor=last,
            skip_reason=None if due else looking.why(f"nothing may leave at {len(looked)} sites"),
        )

    return sensor


def requests(runs: Iterable[dict[str, str]], state: str, *, cursor: str | None = None) -> dg.SensorResult:
    """Run requests with these tags. The same state asks once in RETRY_SECONDS, so a failing run does not
    spin, and is tried again."""
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(run_key=f"{state}/{'..'.join(tags.values())}/{turn()}", tags=tags) for tags in runs
        ],
        cursor=cursor,
    )
