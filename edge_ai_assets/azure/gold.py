"""Making the gold tables: the star for Power BI, as Delta tables in the lake.

What their columns are is `gold_star`'s. The fact of insights by day is made by `returns.inbox.daily`; when
tables are made, and shown, is the assets' work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_ai_assets.azure.gold_star import (
    DIM_DAY,
    DIM_RELEASE,
    DIM_SITE,
    FACT_DRIFT,
    FACT_FEEDBACK,
    FACT_INSIGHTS,
    schema,
)
from edge_ai_assets.delivery import durable
from edge_ai_assets.returns.inbox import tables as deltas

if TYPE_CHECKING:
    import pyarrow as pa

    from edge_ai_assets.azure.watch import SiteDrift
    from edge_ai_assets.delivery.release import Release
    from edge_ai_assets.returns.inbox.watermark import Watermark

AHEAD = timedelta(days=31)
"""The calendar goes to the end of the year that this many days from now are in."""
JUDGED = """
SELECT site, sequence, day, given_at, release, predicted, correct,
    (predicted AND correct)::BIGINT AS true_positive,
    (predicted AND NOT correct)::BIGINT AS false_positive,
    (NOT predicted AND correct)::BIGINT AS false_negative,
    (NOT predicted AND NOT correct)::BIGINT AS true_negative
FROM (
    -- A site may sign anything under this name: only a truth value counts.
    SELECT *, CASE (TRY_CAST(fields AS JSON)->'_predicted')::VARCHAR
        WHEN 'true' THEN true WHEN 'false' THEN false END AS predicted FROM feedback
    QUALIFY row_number() OVER (PARTITION BY site, sequence ORDER BY id DESC) = 1
)
WHERE predicted IS NOT NULL AND correct IS NOT NULL ORDER BY site, sequence
"""
SEEN = """
SELECT min(day), max(day), list(DISTINCT site), list(DISTINCT release)
FROM (SELECT day, site, release FROM daily UNION ALL SELECT day, site, release FROM judged)
"""
CALENDAR = """
SELECT day::DATE AS day, year(day) AS year, quarter(day) AS quarter, month(day) AS month,
    strftime(day, '%Y-%m') AS year_month, isoyear(day) AS iso_year, week(day) AS iso_week,
    isodow(day) AS weekday
