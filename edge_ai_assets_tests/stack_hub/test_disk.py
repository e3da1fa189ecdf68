"""At the quota: what is home goes before anything that is not, and normal scores before anomalies."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from edge_ai_assets import usecase
from edge_ai_assets.delivery import durable
from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns.egress.ledger import Ledger
from edge_ai_assets.returns.hub import enqueuing
from edge_ai_assets.returns.hub.queue import EmbeddedQueue
from edge_ai_assets.returns.outbox import outbox as outboxes
from edge_ai_assets.returns.outbox import store
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.outbox.schema import Tally
from edge_ai_assets.returns.road import media
from edge_ai_assets.returns.road.uplink import LOCK
from edge_ai_assets.stack_hub import disk
from edge_ai_assets.usecase import Returns
from edge_ai_assets_tests import parcels
from edge_ai_assets_tests.integration.ship import DAY, USECASE, Ship


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    for module in (store, outboxes):
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0)


@pytest.mark.parametrize("off", [0, 365 * DAY, -365 * DAY])
def test_what_is_home_goes_before_what_waits_expires_though_the_clock_was_set_back(tmp_path, off):
    returns = Returns(when_full="expire", retention_days=30)
    ship = Ship(tmp_path, returns.model_copy(update={"quota_megabytes": 4}), random.Random(1))
    ship.score(2_000), ship.score(2_000), ship.score(2_000)
    ship.derive(), ship.pack()
    ship.look_and_send(float("inf"))
    ship.receive(), ship.acknowledge()
    ship.true += DAY
    ship.look_and_send(float("inf"))
    assert ship.make_room().pruned == 0, "it is below its quota, and keeps for a while what is home"
    ship.off = off
    with ship.outbox() as outbox:
        while outbox.size() <= disk.HIGH * (disk.outbox_bytes(ship.returns) or 0):
            ship.score(500)
            ship.derive()
    room = ship.make_room()
    assert (room.pruned, room.expired) == (6_000, 0)


@pytest.mark.parametrize("sent", [False, True])
def test_at_the_quota_anomalies_get_the_room_of_normal_scores(tmp_path, sent):
    """Nothing is acknowledged for so long that the outbox fills twice: normal scores come first, then
    anomalies. What was packed can expire no more."""
    returns = Returns(when_full="expire").model_copy(update={"quota_megabytes": 4})
    ship = Ship(tmp_path, returns, random.Random(1))
    bound = disk.outbox_bytes(returns) or 0
    for step in range(60):
        assert ship.score(500, anomalies=step > 30) is not None
        ship.derive(), ship.make_room(), ship.pack()
        if sent:
            ship.look_and_send(float("inf"))
    with ship.outbox() as outbox:
        kinds = Counter(row.kind for row in outbox.rows(1, ship.last) if row.package)
        share = Counter({kind: rows * outbox.size() / kinds.total() for kind, rows in kinds.items()})
        assert kinds.total() and share["normal"] < 1.1 * disk.PACKED * bound
        assert share["anomaly"] > 0.25 * bound
        assert outbox.counts() == outbox.recount() and outbox.counts().conserved


def test_the_journal_of_a_whole_day_is_unfolded_within_the_quota(tmp_path):
    """A row takes ten times what it took in the journal."""
    returns = Returns(when_full="expire").model_copy(update={"quota_megabytes": 6})
    ship = Ship(tmp_path, returns, random.Random(1))
    bound = disk.outbox_bytes(returns) or 0
    for _ in range(10):
        assert ship.score(3_000) is not None
    sizes = []

    class Watched(Outbox):
        def unfold(self, *args):
            made = super().unfold(*args)
            sizes.append(self.size())
            return made

    with Watched(ship.site.outbox, create=False) as outbox:
        assert disk.derive(ship.site, outbox, returns).total() == 30_000
        assert outbox.counts() == outbox.recount() and outbox.counts().conserved
    assert max(sizes) < disk.HIGH * bound + 200 * disk.AT_ONCE, "a row takes less than 200 bytes here"


@pytest.mark.parametrize("when_full", ["expire", "refuse"])
def test_under_a_policy_that_lists_nothing_the_outbox_never_fills(tmp_path, when_full):
    """No package is made, and so none acknowledged."""
    returns = Returns(when_full=when_full).model_copy(update={"quota_megabytes": 1})
    ship = Ship(tmp_path, returns, random.Random(1))
    ship.usecase = usecase.loads(USECASE % "[]")
    for _ in range(60):
        assert ship.score(500) is not None
        ship.derive(), ship.make_room(), ship.pack()
    with ship.outbox() as outbox:
        assert outbox.tally() == Tally(30_000, 0, 30_000, 0, 0, 0)
        assert sum(stone.rows for stone in outbox.tombstones()) > 5_000
        assert outbox.counts() == outbox.recount()


def test_what_is_on_a_queue_does_not_expire(tmp_path):
    returns = Returns(when_full="expire").model_copy(update={"quota_megabytes": 4})
    ship = Ship(tmp_path, returns, random.Random(1))
    for _ in range(4):
        ship.score(2_000), ship.derive()
    with ship.outbox() as outbox, EmbeddedQueue(tmp_path / "queue.db", "letters") as queue:
        for _ in range(20):
            if not enqueuing.enqueue(outbox, "bergen", queue, ship.site.root).full:
                break
        assert enqueuing.enqueue(outbox, "bergen", queue, ship.site.root).letters == 0
    while ship.make_room().expired == 0:
        ship.score(500), ship.derive()
    with ship.outbox() as outbox:
        assert len(outbox.rows(1, 8_000)) == 8_000


def test_files_that_are_just_leaving_stay_and_go_the_next_time(tmp_path):
    """An export reads the names of packages, and then their files."""
    site = SiteHome(tmp_path / "bergen")
    stick = tmp_path / "stick"
    site.root.mkdir(), stick.mkdir()
    rooms = []
    with Outbox(site.outbox) as outbox:
        rows = parcels.seal(outbox, site.spool, "bergen", [5_000] * 4)

        def meanwhile(size: int) -> None:
            with Outbox(site.outbox) as other:
                other.acknowledge(3, rows[2].digest, 1)
                rooms.append(disk.make_room(site, other, Returns(retention_days=0)))

        done = media.export(outbox, site.spool, Ledger(site.ledger), stick, progress=meanwhile)
        assert done.packages == 4 and {room.packages for room in rooms} == {0}
        assert disk.make_room(site, outbox, Returns(retention_days=0)).packages == 3
        assert [path.name for path in site.spool.glob("*.zip")] == [rows[3].name]


def test_the_lock_is_given_back(tmp_path):
    with durable.if_unlocked(tmp_path / LOCK) as first, durable.if_unlocked(tmp_path / LOCK) as second:
        assert (first, second) == (True, False)
    with durable.if_unlocked(tmp_path / LOCK) as again:
        assert again


def test_what_lies_in_outgoing_is_counted_unless_it_is_the_spools_own_file(tmp_path):
    site = SiteHome(tmp_path / "bergen")
    site.outgoing.mkdir(parents=True)
    with Outbox(site.outbox) as outbox:
        rows = parcels.seal(outbox, site.spool, "bergen", [5_000, 7_000])
        media.export(outbox, site.spool, Ledger(site.ledger), site.outgoing, link=True)
    (site.outgoing / "notes.txt").write_text("by hand")
    assert disk.copied_bytes(site) == 0
    (site.outgoing / rows[1].name).unlink()
    (site.outgoing / rows[1].name).write_bytes((site.spool / rows[1].name).read_bytes())
    assert disk.copied_bytes(site) == rows[1].bytes
