"""What happened at the sites, in their own order and time, on Azure's asset graph."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets.azure.automation_conditions import FOLLOWS
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import records
from edge_ai_assets.resources.mirror.home_mirror import HomeMirror

SHOWN = 50
"""Rows of a table in the metadata; the rest is in the table itself."""
STANDING = 500
"""Checks that are shown as they stand, those that failed first."""
LOOKED = 1_000
"""Deployments among which those are found that were no restart."""
CHECKED = ["site", "asset", "check", "severity", "edge_time", "imported", "says", "run"]


@dg.asset(
    key=keys.HISTORY,
    deps=[keys.INBOX],
    group_name="global",
    kinds={"deltalake"},
    owners=[keys.PLATFORM],
    pool="replay",
    automation_condition=FOLLOWS,
    check_specs=[
        dg.AssetCheckSpec(
            "sites_checked_out",
            asset=keys.HISTORY,
            description="Every check of every site passed when it was last evaluated there.",
        )
    ],
)
def history(
    context: dg.AssetExecutionContext, home: dg.ResourceParam[Home], mirror: dg.ResourceParam[HomeMirror]
) -> dg.MaterializeResult:
    """What Dagster recorded at the sites, brought onto their assets here: runs, checks, deployments, with the
    site's own time and the time it came. All of it is in the lineage table."""
    from edge_ai_assets.azure import arrivals
    from edge_ai_assets.azure.replay import replay
    from edge_ai_assets.returns.inbox import history as told
    from edge_ai_assets.returns.inbox import tables

    done = replay(context.instance, home.tables, arrivals.site_keys(home))
    for site, missing in done.gaps.items():
        context.log.warning("site %s: event %s has not come, later ones wait for it", site, missing)
    newest = told.newest(home.tables)
    deployed = _became_another(told.last_deployments(home.tables, LOOKED))[:SHOWN]
    standing = sorted(told.standing_checks(home.tables), key=lambda row: bool(row["check"]["passed"]))
    failing = [row for row in standing if not row["check"]["passed"]]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": tables.count(home.tables, told.NAME),
            "events": done.events,
            "shown": done.reported,
            "sites": len(done.sites),
            "newest": records(
                [
                    _row(row)
                    for row in sorted(newest, key=lambda row: row["imported_at"], reverse=True)[:SHOWN]
                ],
                ["site", "asset", "edge_time", "imported", "run"],
            ),
            "checks_by_site": records(
                [_checked(row) for row in standing[:STANDING]],
                ["site", "asset", "check", "passed", "severity", "edge_time", "says"],
            ),
            "failed_checks": records(
                [_checked(row) for row in told.failed(home.tables, SHOWN)],
                CHECKED,
            ),
            "deployments": records(
                [_deployed(row) for row in deployed],
                ["site", "release", "former_release", "image", "edge_time", "imported", "run"],
            ),
            "gaps": records(
                [{"site": site, "missing_event": n} for site, n in done.gaps.items()],
                ["site", "missing_event"],
            ),
            "path": dg.MetadataValue.path(home.tables / told.NAME),
            **mirror.push(home.tables / told.NAME),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="sites_checked_out",
                passed=not failing,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"{len(failing)} of {len(standing)} checks at sites failed when last evaluated",
                metadata={"failing": records([_checked(row) for row in failing[:SHOWN]], CHECKED)},
            )
        ],
    )


def _became_another(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of deployments those after which another release served than after the one before at the same site: a
    restart of the same is none. In the order given."""
    kept, before = set(), dict[str, int]()
    for row in sorted(rows, key=lambda row: (row["site"], row["n"])):
        if row["release"] is None or row["release"] != before.get(row["site"]):
            kept.add((row["site"], row["n"]))
        before[row["site"]] = row["release"]
    return [row for row in rows if (row["site"], row["n"]) in kept]


def _deployed(row: Mapping[str, Any]) -> dict[str, Any]:
    former = row["former_release"]  # 0 when nothing served
    return {
        **_row(row),
        "image": (row["image"] or "")[7:19],
        "former_release": None if former is None else str(former or "none"),
    }


def _checked(row: Mapping[str, Any]) -> dict[str, Any]:
    check = row["check"]
    told = {"check": check["name"], "passed": check["passed"], "severity": check["severity"]}
    return {**_row(row), **told, "says": check.get("description", "")}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "edge_time": _moment(row["at"]), "imported": _moment(row["imported_at"])}


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
