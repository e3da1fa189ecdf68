"""Insights by day, site, release and plant asset, if there are such: the table Power BI reads. Only days that
received something are computed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ai_assets.returns.inbox import tables as deltas

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "gold/fact_insights_daily"
"""The table: one of the star that `azure.gold_star` describes."""

STALE = """
SELECT coalesce(c.day, d.day) FROM (
    SELECT day, sum(n) AS n, sum(scored) AS scored FROM (
        SELECT day, count(*) AS n, NULL AS scored FROM insights GROUP BY day
        UNION ALL SELECT day, 0, sum(rows) FROM aggregates GROUP BY day
    ) GROUP BY day
) c
FULL JOIN (SELECT day, sum(insights) AS n, sum(scored) AS scored FROM daily GROUP BY day) d ON c.day = d.day
WHERE c.n IS DISTINCT FROM d.n OR c.scored IS DISTINCT FROM d.scored ORDER BY 1
"""
COMPUTED = """
SELECT {key}, coalesce(any_value(insights), 0) AS insights, coalesce(any_value(anomalies), 0) AS anomalies,
    any_value(mean_score) AS mean_score, any_value(scored) AS scored,
    any_value(anomalies_share) AS anomalies_share
FROM (
    SELECT {key}, count(*) AS insights, count(*) FILTER (WHERE kind = 'anomaly') AS anomalies,
        avg(score) AS mean_score
    FROM {insights} GROUP BY {key}
    UNION ALL BY NAME
    SELECT {key}, sum(rows)::BIGINT AS scored,
        -- A share of all of them, or none: a policy may have kept the anomalies of some packages.
        CASE WHEN count(anomalies) = count(*) THEN sum(anomalies) / sum(rows) END AS anomalies_share
    FROM stale_aggregates GROUP BY {key}
)
GROUP BY {key} ORDER BY {key}
"""
BY_RELEASE = COMPUTED.format(key="day, site, release", insights="stale")
# A site may sign anything as `fields`.
NAMED = "(SELECT *, nullif(TRY_CAST(fields AS JSON)->>'_asset', '') AS asset FROM stale)"
BY_ASSET = COMPUTED.format(key="day, site, release, asset", insights=NAMED)
TOTAL = """
SELECT count(*), coalesce(sum(insights), 0)::BIGINT, coalesce(sum(anomalies), 0)::BIGINT, count(DISTINCT day)
FROM daily
"""
ASSETS = """
SELECT site, asset, sum(scored)::BIGINT AS scored, sum(insights)::BIGINT AS insights,
    sum(anomalies)::BIGINT AS anomalies
FROM daily WHERE asset IS NOT NULL GROUP BY site, asset ORDER BY anomalies DESC, site, asset LIMIT ?
"""
"""The plant assets with most anomalies, over all days; takes how many."""
BY_SITE = "SELECT site, sum(insights)::BIGINT FROM daily GROUP BY site ORDER BY site"


@dataclass(frozen=True)
class Refreshed:
    """What the table holds after a refresh."""

    rows: int
    insights: int
    anomalies: int
    days: int
    days_computed: int
    by_site: dict[str, int]


def refresh(tables: Path, *, assets: bool = False) -> Refreshed:
    """Bring the daily table up to what the insights table says; with `assets`, by plant asset, too.

    A day is computed again, and only then are its rows read whole, when the number of its insights, or of the
    scores in its aggregates, is not the number the daily table has for it. Both only ever grow, so that finds
    every change, in whatever order things came and whatever run was killed before.
    """
    import duckdb
    from deltalake import write_deltalake

    if deltas.existing(tables, "insights") is None:
        return Refreshed(0, 0, 0, 0, 0, {})
    with duckdb.connect() as db:
        db.register("insights", _rows(tables, "insights", ["day"]))
        db.register("aggregates", _rows(tables, "aggregates", ["day", "rows"]))
        db.register("daily", _counts(tables))
        stale = [day for (day,) in db.execute(STALE).fetchall()]
        if stale:
            of_insights = ["site", "day", "release", "kind", "score", *(["fields"] if assets else ())]
            of_aggregates = ["site", "day", "release", "rows", "anomalies", *(["asset"] if assets else ())]
            db.register("stale", _rows(tables, "insights", of_insights, stale))
            db.register("stale_aggregates", _rows(tables, "aggregates", of_aggregates, stale))
            computed = db.sql(BY_ASSET if assets else BY_RELEASE).to_arrow_table()
            known = deltas.existing(tables, NAME)
            days = ", ".join(f"'{day}'" for day in stale)
            write_deltalake(
                tables / NAME,
                computed,
                mode="overwrite",
                predicate=f"day IN ({days})" if known else None,
                # A table of an older version has fewer columns.
                schema_mode="merge" if known else None,
            )
            db.register("daily", _counts(tables))
        rows, total, anomalies, days_known = db.execute(TOTAL).fetchall()[0]
        by_site = dict(db.execute(BY_SITE).fetchall())
    return Refreshed(rows, total, anomalies, days_known, len(stale), by_site)


def _rows(tables: Path, name: str, columns: list[str], days: list[date] | None = None) -> pa.Table:
    """Columns of a table, of some days only if they are given; empty when there is no table yet, as is what
    an older version did not have."""
    import pyarrow as pa

    table, schema = deltas.existing(tables, name), deltas.schemas()[name]
    if table is None:
        return pa.schema([schema.field(column) for column in columns]).empty_table()
    there = {field.name for field in table.schema().fields}
    known = [column for column in columns if column in there]
    found = table.to_pyarrow_table(columns=known, filters=[("day", "in", days)] if days else None)
    for column in columns:
        if column not in there:
            found = found.append_column(column, pa.nulls(len(found), schema.field(column).type))
    return found


def _counts(tables: Path) -> pa.Table:
    """The counts of the daily table; empty when there is none yet."""
    import pyarrow as pa

    counts = pa.schema(
        {
            "day": pa.date32(),
            "site": pa.string(),
            "insights": pa.int64(),
            "anomalies": pa.int64(),
            "scored": pa.int64(),
        }
    )
    table = deltas.existing(tables, NAME)
    if table is None:
        return counts.empty_table()
    known = [field.name for field in table.schema().fields if field.name in counts.names]
    found = table.to_pyarrow_table(columns=known)
    return found if "scored" in known else found.append_column("scored", pa.nulls(len(found), pa.int64()))
