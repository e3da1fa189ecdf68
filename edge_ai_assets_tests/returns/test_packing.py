from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from edge_ai_assets.returns.egress.policy import Policy
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox import outbox as outboxes
from edge_ai_assets.returns.outbox.outbox import Counts, Feedback, Outbox
from edge_ai_assets.returns.outbox.schema import Tally
from edge_ai_assets.returns.package import packing, selection, sketches
from edge_ai_assets.returns.package.packages import read
from edge_ai_assets.returns.package.packing import SpoolFull, pack
from edge_ai_assets.returns.package.parts import EventMark
from edge_ai_assets_tests import blocks

pytestmark = pytest.mark.usefixtures("counting")


@pytest.fixture
def packed(outbox, policy, contract, key, tmp_path):
    """One step of packing, with the outbox's scores classified first."""

    def step(**options):
        insights.derive(outbox)
        arguments = {"policy": policy, "contracts": {"r1": contract}, "at": 5, **options}
        return pack(outbox, "bergen", key=key, spool=tmp_path / "spool", **arguments)

    step.spool = tmp_path / "spool"
    return step


NO_FEEDBACK = "kind feedback is not listed"


def test_allowed_rows_leave_and_the_others_are_withheld_by_reason(outbox, batch, packed, key):
    outbox.append([batch(6)])
    stays: Counter[str] = Counter()
    sealed = packed(stays=stays)
    assert (sealed.package.number, sealed.package.rows, sealed.package.previous) == (1, 3, "")
    assert stays == {"kind normal is not listed": 3}
    package = read(sealed.path, [key.public_key()])
    assert package.digest == sealed.package.digest
    assert package.insights["sequence"].to_pylist() == [1, 3, 5]
    assert (package.manifest.first, package.manifest.last, package.manifest.created_at) == (1, 6, 5)
    assert outbox.counts() == Counts(scored=6, uploaded=0, withheld=3, quarantined=0, expired=0, pending=3)


def test_packages_form_a_chain(outbox, batch, packed):
    found = []
    for _ in range(3):
        outbox.append([batch(1)])
        found.append(packed().package)
    assert [p.number for p in found] == [1, 2, 3]
    assert [p.previous for p in found] == ["", found[0].digest, found[1].digest]


def test_nothing_waiting_makes_no_file(packed, tmp_path):
    assert packed() is None
    assert list((tmp_path / "spool").glob("*.zip")) == []


def test_nothing_allowed_makes_no_file_and_withholds_all_of_it(outbox, batch, packed, small, tmp_path):
    outbox.append([batch(7)])
    outbox.add_feedback([Feedback(1, True, None, "operator", 5)])
    silent = small.model_copy(update={"egress": small.egress.model_copy(update={"kinds": (), "fields": ()})})
    stays: Counter[str] = Counter()
    assert packed(policy=Policy(silent, b"k" * 32), limit=2, stays=stays) is None
    assert stays == {"kind anomaly is not listed": 4, "kind normal is not listed": 3, NO_FEEDBACK: 1}
    assert list((tmp_path / "spool").glob("*.zip")) == []
    assert outbox.counts() == Counts(scored=7, uploaded=0, withheld=7, quarantined=0, expired=0, pending=0)
    assert outbox.waiting_feedback(9) == []


def test_aggregates_leave_although_no_row_does(outbox, record, packed, key):
    rows = 40
    outbox.append([blocks.batch([record(i) for i in range(rows)], [0.1] * rows, [False] * rows)])
    sealed = packed()
    package = read(sealed.path, [key.public_key()])
    assert package.insights.num_rows == 0
    assert {(h["feature"], h["rows"]) for h in package.histograms.to_pylist()} == {
        ("Pressure [bar]", 40),
        ("Flow", 40),
        ("Only counted", 40),
    }
    assert outbox.counts().withheld == rows


@pytest.mark.parametrize(
    ("kinds", "histograms"), [((), None), (("feedback",), None), (("anomaly",), 0), (("histogram",), 3)]
)
def test_no_kind_lets_out_anything_of_another(kinds, histograms, outbox, batch, packed, small, key):
    """All fields are listed, and there are rows enough for histograms."""
    outbox.append([batch(40)])
    egress = small.egress.model_copy(update={"kinds": kinds})
    sealed = packed(policy=Policy(small.model_copy(update={"egress": egress}), b"k" * 32))
    assert (sealed.histograms if sealed else None) == histograms
    assert outbox.counts().withheld == (20 if "anomaly" in kinds else 40)


