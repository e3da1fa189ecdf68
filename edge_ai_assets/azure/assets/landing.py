"""The landing zone: files of readings as Data Factory leaves them. What is made of them is `lake`'s work, how
a pipeline's run is followed `resources.ingestion.pipeline_run`'s."""

from typing import Any

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import records
from edge_ai_assets.profiles import Ingestion
from edge_ai_assets.resources.ingestion.data_factory import PipelineRun

SPEC = dg.AssetSpec(
    keys.LANDING,
    group_name="lake",
    kinds={"azuredatafactory"},
    owners=[keys.DATA_ENGINEERING],
    description="Files of readings as they land: by a pipeline of Data Factory where one is configured "
    "(azure.toml, [ingestion]), else by whoever puts them there.",
)
"""What everybody knows of it. It can be made where a pipeline is configured; else others make it."""
AGAIN = 60
"""Seconds before a step is tried again whose patience with an outage ended: what runs there is followed."""
SHOWN = 200
"""Activities that are listed, the first ones: a loop has tens of thousands. Sums are of all of them."""
COLUMNS = [
    "activity",
    "type",
    "status",
    "seconds",
    "rows_read",
    "rows_written",
    "files_written",
    "bytes_written",
    "error",
]


@dg.multi_asset(specs=[SPEC])
def landing(
    context: dg.AssetExecutionContext, home: dg.ResourceParam[Home], ingestion: dg.ResourceParam[Ingestion]
):
    """Runs the pipeline once for this run, however often the run is started again, and tells what it did.

    The sensor on the landing zone takes on from here: it starts what takes files into the lake.
    """
    from edge_ai_assets.readings import landing as zone
    from edge_ai_assets.resources.calling.patience import Refused, Unavailable
    from edge_ai_assets.resources.ingestion import data_factory, pipeline_run

    factory = data_factory.configured(ingestion)
    kin = {context.run.parent_run_id or "", context.run.root_run_id or ""} - {""}
    try:
        done = pipeline_run.run(factory, context.run.run_id, kin, context.log.info)
    except (pipeline_run.PipelineFailed, Refused) as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    except Unavailable as outage:
        # Not by a retry policy: that retries a run which was terminated, too.
        raise dg.RetryRequested(max_retries=2, seconds_to_wait=AGAIN) from outage
    did: list[dict[str, Any]] = [
        {
            "activity": each.activity_name,
            "type": each.activity_type,
            "status": each.status,
            "seconds": (each.duration_in_ms or 0) / 1000,
            "rows_read": each.number("rowsRead"),
            "rows_written": each.number("rowsCopied", "rowsWritten"),
            "files_written": each.number("filesWritten"),
            "bytes_written": each.number("dataWritten"),
            "error": each.problem,
        }
        for each in factory.activities(done)
    ]
    yield dg.MaterializeResult(
        asset_key=keys.LANDING,
        metadata={
            **of_run(done),
            **{
                name: sum(row[name] or 0 for row in did)
                for name in ("rows_read", "rows_written", "files_written", "bytes_written")
            },
            "activities": records(did[:SHOWN], COLUMNS),
            "activities_count": len(did),
            "files_waiting": len(zone.waiting(home.landing)),
        },
    )


def of_run(run: PipelineRun) -> dict[str, Any]:
    """A pipeline's run as metadata."""
    told = {
        "pipeline": run.pipeline_name,
        "pipeline_run": run.run_id,
        "status": run.status,
        "seconds": (run.duration_in_ms or 0) / 1000,
        "invoked_by": (run.invoked_by or {}).get("name") or "",
        "message": run.says,
    }
    times = {"started": run.run_start, "ended": run.run_end}
    return {
        **told,
        **{name: dg.MetadataValue.timestamp(value) for name, value in times.items() if value},
    }
