"""From landed files to a training set. How files are read is `readings`' work, how features are made
`ml`'s."""

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets.azure import columns
from edge_ai_assets.azure.automation_conditions import FOLLOWS
from edge_ai_assets.azure.feature_engine import FeatureEngine
from edge_ai_assets.azure.landing_zone import LandingZone
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import records, table
from edge_ai_assets.resources.mirror.home_mirror import HomeMirror
from edge_ai_assets.usecase import UseCase


@dg.asset(
    key=keys.RAW_TELEMETRY,
    deps=[keys.LANDING],
    group_name="lake",
    kinds={"azuredatafactory", "parquet"},
    owners=[keys.DATA_ENGINEERING],
    check_specs=[
        dg.AssetCheckSpec(
            "contract",
            asset=keys.RAW_TELEMETRY,
            description="At least 90% of new rows keep to the use case, and every file can be read.",
        )
    ],
)
def raw_telemetry(
    context: dg.AssetExecutionContext,
    home: dg.ResourceParam[Home],
    usecase: dg.ResourceParam[UseCase],
    landing_zone: dg.ResourceParam[LandingZone],
    mirror: dg.ResourceParam[HomeMirror],
):
    """Readings as they landed, one Parquet file each, checked row by row; what breaks the contract is in
    quarantine."""
    from edge_ai_assets.readings import landing

    fetched = landing_zone.fetch()
    for name, reason in fetched.left:
        context.log.error("landed file %s stays in the container: %s", name, reason)
    landed = landing.ingest_all(home.landing, usecase, home.lake)
    reasons = landed.reasons
    for name, reason in landed.unreadable:
        context.log.error("%s is not readable and stays in %s: %s", name, home.landing / "unreadable", reason)
    new = landed.rows + landed.rejected
    accepted_share = landed.rows / new if new else 1.0
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": landed.lake_rows,
            "dagster/column_schema": columns.of_lake(home.raw_telemetry, usecase),
            "fetched_files": len(fetched.files),
            "fetched_bytes": fetched.bytes,
            "interrupted": fetched.interrupted or "no",
            "new_files": len(landed.files),
            "new_rows": landed.rows,
            "quarantined_rows": landed.rejected,
            "quarantined_for": table(reasons, "reason", "rows"),
            "simulated": usecase.simulated,
            "folder": dg.MetadataValue.path(home.raw_telemetry),
            **mirror.push(home.raw_telemetry, home.quarantine),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="contract",
                passed=accepted_share >= 0.9 and not landed.unreadable,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"{accepted_share:.1%} of the new rows keep the contract; "
                f"{len(landed.unreadable)} files could not be read",
                metadata={
                    "accepted_share": accepted_share,
                    "unreadable_files": len(landed.unreadable),
                    "unreadable": records(
                        [{"file": name, "reason": reason} for name, reason in landed.unreadable],
                        ["file", "reason"],
                    ),
                },
            )
        ],
    )


@dg.asset(
    key=keys.TRAINING_SET,
    deps=[keys.RAW_TELEMETRY],
    group_name="lake",
    kinds={"duckdb", "parquet"},
    owners=[keys.DATA_ENGINEERING],
    automation_condition=FOLLOWS,
)
def training_set(
    home: dg.ResourceParam[Home],
    usecase: dg.ResourceParam[UseCase],
    feature_engine: dg.ResourceParam[FeatureEngine],
    mirror: dg.ResourceParam[HomeMirror],
) -> dg.MaterializeResult:
    """Features of all readings and of the feedback that came home, split by run and time.

    Feedback is read from its table without being a dependency: it is the wheel's turn, and a graph has no
    cycles.
    """
    from edge_ai_assets.ml import training_set as sets

    made = sets.make(home.raw_telemetry, home.tables, usecase, home.training_sets, feature_engine)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(made.version),
        metadata={
            "dagster/row_count": made.rows,
            "dagster/column_schema": columns.of_readings(made.columns, usecase),
            "runs": made.runs,
            "held_back_rows": made.held_back,
            "feedback_rows": made.feedback,
            "positive_share": made.positive_share,
            "repeated_readings_left_out": made.repeated,
            "engine": made.engine,
            "version": made.version,
            "path": dg.MetadataValue.path(made.path),
            **mirror.push(home.training_sets),
        },
    )
