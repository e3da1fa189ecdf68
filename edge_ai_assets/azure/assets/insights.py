"""What came home: from return packages to insights, feedback, drift and the report for everyone."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets.azure import columns, completeness
from edge_ai_assets.azure.arriving import Arriving
from edge_ai_assets.azure.automation_conditions import FOLLOWS
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import picture, records, table
from edge_ai_assets.resources.mirror.home_mirror import HomeMirror
from edge_ai_assets.usecase import UseCase


@dg.asset(
    key=keys.INBOX,
    deps=[keys.SITE_UPLOAD],
    group_name="global",
    kinds={"deltalake"},
    owners=[keys.DATA_ENGINEERING],
    pool="replay",
    check_specs=[
        dg.AssetCheckSpec(
            "once",
            asset=keys.INBOX,
            description="No insight and no feedback stands twice, whatever was sent again.",
        ),
        dg.AssetCheckSpec(
            "completeness",
            asset=keys.INBOX,
            description="No site's packages have a gap, none was refused or failed, no site is stale.",
        ),
    ],
)
def inbox(
    context: dg.AssetExecutionContext,
    home: dg.ResourceParam[Home],
    usecase: dg.ResourceParam[UseCase],
    arriving: dg.ResourceParam[Arriving],
    mirror: dg.ResourceParam[HomeMirror],
):
    """Return packages of all sites: signature, chain and order checked, merged into the global tables by
    (site, sequence), and acknowledged."""
    from edge_ai_assets.azure import arrivals
    from edge_ai_assets.returns.inbox import tables

    brought = arriving.sync()
    if brought.interrupted:
        context.log.warning("the container was not emptied: %s", brought.interrupted)
    for name, reason in brought.left:
        context.log.error("package %s stays in the container: %s", name, reason)
    names = arrivals.new_packages(home)
    received = arrivals.receive_all(home)
    acknowledged = arrivals.acknowledge(home)
    put_up = arriving.sync()  # acknowledgements; a package that comes meanwhile is the next run's
    for name, reason in received.refused:
        context.log.error("package %s was refused: %s", name, reason)
    for site, reason in received.failed:
        context.log.error("packages of %s wait, they could not be taken in: %s", site, reason)
    marks = arrivals.watermarks(home, usecase)
    twice = tables.duplicates(home.tables)
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": tables.count(home.tables, "insights"),
            "dagster/column_schema": columns.of_delta(home.tables, "insights"),
            "packages": received.packages,
            "insights": received.insights,
            "feedback": received.feedback,
            "lineage_events": received.lineage,
            "package_names": names,
            "repeated_rows": received.repeated,
            "days": sorted(str(day) for day in received.days),
            "acknowledged": acknowledged,
            "fetched": len(brought.fetched),
            "interrupted": brought.interrupted or put_up.interrupted or "no",
            "watermarks": completeness.table(marks),
            "tables": dg.MetadataValue.path(home.tables),
            **mirror.push(home.tables),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="once",
                passed=twice == 0,
                description=f"{twice} rows stand more than once",
                metadata={"duplicates": twice},
            ),
            completeness.check(received, marks),
        ],
    )


def _held_back(context: dg.AssetExecutionContext, home: Home, usecase: UseCase) -> bool:
    """Whether the use case wants nothing published now. Then the asset makes nothing, and what follows it in
    the run is skipped; the run is no failure, since the check of global/inbox says what is missing."""
    from edge_ai_assets.azure import arrivals

    parted = arrivals.held_back(home, usecase)
    for mark in parted:
        context.log.warning(
            "nothing is published (returns.publish: complete): %s: %s", mark.site, mark.sentence
        )
    return bool(parted)


@dg.asset(
    key=keys.INSIGHTS,
    deps=[keys.INBOX],
    group_name="global",
    kinds={"deltalake", "powerbi"},
    owners=[keys.DATA_ENGINEERING],
    automation_condition=FOLLOWS,
    output_required=False,
)
def insights(
    context: dg.AssetExecutionContext,
    home: dg.ResourceParam[Home],
    usecase: dg.ResourceParam[UseCase],
    mirror: dg.ResourceParam[HomeMirror],
):
    """Insights by day, site, release and plant asset, if the use case names such, and the star about them for
    Power BI. Only days that received something are computed again."""
    from edge_ai_assets.azure import arrivals, gold, gold_star
    from edge_ai_assets.delivery import pack
    from edge_ai_assets.returns.inbox import daily

    if _held_back(context, home, usecase):
        return
    by_asset = usecase.plant_asset is not None
    done = daily.refresh(home.tables, assets=by_asset)
    releases = pack.known(home.registry, home.keys)
    numbers = {one.image: one.version for one in releases}
    rings = {site.name: str(site.ring) for site in usecase.sites}
    star = gold.refresh(
        home.tables, releases, arrivals.watermarks(home, usecase), rings, datetime.now(UTC).date()
    )
    facts = gold.read(home.tables, daily.NAME, gold_star.schema(daily.NAME))
    key = ["day", "site", "release", *(["asset"] if by_asset else ())]
    order = [(name, "descending") for name in key]
    newest = [
        {**row, "day": str(row["day"]), "release": numbers.get(row["release"])}
        for row in facts.sort_by(order).slice(0, 20).to_pylist()
    ]
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": done.rows,
            "dagster/column_schema": columns.of_delta(home.tables, daily.NAME),
            "insights": done.insights,
            "anomalies": done.anomalies,
            "days_computed": done.days_computed,
            "days": done.days,
            "by_site": table(done.by_site, "site", "insights"),
            "newest": records(newest, [*key, "insights", "anomalies", "mean_score"]),
            **({"by_asset": _assets(facts)} if by_asset else {}),
            "path": dg.MetadataValue.path(home.tables / daily.NAME),
            "star": table(star, "table", "rows"),
            **mirror.push(home.tables / gold_star.FOLDER),
        }
    )


def _assets(facts: Any) -> dg.TableMetadataValue:
    """The plant assets with most anomalies, of the daily table."""
    import duckdb

    from edge_ai_assets.returns.inbox import daily

    columns = ["site", "asset", "scored", "insights", "anomalies"]
    with duckdb.connect() as db:
        db.register("daily", facts)
        found = db.execute(daily.ASSETS, [20]).fetchall()
    return records([dict(zip(columns, row, strict=True)) for row in found], columns)


@dg.asset(
    key=keys.FEEDBACK,
    deps=[keys.INBOX],
    group_name="global",
    kinds={"deltalake"},
    owners=[keys.DATA_SCIENCE],
    automation_condition=FOLLOWS,
)
def feedback(home: dg.ResourceParam[Home]) -> dg.MaterializeResult:
    """What people on the sites said of the scores, and how good each release was by their word."""
    from edge_ai_assets.delivery import pack
    from edge_ai_assets.returns.inbox import judged

    numbers = {one.image: one.version for one in pack.known(home.registry, home.keys)}
    by_release = [
        {**row, "release": numbers.get(row["release"]), "image": row["release"][7:19]}
        for row in judged.by_release(home.tables)
    ]
    newest = by_release[-1] if by_release else None
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(row["rows"] for row in by_release),
            "dagster/column_schema": columns.of_delta(home.tables, "feedback"),
            "by_release": records(
                by_release, ["release", "rows", "f1", "false_alarm_rate", "miss_rate", "image"]
            ),
            **(
                {"f1_newest": newest["f1"], "false_alarm_rate_newest": newest["false_alarm_rate"]}
                if newest
                else {}
            ),
        }
    )


@dg.asset(
    key=keys.DRIFT,
    deps=[keys.INBOX],
    group_name="global",
    kinds={"numpy"},
    owners=[keys.DATA_SCIENCE],
    automation_condition=FOLLOWS,
    check_specs=[
        dg.AssetCheckSpec(
            "no_drift",
            asset=keys.DRIFT,
            description="No site's recent readings have moved away from the newest release's training data.",
        )
    ],
)
def drift(
    context: dg.AssetExecutionContext,
    home: dg.ResourceParam[Home],
    usecase: dg.ResourceParam[UseCase],
    mirror: dg.ResourceParam[HomeMirror],
):
    """How far each site's readings have moved from the champion's training data, seen in histograms and
    sketches, not in rows. What of it is for Power BI waits while nothing is to be published."""
    from edge_ai_assets.azure import gold, gold_star, watch
    from edge_ai_assets.delivery import pack
    from edge_ai_assets.ml import plots

    seen = watch.drift(home, usecase)
    drifted = sorted(site.name for site in seen if site.verdict.drifted)
    worst = max(seen, key=lambda site: (site.verdict.share, site.nearest[1]), default=None)
    newest = pack.newest(home.registry, home.keys)
    published = not _held_back(context, home, usecase)
    if newest and published:
        gold.record_drift(home.tables, newest.image, seen, datetime.now(UTC).date())
    metadata: dict[str, Any] = {
        "sites_judged": len(seen),
        "sites_drifted": len(drifted),
        "largest_share": worst.verdict.share if worst else 0.0,
        # A stability index says little by itself: each feature has a threshold of its own.
        "largest_index_in_thresholds": max((site.nearest[1] for site in seen), default=0.0),
        "by_site": records(
            [
                {
                    "site": site.name,
                    "rows": site.rows,
                    "share": site.verdict.share,
                    "drifted": site.verdict.drifted,
                    "worst_feature": site.nearest[0],
                    "in_thresholds": site.nearest[1],
                    "above_threshold": ", ".join(site.verdict.exceeded) or "none",
                }
                for site in seen
            ],
            ["site", "rows", "share", "drifted", "worst_feature", "in_thresholds", "above_threshold"],
        ),
        "release": newest.version if newest else 0,
        watch.RELEASE: newest.image if newest else "",
        watch.SITES: drifted,
        **(mirror.push(home.tables / gold_star.FACT_DRIFT) if published else {}),
    }
    if worst:
        png = plots.drift(worst.name, worst.verdict, worst.references, worst.counts)
        metadata["plot"] = picture(png, f"readings of {worst.name} against the training data")
    yield dg.MaterializeResult(
        metadata=metadata,
        check_results=[
            dg.AssetCheckResult(
                check_name="no_drift",
                passed=not drifted,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"drift at {', '.join(drifted)}" if drifted else f"none at {len(seen)} sites",
                metadata={"sites_drifted": len(drifted), "sites_judged": len(seen)},
            )
        ],
    )


@dg.asset(
    key=keys.REPORT,
    deps=[keys.INSIGHTS, keys.FEEDBACK, keys.DRIFT],
    group_name="global",
    kinds={"html"},
    owners=[keys.DATA_ENGINEERING],
    automation_condition=FOLLOWS,
    output_required=False,
)
def report(
    context: dg.AssetExecutionContext,
    home: dg.ResourceParam[Home],
    usecase: dg.ResourceParam[UseCase],
    mirror: dg.ResourceParam[HomeMirror],
):
    """The page for everyone: fleet, anomalies by day, releases. One file, nothing loaded from anywhere."""
    from edge_ai_assets.azure import page

    if _held_back(context, home, usecase):
        return
    path = page.publish(home, usecase)
    yield dg.MaterializeResult(
        metadata={
            "page": dg.MetadataValue.path(path),
            "bytes": path.stat().st_size,
            **mirror.push(home.report),
        }
    )