def test_the_limit_bounds_a_package_and_anomalies_go_first(outbox, batch, packed, key, with_kinds):
    outbox.append([batch(10)])
    rows_only = with_kinds("anomaly", "normal")
    found = [read(packed(limit=4, policy=rows_only).path, [key.public_key()]) for _ in range(3)]
    assert [package.insights["sequence"].to_pylist() for package in found] == [
        [1, 3, 5, 7],
        [2, 4, 6, 9],
        [8, 10],
    ]
    said = [package.manifest for package in found]
    assert [(one.first, one.last, one.complete) for one in said] == [(1, 7, 1), (2, 9, 7), (8, 10, 10)]
    assert [(one.counts.packed, one.counts.waiting) for one in said] == [(4, 6), (8, 2), (10, 0)]


def test_feedback_leaves_with_its_score_and_unlisted_notes_are_dropped_and_counted(
    outbox, batch, packed, key
):
    outbox.append([batch(2)])
    packed()
    words = [(2, True, "confirmed"), (1, False, "call me: CANARY"), (1, True, None)]
    outbox.add_feedback([Feedback(s, c, note, "operator", 7) for s, c, note in words])
    sealed = packed()
    package = read(sealed.path, [key.public_key()])
    assert sealed.notes_dropped == 1
    assert [(f["id"], f["sequence"], f["correct"], f["note"]) for f in package.feedback.to_pylist()] == [
        (1, 2, True, "confirmed"),
        (2, 1, False, None),
        (3, 1, True, None),
    ]
    assert json.loads(package.feedback.to_pylist()[0]["fields"])["_predicted"] is False
    assert (package.manifest.first, package.manifest.last) == (0, 0)


def test_feedback_on_a_quarantined_score_is_withheld(outbox, packed):
    outbox.append([blocks.plain()])
    outbox.unfold(1)
    outbox._db.execute("UPDATE scores SET record = '{'")
    outbox.add_feedback([Feedback(1, True, None, "operator", 7)])
    assert packed() is None
    disposition, reason = outbox._db.execute("SELECT disposition, reason FROM feedback").fetchone()
    assert disposition == "withheld"
    assert "unreadable record" in reason


def test_a_record_that_a_newer_version_classified_is_quarantined_and_holds_up_nothing(outbox, batch, packed):
    outbox.append([batch(3)])
    outbox.unfold(3)
    outbox._db.execute("UPDATE scores SET schema = 2, kind = 'anomaly' WHERE sequence = 1")
    assert packed().package.rows == 1
    assert outbox.rows(1, 1)[0].reason == "record schema 2 is not known, this version reads 1"
    assert outbox.counts() == Counts(scored=3, uploaded=0, withheld=1, quarantined=1, expired=0, pending=1)


def test_feedback_on_a_score_that_is_gone_is_withheld(outbox, batch, packed):
    outbox.append([batch(1)])
    packed()
    outbox.add_feedback([Feedback(1, True, None, "operator", 7)])
    outbox._db.execute("DELETE FROM lots")
    assert packed() is None
    reason = outbox._db.execute("SELECT reason FROM feedback").fetchone()
    assert reason == ("its score is no longer kept",)


def test_what_is_worth_more_is_packed_before_older_scores(outbox, batch, packed, with_kinds, key):
    """Feedback on a normal score and an anomaly leave first, though older normal scores wait."""
    policy = with_kinds("anomaly", "feedback", "normal")
    outbox.append([batch(5)])
    outbox.add_feedback([Feedback(4, True, None, "operator", 7)])
    first, second = (read(packed(limit=3, policy=policy).path, [key.public_key()]) for _ in range(2))
    assert first.feedback["sequence"].to_pylist() == [4]
    assert first.insights["sequence"].to_pylist() == [1, 3, 5]
    assert second.insights["sequence"].to_pylist() == [2, 4]


