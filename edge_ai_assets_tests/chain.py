"""Both locations' jobs on a small plant, played once: from landed files to the report. Real training and
services."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

from edge_ai_assets import local
from edge_ai_assets import usecase as usecases
from edge_ai_assets.azure import definitions as azure
from edge_ai_assets.delivery import signing
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import plain
from edge_ai_assets.partitions import SITES
from edge_ai_assets.returns.package import packages
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.scoring import supervisor
from edge_ai_assets.scoring.client import Client
from edge_ai_assets.settings import Settings
from edge_ai_assets.stack_hub import definitions as stack_hub
from edge_ai_assets.stack_hub.fleet import RANGE_END, RANGE_START
from edge_ai_assets.stack_hub.provision import private_key

USECASE = """
name: mill
description: "A <mill> & its pumps"
time: {columns: [time]}
site: {column: site}
runs: {column: run}
features:
  - {name: "Flow [m³/h]", range: [-50, 50]}
  - {name: "Secret recipe", range: [-50, 50]}
  - {name: Mode, kind: category, categories: [eco, full]}
label: {column: fault, positive: [1]}
windows: {rows: [3], statistics: [mean], baseline_rows: 2}
estimator: {parameters: {max_iter: 20}}
gates: {f1: 0.6, false_alarm_rate: 0.3}
drift: {rows: 50}
egress:
  kinds: [anomaly, feedback, histogram]
  notes: [confirmed]
  fields:
    - {name: _run, leaves: pseudonymised}
    - {name: _score, leaves: rounded, digits: 3}
    - {name: _predicted, leaves: as_is}
    - {name: _correct, leaves: as_is}
    - {name: _note, leaves: as_is}
    - {name: "Flow [m³/h]", leaves: rounded, digits: 2}
sites:
  - {name: north, ring: canary}
  - {name: south, ring: early}
  - {name: west}
"""
HEADER = "site,run,time,Flow [m³/h],Secret recipe,Mode,fault"


def lines(site: str, runs: range, *, shift: float = 0.0, rows: int = 60) -> list[str]:
    """Readings as CSV: the last third of each run is faulty, and its flow shows it."""
    found = []
    for run in runs:
        rng = np.random.default_rng([run, len(site), ord(site[0])])
        for row in range(rows):
            fault = row >= rows * 2 // 3
            flow, recipe = rng.normal(4 * fault + shift, 1), rng.normal(shift, 1)
            time = f"2026-01-{1 + run:02}T00:{row // 60:02}:{row % 60:02}"
            found.append(
                f"{site},r{run},{time},{flow:.3f},{recipe:.3f},{('eco', 'full')[row % 2]},{int(fault)}"
            )
    return found


def deliver(folder: Path, name: str, rows: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([HEADER, *rows]) + "\n", "utf-8")


@dataclass
class Played:
    """What was played, by step."""

    home: Home
    usecase: usecases.UseCase
    instance: dg.DagsterInstance
    settings: Settings
    results: dict[str, dg.ExecuteInProcessResult] = field(default_factory=dict)

    def run(self, step: str, job: str, *sites: str, usecase: Path | None = None) -> None:
        """Run a job of either location; at sites, from the first to the last."""
        settings = Settings(home=self.settings.home, usecase=usecase or self.settings.usecase)
        build = stack_hub.build_defs if sites else azure.build_defs
        tags = {RANGE_START: sites[0], RANGE_END: sites[-1]} if sites else {}
        made = build(settings=settings).get_repository_def().get_job(job)
        self.results[step] = made.execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)

    def made(self, step: str, key: dg.AssetKey) -> dict[str | None, dict[str, Any]]:
        """Metadata of what a step materialized of an asset, by partition."""
        run, found = self.results[step].run_id, {}
        filters = dg.AssetRecordsFilter(asset_key=key)
        for record in self.instance.fetch_materializations(filters, limit=100).records:
            if record.run_id == run:
                found[record.partition_key] = plain(record.event_log_entry) or {}
        return found

    def checks(self, step: str) -> dict[str, dg.AssetCheckEvaluation]:
        return {check.check_name: check for check in self.results[step].get_asset_check_evaluations()}


@contextmanager
def played(folder: Path) -> Iterator[Played]:
    """The whole chain; services are stopped at the end."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    path = folder / "mill.yaml"
    path.write_text(USECASE, "utf-8")
    home = Home(folder / "home")
    local.set_up(home)
    usecases.dump(usecases.load(path), home.usecase)
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        instance.add_dynamic_partitions(str(SITES.name), ["north", "south", "west"])
        chain = Played(home, usecases.load(path), instance, Settings(home=home.root, usecase=path))
        try:
            _azure(chain, folder)
            _sites(chain)
            _home_again(chain)
            yield chain
        finally:
            for site in ("north", "south", "west"):
                supervisor.stop(home.site(site).root)


def _azure(chain: Played, folder: Path) -> None:
    landing = chain.home.landing
    for site in ("north", "south"):
        deliver(landing, f"{site}.csv", lines(site, range(8)))
    deliver(landing, "broken.csv", ["north,r9,no time,1,1,eco,0", "north,r9,2026-01-10,999,1,eco,0"])
    deliver(landing, "empty.csv", [])
    chain.run("too strict", "first_release", usecase=changed(folder, parity=1e-12))
    chain.run("first", "first_release")


def changed(folder: Path, **gates: float) -> Path:
    """The use case with other gates."""
    case = usecases.loads(USECASE)
    path = folder / "other-gates.yaml"
    usecases.dump(case.model_copy(update={"gates": case.gates.model_copy(update=gates)}), path)
    return path


def _sites(chain: Played) -> None:
    home = chain.home
    Link(home.site("west").root).cut()
    chain.run("one without a link", "deploy_sites", "north", "west")
    chain.run("deploy", "deploy_sites", "north", "south")
    deliver(home.site("north").readings, "a.csv", [*lines("north", range(10, 12)), "north,r9,x,1,1,eco,0"])
    deliver(home.site("south").readings, "a.csv", lines("south", range(10, 13), shift=12))
    (home.site("south").readings / "b.csv").write_text("")
    chain.run("one without a service", "score_sites", "north", "west")
    for site in ("north", "south"):
        service = supervisor.status(home.site(site).root)
        assert service is not None
        with Client(service.url or "") as client:
            client.feedback(
                {"id": f"{site}/{number}", "correct": number > 40, "note": "confirmed"} for number in (1, 50)
            )
    Link(home.site("south").root).cut()
    chain.run("insights", "insights_of_sites", "north", "south")
    Link(home.site("south").root).restore()
    chain.run("link again", "upload_sites", "south")


def _home_again(chain: Played) -> None:
    # Of the site itself, or it would not count as a package that came too early.
    key = signing.load_private(private_key(chain.home.site("south")))
    early = packages.build(
        site="south", number=9, previous="0" * 64, policy="", created_at=1, first=0, last=0, key=key
    )
    (chain.home.uplink / "south" / "south-00000009.zip").write_bytes(early)
    (chain.home.uplink / "north" / "stray.zip").write_bytes(b"no package")
    chain.run("home", "bring_home")
    chain.run("home again", "bring_home")
    chain.run("retrain", "retrain")
