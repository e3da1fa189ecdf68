"""The whole loop on one machine, as a story: train, release, score, an outage, drift, retraining, and what
came of it.

The demo plays the world: the plant that delivers readings, the people who judge scores, the link that fails.
All the rest is done by Dagster's daemon with the sensors of both code locations, as it would be without a
demo.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from edge_ai_assets import keys, local
from edge_ai_assets import usecase as usecases
from edge_ai_assets.delivery import pack
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import plain
from edge_ai_assets.readings import replay
from edge_ai_assets.returns.link import Link
from edge_ai_assets.returns.outbox import Outbox
from edge_ai_assets.scoring import batch, supervisor
from edge_ai_assets.scoring.client import Client
from edge_ai_assets.stack_hub import returning, scoring
from edge_ai_assets.status import conserved, status
from edge_ai_assets.usecase import Ring, UseCase

if TYPE_CHECKING:
    import dagster as dg

    from edge_ai_assets.ml.evaluation import Scores

MARK = "demo.json"
"""Stands in a home that a demo made, and that the next demo may therefore clear."""
PATIENCE = 240.0
"""Seconds that any one step may take."""
JUDGED = 5_000
"""Judgements in one request."""


class DemoError(RuntimeError):
    """The demo cannot go on; the message says at what, and where to look."""


@dataclass
class Outcome:
    """What the demo showed."""

    seconds: float = 0.0
    promises: list[tuple[str, bool, str]] = field(default_factory=list)
    before: Scores | None = None
    """The first release on the last phase's readings."""
    after: Scores | None = None
    """The release that runs at the end, on the same readings."""
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        return all(kept for _, kept, _ in self.promises)

    def promise(self, what: str, kept: bool, seen: str) -> None:
        self.promises.append((what, bool(kept), seen))


def clear(home: Home) -> None:
    """Stop what an earlier demo left running in this home, and remove it.

    Raises:
        DemoError: the home holds something that no demo made.
    """
    if not home.root.exists() or not any(home.root.iterdir()):
        return
    if not (home.root / MARK).exists():
        raise DemoError(
            f"{home.root} was not made by a demo and is left alone: "
            "set EDGE_AI_HOME to another folder, or remove it"
        )
    stop_services(home)
    shutil.rmtree(home.root)


def stop_services(home: Home) -> None:
    """Stop the scoring services of all sites."""
    for folder in sorted((home.root / "sites").glob("*")):
        supervisor.stop(folder)


def run(home: Home, usecase: UseCase, data: Path | None, console: Console) -> Outcome:
    """Play the demo in a fresh home.

    Raises:
        DemoError: a step failed or took longer than PATIENCE; `dagster/daemon.log` in the home has the
        details.
    """
    clear(home)
    home.root.mkdir(parents=True, exist_ok=True)
    (home.root / MARK).write_text(json.dumps({"made_by": "edge-ai demo"}))
    usecases.dump(usecase, home.usecase)
    local.set_up(home)
    start = time.monotonic()
    try:
        with local.daemon(home) as process:
            story = _Story(home, usecase, console, lambda: process.poll() is None)
            outcome = story.play(data)
    finally:
        stop_services(home)
    outcome.seconds = time.monotonic() - start
    return outcome


