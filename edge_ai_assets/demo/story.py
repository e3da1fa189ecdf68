"""The story: train, release, score, an outage, drift, retraining. The world plays, the daemon does the work.

All that the assets do here, they do by the sensors of both code locations, as they would without a demo.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from rich.console import Console

from edge_ai_assets import keys, local
from edge_ai_assets import usecase as usecases
from edge_ai_assets.demo.outcome import Outcome, compare
from edge_ai_assets.demo.telling import Telling
from edge_ai_assets.demo.world import DemoError, World
from edge_ai_assets.home import Home
from edge_ai_assets.readings import replay
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.scoring import supervisor
from edge_ai_assets.stack_hub import connecting
from edge_ai_assets.usecase import UseCase

MARK = "demo.json"
"""Stands in a home that a demo made, and that the next demo may therefore clear."""


def run(home: Home, usecase: UseCase, data: Path | None, console: Console) -> Outcome:
    """Play the demo in a fresh home.

    Raises:
        DemoError: the home is somebody's, a step failed, or it took too long; `dagster/daemon.log` in the
            home has the details.
    """
    set_up(home, usecase)
    return tell(home, usecase, data, console)


def tell(
    home: Home, usecase: UseCase, data: Path | None, console: Console, around: type[World] = World
) -> Outcome:
    """Play the demo in a home that is set up for it.

    Args:
        around: the world around the assets, where it is not this machine alone.
    """
    start = time.monotonic()
    try:
        with local.daemon(home) as process, around(home, usecase, lambda: process.poll() is None) as world:
            outcome = _Story(world, console).play(data)
    finally:
        stop_services(home)
    outcome.seconds = time.monotonic() - start
    return outcome


def set_up(home: Home, usecase: UseCase) -> None:
    """Make a home for a demo, in place of an earlier demo's."""
    clear(home)
    home.root.mkdir(parents=True, exist_ok=True)
    (home.root / MARK).write_text(json.dumps({"made_by": "edge-ai demo"}))
    usecases.dump(in_a_hurry(usecase), home.usecase)
    local.set_up(home)


def in_a_hurry(usecase: UseCase) -> UseCase:
    """The use case without a bake time: a demo shows the rings, and cannot wait an hour for evidence."""
    rollout = usecase.delivery.rollout.model_copy(update={"bake_minutes": 0})
    delivery = usecase.delivery.model_copy(update={"rollout": rollout})
    return usecase.model_copy(update={"delivery": delivery})


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


