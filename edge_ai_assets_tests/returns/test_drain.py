"""Draining the spool over links that are cut, slow, one-way or lying."""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.egress.coverage import Coverage
from edge_ai_assets.returns.egress.ledger import Ledger, entries, verify
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.road import acks, uplink
from edge_ai_assets.returns.road.link import Link, LinkDown
from edge_ai_assets.returns.road.pace import Pace
from edge_ai_assets.returns.road.uplink import DiodeUplink, FolderUplink, UplinkError, upload
from edge_ai_assets_tests.parcels import POLICY, parcel, seal

AZURE = Ed25519PrivateKey.from_private_bytes(b"azure release key, of the tests!")
TRUSTED = [AZURE.public_key()]
BLOCK = 1000


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(uplink, "BLOCK", BLOCK)
    monkeypatch.setattr(uplink, "SLICE", 130)


@pytest.fixture
def spool(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def book(tmp_path):
    return Ledger(tmp_path / "ledger.jsonl")


@pytest.fixture
def road(tmp_path):
    return FolderUplink(tmp_path / "uplink", "bergen", Link(tmp_path))


class Frayed(Link):
    """A link that is cut after so many looks at it, as `chance` has it, and is up again the next time."""

    def __init__(self, folder, chance, longest):
        super().__init__(folder)
        self.chance, self.longest, self.cuts = chance, longest, 0
        self.left = chance.randint(1, longest)

    def check(self):
        self.left -= 1
        if self.left < 0:
            self.left = self.chance.randint(0, self.longest)
            self.cuts += 1
            raise LinkDown("frayed")


class Meter(Pace):
    """Counts what is handed over."""

    def __init__(self):
        super().__init__(None)
        self.bytes = 0

    def take(self, size):
        self.bytes += size


def drained(outbox, spool, tmp_path, chance, longest):
    """Upload over a frayed link until all is there; the link and what was handed over."""
    link, meter = Frayed(tmp_path, chance, longest), Meter()
    road = FolderUplink(tmp_path / "uplink", "bergen", link, meter)
    while upload(outbox, spool, road, Ledger(tmp_path / "ledger.jsonl"), keys=TRUSTED).waiting:
        pass
    return link, meter


def check_arrival(rows, spool, tmp_path):
    """Each package is there once, as it was sealed, and the ledger covers every byte of it."""
    folder = tmp_path / "uplink/bergen"
    assert sorted(path.name for path in folder.glob("*.zip")) == [row.name for row in rows]
    assert list((folder / ".partial").iterdir()) == []
    with Coverage(tmp_path / "ledger.jsonl") as coverage:
        assert coverage.packages == len(rows)
        for row in rows:
            data = (folder / row.name).read_bytes()
            assert hashlib.sha256(data).hexdigest() == row.digest
            assert coverage.of(row.name, row.digest).covered == row.bytes == len(data)


def test_a_thousand_cuts(tmp_path, outbox, spool):
    chance = random.Random(1)
    rows = seal(outbox, spool, "bergen", [chance.randint(0, 60_000) for _ in range(40)])
    link, meter = drained(outbox, spool, tmp_path, chance, 26)
    assert link.cuts >= 1_000
    check_arrival(rows, spool, tmp_path)
    resent = meter.bytes - sum(row.bytes for row in rows)
    assert 0 < resent <= link.cuts * BLOCK


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 5_000), min_size=1, max_size=6),
    st.integers(),
    st.integers(12, 60),
)
def test_whatever_is_cut_each_arrives_once_and_is_in_the_ledger(tmp_path_factory, sizes, seed, longest):
    tmp_path = tmp_path_factory.mktemp("cuts")
    with Outbox(tmp_path / "outbox.db") as outbox:
        rows = seal(outbox, tmp_path / "spool", "bergen", sizes)
        link, meter = drained(outbox, tmp_path / "spool", tmp_path, random.Random(seed), longest)
        assert outbox.unsent() == []
    check_arrival(rows, tmp_path / "spool", tmp_path)
    assert meter.bytes - sum(row.bytes for row in rows) <= link.cuts * BLOCK


def test_a_list_of_packages_that_is_longer_than_one_look_is_sent_to_its_end(
    outbox, spool, road, book, monkeypatch
):
    rows = seal(outbox, spool, "bergen", [10] * 25)
    monkeypatch.setattr(uplink, "BATCH", 4)
    done = upload(outbox, spool, road, book)
    assert (done.packages, done.waiting, done.bytes) == (25, 0, sum(row.bytes for row in rows))
    assert done.names == [row.name for row in rows]


