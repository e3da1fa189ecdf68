"""Half a year at sea in minutes: 180 days on a clock that is set, 10^6 scores, and all that may go wrong.

The site is mostly offline. Its clock is a year ahead, then a year behind; the link is cut 1,000 times, in the
middle of blocks too; the power goes; the disk is full for days, first by the quota, then really; media are
lost, come late, twice and in any order, and acknowledgements as well. Nobody ever repairs anything.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_ai_assets import usecase as usecases
from edge_ai_assets.returns.outbox import outbox as outboxes
from edge_ai_assets.returns.outbox import store
from edge_ai_assets.returns.road import uplink
from edge_ai_assets.usecase import Returns
from edge_ai_assets_tests.integration.ship import ALL, DAY, NO_NORMAL, USECASE, Ship, lose

pytestmark = pytest.mark.proof

DAYS = 180
YEAR = 365 * DAY
AHEAD, BEHIND = range(40, 70), range(70, 100)
"""Days on which the site's clock is a year off."""
ALONE = range(15, 40)
"""Nobody comes by, nothing is carried."""
FLAPPING = range(60, 160)
CUTS = 1_000
FULL = range(110, 114)
"""Somebody else's file takes up all the disk."""
STRICT = range(125, 130)
"""The policy keeps normal scores."""
HOUR = DAY // 24
SEGMENT = 12_000_000
"""What is written between two looks at the quota: a day's scores as rows, and SQLite's own log of them."""


@pytest.fixture
def sea(tmp_path) -> Iterator[Path]:
    """A home whose site has a small file system of its own, on which `ballast` takes up room."""
    folder = tmp_path / "sites/bergen"
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        missing = f"no tmpfs can be mounted here: {done.stderr.strip()}"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that a day's package has many, and nobody waits for a process that is not there."""
    monkeypatch.setattr(uplink, "BLOCK", 8_192)
    monkeypatch.setattr(uplink, "SLICE", 1_024)
    for module in (store, outboxes):
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0)


class Carriers:
    """Media on their way to Azure and acknowledgements on their way back, by the day they arrive."""

    def __init__(self, ship: Ship, folder: Path) -> None:
        self.ship, self.folder = ship, folder
        self.media: list[tuple[int, Path]] = []
        self.acks: list[tuple[int, bytes]] = []

    def day(self, today: int) -> None:
        chance, ship = self.ship.chance, self.ship
        for due, medium in [item for item in self.media if item[0] <= today]:
            self.media.remove((due, medium))
            ship.bring(medium)
            if chance.random() < 0.3:
                self.media.append((today + chance.randint(1, 20), medium))  # and once more
        for due, ack in [item for item in self.acks if item[0] <= today]:
            self.acks.remove((due, ack))
            heeded = False
            with ship.full_disk():
                ship.heed(ack)
                heeded = True
            if not heeded:
                self.acks.append((today + 1, ack))  # it lies there, and is looked at again
                continue
            if chance.random() < 0.3:
                self.acks.append((today + chance.randint(1, 20), ack))
                ship.met["old acknowledgements"] += 1

    def leave(self, today: int) -> None:
        chance, ship = self.ship.chance, self.ship
        medium = self.folder / f"{today:03}"
        ship.export(medium, only_new=chance.random() < 0.5, limit_bytes=chance.choice([None, None, 10**6]))
        if chance.random() < 0.3:
            ship.met["media lost"] += 1
            lose(medium)
        else:
            for path in list(medium.iterdir()):
                if chance.random() < 0.05:
                    path.unlink()
            self.media.append((today + chance.randint(0, 9), medium))

    def answer(self, today: int) -> None:
        if ack := self.ship.ack():
            if self.ship.chance.random() < 0.3:
                self.ship.met["acknowledgements lost"] += 1
            else:
                self.acks.append((today + self.ship.chance.randint(1, 8), ack))


