"""Whatever comes in whatever order, twice, torn, or while the inbox is killed: the tables are the same."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge_ai_assets.azure import arrivals
from edge_ai_assets.delivery import pack, signing
from edge_ai_assets.home import Home
from edge_ai_assets.returns.inbox import heads, inbox, merging, tables
from edge_ai_assets.returns.package.parts import Insight, name_of
from edge_ai_assets.returns.road import acks
from edge_ai_assets_tests import sent

SITES = ("bergen", "narvik", "oslo")


def _overlapping() -> list[tuple[str, bytes]]:
    """A chain whose packages repeat each other's scores, with other values."""
    found: list[tuple[str, bytes]] = []
    previous = ""
    for number in (1, 2, 3):
        rows = [
            Insight(row, sent.START + number, "r1", "normal", number / 10, False, {})
            for row in range(number, number + 3)
        ]
        data = sent.package("oslo", number, previous, insights=rows, complete=number + 2)
        previous = hashlib.sha256(data).hexdigest()
        found.append((name_of("oslo", number), data))
    return found


SENT = {
    "bergen": sent.chain("bergen", 3),
    "narvik": sent.chain("narvik", 2, events=0),
    "oslo": _overlapping(),
}
COMING = [(site, place) for site, chain in SENT.items() for place in range(len(chain))]


@functools.cache
def in_order() -> tuple[str, dict[str, tuple[int, int | None, int]]]:
    """Content and heads after one delivery in order."""
    with tempfile.TemporaryDirectory() as folder:
        world = sent.Arrivals(Path(folder))
        for site, chain in SENT.items():
            for item in chain:
                world.put(item, site=site)
                world.receive()
        return world.digest(), standing(world.tables)


def standing(folder: Path) -> dict[str, tuple[int, int | None, int]]:
    return {site: (head.number, head.complete, head.lineage) for site, head in heads.read(folder).items()}


class Inbox(RuleBasedStateMachine):
    """An uplink's folders, and an inbox that is killed between its merges."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.home = Home(self.folder)
        signing.create(self.home.keys, pack.KEY)
        self.public = signing.load_public(self.home.keys / f"{pack.KEY}.pub.pem")
        self.world = sent.Arrivals(self.folder, SITES)
        self.world.root, self.world.tables = self.home.uplink, self.home.tables
        self.acknowledged: dict[str, int] = {}

    @rule(which=st.sampled_from(COMING))
    def deliver(self, which: tuple[str, int]) -> None:
        site, place = which
        self.world.put(SENT[site][place], site=site)

    @rule(which=st.sampled_from(COMING), data=st.data())
    def deliver_torn(self, which: tuple[str, int], data: st.DataObject) -> None:
        """In place of a package that was not received: who sent it delivers again some day."""
        site, place = which
        name, whole = SENT[site][place]
        if place + 1 > heads.read(self.world.tables).get(site, heads.Head()).number:
            at = data.draw(st.integers(0, len(whole) - 1))
            flipped = whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]
            self.world.put((name, data.draw(st.sampled_from([whole[:at], flipped]))), site=site)

    @rule(name=st.sampled_from(["bergen-00000001.zip.partial", "notes.txt", ".hidden", "x-00000001.zip"]))
    def deliver_something_else(self, name: str) -> None:
        self.world.put((name, b"something else"))

    @rule(limit=st.integers(1, 9))
    def receive(self, limit: int) -> None:
        done = self.world.receive(limit=limit)
        assert done.packages <= limit and not done.failed

    @rule(limit=st.integers(1, 9), written=st.integers(0, len(tables.KEYS)))
    def receive_and_die(self, limit: int, written: int) -> None:
        """After so many tables were written; the heads are one of them, whenever it is their turn."""
        left = [written]

        def dying(write: Any) -> Any:
            def dies(*arguments: Any) -> Any:
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return write(*arguments)

            return dies

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(merging, "merge", dying(tables.merge))
            patch.setattr(heads, "write", dying(heads.write))
            with contextlib.suppress(KeyboardInterrupt):
                self.world.receive(limit=limit)

    @rule()
    def acknowledge(self) -> None:
        new = arrivals.acknowledge(self.home)
        assert arrivals.acknowledge(self.home) == []
        for site in new:
            ack = acks.read((self.home.uplink / site / acks.NAME).read_bytes(), site, [self.public])
            assert ack.number > self.acknowledged.get(site, 0)
            self.acknowledged[site] = ack.number

    @invariant()
    def what_is_acknowledged_was_merged(self) -> None:
        if not self.acknowledged:
            return
        there = {(row["site"], row["number"]) for row in tables.rows(self.world.tables, "packages")}
        scores = {(row["site"], row["sequence"]) for row in tables.rows(self.world.tables, "insights")}
        for site, number in self.acknowledged.items():
            assert {(site, each) for each in range(1, number + 1)} <= there
            rows = 3 * number if site != "oslo" else number + 2
            assert {(site, each) for each in range(1, rows + 1)} <= scores

    def teardown(self) -> None:
        for site, chain in SENT.items():
            self.world.put(*chain, site=site)
        while self.world.receive().packages:
            pass
        digest, stand = in_order()
        assert standing(self.world.tables) == stand
        assert self.world.digest() == digest
        assert inbox.duplicates(self.world.tables) == 0
        arrivals.acknowledge(self.home)
        given = {
            site: acks.read((self.home.uplink / site / acks.NAME).read_bytes(), site, [self.public]).number
            for site in SENT
        }
        assert given == {site: len(chain) for site, chain in SENT.items()}
        shutil.rmtree(self.folder)


TestInbox = Inbox.TestCase
TestInbox.settings = settings(max_examples=8, stateful_step_count=15, deadline=None)


@pytest.mark.proof
class TestInboxForLong(Inbox.TestCase):
    """The same, for minutes."""

    settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
