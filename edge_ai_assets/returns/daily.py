"""Insights by day, site and release: the table Power BI reads. Only days that received something are computed
again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_ai_assets.returns import tables as deltas

NAME = "insights_daily"

FRESH = """
CREATE TABLE fresh AS
SELECT day, site, release, count(*) AS insights, count(*) FILTER (WHERE kind = 'anomaly') AS anomalies,
    avg(score) AS mean_score
FROM insights GROUP BY day, site, release ORDER BY day, site, release
"""
STALE = """
SELECT coalesce(f.day, o.day) FROM (SELECT day, sum(insights) AS n FROM fresh GROUP BY day) f
FULL JOIN (SELECT day, sum(insights) AS n FROM former GROUP BY day) o ON f.day = o.day
WHERE f.n IS DISTINCT FROM o.n ORDER BY 1
"""
TOTAL = """
SELECT count(*), coalesce(sum(insights), 0)::BIGINT, coalesce(sum(anomalies), 0)::BIGINT, count(DISTINCT day)
FROM fresh
"""


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

    A day is computed again when the number of its insights is not the number the daily table has for it.
    Insights are only ever added, so that finds every change, whatever run was killed before.
    """
    import duckdb
    from deltalake import write_deltalake

    insights, former = deltas.existing(tables, "insights"), deltas.existing(tables, NAME)
    if insights is None:
        return Refreshed(0, 0, 0, 0, 0, {})
    with duckdb.connect() as db:
        db.register(
            "insights", insights.to_pyarrow_table(columns=["site", "day", "release", "kind", "score"])
        )
        db.execute(FRESH)
        if former is not None:
            db.register("former", former.to_pyarrow_table(columns=["day", "insights"]))
        else:
            db.execute("CREATE VIEW former AS SELECT day, insights FROM fresh WHERE false")
        stale = [day for (day,) in db.execute(STALE).fetchall()]
        if stale:
            found: Any = db.sql("SELECT * FROM fresh WHERE day IN (SELECT unnest($1))", params=[stale])
            computed = found.to_arrow_table()
            days = ", ".join(f"'{day}'" for day in stale)
            replaced = None if former is None else f"day IN ({days})"
            write_deltalake(tables / NAME, computed, mode="overwrite", predicate=replaced)
        rows, total, anomalies, days_known = db.execute(TOTAL).fetchall()[0]
        by_site = dict(
            db.execute("SELECT site, sum(insights)::BIGINT FROM fresh GROUP BY 1 ORDER BY 1").fetchall()
        )
    return Refreshed(rows, total, anomalies, days_known, len(stale), by_site)