def sail(ship: Ship, folder: Path, rows: int, bound: int) -> None:
    """180 days; after each, what must always hold."""
    chance, carriers = ship.chance, Carriers(ship, folder)
    for today in range(DAYS):
        ship.true += DAY
        ship.off = YEAR if today in AHEAD else -YEAR if today in BEHIND else 0
        ship.usecase = usecases.loads(USECASE % (NO_NORMAL if today in STRICT else ALL))
        ballast(ship, today)
        work(ship, rows)
        if today in FLAPPING:
            flap(ship, -(-(CUTS - ship.link.cuts) // (FLAPPING.stop - today)))
        else:
            with ship.full_disk():
                ship.look_and_send(float("inf") if today > FLAPPING.stop and today % 3 == 0 else 0)
        if today not in ALONE:
            carriers.day(today)
            if today % 5 == 0 and today not in FULL:
                carriers.leave(today)
        if today % 2:
            received = ship.receive()
            ship.met["days with gaps"] += bool(received.waiting)
            if today % 5 == 0:
                carriers.answer(today)
                if chance.random() < 0.5:
                    ship.acknowledge()
        with ship.full_disk():  # which keeps us from looking, too
            ship.check_site()
            ship.check_watermark()
        assert ship.held() <= bound, f"day {today}: {ship.held():,} bytes, at most {bound:,}"
        if today % 20 == 0 or today in FULL:
            with ship.full_disk():
                ship.recount()
                ship.check_ledger()


def ballast(ship: Ship, today: int) -> None:
    path = ship.site.root / "ballast"
    if today == FULL.start:
        with pytest.raises(OSError, match="No space"), path.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65_536))
    elif today == FULL.stop:
        path.unlink()


def work(ship: Ship, rows: int) -> None:
    """A day of scoring and of the site's Dagster; the power may go in the middle of it."""
    chance = ship.chance
    for _ in range(4):
        first = ship.score(rows // 4, torn=chance.random() < 0.01)
        if first is not None:
            with ship.full_disk():
                ship.judge(first + chance.randrange(rows // 4))
    for step in (ship.derive, ship.make_room, ship.pack):
        if chance.random() < 0.2:
            with ship.cut_after(chance.randint(0, 12)), ship.full_disk():
                step()
            with ship.full_disk():
                ship.recount()
        with ship.full_disk():
            step()


def flap(ship: Ship, times: int) -> None:
    """The link comes and goes so many times, and each time carries a little."""
    for _ in range(times):
        ship.true += HOUR // 20
        cuts = ship.link.cuts
        while ship.link.cuts == cuts:
            ship.true += HOUR // 60
            with ship.full_disk():
                ship.look_and_send(ship.chance.choice([0, 1, 3, 10, 30]))


def test_a_million_scores_come_home(sea, tmp_path_factory):
    returns = Returns().model_copy(update={"quota_megabytes": 27, "retention_days": 3})
    ship = Ship(sea, returns, random.Random(5))
    sail(ship, tmp_path_factory.mktemp("media"), 6_500, 27_000_000 + SEGMENT)
    ship.come_home()
    met = ship.met
    assert ship.last >= 1_000_000
    assert ship.link.cuts >= CUTS
    assert met["OutboxFull"] and met["steps without room"], met
    assert met["media lost"] and met["imported again"] and met["acknowledgements lost"], met
    assert met["old acknowledgements"] and met["days with gaps"] and met["power cuts"], met
    assert ship.gone["withheld"] and ship.gone["quarantined"] and not ship.gone["expired"]


def test_at_the_quota_the_least_valuable_expires_and_scoring_goes_on(sea, tmp_path_factory):
    returns = Returns().model_copy(update={"quota_megabytes": 12, "retention_days": 3, "when_full": "expire"})
    ship = Ship(sea, returns, random.Random(6))
    sail(ship, tmp_path_factory.mktemp("media"), 2_500, 12_000_000 + SEGMENT)
    ship.come_home()
    assert ship.gone["expired"]
    assert not ship.met["OutboxFull"], "nothing is refused where it may expire"