FROM generate_series(?::TIMESTAMP, ?::TIMESTAMP, INTERVAL 1 DAY) days(day)
"""


def refresh(
    tables: Path,
    releases: Sequence[Release],
    marks: Sequence[Watermark],
    rings: Mapping[str, str],
    today: date,
) -> dict[str, int]:
    """Bring judged scores and dimensions up to what came home; a table is written only if it changes.

    Every site, release and day that a fact names has its row in the dimension.

    Args:
        tables: the global tables; the fact of insights by day is up to date.
        releases: those in the registry.
        marks: how complete each site is.
        rings: of the use case's sites, by name.
        today: in UTC.

    Returns:
        Rows of each table that was made here, by name.
    """
    import duckdb

    with duckdb.connect() as db:
        db.register("feedback", read(tables, "feedback", deltas.schemas()["feedback"]))
        db.register("daily", read(tables, FACT_INSIGHTS, _keys(schema(FACT_INSIGHTS))))
        judged = db.sql(JUDGED).to_arrow_table()
        db.register("judged", judged)
        first, last, sites, images = db.execute(SEEN).fetchall()[0]
    made = {
        FACT_FEEDBACK: judged.cast(schema(FACT_FEEDBACK)),
        DIM_SITE: _table(DIM_SITE, _sites(marks, rings, sites or [])),
        DIM_RELEASE: _table(DIM_RELEASE, _releases(releases, images or [])),
        DIM_DAY: _days(first or today, max(last or today, today + AHEAD)),
    }
    with _writing(tables):
        for name, rows in made.items():
            _replace(tables, name, rows)
        if deltas.existing(tables, FACT_DRIFT) is None:
            _replace(tables, FACT_DRIFT, _table(FACT_DRIFT, []))
    return {name: rows.num_rows for name, rows in made.items()}


def record_drift(tables: Path, release: str, seen: Iterable[SiteDrift], today: date) -> int:
    """Keep what a look at drift found, in place of what another look on the same day did; the rows."""
    from deltalake import write_deltalake

    rows = [
        {
            "day": today,
            "site": site.name,
            "release": release,
            "feature": reference.name,
            "index": site.verdict.psi[reference.name],
            "threshold": reference.threshold,
            "moved": int(site.verdict.psi[reference.name] > reference.threshold),
            "rows": site.rows,
        }
        for site in seen
        for reference in site.references
        if reference.name in site.verdict.psi
    ]
    with _writing(tables):
        known = deltas.existing(tables, FACT_DRIFT)
        write_deltalake(
            str(tables / FACT_DRIFT),
            _table(FACT_DRIFT, rows),
            mode="overwrite",
            predicate=f"day = '{today}'" if known else None,
        )
    return len(rows)


def _writing(tables: Path) -> AbstractContextManager[None]:
    """One run at a time: of two that replace the same table, Delta fails the later one."""
    return durable.locked(tables / ".gold.lock")


def _sites(
    marks: Iterable[Watermark], rings: Mapping[str, str], named: Iterable[str]
) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {site: {"site": site, "ring": rings.get(site)} for site in named}
    for mark in marks:
        heard = datetime.fromtimestamp(mark.head.received_at / 1e6, UTC) if mark.head.number else None
        rows[mark.site] = {
            "site": mark.site,
            "ring": rings.get(mark.site),
            "complete": mark.whole,
            "complete_through": mark.head.complete,
            "scores_waiting": mark.head.waiting,
            "packages": mark.head.number,
            "heard_at": heard,
            "completeness": mark.sentence,
        }
    return [rows[site] for site in sorted(rows)]


def _releases(releases: Iterable[Release], named: Iterable[str]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {
        image: {"release": image, "name": f"unknown {image[7:19]}"} for image in named if image
    }
    for one in releases:
        rows[one.image] = {
            "release": one.image,
            "version": one.version,
            "name": f"release {one.version}",
            "created": one.created,
            "training_run": one.run_id,
            "training_set": one.data_version,
            **{name: one.metrics.get(name) for name in ("cv_f1", "cv_false_alarm_rate")},
        }
    return sorted(rows.values(), key=lambda row: (row.get("version") or 0, row["release"]))


def _days(first: date, last: date) -> pa.Table:
    """Whole years: Power BI takes a table of days for a calendar only if no day is missing. Fast, since one
    site's broken clock may make it thousands of them."""
    import duckdb

    with duckdb.connect() as db:
        days = db.sql(CALENDAR, params=[date(first.year, 1, 1), date(last.year, 12, 31)]).to_arrow_table()
    return days.cast(schema(DIM_DAY))


def _table(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist([dict(row) for row in rows], schema(name))


def read(tables: Path, name: str, columns: pa.Schema) -> pa.Table:
    """A table with these columns; what an older version did not have is empty."""
    import pyarrow as pa

    known = deltas.existing(tables, name)
    if known is None:
        return columns.empty_table()
    there = {field.name for field in known.schema().fields}
    found = known.to_pyarrow_table(columns=[column for column in columns.names if column in there])
    for field in columns:
        if field.name not in there:
            found = found.append_column(field, pa.nulls(len(found), field.type))
    return found.select(columns.names)


def _keys(columns: pa.Schema) -> pa.Schema:
    """Those that relate to dimensions."""
    import pyarrow as pa

    return pa.schema([columns.field(name) for name in ("day", "site", "release")])


def _replace(tables: Path, name: str, rows: pa.Table) -> None:
    """Put rows in place of a table's, in one commit, unless they are the same: else every look would leave
    files behind that nobody reads."""
    from deltalake import write_deltalake

    known = deltas.existing(tables, name)
    if known is not None and {field.name for field in known.schema().fields} == set(rows.schema.names):
        there = known.to_pyarrow_table().select(rows.schema.names).cast(rows.schema)
        if _sorted(there).equals(_sorted(rows)):
            return
    write_deltalake(str(tables / name), rows, mode="overwrite", schema_mode="overwrite" if known else None)


def _sorted(rows: pa.Table) -> pa.Table:
    """By the key, which stands first in every table that is replaced."""
    return rows.sort_by([(name, "ascending") for name in rows.schema.names[:2]])
