from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns import insights, packing
from edge_ai_assets.returns.outbox import Counts, Feedback, Outbox
from edge_ai_assets.returns.packages import read
from edge_ai_assets.returns.packing import pack
from edge_ai_assets.returns.policy import Policy
from edge_ai_assets_tests import blocks

pytestmark = pytest.mark.usefixtures("counting")


@pytest.fixture
def packed(outbox, policy, contract, key, tmp_path):
    """One step of packing, with the outbox's scores classified first."""

    def step(**options):
        insights.derive(outbox)
        arguments = {"policy": policy, "contracts": {"r1": contract}, "at": 5, **options}
        return pack(outbox, "bergen", key=key, spool=tmp_path / "spool", **arguments)

    return step


def test_allowed_rows_leave_and_the_others_are_withheld_by_reason(outbox, batch, packed, key):
    outbox.append([batch(6)])
    sealed = packed()
    assert (sealed.package.number, sealed.package.rows, sealed.package.previous) == (1, 3, "")
    assert sealed.withheld == {"kind normal is not listed": 3}
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
    assert packed(policy=Policy(silent, b"k" * 32), limit=2) is None
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


def test_the_limit_bounds_a_package(outbox, batch, packed):
    outbox.append([batch(10)])
    sealed = packed(limit=4)
    assert sealed.package.rows == 2
    assert outbox.counts().pending == 2 + 6


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


def test_derive_takes_no_more_than_its_limit(outbox, batch, monkeypatch):
    monkeypatch.setattr(insights, "PAGE", 3)
    outbox.append([batch(10)])
    assert sum(insights.derive(outbox, limit=7).values()) == 7
    assert insights.derive(outbox) == {"anomaly": 1, "normal": 2}
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


CANARIES = ("Secret", "Secret [mean 60]", "unheard of", "_row", "_note", "_role")


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.booleans(), st.sampled_from(CANARIES), st.sampled_from(["Type", "Flow", "Pressure [bar]"])
        ),
        min_size=1,
        max_size=20,
    )
)
def test_no_canary_is_in_any_outgoing_byte(tmp_path_factory, policy, contract, record, key, rows):
    """Canaries stand in forbidden fields, in allowed ones of another kind, in run, note and role."""
    folder = tmp_path_factory.mktemp("canary")
    with Outbox(folder / "o.db") as outbox:
        records = []
        for _, forbidden, allowed in rows:
            made = msgspec.json.decode(
                record(**{forbidden: "CANARY1", allowed: "CANARY2", "Serial": "CANARY3"})
            )
            made["context"]["_run"] = "CANARY4"
            records.append(msgspec.json.encode(made))
        predicted = [p for p, _, _ in rows]
        outbox.append([blocks.batch(records, [0.5] * len(rows), predicted, predicted, key="CANARY5")])
        outbox.add_feedback([Feedback(1, True, "CANARY6", "CANARY7", 5)])
        insights.derive(outbox)
        while sealed := pack(outbox, "bergen", policy, {"r1": contract}, key, folder / "spool", at=5):
            package = read(sealed.path, [key.public_key()])
            tables = (package.insights, package.feedback, package.histograms)
            text = sealed.path.read_bytes() + str([table.to_pylist() for table in tables]).encode()
            assert b"CANARY" not in text
            assert b"99.25" not in text
        assert outbox.counts().conserved
        assert outbox.counts().pending == sum(predicted)


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
    assert sorted(numbers) == list(range(1, 11))