class _Story:
    """One play; see `play`."""

    def __init__(self, home: Home, usecase: UseCase, console: Console, alive: Callable[[], bool]) -> None:
        import dagster as dg

        self.home, self.usecase, self.console, self.alive = home, usecase, console, alive
        self.names = [site.name for site in usecase.sites]
        self.instance: dg.DagsterInstance = dg.DagsterInstance.from_config(str(home.dagster))
        self.outcome = Outcome()
        self.started = time.monotonic()

    def play(self, data: Path | None) -> Outcome:
        """The story from the first readings to the last insight."""
        with self.instance:
            with self.step("readings") as say:
                source = self.home.root / "plant"
                plant = (
                    replay.file_plant(data, self.usecase, source)
                    if data
                    else replay.simulated_plant(self.usecase, source)
                )
                kind = "simulated readings" if plant.simulated else f"readings of {data}"
                say(f"{kind}: {len(plant.history)} files of history, {len(plant.phases)} phases to come")
            self.first_release(plant)
            self.outage(plant.phases[:-1])
            self.coming_home()
            drifted = self.retraining()
            self.last_phase(plant.phases[-1], drifted)
            self.judge_promises(drifted)
        return self.outcome

    def first_release(self, plant: replay.Plant) -> None:
        with self.step("history lands on Azure, a model is trained, a release goes out") as say:
            for path in plant.history:
                self.deliver(path, self.home.landing / path.parent.name)
            self.until(lambda: self.version() == 1, "the first release")
            say(f"release 1: {self.gate()}")
        with self.step("release 1 goes to the sites, ring by ring") as say:
            self.until(lambda: self.all_run(1), "release 1 on every site")
            say(", ".join(f"{name} ({self.ring(name)})" for name in self.by_start()))

    def outage(self, phases: list[dict[str, list[Path]]]) -> None:
        """The last site loses its link; readings come everywhere, people judge scores."""
        cut = next(name for name in reversed(self.names) if any(phase.get(name) for phase in phases))
        with self.step(f"{cut} loses its link; readings come to all sites and are scored") as say:
            Link(self.home.site(cut).root).cut()
            for phase in phases:
                for name, paths in phase.items():
                    for path in paths:
                        self.deliver(path, self.home.site(name).readings)
            self.until(self.all_scored, "scores of all readings")
            self.until(lambda: self.packed(cut), f"packages of {cut}")
            offline, waiting = self.counts(cut), self.packages_waiting(cut)
            seen = ", ".join(f"{offline[part]:,} {part}" for part in ("scored", "uploaded", "pending"))
            seen = f"{cut}: {seen}, {waiting} packages wait"
            say(f"{sum(self.counts(name)['scored'] for name in self.names):,} rows; {seen}")
        self.outcome.promise(
            "scoring goes on without a link, and nothing leaves",
            offline["scored"] > 0 and offline["uploaded"] == 0 and waiting > 0,
            seen,
        )
        with self.step("people on the sites say what was right") as say:
            truth = [(name, path) for phase in phases for name, paths in phase.items() for path in paths]
            say(f"{self.judge(truth):,} scores judged")
        with self.step(f"{cut}'s link is back; the sensor drains the backlog") as say:
            Link(self.home.site(cut).root).restore()
            self.until(lambda: all(self.sent(name) for name in self.names), "the packages of all sites")
            drained, waiting = self.counts(cut), self.packages_waiting(cut)
            seen = f"{cut}: {drained['uploaded']:,} uploaded, {drained['withheld']:,} withheld by policy"
            seen += f", {drained['pending']} pending, {waiting} packages wait"
            say(seen)
        self.outcome.promise(
            "the backlog drains by itself when the link returns",
            drained["pending"] == 0 and waiting == 0,
            seen,
        )

    def coming_home(self) -> None:
        with self.step("insights come home and are merged") as say:
            self.until(self.all_home, "the insights of all sites")
            world = self.status()["global"]
            say(f"{world['insights']:,} insights, {world['duplicates']} twice")

    def retraining(self) -> bool:
        """Retrain; by the drift sensor if there is drift, else by hand as the schedule would. Whether there
        was drift."""
        with self.step("drift is looked for") as say:
            self.until(lambda: self.drifting() is not None, "a look at drift")
            sites = self.drifting() or []
            say(f"found at {', '.join(sites)}: the sensor retrains" if sites else "none in these readings")
        with self.step("retraining" if sites else "retraining as the schedule would, started by hand") as say:
            if not sites:
                local.launch(self.home, "retrain", "edge_ai_assets.azure")
            self.until(lambda: self.finished("retrain"), "the retraining")
            say(f"{self.decision()}")
        newest = self.version()
        with self.step(f"release {newest} runs on every site") as say:
            self.until(lambda: self.all_run(newest), f"release {newest} on every site")
            say(", ".join(f"{name} ({self.ring(name)})" for name in self.by_start()))
        return bool(sites)

    def last_phase(self, phase: dict[str, list[Path]], drifted: bool) -> None:
        with self.step("the last readings come, are scored, and what may leave comes home") as say:
            for name, paths in phase.items():
                for path in paths:
                    self.deliver(path, self.home.site(name).readings)
            self.until(self.all_scored, "scores of the last readings")
            self.until(lambda: all(self.sent(name) for name in self.names), "the last packages")
            self.until(self.all_home, "the last insights")
            say(f"{self.status()['global']['insights']:,} insights in the global table")
        with self.step("first and newest release on the same last readings") as say:
            self.outcome.before, self.outcome.after = self.compare(phase)
            before, after = self.outcome.before, self.outcome.after
            say(
                f"F1 {before.f1:.3f} → {after.f1:.3f}, "
                f"false alarm rate {before.false_alarm_rate:.1%} → {after.false_alarm_rate:.1%}"
            )
        if drifted:
            self.outcome.promise(
                "retraining after drift makes scores better",
                after.f1 > before.f1,
                f"F1 {before.f1:.3f} before, {after.f1:.3f} after",
            )

    def judge_promises(self, drifted: bool) -> None:
        """Hold what was seen against the design's promises."""
        outcome, now = self.outcome, self.status()
        outcome.status = now
        sites, world = now["sites"], now["global"]
        recounted = {name: returning.recount(self.home.site(name)) for name in self.names}
        outcome.promise(
            "scored = uploaded + withheld + quarantined + expired + pending, at every site",
            all(conserved(site) for site in sites.values())
            and all(counts.conserved for counts in recounted.values()),
            f"{sum(site['scored'] for site in sites.values()):,} scores at {len(sites)} sites",
        )
        uploaded = sum(site["uploaded"] for site in sites.values())
        outcome.promise(
            "what left arrived, once",
            world["duplicates"] == 0 and world["insights"] == uploaded,
            f"{uploaded:,} uploaded, {world['insights']:,} insights, {world['duplicates']} twice",
        )
        allowed = {field.name for field in self.usecase.egress.fields}
        left = self.fields_that_left()
        outcome.promise(
            "only listed fields left", left <= allowed, f"{len(left)} fields of {len(allowed)} listed"
        )
        outcome.promise(
            "the sites run the newest release",
            all(site["release"] == world["releases"] for site in sites.values()),
            f"release {world['releases']} of {world['releases']}",
        )
        outcome.promise(
            "it was retrained" + (" by the drift sensor" if drifted else ""),
            world["retrainings"] >= 1 and (not drifted or self.reasons().count("drift") >= 1),
            f"{world['retrainings']} retrainings",
        )
        failed = self.failed_runs()
        outcome.promise(
            "no run failed", not failed, f"{len(failed)} of {self.instance.get_runs_count()} runs failed"
        )

    # What the world does.

    def deliver(self, path: Path, folder: Path) -> None:
        """Put a file where it is looked for, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        hidden = folder / f".{path.name}"
        shutil.copyfile(path, hidden)
        os.replace(hidden, folder / path.name)

    def judge(self, files: list[tuple[str, Path]]) -> int:
        """Answer for the people of the sites: the labels of these files, for the scores of their readings."""
        from edge_ai_assets.readings.files import read

        labels: dict[str, dict[tuple[str, int], bool]] = {name: {} for name in self.names}
        for name, path in files:
            for part in read(path, self.usecase, site=name):
                known = part.readings[part.readings["_label"].notna()]
                rows = zip(known["_run"], known["_row"], known["_label"], strict=True)
                labels[name] |= {(run, row): bool(label) for run, row, label in rows}
        judged = 0
        for name in self.names:
            site = self.home.site(name)
            if not labels[name]:
                continue
            with (
                Client(scoring.running(site).url or "") as client,
                Outbox(site.outbox, create=False) as outbox,
            ):
                last = outbox.counts().scored
                for first in range(1, last + 1, JUDGED):
                    items = []
                    for row in outbox.rows(first, min(last, first + JUDGED - 1)):
                        context = json.loads(row.record)["context"]
                        label = labels[name].get((context["_run"], context["_row"]))
                        if label is not None:
                            items.append(
                                {"id": f"{name}/{row.sequence}", "correct": label, "role": "operator"}
                            )
                    if items:
                        judged += client.feedback(items)
        return judged

    # What is seen.

    def status(self) -> dict[str, Any]:
        return status(self.home, self.usecase)

    def counts(self, name: str) -> dict[str, int]:
        return dict(returning.as_dict(returning.counts(self.home.site(name))))

    def version(self) -> int:
        newest = pack.newest(self.home.registry, self.home.keys)
        return newest.version if newest else 0

    def all_run(self, version: int) -> bool:
        found = [supervisor.status(self.home.site(name).root) for name in self.names]
        return all(service is not None and service.version == version for service in found)

    def by_start(self) -> list[str]:
        """Sites in the order in which their release began to serve."""

        def since(name: str) -> str:
            service = supervisor.status(self.home.site(name).root)
            return (service.since or "") if service else ""

        return sorted(self.names, key=since)

    def ring(self, name: str) -> Ring:
        return next(site.ring for site in self.usecase.sites if site.name == name)

    def all_scored(self) -> bool:
        return not any(batch.waiting(self.home.site(name)) for name in self.names) and not self.busy(
            "score_sites"
        )

    def packed(self, name: str) -> bool:
        """Whether nothing waits at a site but packages."""
        site = self.home.site(name)
        with Outbox(site.outbox, create=False) as outbox:
            return not (outbox.unclassified(1) or outbox.waiting(1) or outbox.waiting_feedback(1))

    def sent(self, name: str) -> bool:
        site = self.home.site(name)
        if not site.outbox.exists():
            return True
        with Outbox(site.outbox, create=False) as outbox:
            return self.packed(name) and not outbox.unsent()

    def packages_waiting(self, name: str) -> int:
        with Outbox(self.home.site(name).outbox, create=False) as outbox:
            return len(outbox.unsent())

    def all_home(self) -> bool:
        from edge_ai_assets.azure import arrivals

        return not arrivals.new_packages(self.home) and not self.busy("bring_home")

    def drifting(self) -> list[str] | None:
        """Sites at which drift was seen; None when it was not looked for yet."""
        from edge_ai_assets.azure import watch

        found = self.newest(keys.DRIFT)
        return None if found is None else list(found[watch.SITES])

    def gate(self) -> str:
        found = self.newest(keys.CHAMPION) or {}
        return f"F1 {found['f1']:.3f}, false alarm rate {found['false_alarm_rate']:.1%} on held-back runs"

    def decision(self) -> str:
        found = self.newest(keys.CHAMPION) or {}
        return str(found["decision"])

    def newest(self, key: dg.AssetKey) -> dict[str, Any] | None:
        return plain(self.instance.get_latest_materialization_event(key))

    def busy(self, job: str) -> bool:
        from edge_ai_assets.runs import in_flight

        return in_flight(self.instance, job)

    def finished(self, job: str) -> bool:
        import dagster as dg

        done = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS])
        return self.instance.get_runs_count(done) > 0 and not self.busy(job)

    def reasons(self) -> list[str]:
        import dagster as dg

        from edge_ai_assets.azure.automation import REASON

        runs = self.instance.get_runs(
            dg.RunsFilter(job_name="retrain", statuses=[dg.DagsterRunStatus.SUCCESS])
        )
        return [run.tags.get(REASON, "") for run in runs]

    def failed_runs(self) -> list[str]:
        import dagster as dg

        failed = self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        return [f"{run.job_name} ({run.run_id[:8]}): {self.cause(run.run_id)}" for run in failed]

    def cause(self, run_id: str) -> str:
        """The first error of a run, as a line."""
        for entry in self.instance.all_logs(run_id):
            event = entry.dagster_event
            if event and event.is_step_failure and event.step_failure_data.error:
                error = event.step_failure_data.error
                return (error.cause or error).message.strip().splitlines()[-1]
        return "see its log"

    def fields_that_left(self) -> set[str]:
        """Names of all values in the global tables; what is derived from a feature counts as the feature."""
        from edge_ai_assets.ml import features
        from edge_ai_assets.returns import tables

        base = {item.name: item.base for item in features.inputs(self.usecase)}
        found: set[str] = set()
        for name, own in (
            ("insights", {"score": "_score", "predicted": "_predicted"}),
            ("feedback", {"correct": "_correct", "note": "_note", "role": "_role"}),
        ):
            for row in tables.rows(self.home.tables, name, ["fields", *own]):
                found |= {base.get(field, field) for field in json.loads(row["fields"])}
                found |= {field for column, field in own.items() if row[column] is not None}
        return found | {row["feature"] for row in tables.rows(self.home.tables, "histograms", ["feature"])}

    def compare(self, phase: dict[str, list[Path]]) -> tuple[Scores, Scores]:
        import pandas as pd

        from edge_ai_assets.delivery import release as releases
        from edge_ai_assets.delivery import signing
        from edge_ai_assets.delivery.layout import Layout
        from edge_ai_assets.ml import evaluation, features
        from edge_ai_assets.readings.files import read

        parts = [
            part.readings
            for name, paths in phase.items()
            for path in paths
            for part in read(path, self.usecase, site=name)
        ]
        made = features.compute(pd.concat(parts, ignore_index=True), self.usecase)
        rows = made[features.scorable(made, self.usecase) & made["_label"].notna()]
        public = signing.load_public(signing.public_path(self.home.keys / f"{pack.KEY}.pem"))
        first = releases.get(Layout(self.home.registry), 1, [public]).run_id
        return (
            evaluation.evaluate(self.home.models / "candidates" / first, rows),
            evaluation.evaluate(self.home.champion, rows),
        )

    # How it is told.

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        said: list[str] = []
        begun = time.monotonic()
        with self.console.status(f"{title} …"):
            yield said.append
        now = time.monotonic()
        self.console.print(
            f"[green]✓[/] {now - self.started:5.0f} s  {title} [dim]({now - begun:.0f} s)[/]",
            highlight=False,
            soft_wrap=True,
        )
        for text in said:
            self.console.print(f"           [dim]{text}[/]", highlight=False, soft_wrap=True)

    def until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait; DemoError when a run fails, the daemon ends or patience does."""
        deadline = time.monotonic() + PATIENCE
        while not reached():
            if failed := self.failed_runs():
                raise DemoError(f"waiting for {what}: a run failed: {failed[0]}")
            if not self.alive():
                raise DemoError(
                    f"waiting for {what}: Dagster's daemon ended: see {self.home.dagster / 'daemon.log'}"
                )
            if time.monotonic() > deadline:
                raise DemoError(
                    f"waited {PATIENCE:.0f} s for {what} in vain: "
                    f"see {self.home.dagster / 'daemon.log'} and `make ui`"
                )
            time.sleep(0.3)