class _Story(Telling):
    """One telling; see `play`."""

    def __init__(self, world: World, console: Console) -> None:
        super().__init__(console)
        self.world = world
        self.home, self.usecase = world.home, world.usecase
        self.outcome = Outcome()

    def play(self, data: Path | None) -> Outcome:
        """The story from the first readings to the last insight."""
        with self.step("readings") as say:
            source = self.home.root / "plant"
            plant = (
                replay.file_plant(data, self.usecase, source)
                if data
                else replay.simulated_plant(self.usecase, source)
            )
            kind = "simulated readings" if plant.simulated else f"readings of {data}"
            say(f"{kind}: {len(plant.history)} files of history, {len(plant.phases)} phases to come")
        self.first_release(plant.history)
        *phases, last = [_files(phase) for phase in plant.phases]
        self.outage([file for phase in phases for file in phase])
        self.coming_home()
        drifted = self.retraining()
        self.last_phase(last, drifted)
        self.outcome.judge(self.world, drifted)
        return self.outcome

    def first_release(self, history: list[Path]) -> None:
        world = self.world
        with self.step("history lands on Azure, a model is trained, a release goes out") as say:
            for path in history:
                world.deliver(path, self.home.landing / path.parent.name)
            world.until(lambda: world.version() == 1, "the first release")
            lake, found = world.newest(keys.RAW_TELEMETRY) or {}, world.newest(keys.CHAMPION) or {}
            if lake.get("quarantined_rows"):
                say(f"{lake['quarantined_rows']:,} rows are in quarantine, {lake['new_rows']:,} in the lake")
            say(
                f"release 1: F1 {found['f1']:.3f}, false alarm rate {found['false_alarm_rate']:.1%} "
                "on held-back runs"
            )
        self.rollout(1)

    def outage(self, files: list[tuple[str, Path]]) -> None:
        """The last site loses its link; readings come everywhere, people judge scores, the link returns."""
        world = self.world
        coming = {name for name, _ in files}
        cut = next(name for name in reversed(world.names) if name in coming)
        link = Link(self.home.site(cut).root)
        with self.step(f"{cut} loses its link; readings come to all sites and are scored") as say:
            link.cut()
            self.to_sites(files)
            world.until(lambda: world.packed(cut), f"packages of {cut}")
            offline, waiting = world.counts(cut), world.packages_waiting(cut)
            seen = ", ".join(f"{offline[part]:,} {part}" for part in ("scored", "uploaded", "pending"))
            seen = f"{cut}: {seen}, {waiting} packages wait"
            say(f"{sum(world.counts(name)['scored'] for name in world.names):,} rows; {seen}")
        self.outcome.promise(
            "scoring goes on without a link, and nothing leaves",
            offline["scored"] > 0 and offline["uploaded"] == 0 and waiting > 0,
            seen,
        )
        with self.step("people on the sites say what was right") as say:
            say(f"{world.judge(files):,} scores judged")
        with self.step(f"{cut}'s link is back; the sensor drains the backlog") as say:
            link.restore()
            connecting.hint(self.home.site(cut))
            world.until(lambda: all(world.sent(name) for name in world.names), "the packages of all sites")
            drained, waiting = world.counts(cut), world.packages_waiting(cut)
            seen = f"{cut}: {drained['uploaded']:,} uploaded, {drained['withheld']:,} withheld by policy, "
            seen += f"{drained['pending']} pending, {waiting} packages wait"
            say(seen)
        self.outcome.promise(
            "the backlog drains by itself when the link returns",
            drained["pending"] == 0 and waiting == 0,
            seen,
        )

    def coming_home(self) -> None:
        with self.step("insights come home and are merged") as say:
            self.world.until(self.world.all_home, "the insights of all sites")
            azure = self.world.status()["global"]
            say(f"{azure['insights']:,} insights, {azure['duplicates']} twice")

    def retraining(self) -> bool:
        """Retrain, by the drift sensor or else by hand as the schedule would; whether it was the sensor."""
        world = self.world
        with self.step("drift is looked for") as say:
            world.until(lambda: world.drifting() is not None, "a look at drift")
            sites, judged = world.drifting() or [], world.judged()
            by_sensor = bool(sites) and judged >= self.usecase.retraining.feedback_rows
            if not sites:
                say("none in these readings")
            else:
                say(f"found at {', '.join(sites)}, where {judged:,} scores were judged")
        with self.step(
            "the drift sensor retrains" if by_sensor else "retraining by hand, as the schedule would"
        ) as say:
            if not by_sensor:
                local.launch(self.home, "retrain", "edge_ai_assets.azure")
            world.until(lambda: world.finished("retrain"), "the retraining")
            say(str((world.newest(keys.CHAMPION) or {})["decision"]))
        if world.version() > 1:
            self.rollout(world.version())
        return by_sensor

    def rollout(self, version: int) -> None:
        world = self.world
        with self.step(f"release {version} goes to the sites, ring by ring") as say:
            world.until(lambda: world.all_run(version), f"release {version} on every site")
            order = ", ".join(f"{name} ({world.ring(name)})" for name in world.by_start())
            say(f"{order}; without a bake time, which a demo cannot wait for")

    def last_phase(self, files: list[tuple[str, Path]], drifted: bool) -> None:
        world = self.world
        with self.step("the last readings come, are scored, and what may leave comes home") as say:
            self.to_sites(files)
            world.until(lambda: all(world.sent(name) for name in world.names), "the last packages")
            world.until(world.all_home, "the last insights")
            say(f"{world.status()['global']['insights']:,} insights in the global table")
        with self.step("first and newest release on the same last readings") as say:
            before, after = compare(self.home, self.usecase, files)
            self.outcome.before, self.outcome.after = before, after
            f1 = f"F1 {before.f1:.3f} → {after.f1:.3f}"
            say(f"{f1}, false alarm rate {before.false_alarm_rate:.1%} → {after.false_alarm_rate:.1%}")
        if drifted:
            self.outcome.promise("retraining after drift makes scores better", after.f1 > before.f1, f1)

    def to_sites(self, files: list[tuple[str, Path]]) -> None:
        """Readings come to the sites, and are scored."""
        for name, path in files:
            self.world.deliver(path, self.home.site(name).readings)
        self.world.until(self.world.all_scored, "scores of all readings")


def _files(phase: dict[str, list[Path]]) -> list[tuple[str, Path]]:
    return [(name, path) for name, paths in phase.items() for path in paths]
