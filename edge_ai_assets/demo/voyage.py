"""The story of a ship: Azure and one site, two homes that share nothing but a medium carried by hand.

Each home has a Dagster instance of its own. Weeks pass on a virtual clock: the story begins weeks ago and
ends now, so that what happened at sea can be told from when Azure learned of it. What is carried is carried
by copying files, and by nothing else. What came of it is held against the promises in `landfall`.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from edge_ai_assets import enrolment, keys, local
from edge_ai_assets import usecase as usecases
from edge_ai_assets.demo import landfall
from edge_ai_assets.demo.outcome import Outcome, compare
from edge_ai_assets.demo.story import MARK, clear, stop_services
from edge_ai_assets.demo.telling import Telling
from edge_ai_assets.demo.world import World
from edge_ai_assets.home import Home, SiteHome
from edge_ai_assets.readings import replay
from edge_ai_assets.returns.road import media
from edge_ai_assets.stack_hub import provision
from edge_ai_assets.usecase import Ring, Road, Site, UseCase

SHIP = "narvik"
APART = "apart"
"""Folder in the home that holds the two homes and the medium."""
SAILS, AT_SEA, IN_PORT = -45, -20, 0
"""Days from now."""
LEAP_DAY = "0 3 29 2 *"
CLOCK = Path(__file__).parent / "clock"


def run(home: Home, console: Console) -> Outcome:
    """Play the demo in fresh homes below `home`.

    Raises:
        DemoError: a step failed or took too long; `dagster/daemon.log` in the two homes has the details.
    """
    root = home.root / APART
    if root.exists():
        stop_services(Home(root / SHIP))
        clear(Home(root))
    fresh = not home.root.exists() or not any(home.root.iterdir())
    for folder in (home.root, root) if fresh else (root,):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text(json.dumps({"made_by": "edge-ai demo --disconnected"}))
    voyage = _Voyage(root, console)
    try:
        return voyage.play()
    finally:
        stop_services(voyage.ship_home)


def for_a_ship(usecase: UseCase) -> UseCase:
    """A use case with one site that nothing connects to, and whose lineage may come home."""
    said = {*usecase.egress.kinds, "aggregate", "lineage", "sketch"}
    egress = usecase.egress.model_copy(update={"kinds": tuple(sorted(said))})
    ship = Site(name=SHIP, ring=Ring.CANARY, road=Road.MEDIA)
    # By drift alone: the clock jumps over weeks, and a schedule would make up for them before anything came.
    retraining = usecase.retraining.model_copy(update={"cron": LEAP_DAY})
    return usecase.model_copy(update={"sites": (ship,), "egress": egress, "retraining": retraining})


class _Voyage(Telling):
    """One telling; see `play`."""

    def __init__(self, root: Path, console: Console) -> None:
        super().__init__(console)
        self.azure_home, self.ship_home = Home(root / "azure"), Home(root / SHIP)
        self.medium = root / "medium"
        self.usecase = for_a_ship(usecases.load(usecases.BUNDLED / "pump-station.yaml"))
        self.outcome = Outcome()

    @property
    def ship(self) -> SiteHome:
        return self.ship_home.site(SHIP)

    def play(self) -> Outcome:
        """From the first readings on Azure to the second release aboard, and the insights that came home."""
        for folder in (self.azure_home.root, self.medium):
            folder.mkdir()
        usecases.dump(self.usecase, self.azure_home.usecase)
        plant = replay.simulated_plant(self.usecase, self.medium.with_name("plant"))
        usual, changed, last = [phase[SHIP] for phase in plant.phases]
        with self.on_azure(SAILS) as azure:
            self.first_release(azure, plant.history)
        self.goes_aboard()
        with self.aboard(SAILS) as ship:
            with self.step("45 days ago: the ship's sensor finds the bundle and deploys release 1"):
                ship.until(lambda: ship.all_run(1), "release 1 aboard")
            self.scores(ship, usual, "the first readings at sea are scored")
        with self.aboard(AT_SEA) as ship:
            with self.step("20 days ago: after a blackout the service comes back by itself"):
                ship.until(lambda: ship.all_run(1), "release 1 aboard again")
            self.scores(ship, changed, "readings after a conversion of the plant are scored and judged")
        with self.on_azure(IN_PORT) as azure:
            self.comes_home(azure)
            with self.aboard(IN_PORT) as ship:
                self.sails_again(azure, ship, last)
                landfall.judge(self.outcome, azure, ship, self.medium)
        self.outcome.seconds = time.monotonic() - self.started
        return self.outcome

    def first_release(self, azure: World, history: list[Path]) -> None:
        with self.step("Azure, 45 days ago: history lands, a model is trained, a bundle is written") as say:
            for path in history:
                azure.deliver(path, self.azure_home.landing / path.parent.name)
            azure.until(lambda: azure.newest(keys.BUNDLE) is not None, "the first bundle")
            azure.until(lambda: not azure.busy("first_release"), "the end of its run")
            said = enrolment.invite(self.azure_home, self.usecase, SHIP, self.medium)
            say(f"{self.carry(self.azure_home.media, '*.bundle', self.medium)}; {said.name}")

    def goes_aboard(self) -> None:
        with self.step("the medium is carried aboard; the ship joins with its invitation") as say:
            answer = enrolment.join(self.ship_home, self.medium / f"{SHIP}.invitation.json", self.medium)
            local.set_up(self.ship_home)
            self.carry(self.medium, "*.bundle", self.ship.media)
            trusted = enrolment.fingerprint(provision.root(self.ship).read_bytes())
            say(f"it trusts releases by {trusted}; its own key goes back in {answer.name}")

    def scores(self, ship: World, files: list[Path], title: str) -> None:
        """Readings come, are scored and judged, and what may leave lies ready to be carried."""
        with self.step(title) as say:
            for path in files:
                ship.deliver(path, self.ship.readings)
            ship.until(ship.all_scored, "scores of all readings")
            judged = ship.judge([(SHIP, path) for path in files])
            ship.until(lambda: ship.ready(SHIP), "packages ready to be carried")
            counts = ship.counts(SHIP)
            wait = f"{counts['pending']:,} wait in {ship.packages_waiting(SHIP)} packages"
            say(f"{counts['scored']:,} scored, {judged:,} judged now; {counts['withheld']:,} stay; {wait}")

    def comes_home(self, azure: World) -> None:
        with self.step("in port: the ship is enrolled, its packages are carried to Azure") as say:
            site = enrolment.enrol(self.azure_home, self.usecase, self.medium / f"{SHIP}.enrolment.json")
            say(self.ashore())
            azure.until(azure.all_home, "the insights of the ship")
            azure.until(lambda: azure.newest(keys.HISTORY) is not None, "the ship's history")
            now = azure.status()["global"]
            say(f"{now['insights']:,} insights of {site.site}, {now['duplicates']} twice")
            lived = azure.newest(keys.SITE_DEPLOYMENT) or {}
            when = datetime.fromtimestamp(lived["edge_ai/edge_time"], UTC)
            say(f"Azure's graph shows release {lived['release']} deployed aboard on {when:%Y-%m-%d %H:%M}")
        with self.step("drift is seen in what came home; the sensor retrains") as say:
            azure.until(lambda: azure.version() == 2, "the second release")
            say(str((azure.newest(keys.CHAMPION) or {})["decision"]))

    def sails_again(self, azure: World, ship: World, files: list[Path]) -> None:
        with self.step("the next bundle carries release 2 and the acknowledgement aboard") as say:
            azure.until(lambda: (azure.newest(keys.BUNDLE) or {}).get("release") == 2, "the second bundle")
            say(self.carry(self.azure_home.media / SHIP, "*-2.bundle", self.medium))
            self.carry(self.medium, "*-2.bundle", self.ship.media)
            ship.until(lambda: ship.all_run(2), "release 2 aboard")
            counts = ship.counts(SHIP)
            say(f"{counts['uploaded']:,} scores are known to have come home, {counts['pending']} wait")
        self.outcome.promise(
            "the acknowledgement came with the bundle",
            counts["uploaded"] > 0 and counts["pending"] == 0,
            f"{counts['uploaded']:,} uploaded, {counts['pending']} pending",
        )
        self.scores(ship, files, "the last readings are scored by release 2")
        with self.step("and what may leave comes home once more") as say:
            say(self.ashore())
            azure.until(azure.all_home, "the last insights")
            pairs = [(SHIP, path) for path in files]
            before, after = compare(self.azure_home, self.usecase, pairs)
            self.outcome.before, self.outcome.after = before, after
            seen = f"F1 {before.f1:.3f} → {after.f1:.3f} on the last readings"
            say(seen)
        self.outcome.promise("retraining after drift makes scores better", after.f1 > before.f1, seen)

    def ashore(self) -> str:
        """Carry what lies ready aboard to Azure; a sentence of what it was."""
        self.carry(self.ship.outgoing, "*.zip", self.medium / "returns")
        done = media.import_(self.medium / "returns", self.azure_home.uplink)
        return f"{done.packages} packages carried, {done.bytes:,} bytes"

    def carry(self, source: Path, names: str, target: Path) -> str:
        """Copy files by hand, as a person with a medium does; what was copied."""
        target.mkdir(parents=True, exist_ok=True)
        found = sorted(source.glob(names))
        for path in found:
            partial = target / f".{path.name}"
            shutil.copyfile(path, partial)
            os.replace(partial, target / path.name)
        return ", ".join(f"{path.name} ({path.stat().st_size:,} bytes)" for path in found)

    @contextmanager
    def on_azure(self, days: int) -> Iterator[World]:
        with self.running(self.azure_home, self.usecase, local.AZURE, days) as world:
            yield world

    @contextmanager
    def aboard(self, days: int) -> Iterator[World]:
        stop_services(self.ship_home)  # a service from before has another clock, as after any reboot
        with self.running(self.ship_home, self.usecase, local.SITE, days) as world:
            yield world

    @contextmanager
    def running(self, home: Home, usecase: UseCase, loads: Path, days: int) -> Iterator[World]:
        """Dagster on one side, with its clock so many days from now."""
        path = os.pathsep.join(filter(None, [str(CLOCK), os.environ.get("PYTHONPATH")]))
        also = {"PYTHONPATH": path, "EDGE_AI_DEMO_DAYS": str(days)} if days else {}
        with (
            local.daemon(home, loads, also) as process,
            World(home, usecase, lambda: process.poll() is None) as world,
        ):
            yield world
