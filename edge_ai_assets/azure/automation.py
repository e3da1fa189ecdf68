"""Sensors and the schedule of Azure's side: what starts when files land, packages arrive, drift is seen,
time passes."""

from __future__ import annotations

import hashlib
import time

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets.azure.arriving import Arriving
from edge_ai_assets.azure.landing_zone import LandingZone
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import plain
from edge_ai_assets.runs import EVERY, in_flight, turn
from edge_ai_assets.usecase import UseCase

REASON = "edge_ai/reason"
"""Tag of a retraining's run: drift or schedule."""
RUNNING = dg.DefaultSensorStatus.RUNNING
LISTING = 30
"""Seconds between two listings of a container, which cost."""


def readings_landed(
    ingest: dg.UnresolvedAssetJobDefinition,
    first: dg.UnresolvedAssetJobDefinition,
    home: Home,
    zone: LandingZone | None = None,
) -> dg.SensorDefinition:
    """A sensor on the landing zone: the folder, and the container behind it if there is one."""
    far = zone if zone and zone.far else None

    @dg.sensor(
        name="readings_landed",
        jobs=[ingest, first],
        minimum_interval_seconds=LISTING if far else EVERY,
        default_status=RUNNING,
        description="Takes landed files into the lake, and on to the first release while there is none.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """Take landed files into the lake; as long as there is no champion, go on to the first release.

        A file stays in the landing zone until the lake has it, so a restart finds what is still to do. The
        run key is the listing and the turn: one run for one state, and another later if that one failed. A
        container is only listed: the run fetches.
        """
        from edge_ai_assets.readings import landing
        from edge_ai_assets.returns.road.link import LinkDown

        files, nothing = landing.waiting(home.landing), "nothing waits in the landing zone"
        blobs: list[tuple[str, str]] = []
        try:
            blobs = far.waiting() if far else []
        except LinkDown as error:
            nothing = str(error)
        if not files and not blobs:
            return dg.SkipReason(nothing)
        if in_flight(context.instance, ingest.name) or in_flight(context.instance, first.name):
            return dg.SkipReason("files are being taken in")
        listing = repr([(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files] + blobs)
        job = ingest if home.champion.exists() else first
        state = hashlib.sha256(listing.encode()).hexdigest()[:16]
        return dg.RunRequest(run_key=f"{state}/{turn()}", job_name=job.name)

    return sensor


def packages_arrived(
    job: dg.UnresolvedAssetJobDefinition, home: Home, arriving: Arriving | None = None
) -> dg.SensorDefinition:
    """A sensor on Azure's end of the links: the folder, and the container behind it if there is one."""

    @dg.sensor(
        name="packages_arrived",
        job=job,
        minimum_interval_seconds=EVERY,
        default_status=RUNNING,
        description="Brings return packages that arrived into the global tables.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """Bring arrived packages into the global tables.

        What has arrived is compared with what the tables hold, so a restart finds what is still to do. The
        run key is the names that are new and the turn; without the turn when all of them wait for one that
        is missing, which no other run would bring. A container is only listed: the run fetches.
        """
        from edge_ai_assets.azure import arrivals
        from edge_ai_assets.resources.identity.secret import SecretError
        from edge_ai_assets.returns.road.link import LinkDown
        from edge_ai_assets.returns.road.roads import UplinkError

        here, nothing = arrivals.waiting_packages(home), "every package that arrived was received"
        far: list[str] = []
        try:
            far = arriving.waiting() if arriving else []
        except LinkDown as error:
            nothing = str(error)
        except (UplinkError, SecretError) as error:
            if not here:
                raise
            context.log.error(f"packages that were carried are received, the container is not: {error}")
        if not here and not far:
            return dg.SkipReason(nothing)
        if in_flight(context.instance, job.name):
            return dg.SkipReason("packages are being received")
        state = hashlib.sha256(repr(sorted(here) + far).encode()).hexdigest()[:16]
        return dg.RunRequest(run_key=f"{state}/{turn()}" if far or any(here.values()) else state)

    return sensor


def completeness_due(job: dg.UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """The schedule that looks once a day how complete the sites are: of a silent one nothing arrives."""

    @dg.schedule(
        name="completeness_due",
        job=job,
        cron_schedule="0 5 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Looks once a day how complete the sites are, whether or not anything arrived.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if in_flight(context.instance, job.name):
            return dg.SkipReason("packages are being received, which ends with that look")
        return dg.RunRequest()

    return schedule


def drift_seen(job: dg.UnresolvedAssetJobDefinition, home: Home, usecase: UseCase) -> dg.SensorDefinition:
    """A sensor that retrains when drift is seen, at most once in the use case's cool-down."""

    @dg.sensor(
        name="drift_seen",
        job=job,
        minimum_interval_seconds=EVERY,
        default_status=RUNNING,
        description="Retrains when a site drifts and people there judged scores, once in the cool-down.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """Retrain when the newest look at drift found some under the newest release, and people there judged
        scores.

        Drift alone gives nothing new to learn from, so it waits for feedback of the sites that drift. The
        cursor holds when it last asked. Losing it can cost one training too many, which releases nothing
        unless it is better.
        """
        from edge_ai_assets.azure import watch

        found = plain(context.instance.get_latest_materialization_event(keys.DRIFT))
        if found is None:
            return dg.SkipReason("drift has not been looked at yet")
        sites, release = found[watch.SITES], found[watch.RELEASE]
        if not sites:
            return dg.SkipReason("no site drifts")
        if release != watch.champion_release(home):
            return dg.SkipReason(
                "drift was seen under a former release; it is looked at again when packages arrive"
            )
        if (wait := float(context.cursor or 0) + usecase.retraining.cooldown_minutes * 60 - time.time()) > 0:
            return dg.SkipReason(
                f"drift was trained on lately: the cool-down lasts {wait / 60:.0f} minutes more"
            )
        feedback, least = watch.feedback_rows(home, sites), usecase.retraining.feedback_rows
        if feedback < least:
            return dg.SkipReason(
                f"{', '.join(sites)} drift; {feedback} scores there were judged, {least} are waited for"
            )
        if in_flight(context.instance, job.name):
            return dg.SkipReason("a training is under way")
        context.update_cursor(str(time.time()))
        # What was learnt from is not learnt from again; a training that failed is.
        tags = {REASON: "drift"}
        failed = dg.RunsFilter(job_name=job.name, tags=tags, statuses=[dg.DagsterRunStatus.FAILURE])
        failures = context.instance.get_runs_count(failed)
        return dg.RunRequest(run_key=f"drift/{release}/{feedback}/{failures}", tags=tags)

    return sensor


def retraining_due(job: dg.UnresolvedAssetJobDefinition, usecase: UseCase) -> dg.ScheduleDefinition:
    """The schedule that retrains whether or not drift is seen."""
    return dg.ScheduleDefinition(
        name="retraining_due",
        job=job,
        cron_schedule=usecase.retraining.cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        tags={REASON: "schedule"},
        description="Retrains whether or not drift is seen; only a better model goes out.",
    )