def test_nothing_of_a_package_that_was_changed_in_the_spool_leaves(outbox, spool, road, book, tmp_path):
    """Those after it do: Azure shows the gap, and takes it in when it comes."""
    first, second, third = seal(outbox, spool, "bergen", [3_000, 3_000, 3_000])
    data = bytearray((spool / second.name).read_bytes())
    data[-40] ^= 1
    (spool / second.name).write_bytes(data)
    done = upload(outbox, spool, road, book)
    assert list(done.lost) == [second.name] and "was changed and does not leave" in done.lost[second.name]
    assert (done.names, done.waiting, done.interrupted) == ([first.name, third.name], 1, None)
    assert {path.name for path in tmp_path.glob("uplink/bergen/*.zip")} == {first.name, third.name}
    assert {entry.package for entry in entries(book.path)} == {first.name, third.name}
    assert [row.name for row in outbox.unsent()] == [second.name]


@pytest.mark.parametrize("together", [1, 3])
def test_many_lost_packages_do_not_hide_those_after_them(outbox, spool, road, book, monkeypatch, together):
    rows = seal(outbox, spool, "bergen", [10] * 12)
    monkeypatch.setattr(uplink, "BATCH", 4)
    monkeypatch.setattr(road, "together", together)
    for row in rows[:9]:
        (spool / row.name).unlink()
    done = upload(outbox, spool, road, book)
    assert set(done.lost) == {row.name for row in rows[:9]}
    assert sorted(done.names) == [row.name for row in rows[9:]]
    (spool / rows[4].name).write_bytes(parcel("bergen", 5, 10))
    assert upload(outbox, spool, road, book).names == [rows[4].name]


def test_bandwidth_is_bounded_over_the_whole_drain(outbox, spool, tmp_path, book):
    rows = seal(outbox, spool, "bergen", [9_000, 30, 5_000])
    now, slept = [0.0], []

    def sleep(seconds):
        now[0] += seconds
        slept.append(seconds)

    pace = Pace(1_000, burst=130, clock=lambda: now[0], sleep=sleep)
    upload(outbox, spool, FolderUplink(tmp_path / "uplink", "bergen", Link(tmp_path), pace), book)
    size = sum(row.bytes for row in rows)
    assert now[0] == pytest.approx((size - 130) / 1_000, rel=1e-6)
    assert max(slept) <= 0.13 + 1e-9


# What comes back.


def acknowledged(outbox):
    return [row.number for row in outbox.packages() if row.acknowledged_at is not None]


def put(tmp_path, data):
    folder = tmp_path / "uplink/bergen"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / acks.NAME).write_bytes(data)


def test_an_acknowledgement_on_the_link_is_applied_after_the_drain(outbox, spool, road, book, tmp_path):
    rows = seal(outbox, spool, "bergen", [10, 10, 10])
    put(tmp_path, acks.make("bergen", 2, rows[1].digest, 9, AZURE))
    done = upload(outbox, spool, road, book, lambda: 77, TRUSTED)
    assert (done.packages, done.acknowledged, done.refused) == (3, 2, None)
    assert acknowledged(outbox) == [1, 2]
    assert outbox.packages()[0].acknowledged_at == 77
    assert upload(outbox, spool, road, book, keys=TRUSTED).acknowledged == 0


def test_without_keys_nothing_is_believed(outbox, spool, road, book, tmp_path):
    rows = seal(outbox, spool, "bergen", [10])
    put(tmp_path, acks.make("bergen", 1, rows[0].digest, 9, AZURE))
    assert upload(outbox, spool, road, book).acknowledged == 0
    assert acknowledged(outbox) == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda digest: acks.make("bergen", 1, digest, 9, Ed25519PrivateKey.generate()), "signature"),
        (lambda digest: acks.make("oslo", 1, digest, 9, AZURE), "oslo"),
        (lambda digest: acks.make("bergen", 1, "0" * 64, 9, AZURE), "digest"),
        (lambda digest: acks.make("bergen", 7, digest, 9, AZURE), "package 7"),
        (lambda digest: b"", "refused"),
        (lambda digest: b"\xff" * 2_000, "refused"),
        (lambda digest: b" " * (acks.MAX_BYTES * 3), "at most"),
    ],
)
def test_an_acknowledgement_that_does_not_check_out_is_logged_and_stops_nothing(
    outbox, spool, road, book, tmp_path, caplog, data, reason
):
    rows = seal(outbox, spool, "bergen", [10, 10])
    put(tmp_path, data(rows[0].digest))
    done = upload(outbox, spool, road, book, keys=TRUSTED)
    assert (done.packages, done.acknowledged) == (2, 0)
    assert reason in done.refused and reason in caplog.text and "bergen" in caplog.text
    assert acknowledged(outbox) == []


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_something_else_in_its_place_is_ignored(outbox, spool, road, book, tmp_path, caplog, make):
    seal(outbox, spool, "bergen", [10])
    (tmp_path / "uplink/bergen").mkdir(parents=True)
    make(tmp_path / "uplink/bergen" / acks.NAME)
    done = upload(outbox, spool, road, book, keys=TRUSTED)
    assert (done.packages, done.refused, done.interrupted) == (1, None, None)
    assert "is no acknowledgement" in caplog.text


