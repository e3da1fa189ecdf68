from __future__ import annotations

import hashlib
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.egress.ledger import Entry, Ledger, LedgerError, verify
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.package.packing import pack
from edge_ai_assets.returns.road import uplink
from edge_ai_assets.returns.road.link import Link, LinkDown
from edge_ai_assets.returns.road.uplink import FolderUplink, UplinkError, upload

pytestmark = pytest.mark.usefixtures("counting")
BLOCK = 1000


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(uplink, "BLOCK", BLOCK)


@pytest.fixture
def link(tmp_path):
    return Link(tmp_path / "site")


@pytest.fixture
def road(tmp_path, link):
    return FolderUplink(tmp_path / "uplink", "bergen", link)


def some_file(folder, size=4500):
    path = folder / "some.zip"
    path.write_bytes(os.urandom(size))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def ignore(first, last):
    pass


def test_the_link_is_up_until_it_is_cut(link):
    assert link.up
    assert link.cut().state == "down"
    assert not link.up
    assert Link(link.path.parent).state.changes == 1
    with pytest.raises(LinkDown, match="edge-ai link up"):
        link.check()
    link.restore()
    assert link.up
    assert (link.state.changes, json.loads(link.path.read_text())["state"]) == (2, "up")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"state": "open"}', b"\x00\xff"])
def test_a_switch_that_cannot_be_read_is_off_until_it_is_restored(link, data, caplog):
    link.cut()
    link.path.write_bytes(data)
    assert not link.up and "cannot be read, the link counts as down" in caplog.text
    with pytest.raises(LinkDown, match=r"down as .*link\.json cannot be read; `edge-ai link up`"):
        link.check()
    assert link.restore().state == "up" and link.up


def test_a_link_that_is_cut_again_stays_as_it_was(link):
    assert link.cut() == link.cut()
    assert link.state.changes == 1


def test_a_file_arrives_whole_under_its_name(tmp_path, road):
    path, digest = some_file(tmp_path)
    left = []
    assert road.send(path, "a.zip", digest, lambda first, last: left.append((first, last))) == 4500
    assert (tmp_path / "uplink/bergen/a.zip").read_bytes() == path.read_bytes()
    assert left == [(0, 1000), (1000, 2000), (2000, 3000), (3000, 4000), (4000, 4500)]
    assert list((tmp_path / "uplink/bergen/.partial").iterdir()) == []


def test_the_ledger_is_told_before_a_byte_leaves(tmp_path, road):
    path, digest = some_file(tmp_path)
    partial = tmp_path / "uplink/bergen/.partial" / f"a.zip.{digest[:16]}"
    there = []
    road.send(path, "a.zip", digest, lambda first, last: there.append((first, partial.stat().st_size)))
    assert [size for _, size in there] == [first for first, _ in there]


def test_sending_again_sends_nothing(tmp_path, road):
    path, digest = some_file(tmp_path)
    road.send(path, "a.zip", digest, ignore)
    assert road.send(path, "a.zip", digest, ignore) == 0


def test_another_file_of_the_same_name_is_refused_and_changes_nothing(tmp_path, road):
    path, digest = some_file(tmp_path)
    road.send(path, "a.zip", digest, ignore)
    before = (tmp_path / "uplink/bergen/a.zip").read_bytes()
    path, digest = some_file(tmp_path)
    with pytest.raises(UplinkError, match="another package"):
        road.send(path, "a.zip", digest, ignore)
    assert (tmp_path / "uplink/bergen/a.zip").read_bytes() == before


def test_a_file_that_is_not_what_was_sealed_does_not_arrive(tmp_path, road):
    path, _ = some_file(tmp_path)
    with pytest.raises(UplinkError, match="was sealed"):
        road.send(path, "a.zip", "0" * 64, ignore)
    assert list((tmp_path / "uplink/bergen").glob("*.zip")) == []


@pytest.mark.parametrize("blocks", range(5))
def test_a_cut_resumes_at_its_block(tmp_path, road, link, blocks):
    path, digest = some_file(tmp_path)

    def cutting(first, last):
        if first == blocks * BLOCK:
            link.cut()

    with pytest.raises(LinkDown):
        road.send(path, "a.zip", digest, cutting)
    link.restore()
    left = []
    road.send(path, "a.zip", digest, lambda first, last: left.append(first))
    assert left[0] == blocks * BLOCK
    assert (tmp_path / "uplink/bergen/a.zip").read_bytes() == path.read_bytes()


def test_a_torn_block_is_sent_again(tmp_path, road):
    path, digest = some_file(tmp_path)
    partial = tmp_path / "uplink/bergen/.partial" / f"a.zip.{digest[:16]}"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(path.read_bytes()[:2345])
    left = []
    road.send(path, "a.zip", digest, lambda first, last: left.append(first))
    assert left[0] == 2000
    assert (tmp_path / "uplink/bergen/a.zip").read_bytes() == path.read_bytes()


def test_damage_on_the_way_is_found_and_sent_again(tmp_path, road):
    path, digest = some_file(tmp_path)
    partial = tmp_path / "uplink/bergen/.partial" / f"a.zip.{digest[:16]}"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 2000)
    with pytest.raises(UplinkError):
        road.send(path, "a.zip", digest, ignore)
    assert road.send(path, "a.zip", digest, ignore) == 4500


@pytest.fixture
def filled(outbox, batch, policy, contract, key, tmp_path):
    """Three packages in the spool."""
    for _ in range(3):
        outbox.append([batch(4)])
        insights.derive(outbox)
        pack(outbox, "bergen", policy, {"r1": contract}, key, tmp_path / "spool", at=5)
    return outbox


