"""From packages that were checked to rows of the global tables, one merge a table.

The order makes it safe to be killed anywhere: the rows first, then `packages`; `inbox` writes `watermarks`
last of all. Until that, the same packages are received again, and a merge adds only what is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge_ai_assets.returns.inbox.tables import UNKNOWN, merge, schemas
from edge_ai_assets.returns.package import lineage
from edge_ai_assets.returns.package.packages import Package

if TYPE_CHECKING:
    import pyarrow as pa

END = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
"""µs since 1970. Times from a site are from 1970 to this: beyond, readers of the tables cannot show them."""


class Merged(msgspec.Struct, frozen=True):
    """What one call added to the tables."""

    insights: int
    feedback: int
    lineage: int
    repeated: int
    """Rows of insights and feedback that the tables had already, or that came more than once."""
    days: set[date]
    """Days (UTC) of the scores, windows and feedback that came."""


def write(tables: Path, accepted: Sequence[Package], at: int) -> Merged:
    """Merge packages into the tables.

    Args:
        tables: folder of the Delta tables.
        accepted: at least one package; each site's in order.
        at: when they were received, µs since 1970, UTC.
    """
    insights = _gathered(accepted, "insights", "scored_at")
    feedback = _gathered(accepted, "feedback", "given_at")
    aggregates = _gathered(accepted, "aggregates", "window")
    events = _events(accepted, at)
    new_insights = merge(tables, "insights", insights)
    new_feedback = merge(tables, "feedback", feedback)
    merge(tables, "histograms", _gathered(accepted, "histograms"))
    merge(tables, "aggregates", aggregates)
    merge(tables, "sketches", _gathered(accepted, "sketches"))
    new_events = merge(tables, "lineage", events)
    merge(tables, "packages", _receipts(accepted, at))
    return Merged(
        insights=new_insights,
        feedback=new_feedback,
        lineage=new_events,
        repeated=insights.num_rows + feedback.num_rows - new_insights - new_feedback,
        days={day for table in (insights, feedback, aggregates) for day in table["day"].unique().to_pylist()},
    )


def _gathered(accepted: Sequence[Package], part: str, moment: str = "") -> pa.Table:
    """One member of all packages, with where each row is from, and the day of `moment` when that is given."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = []
    for package in accepted:
        table: pa.Table = getattr(package, part)
        if moment:
            table = table.append_column("day", pc.cast(table[moment], pa.date32()))
        table = table.append_column("site", pa.repeat(package.manifest.site, table.num_rows))
        found.append(table.append_column("package", pa.repeat(package.manifest.number, table.num_rows)))
    return pa.concat_tables(found)


def _events(accepted: Sequence[Package], at: int) -> pa.Table:
    import pyarrow as pa

    empty = dict.fromkeys(schemas()["lineage"].names)
    rows = []
    for package in accepted:
        site, first = package.manifest.site, package.manifest.lineage[0]
        for n, line in enumerate(package.lineage, first):
            origin = {"site": site, "n": n, "package": package.manifest.number, "imported_at": at}
            rows.append({**empty, **origin, **_event(line, site)})
    return pa.Table.from_pylist(rows, schemas()["lineage"])


def _event(line: bytes, site: str) -> dict[str, Any]:
    """The columns of one line. What cannot be read, or is not the site's own, is kept as it came."""
    try:
        event = lineage.decode(line)
        if event.partition != site:
            raise ValueError(f"it is about partition {event.partition!r} and came from site {site!r}")
    except ValueError as error:
        return {"kind": UNKNOWN, "raw": line, "problem": str(error)}
    check = None if event.check is None else msgspec.json.encode(event.check, order="sorted").decode()
    return {
        "kind": event.kind,
        "asset": event.key,
        "partition": event.partition,
        "at": event.at,
        "run": event.run,
        "job": event.job,
        "metadata": msgspec.json.encode(event.metadata, order="sorted").decode(),
        "check": check,
    }


def _receipts(accepted: Sequence[Package], at: int) -> pa.Table:
    import pyarrow as pa

    counts = ("scored", "packed", "withheld", "quarantined", "expired", "waiting")
    rows = []
    for package in accepted:
        said = package.manifest
        rows.append(
            {
                "site": said.site,
                "number": said.number,
                "name": said.name,
                "digest": package.digest,
                "previous": said.previous,
                "policy": said.policy,
                "rows": package.insights.num_rows,
                "feedback": package.feedback.num_rows,
                "first": said.first,
                "last": said.last,
                "created_at": said.created_at,
                "received_at": at,
                "format": said.format,
                "complete": None if said.complete < 0 else said.complete,
                **{name: getattr(said.counts, name, None) for name in counts},
                "expired_for": msgspec.json.encode(said.expired, order="sorted").decode(),
                "inventory": list(said.inventory),
                "running": said.running,
                "lineage_first": said.lineage[0],
                "lineage_last": said.lineage[1],
            }
        )
    return pa.Table.from_pylist(rows, schemas()["packages"])
