"""The way of one insight, from the global table back to the training data and the runs that made it."""

from __future__ import annotations

from typing import Any

from edge_ai_assets.delivery import pack
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import plain
from edge_ai_assets.returns.egress.ledger import of_package
from edge_ai_assets.returns.inbox import history, tables
from edge_ai_assets.returns.outbox.outbox import Outbox

DIGITS = 18
"""Most of a sequence: it has 64 bits."""


class UnknownInsight(KeyError):
    """There is no such insight."""

    def __str__(self) -> str:
        return str(self.args[0])


def explain(home: Home, insight_id: str) -> dict[str, Any]:
    """Walk from an insight to its origin.

    Args:
        insight_id: `SITE/SEQUENCE`.

    Returns:
        insight, package, ledger (what left the site for that package; None where the site's disk is not
        here), score (the site's own record, likewise), release, model, training_set, runs: Dagster run ids
        by what they made, those of a site with a Dagster of its own as they came home, and completeness: how
        much of the site came, and which release it ran since when.

    Raises:
        UnknownInsight: no insight has that id, or the id has another form.
    """
    site, slash, number = insight_id.rpartition("/")
    if not slash or not number.isascii() or not number.isdigit() or len(number) > DIGITS:
        raise UnknownInsight(f"{insight_id!r} is no insight id: they look like bergen/812")
    try:
        found = tables.insight(home.tables, site, int(number))
    except KeyError as error:
        raise UnknownInsight(f"{error.args[0]}: see `edge-ai status` for what came home") from error
    package = found.pop("package")
    if package is None:
        raise UnknownInsight(f"the package of {insight_id} is being received: ask again in a moment")
    release = _release(home, found["release"])
    return {
        "insight": found,
        "package": package,
        "ledger": _ledger(home, site, package["name"]),
        "score": _score(home, site, int(number)),
        "release": release,
        "model": _model(home, release["run_id"]),
        "training_set": _training_set(home, release["data_version"]),
        "runs": {"training": release["run_id"], **_runs(home, site, package["name"])},
        "completeness": _completeness(home, site),
    }


def _release(home: Home, image: str) -> dict[str, Any]:
    withdrawn = pack.withdrawn(home.registry, home.keys)
    for release in pack.known(home.registry, home.keys):
        if release.image == image:
            return {
                "version": release.version,
                "image": release.image,
                "model": release.model,
                "created": release.created.isoformat(),
                "run_id": release.run_id,
                "data_version": release.data_version,
                "withdrawn": str(withdrawn[release.version]) if release.version in withdrawn else None,
            }
    raise UnknownInsight(f"the insight was scored by {image}, which no release in {home.registry} is")


def _ledger(home: Home, site: str, package: str) -> dict[str, Any] | None:
    path = home.site(site).ledger
    if not path.exists():
        return None
    lines = of_package(path, package)
    return {
        "blocks": len(lines),
        "bytes": sum(entry.last - entry.first for entry in lines),
        "policy": lines[0].policy if lines else None,
        "destination": lines[0].destination if lines else None,
    }


def _score(home: Home, site: str, sequence: int) -> dict[str, Any] | None:
    path = home.site(site).outbox
    if not path.exists():
        return None
    with Outbox(path, create=False) as outbox:
        rows = outbox.rows(sequence, sequence)
    return (
        {"score": rows[0].score, "predicted": bool(rows[0].predicted), "kind": rows[0].kind} if rows else None
    )


def _completeness(home: Home, site: str) -> dict[str, Any]:
    from edge_ai_assets.azure import arrivals
    from edge_ai_assets.settings import Settings

    marks = {mark.site: mark for mark in arrivals.watermarks(home, Settings.load().load_usecase())}
    deployed = history.deployments(home.tables, site)
    return {
        "watermark": marks[site].sentence,
        "releases": [f"{row['release']} since {row['at']:%Y-%m-%d %H:%M}" for row in deployed],
    }


def _model(home: Home, run_id: str) -> dict[str, Any]:
    from edge_ai_assets.ml import evaluation

    folder = home.trained(run_id)
    return {"folder": str(folder), "metrics": evaluation.recorded(folder)}


def _training_set(home: Home, version: str) -> dict[str, Any]:
    import pyarrow.parquet as parquet

    path = home.training_sets / f"{version}.parquet"
    return {"version": version, "path": str(path), "rows": parquet.read_metadata(path).num_rows}


def _runs(home: Home, site: str, package: str) -> dict[str, str]:
    """The site's and Azure's runs that packed, sent and received the package, as far as Dagster's log here
    knows, or what came home of the site's."""
    import dagster as dg

    from edge_ai_assets import keys

    made = {
        "packing": history.made_by(home.tables, site, "site/egress", package),
        "upload": history.made_by(home.tables, site, "site/upload", package),
    }
    found = {what: runs[0] for what, runs in made.items() if runs}
    if not home.dagster.is_dir():
        return found
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        for what, key, partition in (
            ("packing", keys.SITE_EGRESS, [site]),
            ("upload", keys.SITE_UPLOAD, [site]),
            ("inbox", keys.INBOX, None),
        ):
            records = instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, asset_partitions=partition), limit=1000
            ).records
            for record in records:
                metadata = plain(record.event_log_entry) or {}
                if package in metadata.get("package_names", []):
                    found.setdefault(what, record.run_id)
                    break
    return found