@pytest.mark.parametrize("bound", [1, 700, 5_000])
def test_a_package_is_bounded_in_bytes(outbox, batch, packed, with_kinds, monkeypatch, bound):
    """A score takes some 100 bytes of its sheet; at least one goes into each package."""
    monkeypatch.setattr(selection, "MAX_PACKED", bound)
    outbox.append([batch(12)])
    policy = with_kinds("anomaly", "normal")
    found = []
    while sealed := packed(policy=policy):
        found.append(sealed.package.rows)
    assert sum(found) == 12
    assert found == {1: [1] * 12, 700: found, 5_000: [12]}[bound]
    assert max(found) <= max(1, bound // 70)


def test_feedback_counts_against_the_bound_in_bytes(outbox, batch, packed, monkeypatch):
    outbox.append([batch(4)])
    outbox.add_feedback([Feedback(1 + i % 4, True, None, "operator", 7) for i in range(8)])
    monkeypatch.setattr(selection, "MAX_PACKED", 500)
    found = []
    while sealed := packed():
        found.append((sealed.package.feedback, sealed.package.rows))
    assert sum(feedback for feedback, _ in found) == 8
    assert sum(rows for _, rows in found) == 2
    assert found[0][0] in (3, 4)


def test_the_manifest_tells_where_the_site_stands(outbox, batch, packed, key):
    outbox.append([batch(6), blocks.plain()])
    outbox.unfold(7)
    outbox._db.execute("UPDATE scores SET record = '{' WHERE sequence = 7")
    one = read(packed(limit=2, inventory=["b", "a"], running="r1").path, [key.public_key()]).manifest
    assert (one.first, one.last, one.complete) == (1, 3, 1)
    assert (one.inventory, one.running) == (("a", "b"), "r1")
    assert one.counts == Tally(scored=7, packed=2, withheld=0, quarantined=1, expired=0, waiting=4)
    outbox.append([batch(1)])
    outbox.unfold(1)
    two = read(packed().path, [key.public_key()]).manifest
    assert two.counts == Tally(scored=8, packed=4, withheld=3, quarantined=1, expired=0, waiting=0)
    assert two.complete == 8
    last = outbox.last_package()
    assert (last.complete, outbox.complete_through(), outbox.tally()) == (8, 8, two.counts)


def test_a_score_that_waits_for_its_kind_is_not_complete(outbox, batch, packed, policy, key):
    outbox.append([batch(2)])
    insights.derive(outbox)
    outbox.append([batch(3)])
    arguments = {"contracts": {}, "key": key, "spool": packed.spool, "at": 5}
    sealed = pack(outbox, "bergen", policy, **arguments)
    said = read(sealed.path, [key.public_key()]).manifest
    assert (said.complete, said.counts.waiting, said.counts.scored) == (2, 3, 5)


def test_what_expired_is_told_once(outbox, batch, packed, with_kinds, key):
    policy = with_kinds("anomaly", "normal")
    outbox.append([batch(400)])
    insights.derive(outbox)
    gone = outbox.expire(1, 6, "full").rows
    assert 0 < gone < 400
    one = read(packed(policy=policy).path, [key.public_key()]).manifest
    assert (one.expired, one.counts.expired, one.complete) == ({"full": gone}, gone, 400)
    outbox.append([batch(2)])
    two = read(packed(policy=policy).path, [key.public_key()]).manifest
    assert (two.expired, two.counts.expired) == ({}, gone)


class Log:
    """A site's event log: every third of its entries is no lineage event."""

    def __init__(self, entries: int) -> None:
        self.entries, self.asked = entries, []

    def __call__(self, mark: EventMark, limit: int) -> tuple[list[bytes], EventMark]:
        self.asked.append(limit)
        found = [i for i in range(mark.storage_id + 1, self.entries + 1) if i % 3][:limit]
        lines = [b'{"n":%d,"entry":%d}' % (mark.number + n, entry) for n, entry in enumerate(found, 1)]
        return lines, EventMark(found[-1] if found else mark.storage_id, mark.number + len(found))


def test_lineage_leaves_once_and_without_gaps(outbox, batch, packed, with_kinds, key, monkeypatch):
    monkeypatch.setattr(selection, "EVENTS", 4)
    policy, log = with_kinds("anomaly", "lineage"), Log(8)
    outbox.append([batch(2)])
    packages = []
    while sealed := packed(policy=policy, events=log):
        assert sealed.events == len(read(sealed.path, [key.public_key()]).lineage)
        packages.append(read(sealed.path, [key.public_key()]))
        log.entries += 1 if len(packages) < 3 else 0
    assert [package.manifest.lineage for package in packages] == [(1, 4), (5, 6), (7, 7)]
    assert [package.insights.num_rows for package in packages] == [1, 0, 0]
    lines = [json.loads(line) for package in packages for line in package.lineage]
    assert [line["n"] for line in lines] == [*range(1, 8)]
    assert [line["entry"] for line in lines] == [1, 2, 4, 5, 7, 8, 10]
    assert outbox.last_package().event_number == 7


def test_a_package_without_lineage_keeps_its_place(outbox, batch, packed, with_kinds, key):
    policy = with_kinds("anomaly", "lineage")
    for log in (Log(2), None, Log(8)):
        outbox.append([batch(1)])
        sealed = packed(policy=policy, events=log)
    assert read(sealed.path, [key.public_key()]).manifest.lineage == (3, 6)


def test_lineage_needs_its_kind(outbox, batch, packed, policy):
    log = Log(8)
    assert packed(events=log) is None
    outbox.append([batch(1)])
    assert packed(events=log).events == 0
    assert log.asked == []


def test_lineage_is_bounded_in_bytes(packed, with_kinds, monkeypatch):
    monkeypatch.setattr(selection, "MAX_PACKED", 90)
    log, found = Log(30), []
    while sealed := packed(policy=with_kinds("lineage"), events=log):
        found.append(sealed.events)
    assert sum(found) == 20
    assert max(found) <= 5


def test_lineage_that_skips_a_number_is_no_lineage(packed, with_kinds):
    with pytest.raises(ValueError, match="1 lineage events follow number 0, they end at 2"):
        packed(policy=with_kinds("lineage"), events=lambda mark, limit: ([b"{}"], EventMark(9, 2)))


def test_killed_between_file_and_seal_lineage_is_sent_again(packed, with_kinds, key, monkeypatch):
    policy = with_kinds("lineage")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "seal", killed)
        with pytest.raises(KeyboardInterrupt):
            packed(policy=policy, events=Log(2))
    sealed = packed(policy=policy, events=Log(4))
    assert read(sealed.path, [key.public_key()]).manifest.lineage == (1, 3)


