"""Lots: whatever is done to scores in lots has the effect that it has on scores with a row each."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.outbox import insights, sheets, store
from edge_ai_assets.returns.outbox import lots as lot_rows
from edge_ai_assets.returns.outbox import outbox as outboxes
from edge_ai_assets.returns.outbox.outbox import Feedback, Outbox, PackageRow
from edge_ai_assets.returns.outbox.schema import KINDS
from edge_ai_assets_tests import blocks

DOINGS = ["score", "seal", "all", "withheld", "quarantined", "uploaded", "acknowledge", "prune", "feedback"]
DOINGS += ["drop", "requeue"]
STEPS = st.lists(
    st.tuples(st.sampled_from([*DOINGS, "score"]), st.integers(1, 9)),
    max_size=25,
)


def lots(outbox: Outbox) -> list[tuple[Any, ...]]:
    return outbox._db.execute("SELECT first, rows, disposition, reason, package FROM lots").fetchall()


def in_rows(outbox: Outbox) -> list[int]:
    return [one for (one,) in outbox._db.execute("SELECT sequence FROM scores ORDER BY sequence")]


def score(outbox: Outbox, kinds: str, at: int = 1) -> None:
    """One score a letter, a for anomaly, in blocks of one row."""
    outbox.append([blocks.plain(predicted=kind == "a", at=at + place) for place, kind in enumerate(kinds)])
    insights.derive(outbox)


def package(number: int, rows: int, complete: int = 0) -> PackageRow:
    return PackageRow(number, f"{number}.zip", f"d{number}", "", rows, 0, 9, 1, complete=complete)


def test_scores_of_a_sheet_are_a_lot_and_have_no_rows(outbox):
    score(outbox, "anaan")
    assert lots(outbox) == [(1, 3, None, None, None), (2, 2, None, None, None)]
    assert in_rows(outbox) == []
    assert [row.kind for row in outbox.rows(1, 5)] == ["anomaly", "normal", "anomaly", "anomaly", "normal"]
    assert {type(row.predicted) for row in outbox.rows(1, 5)} == {int}, "a letter takes nothing else"


def test_what_is_done_to_all_scores_of_a_lot_divides_it_not(outbox):
    score(outbox, "nnnaaa")
    outbox.dispose("withheld", {"why": [1, 2, 3]})
    outbox.seal(package(1, 3), [4, 5, 6], [], {}, {})
    assert lots(outbox) == [(1, 3, "withheld", "why", None), (4, 3, None, None, 1)]
    outbox.uploaded(1, 5)
    outbox.acknowledge(1, "d1", 5)
    assert outbox.prune(99).rows == 3
    assert in_rows(outbox) == []
    assert outbox.counts() == outbox.recount() and outbox.counts().uploaded == 3


@pytest.mark.parametrize("reason", [None, "why"])
def test_what_is_done_to_some_of_them_divides_it(outbox, reason):
    score(outbox, "nnnnaa")
    before = outbox.rows(1, 6)
    packed, held = ([2, 3], {}) if reason is None else ([], {reason: [2, 3]})
    outbox.seal(package(1, len(packed)), packed, [], held, {})
    assert lots(outbox) == [(5, 2, None, None, None)] and in_rows(outbox) == [1, 2, 3, 4]
    after = outbox.rows(1, 6)
    assert [row.package for row in after] == [None, 1, 1, None, None, None]
    assert [row.record for row in after] == [row.record for row in before]
    assert [row.sequence for row in outbox.waiting(9)] == [1, 4, 5, 6]
    assert outbox.counts() == outbox.recount()


def test_what_waits_is_told_though_its_lot_is_divided_meanwhile(outbox, monkeypatch):
    """By another process, between two queries."""
    score(outbox, "nnn")
    asked = outbox._lots

    def then_divided(*arguments: int) -> list[lot_rows.Lot]:
        found = asked(*arguments)
        with Outbox(outbox.path) as other:
            blocks.apart(other)
        return found

    monkeypatch.setattr(outbox, "_lots", then_divided)
    assert [row.sequence for row in outbox.waiting(2)] == [1, 2]
    assert in_rows(outbox) == [1, 2, 3]


def test_dead_letters_have_rows_of_their_own(outbox):
    score(outbox, "nn")
    outbox.dispose("quarantined", {"why": [1, 2]})
    assert [row.sequence for row in outbox.dead_letters(9)] == [1, 2]
    assert outbox.requeue(1) == 2 and insights.derive(outbox) == {"normal": 2}


def test_a_lot_of_a_damaged_sheet_can_be_divided(outbox):
    score(outbox, "aaa")
    outbox._db.execute("UPDATE sheets SET sheet = x'00'")
    outbox.dispose("quarantined", {"damaged": [1, 2, 3]})
    assert [(row.sequence, row.score, row.record) for row in outbox.dead_letters(9)] == [
        (number, None, b"") for number in (1, 2, 3)
    ]
    assert outbox.counts() == outbox.recount() and outbox.counts().quarantined == 3


def test_claims_of_a_killed_seal_are_given_back_to_lots(outbox):
    score(outbox, "aann")
    outbox._db.execute("UPDATE lots SET package = 1, reason = 'stale' WHERE first = 3")
    outbox.seal(package(1, 2), [1, 2], [], {}, {})
    assert lots(outbox) == [(1, 2, None, None, 1), (3, 2, None, None, None)]


def test_feedback_keeps_only_its_own_score(outbox):
    score(outbox, "nnn")
    outbox.seal(package(1, 3), [1, 2, 3], [], {}, {})
    outbox.acknowledge(1, "d1", 5)
    outbox.add_feedback([Feedback(2, True, None, "o", 1)])
    assert outbox.prune(99).rows == 2
    assert [row.sequence for row in outbox.rows(1, 3)] == [2]


def test_scores_go_by_their_own_time(outbox):
    score(outbox, "nnn", at=5)
    outbox.seal(package(1, 3), [1, 2, 3], [], {}, {})
    outbox.acknowledge(1, "d1", 5)
    assert outbox.prune(6).rows == 1
    assert [row.sequence for row in outbox.rows(1, 3)] == [2, 3]


def test_a_key_is_kept_as_long_as_a_lot_lies_about_its_request(outbox):
    outbox.append([blocks.batch([b'{"inputs":{}}'] * 2, [0.9] * 2, [True] * 2, key="k"), blocks.plain()])
    insights.derive(outbox)
    assert lots(outbox) == [(1, 3, None, None, None)]
    outbox.expire(1, 5, "quota")
    assert outbox.find("k", b"") is None


def test_a_lot_expires_whole_and_the_oldest_first(outbox, monkeypatch):
    monkeypatch.setattr(sheets, "MAX_ROWS", 2)
    score(outbox, "nnnnnaa")
    monkeypatch.setattr(outbox, "size", cycle([100, 90]).__next__)
    found = outbox.expire(1, 5, "quota")
    assert (found.rows, found.by_kind) == (2, {"normal": 2})
    assert [row.sequence for row in outbox.rows(1, 9)] == [3, 4, 5, 6, 7]
    assert [(grave.first, grave.last, grave.rows) for grave in outbox.tombstones()] == [(1, 2, 2)]


@pytest.mark.parametrize(("sent", "left"), [(0, []), (2, [1, 2]), (3, [1, 2, 3])])
def test_what_was_sent_already_does_not_expire_with_its_lot(outbox, sent, left):
    score(outbox, "nnn")
    outbox.expire(1 << 30, 5, "quota", {"normal": sent})
    assert [row.sequence for row in outbox.rows(1, 3)] == left
    assert outbox.counts() == outbox.recount()


def test_a_sample_tells_of_the_newest_scores_of_a_release(outbox):
    score(outbox, "anan", at=10)
    outbox.append([blocks.plain(release="r2", at=99)])
    insights.derive(outbox)
    score(outbox, "n", at=20)
    asked = ((0, 99), (2, 99), (0, 3), (6, 9))
    found = [outbox.sample("r1", after, limit) for after, limit in asked]
    assert [(one.rows, one.anomalies, one.newest) for one in found] == [
        (5, 2, 20),
        (3, 1, 20),
        (2, 0, 20),
        (0, 0, None),
    ]


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(1, 6), st.sampled_from([3, lot_rows.WINDOW]))
def test_lots_and_rows_have_the_same_effect(tmp_path_factory, steps, most, window):
    """Of two outboxes all lots of one are divided before each step."""
    folder: Path = tmp_path_factory.mktemp("lots")
    with (
        pytest.MonkeyPatch.context() as patch,
        Outbox(folder / "lots.db") as one,
        Outbox(folder / "rows.db") as other,
    ):
        patch.setattr(sheets, "MAX_ROWS", most)
        patch.setattr(lot_rows, "WINDOW", window)
        for module in (outboxes, store):
            patch.setattr(module, "PAUSE_SECONDS", 0)
        for step, value in steps:
            blocks.apart(other)
            told = [do(outbox, step, value) for outbox in (one, other)]
            assert told[0] == told[1]
            assert one.counts() == one.recount() == other.counts() == other.recount()
            assert one.tally() == other.tally() and one.counts().conserved
            last = one.counts().scored
            assert one.rows(1, last) == other.rows(1, last)
            for kind in KINDS:
                assert one.waiting(5, [kind]) == other.waiting(5, [kind])
            assert one.complete_through() == other.complete_through()
            assert one.complete_through({1, 2, 5}) == other.complete_through({1, 2, 5})
            assert one.tombstones() == other.tombstones()
            assert one.sample("r1", 2, 9) == other.sample("r1", 2, 9)
            assert one.dead_letters(99) == other.dead_letters(99)


def do(outbox: Outbox, step: str, value: int) -> object:
    last, rows = outbox.last_package(), [row.sequence for row in outbox.waiting(value)]
    number = last.number if last else 0
    if step == "score":
        return score(outbox, "naana"[:value] * 2, at=value)
    if step in ("seal", "all"):
        chosen = rows if step == "seal" else [row.sequence for row in outbox.waiting(999)]
        end = outbox.complete_through(set(chosen))
        made = package(number + 1, len(chosen[1:]), end)
        return outbox.seal(made, chosen[1:], [], {"held": chosen[:1]}, {})
    if step in ("withheld", "quarantined"):
        return outbox.dispose(step, {"why": rows[::2]})
    if step == "uploaded" and last:
        return outbox.uploaded(number, value)
    if step == "acknowledge" and last:
        return outbox.acknowledge(min(value, number), f"d{min(value, number)}", 5)
    if step == "prune":
        return outbox.prune(value)
    if step == "drop":
        return outbox.drop_withheld(1 << 40, value)
    if step == "feedback" and (kept := outbox.rows(value, value)):
        return outbox.add_feedback([Feedback(kept[0].sequence, True, None, "o", value)])
    if step == "requeue":
        return outbox.requeue(1), insights.derive(outbox)
    return None