def test_upload_sends_all_in_order_and_writes_the_ledger(filled, tmp_path, road, policy):
    book = Ledger(tmp_path / "ledger.jsonl")
    done = upload(filled, tmp_path / "spool", road, book, now=lambda: 77)
    assert (done.packages, done.rows, done.waiting, done.interrupted) == (3, 6, 0, None)
    assert filled.counts().uploaded == 6
    assert filled.last_package().uploaded_at == 77
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert sorted({line["package"] for line in lines}) == [f"bergen-0000000{n}.zip" for n in (1, 2, 3)]
    assert {line["policy"] for line in lines} == {policy.digest}
    assert {line["destination"] for line in lines} == {road.destination}
    assert sum(line["last"] - line["first"] for line in lines) == done.bytes
    assert verify(tmp_path / "ledger.jsonl") == len(lines)
    assert len(list((tmp_path / "spool").glob("*.zip"))) == 3


def test_upload_with_the_link_down_keeps_everything(filled, tmp_path, road, link):
    link.cut()
    done = upload(filled, tmp_path / "spool", road, Ledger(tmp_path / "ledger.jsonl"))
    assert (done.packages, done.waiting) == (0, 3)
    assert "down" in done.interrupted
    assert filled.counts().uploaded == 0
    assert verify(tmp_path / "ledger.jsonl") == 0


def test_upload_counts_what_was_delivered_before_the_cut(filled, tmp_path, road, link):
    class Cutting(FolderUplink):
        def send(self, path, name, digest, leaving):
            sent = super().send(path, name, digest, leaving)
            self.link.cut()
            return sent

    done = upload(
        filled, tmp_path / "spool", Cutting(tmp_path / "uplink", "bergen", link), Ledger(tmp_path / "l")
    )
    assert (done.packages, done.rows, done.waiting) == (1, 2, 2)
    assert [package.number for package in filled.unsent()] == [2, 3]
    link.restore()
    assert upload(filled, tmp_path / "spool", road, Ledger(tmp_path / "l")).packages == 2


def test_upload_killed_before_the_acknowledgement_is_harmless(filled, tmp_path, road, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(filled), "uploaded", killed)
        with pytest.raises(KeyboardInterrupt):
            upload(filled, tmp_path / "spool", road, Ledger(tmp_path / "l"))
    assert upload(filled, tmp_path / "spool", road, Ledger(tmp_path / "l")).packages == 3
    assert len(list((tmp_path / "uplink/bergen").glob("*.zip"))) == 3


def entry(number=0):
    return Entry(number, "a.zip", "d" * 64, 0, 10, "p" * 64, "file:///somewhere")


def written(folder, entries=4):
    path = folder / "ledger.jsonl"
    for number in range(entries):
        Ledger(path).append(entry(number))
    return path


def test_a_ledger_that_was_never_written_has_no_entries(tmp_path):
    assert verify(tmp_path / "ledger.jsonl") == 0


def test_a_ledger_verifies(tmp_path):
    assert verify(written(tmp_path)) == 4


@settings(max_examples=60, deadline=None)
@given(st.integers(0), st.integers(1, 255))
def test_every_changed_byte_breaks_the_ledger(tmp_path_factory, position, change):
    path = written(tmp_path_factory.mktemp("ledger"), 2)
    data = bytearray(path.read_bytes())
    data[position % (len(data) - 1)] ^= change  # without its last line feed, the last line is a torn one
    path.write_bytes(data)
    with pytest.raises(LedgerError):
        verify(path)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: lines[1:], 1),
        (lambda lines: lines[:1] + lines[2:], 2),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], 3),
        (lambda lines: [*lines[:2], b"{}\n", *lines[2:]], 3),
        (lambda lines: [*lines[:2], lines[2].replace(b'"last":10', b'"last":11'), lines[3]], 3),
    ],
)
def test_a_broken_ledger_names_the_line(tmp_path, change, line):
    path = written(tmp_path)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(LedgerError, match=rf"jsonl:{line}:"):
        verify(path)


@pytest.mark.parametrize("keep", [1, 50, -1])
def test_a_line_cut_short_by_a_crash_is_removed_by_the_next(tmp_path, keep):
    path = written(tmp_path, 2)
    line = path.read_bytes().splitlines(keepends=True)[1]
    with path.open("ab") as file:
        file.write(line[:keep])
    assert verify(path) == 2  # none of its bytes left
    Ledger(path).append(entry(9))
    assert verify(path) == 3


@pytest.mark.parametrize("size", [0, 1, 300, 65_536, 70_000, 200_000])
@pytest.mark.parametrize("torn", [0, 1, 65_536, 100_000])
def test_the_last_line_is_found_however_long_it_is(tmp_path, size, torn):
    path = written(tmp_path, 2)
    Ledger(path).append(Entry(5, "a.zip", "d" * 64, 0, 10, "p" * 64, "media:" + "x" * size))
    before = path.read_bytes()
    with path.open("ab") as file:
        file.write(b"x" * torn)
    Ledger(path).append(entry(9))
    assert path.read_bytes().startswith(before) and verify(path) == 4


def test_a_ledger_of_a_torn_line_alone_begins_anew(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"x" * 70_000)
    Ledger(path).append(entry())
    assert verify(path) == 1


def test_a_changed_last_line_is_not_built_upon(tmp_path):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"time":3', b'"time":4'))
    with pytest.raises(LedgerError, match="last line"):
        Ledger(path).append(entry())


def test_nothing_leaves_that_the_ledger_cannot_take(filled, tmp_path, road):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"damaged\n")
    with pytest.raises(LedgerError):
        upload(filled, tmp_path / "spool", road, Ledger(path))
    assert list((tmp_path / "uplink/bergen").glob("*.zip")) == []