def test_nothing_is_packed_while_the_spool_is_full(outbox, batch, packed):
    outbox.append([batch(2)])
    size = packed(spool_bytes=1).package.bytes
    outbox.append([batch(2)])
    with pytest.raises(SpoolFull, match=f"'bergen': 1 packages of {size} bytes are not acknowledged"):
        packed(spool_bytes=size)
    assert outbox.tally().waiting == 2
    assert packed(spool_bytes=size + 1).package.number == 2
    for number in (1, 2):
        outbox.uploaded(number, 9)
    outbox.append([batch(2)])
    with pytest.raises(SpoolFull):
        packed(spool_bytes=1)  # they may never arrive, and their files are kept
    outbox.acknowledge(2, outbox.packages(1)[0].digest, 9)
    assert packed(spool_bytes=1).package.number == 3


def test_normal_scores_wait_while_those_that_are_packed_hold_their_share(outbox, batch, packed, with_kinds):
    """Anomalies and feedback go on: what is packed can expire no more, and normal scores are worth least."""
    policy = with_kinds("anomaly", "normal", "feedback")
    outbox.append([batch(2_000)])
    insights.derive(outbox)
    share = outbox.size() // 2
    assert packed(policy=policy, outbox_bytes=0).package.rows == 1_000, "anomalies only"
    assert packed(policy=policy, outbox_bytes=0) is None
    sealed = packed(policy=policy, outbox_bytes=share + share // 2)
    assert sealed.package.rows == pytest.approx(500, abs=100)
    assert packed(policy=policy, outbox_bytes=share) is None
    outbox.append([batch(2)])
    outbox.add_feedback([Feedback(4, True, None, "o", 1)])
    more = packed(policy=policy, outbox_bytes=share).package
    assert (more.rows, more.feedback) == (1, 1)
    outbox.acknowledge(more.number, more.digest, 9)
    assert packed(policy=policy, outbox_bytes=share).package.rows == pytest.approx(501, abs=100)
    assert outbox.tally().waiting == 0


def test_inputs_that_a_release_keeps_out_are_absent(outbox, record, packed, with_kinds, key):
    """Its records have not got them: neither a value nor a null, nor a part in what is counted."""
    policy = with_kinds("anomaly", "histogram", "sketch")
    records = [json.loads(record(i)) for i in range(40)]
    for made in records:
        del made["inputs"]["Flow"]
    outbox.append([blocks.batch([json.dumps(one).encode() for one in records], [0.9] * 40, [True] * 40)])
    package = read(packed(policy=policy).path, [key.public_key()])
    assert {"Flow" in json.loads(text) for text in package.insights["fields"].to_pylist()} == {False}
    assert package.histograms["feature"].to_pylist() == ["Pressure [bar]", "Only counted"]
    assert package.sketches["feature"].to_pylist() == ["Pressure [bar]"]


def test_sketches_are_of_values_as_they_leave_and_of_listed_features(outbox, record, packed, with_kinds, key):
    """Rounded before they go in; none of what is only counted or kept, however many rows there are."""
    pressures = [3.14159 + i / 7 for i in range(300)]
    records = [record(i, **{"Pressure [bar]": value}) for i, value in enumerate(pressures)]
    outbox.append([blocks.batch(records, [0.1] * 300, [False] * 300)])
    package = read(packed(policy=with_kinds("sketch")).path, [key.public_key()])
    assert package.insights.num_rows == package.histograms.num_rows == 0
    rows = package.sketches.to_pylist()
    found = {row["feature"]: sketches.read(row["sketch"], row["rows"], row["k"]) for row in rows}
    assert {*found} == {"Pressure [bar]", "Flow"}
    rounded = {round(value, 1) for value in pressures}
    assert {*found["Pressure [bar]"].values, found["Pressure [bar]"].low} <= rounded
    assert found["Pressure [bar]"].rows == 300


@pytest.mark.parametrize(("rows", "leaves"), [(9, False), (10, True)])
def test_a_small_group_is_not_sketched(outbox, batch, packed, with_kinds, rows, leaves):
    outbox.append([batch(rows)])
    assert bool(packed(policy=with_kinds("sketch"))) is leaves


def test_an_unreadable_or_unknown_record_is_quarantined_and_kept(outbox, batch, record):
    outbox.append([batch(2), blocks.plain(), batch(1)])
    outbox.unfold(4)
    outbox._db.execute("UPDATE scores SET schema = 99 WHERE sequence = 2")
    outbox._db.execute("UPDATE scores SET record = ? WHERE sequence = 3", (b"{broken",))
    assert insights.derive(outbox) == {"anomaly": 2, "quarantined": 2}
    assert [row.disposition for row in outbox.rows(1, 4)] == [None, "quarantined", "quarantined", None]
    assert "schema 99" in outbox.rows(2, 2)[0].reason
    assert outbox.rows(3, 3)[0].record == b"{broken"
    assert outbox.counts() == Counts(scored=4, uploaded=0, withheld=0, quarantined=2, expired=0, pending=2)


def test_derive_stops_at_its_limit_with_the_block_that_reaches_it(outbox, batch, monkeypatch):
    monkeypatch.setattr(outboxes, "UNFOLD", 1)
    outbox.append([batch(3), batch(3), batch(2), batch(1)])
    assert sum(insights.derive(outbox, limit=5).values()) == 6
    assert insights.derive(outbox) == {"anomaly": 2, "normal": 1}
    assert insights.derive(outbox) == {}


def test_a_leftover_of_a_killed_attempt_is_overwritten(outbox, batch, packed, key, tmp_path, monkeypatch):
    outbox.append([batch(2)])

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "seal", killed)
        with pytest.raises(KeyboardInterrupt):
            packed()
    left = (tmp_path / "spool" / "bergen-00000001.zip").read_bytes()
    assert outbox.unsent() == []
    outbox.append([batch(2)])
    sealed = packed()
    assert sealed.path.read_bytes() != left
    assert read(sealed.path, [key.public_key()]).insights["sequence"].to_pylist() == [1, 3]


