"""Whatever a site, its link, its media, Azure and the power do, in whatever order: the promises hold."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_ai_assets import usecase as usecases
from edge_ai_assets.returns.inbox import heads
from edge_ai_assets.returns.outbox import outbox as outboxes
from edge_ai_assets.returns.outbox import store
from edge_ai_assets.returns.package import packing
from edge_ai_assets.returns.road import uplink
from edge_ai_assets.usecase import Returns
from edge_ai_assets_tests.integration.ship import ALL, DAY, NO_NORMAL, SITE, USECASE, Ship, lose

YEAR = 365 * DAY
STEPS = st.sampled_from(["derive", "pack", "look_and_send", "make_room", "export", "recover"])


class Voyage(RuleBasedStateMachine):
    """A site that keeps what was acknowledged for a day, with blocks and transactions of a few rows."""

    @initialize(seed=st.integers(0, 999))
    def start(self, seed: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(uplink, "BLOCK", 512)
        self.patch.setattr(uplink, "SLICE", 128)
        self.patch.setattr(store, "CHUNK", 3)
        for module in (store, outboxes):
            self.patch.setattr(module, "PAUSE_SECONDS", 0)
        self.folder = Path(tempfile.mkdtemp())
        returns = Returns(quota_megabytes=64, retention_days=1)
        self.ship = Ship(self.folder / "home", returns, random.Random(seed))
        self.media: list[Path] = []
        self.acks: list[bytes] = []

    # The site.

    @rule(rows=st.integers(1, 9), torn=st.sampled_from([False, False, False, True]))
    def score(self, rows: int, torn: bool) -> None:
        self.ship.true += 1
        assert self.ship.score(rows, anomalies=0.4, torn=torn) is not None

    @precondition(lambda self: self.ship.last)
    @rule(data=st.data())
    def judge(self, data: st.DataObject) -> None:
        self.ship.judge(data.draw(st.integers(1, self.ship.last)))

    @rule()
    def derive(self) -> None:
        self.ship.derive()

    @rule(limit=st.integers(1, 30), kinds=st.sampled_from([ALL, ALL, NO_NORMAL]))
    def pack(self, limit: int, kinds: str) -> None:
        self.ship.usecase = usecases.loads(USECASE % kinds)
        self.ship.pack(limit)

    @rule(slices=st.one_of(st.integers(0, 60), st.just(10**6)))
    def send_until_it_is_cut(self, slices: int) -> None:
        self.ship.true += DAY // 24
        self.ship.look_and_send(slices)

    @rule(days=st.integers(0, 3), off=st.sampled_from([0, 0, YEAR, -YEAR]))
    def time_passes_and_the_clock_is_set(self, days: int, off: int) -> None:
        self.ship.true += days * DAY
        self.ship.off = off

    @rule()
    def prune(self) -> None:
        self.ship.make_room()

    @rule(size=st.integers(1, 3_000))
    def expire(self, size: int) -> None:
        with self.ship.outbox() as outbox, packing.lock(self.ship.site.spool):
            outbox.expire(size, self.ship.now(), "quota")

    @rule(only_new=st.booleans())
    def export(self, only_new: bool) -> None:
        self.media.append(self.folder / f"medium-{len(self.media)}")
        self.ship.export(self.media[-1], only_new=only_new)

    @rule(step=STEPS, after=st.integers(0, 30))
    def the_power_goes(self, step: str, after: int) -> None:
        self.ship.true += DAY // 24
        with self.ship.cut_after(after):
            if step == "look_and_send":
                self.ship.look_and_send(10**6)
            elif step == "export":
                self.media.append(self.folder / f"medium-{len(self.media)}")
                self.ship.export(self.media[-1])
            elif step == "recover":
                with self.ship.outbox() as outbox:
                    outbox.recover()
            else:
                getattr(self.ship, step)()

    # On the way.

    @precondition(lambda self: self.media)
    @rule(data=st.data())
    def carry(self, data: st.DataObject) -> None:
        medium = data.draw(st.sampled_from(self.media))
        if medium.exists():
            self.ship.bring(medium)

    @precondition(lambda self: self.media)
    @rule(data=st.data())
    def lose_a_medium_or_a_file_of_it(self, data: st.DataObject) -> None:
        medium = data.draw(st.sampled_from(self.media))
        found = sorted(medium.glob("*.zip"))
        if found and data.draw(st.booleans()):
            data.draw(st.sampled_from(found)).unlink()
        else:
            lose(medium)

    @precondition(lambda self: self.acks)
    @rule(data=st.data())
    def bring_some_acknowledgement(self, data: st.DataObject) -> None:
        self.ship.heed(data.draw(st.sampled_from(self.acks)))

    # Azure.

    @rule()
    def receive(self) -> None:
        self.ship.receive()

    @rule(on_the_link=st.booleans())
    def acknowledge(self, on_the_link: bool) -> None:
        if on_the_link:
            self.ship.acknowledge()
        elif ack := self.ship.ack():
            self.acks.append(ack)

    # What always holds.

    @invariant()
    def every_score_is_counted_once(self) -> None:
        self.ship.check_site()
        self.ship.recount()

    @invariant()
    def what_is_pruned_was_acknowledged_and_that_was_merged(self) -> None:
        with self.ship.outbox() as outbox:
            rows = outbox.packages()
            tally = outbox.tally()
            kept = {row.sequence: row for row in outbox.rows(1, self.ship.last)}
        done = [row.number for row in rows if row.acknowledged_at is not None]
        head = heads.read(self.ship.home.tables).get(SITE, heads.Head()).number
        assert max(done, default=0) <= head
        pruned, stays = self.ship.gone["pruned uploaded"], self.ship.stays
        for sequence in set(range(1, self.ship.last + 1)) - kept.keys():
            assert sequence in stays or sequence in pruned
        if pruned or self.ship.chance.random() < 0.1:  # reading the table takes most of the time
            came = self.ship.merged()["sequence"]
            assert pruned - stays <= set(came.tolist())
            assert len(came) == len(set(came.tolist())) <= tally.packed

    def teardown(self) -> None:
        try:
            if hasattr(self, "ship"):
                self.ship.off = 0
                self.ship.score(3, anomalies=1)
                self.ship.come_home()
        finally:
            if hasattr(self, "folder"):
                self.ship.reopen()
                shutil.rmtree(self.folder)
                self.patch.undo()


TestVoyage = Voyage.TestCase
TestVoyage.settings = settings(max_examples=8, stateful_step_count=25, deadline=None)


@pytest.mark.proof
class TestVoyageForLong(Voyage.TestCase):
    """The same, for minutes."""

    settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
