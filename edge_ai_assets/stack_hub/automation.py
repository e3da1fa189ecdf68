"""Sensors of the sites' side. Each looks over all sites, never one a site, with as few runs as it can:
one for a range of neighbouring sites, but one a site for deployments.

All are driven by the state found, not by events: what a crash or a restart left undone is found again, and
what is done is not found. One run of a job at a time; what comes meanwhile is taken by the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets.home import Home, SiteHome
from edge_ai_assets.partitions import SITES
from edge_ai_assets.runs import EVERY, in_flight, turn
from edge_ai_assets.stack_hub.fleet import alone, runs_for
from edge_ai_assets.stack_hub.rollout import SiteState, dead_sites, next_sites
from edge_ai_assets.usecase import UseCase

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


def release_available(
    job: dg.UnresolvedAssetJobDefinition, home: Home, usecase: UseCase
) -> dg.SensorDefinition:
    """A sensor that brings the newest release to the sites, ring by ring."""

    @dg.sensor(
        name="release_available",
        job=job,
        minimum_interval_seconds=EVERY,
        default_status=RUNNING,
        description="Brings the newest release to the sites, the next ring when the former's checks pass.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """Ask the sites that `rollout.next_sites` names to run the newest release, BATCH a tick.

        There is no cursor: which release each site runs is looked up, so a restart neither skips nor repeats
        one. A site whose service died gets it back first, link or no link. Each deployment is a run of its
        own because it waits, fails and is retried alone.
        """
        from edge_ai_assets.delivery import pack
        from edge_ai_assets.stack_hub import delivery
        from edge_ai_assets.stack_hub.returning import conserved

        target = pack.newest(home.registry, home.keys)
        if target is None:
            return dg.SkipReason("there is no release yet")
        if in_flight(context.instance, job.name):
            return dg.SkipReason("a deployment is under way")
        states: dict[str, SiteState] = {
            name: delivery.state(home.site(name), target) for name in known_sites(context.instance, usecase)
        }
        if dead := dead_sites(states):
            # From the release on its disk: the newest one can come after, and only when there is a link.
            return requests(
                alone(dead[:BATCH]), f"again {began(states, dead)}", assets=[keys.SITE_DEPLOYMENT]
            )
        asked, why = next_sites(usecase, target.version, states)
        if asked:
            # The checks of the sites that have it cost most, and matter only when there is somebody to ask.
            have = [name for name, state in states.items() if state.serving == target.version]
            states |= {name: replace(states[name], healthy=conserved(home.site(name))) for name in have}
            asked, why = next_sites(usecase, target.version, states)
        if not asked:
            return dg.SkipReason(why)
        return requests(alone(asked[:BATCH]), f"release {target.version} {began(states, asked)}")

    return sensor


def something_waits(
    name: str,
    job: dg.UnresolvedAssetJobDefinition,
    home: Home,
    usecase: UseCase,
    marker: Marker,
    description: str,
    unless: Sequence[dg.UnresolvedAssetJobDefinition] = (),
) -> dg.SensorDefinition:
    """A sensor that asks for `job` at the sites where something waits, while no run of `unless` is under
    way."""

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
        last = context.cursor
        for site in looked:
            if len(markers) == BATCH:
                break
            last = site
            if waiting := marker(home.site(site)):
                markers[site] = waiting
        if not markers:
            if last is not None:
                context.update_cursor(last)
            return dg.SkipReason(f"nothing waits at {len(looked)} sites")
        state = hashlib.sha256(repr(sorted(markers.items())).encode()).hexdigest()[:16]
        registered = context.instance.get_dynamic_partitions(str(SITES.name))
        return requests(runs_for(list(markers), registered), state, cursor=last)

    return sensor


def requests(
    runs: Iterable[dict[str, str]],
    state: str,
    *,
    cursor: str | None = None,
    assets: Sequence[dg.AssetKey] | None = None,
) -> dg.SensorResult:
    """Run requests with these tags. The same state asks once in RETRY_SECONDS, so a failing run does not
    spin, and is tried again."""
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"{state}/{'..'.join(tags.values())}/{turn()}", tags=tags, asset_selection=assets
            )
            for tags in runs
        ],
        cursor=cursor,
    )


def known_sites(instance: dg.DagsterInstance, usecase: UseCase) -> list[str]:
    """Sites that are registered and in the use case: one that was taken out of it is left alone."""
    named = {site.name for site in usecase.sites}
    return [name for name in instance.get_dynamic_partitions(str(SITES.name)) if name in named]


def began(states: Mapping[str, SiteState], sites: Sequence[str]) -> str:
    """When the services of these sites last began, as a digest: one that dies again is asked again."""
    return hashlib.sha256(repr([(name, states[name].since) for name in sites]).encode()).hexdigest()[:8]


def next_in_turn(sites: Sequence[str], last: str | None, count: int) -> list[str]:
    """Up to `count` sites, those after `last` first, then from the start."""
    if last is None:
        return list(sites[:count])
    return ([site for site in sites if site > last] + [site for site in sites if site <= last])[:count]
