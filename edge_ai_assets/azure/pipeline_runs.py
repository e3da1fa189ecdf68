"""The sensor on Data Factory: runs of the pipeline that others started, on the asset graph.

Our own runs are the asset `lake/landing`'s to tell.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import msgspec

from edge_ai_assets import keys
from edge_ai_assets.azure.assets.landing import of_run
from edge_ai_assets.profiles import Ingestion
from edge_ai_assets.resources.calling.patience import Refused, Unavailable
from edge_ai_assets.resources.ingestion.data_factory import DataFactory, PipelineRun

EVERY = 60
"""Seconds. Data Factory's list is minutes late itself, and allows a bounded number of questions."""
LAG = timedelta(minutes=10)
"""So long after its update a run may still be missing from the list."""
FIRST = timedelta(days=1)
"""How far back the first look goes."""
BATCH = 50
TOLD = {
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.QUEUED,
}
"""A Dagster run that is here tells of its pipeline's run itself, unless it failed on the way."""


class Seen(msgspec.Struct, frozen=True):
    """The sensor's cursor."""

    until: datetime
    """Runs that ended before were told, but for what the list shows late."""
    told: dict[str, datetime] = {}
    """Those that the next look finds again, and when each was updated."""


def pipeline_ran(section: Ingestion) -> dg.SensorDefinition:
    """A sensor on the pipeline's runs."""
    kept: list[DataFactory] = []

    @dg.sensor(
        name="pipeline_ran",
        minimum_interval_seconds=EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Shows runs of Data Factory's pipeline that others started.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """Tell of each run that ended, once, BATCH a tick, in the order they were updated.

        One that succeeded landed files: a materialization of lake/landing. Another is an observation. The
        cursor is the update up to which all was told, with the runs that the next look finds again because
        it goes LAG back: a restart neither skips nor repeats one.
        """
        from edge_ai_assets.resources.ingestion import data_factory

        now = datetime.now(UTC)
        seen = msgspec.json.decode(context.cursor, type=Seen) if context.cursor else Seen(now - FIRST)
        if not kept:
            kept.append(data_factory.configured(section))
        try:
            found = kept[0].updated(seen.until - LAG, now + FIRST)
        except Unavailable as outage:
            return dg.SkipReason(f"{outage}; asked again in {EVERY} s")
        except Refused:
            kept.clear()  # a secret that was renewed since is fetched with the next tick
            raise
        new = [run for run in found if not run.under_way and run.run_id not in seen.told and run.last_updated]
        batch, left = new[:BATCH], new[BATCH:]
        told = {**seen.told, **{run.run_id: run.last_updated for run in batch if run.last_updated}}
        until = max([seen.until, *told.values()])
        events = [_event(run) for run in batch if not _ours(context.instance, run)]
        cursor = Seen(until, {run_id: at for run_id, at in told.items() if at >= until - LAG})
        if not events and not left:
            context.update_cursor(msgspec.json.encode(cursor).decode())
            return dg.SkipReason("no run of others ended")
        return dg.SensorResult(asset_events=events, cursor=msgspec.json.encode(cursor).decode())

    return sensor


def _ours(instance: dg.DagsterInstance, run: PipelineRun) -> bool:
    known = instance.get_run_by_id(run.mark) if run.mark else None
    return known is not None and known.status in TOLD


def _event(run: PipelineRun) -> dg.AssetMaterialization | dg.AssetObservation:
    if run.status == "Succeeded":
        return dg.AssetMaterialization(keys.LANDING, metadata=of_run(run))
    return dg.AssetObservation(keys.LANDING, metadata=of_run(run))