@pytest.mark.parametrize("name", ["_score", "_predicted", "_correct"])
def test_a_pseudonym_of_a_number_has_no_column_and_stays_among_the_fields(
    name, outbox, batch, packed, small, key
):
    fields = tuple(f for f in small.egress.fields if f.name != name)
    fields += (type(fields[0])(name=name, leaves="pseudonymised"),)
    other = small.model_copy(update={"egress": small.egress.model_copy(update={"fields": fields})})
    outbox.append([batch(1)])
    outbox.add_feedback([Feedback(1, True, None, "operator", 7)])
    package = read(packed(policy=Policy(other, b"k" * 32)).path, [key.public_key()])
    assert len(json.loads(package.feedback.to_pylist()[0]["fields"])[name]) == 16


def test_two_packers_take_turns(tmp_path, batch, policy, contract, key):
    """While one packs, another waits for it: no number is taken twice."""
    from threading import Thread

    path: Path = tmp_path / "o.db"
    with Outbox(path) as outbox:
        outbox.append([batch(40)])
        insights.derive(outbox)
    numbers = []

    def run() -> None:
        with Outbox(path) as own:
            while sealed := packing.pack(
                own, "bergen", policy, {"r1": contract}, key, tmp_path / "s", at=5, limit=4
            ):
                numbers.append(sealed.package.number)

    threads = [Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 6))