def test_an_older_acknowledgement_changes_nothing(outbox, spool, road, book, tmp_path):
    rows = seal(outbox, spool, "bergen", [10, 10])
    for number, fresh in ((2, 2), (1, 0)):
        put(tmp_path, acks.make("bergen", number, rows[number - 1].digest, 9, AZURE))
        done = upload(outbox, spool, road, book, keys=TRUSTED)
        assert (done.acknowledged, done.refused) == (fresh, None)
    assert acknowledged(outbox) == [1, 2]


# Probes.


def test_a_probe_asks_the_place_that_packages_go_to(road, tmp_path):
    road.probe()
    assert (tmp_path / "uplink/bergen").is_dir()
    road.link.cut()
    with pytest.raises(LinkDown, match="edge-ai link up"):
        road.probe()
    with pytest.raises(LinkDown):
        road.acknowledgement()


def test_a_target_that_cannot_be_had_is_down_though_the_link_is_up(tmp_path):
    (tmp_path / "uplink").write_text("no folder")
    with pytest.raises(LinkDown, match="cannot be made"):
        FolderUplink(tmp_path / "uplink", "bergen", Link(tmp_path)).probe()


def test_a_target_without_rights_is_down(road, monkeypatch):
    monkeypatch.setattr(uplink.os, "access", lambda path, mode: False)
    with pytest.raises(LinkDown, match="restore the site's rights"):
        road.probe()


# A diode.


@pytest.fixture
def diode(tmp_path):
    return DiodeUplink(tmp_path / "uplink", "bergen", Link(tmp_path))


def test_a_diode_sends_each_package_once_and_expects_nothing(outbox, spool, diode, book, tmp_path):
    rows = seal(outbox, spool, "bergen", [2_500, 10])
    put(tmp_path, acks.make("bergen", 1, rows[0].digest, 9, AZURE))
    done = upload(outbox, spool, diode, book, keys=TRUSTED)
    assert (done.packages, done.waiting, done.acknowledged, done.refused) == (2, 0, 0, None)
    check_arrival(rows, spool, tmp_path)
    assert outbox.unsent() == [] and acknowledged(outbox) == []
    assert sorted(path.name for path in spool.glob("*.zip")) == [row.name for row in rows]
    assert upload(outbox, spool, diode, book).bytes == 0


def test_a_diode_looks_at_nothing_behind_it(outbox, spool, diode, book, tmp_path, monkeypatch):
    """Whatever lies there is neither read nor asked about, and the receiving end keeps what it had."""
    rows = seal(outbox, spool, "bergen", [2_500])
    folder = tmp_path / "uplink/bergen"
    folder.mkdir(parents=True)
    (folder / rows[0].name).write_bytes(b"what came first")
    (folder / ".partial").mkdir()
    (folder / ".partial" / f"{rows[0].name}.{rows[0].digest[:16]}").write_bytes(b"x" * 5_000)
    monkeypatch.setattr(FolderUplink, "probe", lambda self: pytest.fail("probed"))
    assert upload(outbox, spool, diode, book, keys=TRUSTED).bytes == rows[0].bytes
    assert (folder / rows[0].name).read_bytes() == b"what came first"
    with pytest.raises(UplinkError, match="behind a diode"):
        diode.probe()


def test_a_cut_at_the_near_end_of_a_diode_starts_the_package_over(outbox, spool, tmp_path, book):
    rows = seal(outbox, spool, "bergen", [4_000])
    link = Frayed(tmp_path, random.Random(3), 1)
    link.left, link.longest = 20, 1_000
    diode = DiodeUplink(tmp_path / "uplink", "bergen", link)
    assert upload(outbox, spool, diode, book).interrupted == "frayed"
    link.left = 1_000
    assert upload(outbox, spool, diode, book).bytes == rows[0].bytes
    check_arrival(rows, spool, tmp_path)
    firsts = [entry.first for entry in entries(book.path)]
    assert Counter(firsts)[0] == 2


def test_the_ledger_is_a_chain_whatever_was_cut(outbox, spool, tmp_path):
    chance = random.Random(9)
    seal(outbox, spool, "bergen", [chance.randint(0, 9_000) for _ in range(10)])
    drained(outbox, spool, tmp_path, chance, 30)
    lines = list(entries(tmp_path / "ledger.jsonl"))
    assert all(after.previous == before.hash for before, after in pairwise(lines))
    assert {line.policy for line in lines} == {POLICY}
    assert verify(tmp_path / "ledger.jsonl") == len(lines)
