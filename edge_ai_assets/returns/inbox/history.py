"""What the lineage table tells of the sites by itself: which events came, which release ran when, which run
made a package. For a time when nobody could reach them, and without their Dagster.

How events come into the table is `inbox`'s work, how they reach Azure's asset graph `azure.replay`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edge_ai_assets.returns.inbox import tables as deltas

NAME = "lineage"
"""The table: a row an event, by (site, n)."""
COLUMNS = 'site, n, kind, asset, at, run, metadata, "check", imported_at'
NEWEST = """
SELECT site, asset, at, imported_at, run FROM (
    SELECT *, row_number() OVER (PARTITION BY site, asset ORDER BY n DESC) AS place FROM t
    WHERE kind = 'materialization'
) WHERE place = 1 ORDER BY site, asset
"""
EVALUATED = """
SELECT * FROM (
    SELECT *, row_number() OVER (PARTITION BY site, asset, "check" ORDER BY n DESC) AS place FROM t
    WHERE kind = 'check'
) WHERE place = 1 ORDER BY n
"""


class Span(NamedTuple):
    """Events of one site, by their numbers."""

    site: str
    first: int
    last: int


def heads(tables: Path) -> dict[str, int]:
    """Number of the newest event of each site."""
    return {row["site"]: row["n"] for row in _query(tables, "SELECT site, max(n) AS n FROM t GROUP BY site")}


def events(tables: Path, spans: Iterable[Span]) -> list[dict[str, Any]]:
    """The events of these spans, each site's in the order of their numbers.

    Returns:
        Rows with site, n, kind ('unknown' for a line that was written by a newer version), asset, at, run,
        imported_at; metadata and check decoded, None for nothing.
    """
    wanted = " OR ".join(
        f"(site = {_text(span.site)} AND n BETWEEN {span.first} AND {span.last})" for span in spans
    )
    return _rows(tables, wanted or "false", "site, n")


def newest(tables: Path) -> list[dict[str, Any]]:
    """The newest materialization of each asset of each site: site, asset, at, imported_at, run."""
    return _query(tables, NEWEST)


def failed(tables: Path, limit: int) -> list[dict[str, Any]]:
    """The last failed checks of all sites, as `events` gives them, newest first by their own time."""
    where = """kind = 'check' AND "check" LIKE '%"passed":false%'"""
    return _rows(tables, where, f"at DESC, site, n DESC LIMIT {limit:d}")


def standing_checks(tables: Path) -> list[dict[str, Any]]:
    """The newest evaluation of each check at each site, as `events` gives it; by site, asset and name."""
    newest = {}
    for row in map(_decoded, _query(tables, EVALUATED)):  # by number: later ones replace
        newest[row["site"], row["asset"], row["check"]["name"]] = row
    return [newest[key] for key in sorted(newest)]


def deployments(tables: Path, site: str) -> list[dict[str, Any]]:
    """Which release served scores at the site since when, in the order it happened.

    Returns:
        A row a deployment: site, n, at, run, imported_at, release, former_release (versions), image (digest);
        None for what did not leave the site.
    """
    return [_deployment(row) for row in made(tables, site, "site/deployment")]


def last_deployments(tables: Path, limit: int) -> list[dict[str, Any]]:
    """The last deployments of all sites, as `deployments` gives them, newest first by their own time."""
    where = "asset = 'site/deployment' AND kind = 'materialization'"
    return [_deployment(row) for row in _rows(tables, where, f"at DESC, site, n DESC LIMIT {limit:d}")]


def made(tables: Path, site: str, asset: str) -> list[dict[str, Any]]:
    """The materializations of a site's asset, as `events` gives them, in the order they happened."""
    where = f"site = {_text(site)} AND asset = {_text(asset)} AND kind = 'materialization'"
    return _rows(tables, where, "n")


def _deployment(row: dict[str, Any]) -> dict[str, Any]:
    told = row["metadata"] or {}
    names = ("release", "former_release", "image")
    return {
        **{column: row[column] for column in ("site", "n", "at", "run", "imported_at")},
        **{name: told.get(name) for name in names},
    }


def _rows(tables: Path, where: str, order: str) -> list[dict[str, Any]]:
    """Rows with metadata and check decoded, None for nothing."""
    query = f"SELECT {COLUMNS} FROM t WHERE {where} ORDER BY {order}"  # noqa: S608 (quoted above)
    return [_decoded(row) for row in _query(tables, query)]


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    parts = {name: msgspec.json.decode(row[name]) if row[name] else None for name in ("metadata", "check")}
    return {**row, **parts}


def _query(tables: Path, query: str) -> list[dict[str, Any]]:
    """Rows of a query over the table `t`; none when there is no table."""
    import pyarrow as pa
    from deltalake import QueryBuilder

    table = deltas.existing(tables, NAME)
    if table is None:
        return []
    rows: list[dict[str, Any]] = pa.table(
        QueryBuilder().register("t", table).execute(query).read_all()
    ).to_pylist()
    return rows


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
