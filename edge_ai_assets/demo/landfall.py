"""What came of a voyage, held against what the design promises. Looks at both homes, and changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from edge_ai_assets import explain, keys
from edge_ai_assets.demo.outcome import Outcome, fields_that_left
from edge_ai_assets.demo.world import World
from edge_ai_assets.returns.egress import ledger
from edge_ai_assets.returns.inbox import history, tables
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.stack_hub import returning
from edge_ai_assets.status import conserved


def judge(outcome: Outcome, azure: World, ship: World, medium: Path) -> None:
    """Add the promises that are held against the state at the end of the story."""
    name, site = ship.names[0], ship.home.site(ship.names[0])
    now, recounted = ship.status()["sites"][name], returning.recount(site)
    world = azure.status()["global"]
    outcome.status = {"sites": {name: now}, "global": world}
    came = tables.rows(azure.home.tables, "insights", ["sequence"], site=name)
    outcome.insight = f"{name}/{came[-1]['sequence']}" if came else None

    outcome.promise(
        "the homes share nothing but the medium",
        not any(folder.exists() for folder in (ship.home.registry, ship.home.landing, ship.home.uplink))
        and not (azure.home.root / "sites").exists(),
        f"{sum(path.is_file() for path in medium.rglob('*'))} files were carried",
    )
    outcome.promise(
        "scored = uploaded + withheld + quarantined + expired + pending aboard",
        conserved(now) and recounted.conserved,
        f"{now['scored']:,} scores",
    )
    with Outbox(site.outbox, create=False) as outbox:
        packages, packed, known = outbox.packages(), outbox.tally().packed, world["insights"]
    outcome.promise(
        "what left arrived, once",
        known == packed > 0 and world["duplicates"] == 0,
        f"{packed:,} packed, {known:,} insights on Azure, {world['duplicates']} twice",
    )
    lines = ledger.verify(site.ledger)
    covered = {entry.package for entry in ledger.entries(site.ledger)}
    outcome.promise(
        "the egress ledger names all that left",
        {package.name for package in packages} <= covered,
        f"{lines} lines, {len(covered)} packages",
    )
    allowed = {listed.name for listed in azure.usecase.egress.fields}
    left = fields_that_left(azure.home, azure.usecase)
    outcome.promise(
        "only listed fields left", left <= allowed, f"{len(left)} fields of {len(allowed)} listed"
    )
    _lineage(outcome, azure, ship, name)
    if outcome.insight:
        found = explain.explain(azure.home, outcome.insight)
        runs = found["runs"]
        outcome.promise(
            "an insight is explained across the gap",
            {"training", "packing", "inbox"} <= runs.keys(),
            f"{outcome.insight}: release {found['release']['version']}, {len(runs)} runs on both sides",
        )
    failed = [*azure.failed_runs(), *ship.failed_runs()]
    total = azure.instance.get_runs_count() + ship.instance.get_runs_count()
    outcome.promise("no run failed on either side", not failed, f"{len(failed)} of {total} failed")
    for world_, side in ((azure, "Azure's"), (ship, "the ship's")):
        outcome.look.append((f"EDGE_AI_HOME={world_.home.root} make ui", f"{side} Dagster"))
    at_azure = f"EDGE_AI_HOME={azure.home.root} .venv/bin/edge-ai"
    outcome.look.append((f"{at_azure} explain {outcome.insight}", "an insight, across the gap"))


def _lineage(outcome: Outcome, azure: World, ship: World, name: str) -> None:
    """Azure's graph holds what happened aboard, with the time at which it did."""
    deployed = history.deployments(azure.home.tables, name)
    first = min((row["at"] for row in deployed), default=datetime.now(UTC))
    age = datetime.now(UTC) - first
    outcome.promise(
        "Azure knows what ran aboard while nobody could reach it",
        sorted({row["release"] for row in deployed}) == [1, 2] and age > timedelta(days=30),
        f"release 1 was deployed {age.days} days ago; {len(deployed)} deployments in all",
    )
    shown = azure.newest(keys.SITE_DEPLOYMENT) or {}
    aboard = ship.instance.get_latest_materialization_event(keys.SITE_DEPLOYMENT)
    assert aboard is not None
    outcome.promise(
        "Azure's asset graph shows the ship's own runs",
        shown.get("edge_ai/run") == aboard.run_id,
        f"site/deployment: run {str(shown.get('edge_ai/run'))[:8]}, aboard {aboard.run_id[:8]}",
    )
