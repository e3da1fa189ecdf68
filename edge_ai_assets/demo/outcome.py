"""What a demo showed, held against what the design promises. Looks only at what is on disk afterwards."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_ai_assets.demo.world import World, numbered
from edge_ai_assets.home import Home
from edge_ai_assets.returns.inbox import tables
from edge_ai_assets.stack_hub import returning
from edge_ai_assets.status import conserved
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    from edge_ai_assets.ml.evaluation import Scores


@dataclass
class Outcome:
    """See the module."""

    seconds: float = 0.0
    promises: list[tuple[str, bool, str]] = field(default_factory=list)
    """What was promised, whether it was kept, and what was seen."""
    before: Scores | None = None
    """The first release on the last phase's readings."""
    after: Scores | None = None
    """The release that runs at the end, on the same readings."""
    status: dict[str, Any] = field(default_factory=dict)
    insight: str | None = None
    """Id of an insight that came home, to be explained."""
    look: list[tuple[str, str]] = field(default_factory=list)
    """Where to look now: a command or a file, and what it shows."""

    @property
    def kept(self) -> bool:
        return all(kept for _, kept, _ in self.promises)

    def promise(self, what: str, kept: bool, seen: str) -> None:
        self.promises.append((what, bool(kept), seen))

    def judge(self, world: World, drifted: bool) -> None:
        """Add the promises that are held against the state at the end, and where to look."""
        self.status = now = world.status()
        came = tables.rows(world.home.tables, "insights", ["site", "sequence"])
        self.insight = f"{came[-1]['site']}/{came[-1]['sequence']}" if came else None
        sites, azure = now["sites"], now["global"]
        recounted = [returning.recount(world.home.site(name)) for name in world.names]
        self.promise(
            "scored = uploaded + withheld + quarantined + expired + pending, at every site",
            all(conserved(site) for site in sites.values()) and all(counts.conserved for counts in recounted),
            f"{sum(site['scored'] for site in sites.values()):,} scores at {len(sites)} sites",
        )
        uploaded = sum(site["uploaded"] for site in sites.values())
        self.promise(
            "what left arrived, once",
            azure["duplicates"] == 0 and azure["insights"] == uploaded,
            f"{uploaded:,} uploaded, {azure['insights']:,} insights, {azure['duplicates']} twice",
        )
        allowed = {listed.name for listed in world.usecase.egress.fields}
        left = fields_that_left(world.home, world.usecase)
        self.promise(
            "only listed fields left", left <= allowed, f"{len(left)} fields of {len(allowed)} listed"
        )
        self.promise(
            "the sites run the newest release",
            all(site["release"] == azure["releases"] and site["serving"] for site in sites.values()),
            f"{[site['release'] for site in sites.values()]}, the newest is {azure['releases']}",
        )
        self.promise(
            "it was retrained" + (" by the drift sensor" if drifted else ""),
            azure["retrainings"] >= 1 and (not drifted or "drift" in world.reasons()),
            f"{azure['retrainings']} retrainings",
        )
        failed = world.failed_runs()
        self.promise(
            "no run failed", not failed, f"{len(failed)} of {world.instance.get_runs_count()} failed"
        )
        self.look = [
            ("make ui", "the lineage, runs, checks and pictures; while it runs, the sites serve their pages"),
            (str(world.home.lake / "report" / "index.html"), "the page for everyone"),
            (f".venv/bin/edge-ai explain {self.insight}", "where an insight came from"),
            (".venv/bin/edge-ai status", "these numbers again"),
        ]


def fields_that_left(home: Home, usecase: UseCase) -> set[str]:
    """Names of all values in the global tables; what is derived from a feature counts as the feature."""
    from edge_ai_assets.ml import features

    base = {item.name: item.base for item in features.inputs(usecase)}
    found: set[str] = set()
    for name, own in (
        ("insights", {"score": "_score", "predicted": "_predicted"}),
        ("feedback", {"correct": "_correct", "note": "_note", "role": "_role"}),
    ):
        for row in tables.rows(home.tables, name, ["fields", *own]):
            found |= {base.get(field, field) for field in json.loads(row["fields"])}
            found |= {field for column, field in own.items() if row[column] is not None}
    return found | {row["feature"] for row in tables.rows(home.tables, "histograms", ["feature"])}


def compare(home: Home, usecase: UseCase, files: list[tuple[str, Path]]) -> tuple[Scores, Scores]:
    """The first release's model and the champion on the same readings, given as (site, file)."""
    import pandas as pd

    from edge_ai_assets.delivery import pack
    from edge_ai_assets.ml import evaluation, features

    parts = [readings for _, readings in numbered(files, usecase)]
    made = features.compute(pd.concat(parts, ignore_index=True), usecase)
    rows = made[features.scorable(made, usecase) & made["_label"].notna()]
    first = pack.get(home.registry, home.keys, 1).run_id
    return (
        evaluation.evaluate(home.trained(first), rows),
        evaluation.evaluate(home.champion, rows),
    )
