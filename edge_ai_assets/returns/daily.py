"""Insights by day, site and release: the table Power BI reads. Only days that received something are computed
again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ai_assets.returns import tables as deltas

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "insights_daily"

STALE = """
SELECT coalesce(i.day, d.day) FROM (SELECT day, count(*) AS n FROM insights GROUP BY day) i
FULL JOIN (SELECT day, sum(insights) AS n FROM daily GROUP BY day) d ON i.day = d.day
WHERE i.n IS DISTINCT FROM d.n ORDER BY 1
"""
COMPUTED = """
SELECT day, site, release, count(*) AS insights, count(*) FILTER (WHERE kind = 'anomaly') AS anomalies,
    avg(score) AS mean_score
FROM stale GROUP BY day, site, release ORDER BY day, site, release
"""
TOTAL = """
SELECT count(*), coalesce(sum(insights), 0)::BIGINT, coalesce(sum(anomalies), 0)::BIGINT, count(DISTINCT day)
FROM daily
"""
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


def refresh(tables: Path) -> Refreshed:
    """Bring the daily table up to what the insights table says.

    A day is computed again, and only then are its rows read whole, when the number of its insights is not the
    number the daily table has for it. Insights are only ever added, so that finds every change, whatever run
    was killed before.
    """
    import duckdb
    from deltalake import write_deltalake

    insights = deltas.existing(tables, "insights")
    if insights is None:
        return Refreshed(0, 0, 0, 0, 0, {})
    with duckdb.connect() as db:
        db.register("insights", insights.to_pyarrow_table(columns=["day"]))
        db.register("daily", _counts(tables))
        stale = [day for (day,) in db.execute(STALE).fetchall()]
        if stale:
            columns = ["site", "day", "release", "kind", "score"]
            db.register("stale", insights.to_pyarrow_table(columns=columns, filters=[("day", "in", stale)]))
            computed = db.sql(COMPUTED).to_arrow_table()
            days = ", ".join(f"'{day}'" for day in stale)
            replaced = f"day IN ({days})" if deltas.existing(tables, NAME) else None
            write_deltalake(tables / NAME, computed, mode="overwrite", predicate=replaced)
            db.register("daily", _counts(tables))
        rows, total, anomalies, days_known = db.execute(TOTAL).fetchall()[0]
        by_site = dict(db.execute(BY_SITE).fetchall())
    return Refreshed(rows, total, anomalies, days_known, len(stale), by_site)


def _counts(tables: Path) -> pa.Table:
    """The counts of the daily table; empty when there is none yet."""
    import pyarrow as pa

    counts = pa.schema(
        {"day": pa.date32(), "site": pa.string(), "insights": pa.int64(), "anomalies": pa.int64()}
    )
    table = deltas.existing(tables, NAME)
    return table.to_pyarrow_table(columns=counts.names) if table else counts.empty_table()
