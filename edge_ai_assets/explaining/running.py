"""Which runs had a hand in a score, and which release served when: from Dagster's log here, and from what
came home of the site's own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from edge_ai_assets.home import Home
from edge_ai_assets.metadata import plain
from edge_ai_assets.returns.inbox import history

LOOK = 1_000
"""Most events of an asset that are looked through in Dagster's log here."""


class Made(NamedTuple):
    """A materialization."""

    run: str
    at: datetime
    """By the clock of where it happened."""
    metadata: dict[str, Any]


def log(home: Home, site: str) -> dict[str, list[Made]]:
    """Materializations of the site's assets and of the inbox, oldest first, by the asset's key: those that
    came home of a site with a Dagster of its own, else those in Dagster's log here."""
    from edge_ai_assets import keys

    chain = (keys.SITE_DEPLOYMENT, keys.SITE_SCORES, keys.SITE_EGRESS, keys.SITE_UPLOAD)
    found: dict[str, list[Made]] = {}
    for key in () if home.own_site else chain:
        name = key.to_user_string()
        rows = history.made(home.tables, site, name)
        if rows:
            found[name] = [Made(row["run"], row["at"], row["metadata"] or {}) for row in rows]
    if home.dagster.is_dir():
        wanted = {key: [site] for key in chain if key.to_user_string() not in found}
        found |= _here(home, {**wanted, keys.INBOX: None})
    return found


def runs(found: dict[str, list[Made]], sequence: int, package: str | None) -> dict[str, str]:
    """Ids of the runs that scored, packed, sent and received, by what they did; those that are known."""
    named = {
        what: next((made for made in found.get(key, []) if package in _packages(made)), None)
        for what, key in (("packing", "site/egress"), ("upload", "site/upload"), ("inbox", "global/inbox"))
    }
    named = {"scoring": scoring(found, sequence), **named}
    return {what: made.run for what, made in named.items() if made and made.run}


def scoring(found: dict[str, list[Made]], sequence: int) -> Made | None:
    """The run in whose rows a sequence is. None if it was scored by request, between two runs: a run notes
    the last sequence that was given out when it ended, and how many rows it had scored."""
    for made in found.get("site/scores", []):
        last, rows = made.metadata.get("dagster/row_count", 0), made.metadata.get("scored_rows", 0)
        if last - rows < sequence <= last:
            return made
    return None


def departure(found: dict[str, list[Made]], package: str) -> dict[str, Any]:
    """When and by which road a package left, as the run that sent it noted; nothing if that is not known."""
    for made in found.get("site/upload", []):
        if package in _packages(made):
            return {"left_at": made.at, "road": made.metadata.get("road")}
    return {}


def releases(found: dict[str, list[Made]]) -> list[str]:
    """Which release served at the site since when; a restart of the same one is none."""
    served: list[str] = []
    last = None
    for made in found.get("site/deployment", []):
        now = made.metadata.get("release")
        if now != last:
            served.append(f"{now} since {made.at:%Y-%m-%d %H:%M}")
        last = now
    return served


def _packages(made: Made) -> list[str]:
    return list(made.metadata.get("package_names", []))


def _here(home: Home, wanted: dict[Any, list[str] | None]) -> dict[str, list[Made]]:
    import dagster as dg

    found = {}
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        for key, partitions in wanted.items():
            records = instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, asset_partitions=partitions), limit=LOOK
            ).records
            found[key.to_user_string()] = [
                Made(
                    record.run_id,
                    datetime.fromtimestamp(record.timestamp, UTC),
                    plain(record.event_log_entry) or {},
                )
                for record in reversed(records)
            ]
    return found
