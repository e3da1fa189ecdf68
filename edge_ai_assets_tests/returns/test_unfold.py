"""From blocks to rows: what is read does not depend on it, and nothing is lost, whatever the blocks hold."""

from __future__ import annotations

import sqlite3
from contextlib import nullcontext
from typing import Any

import msgspec
import pytest

from edge_ai_assets.returns.outbox import insights, journal
from edge_ai_assets.returns.outbox import outbox as outboxes
from edge_ai_assets.returns.outbox.outbox import Batch, Counts, Feedback, Outbox, PackageRow
from edge_ai_assets.returns.outbox.schema import ScoreRow
from edge_ai_assets_tests import blocks


def sequences(rows: list[ScoreRow]) -> list[int]:
    return [row.sequence for row in rows]


def in_journal(outbox: Outbox) -> list[int]:
    """The first sequence of each block."""
    return [first for (first,) in outbox._db.execute("SELECT first FROM journal ORDER BY first")]


def package(number: int) -> PackageRow:
    return PackageRow(number, f"bergen-{number:08}.zip", "digest", "", 1, 0, 10, 1)


# What is made of which block.


@pytest.mark.parametrize(("limit", "left"), [(0, [1, 3, 6]), (1, []), (6, [])])
def test_whole_blocks_are_unfolded_until_enough_rows_are_made(outbox, batch, limit, left):
    outbox.append([batch(2), batch(3), batch(1)])
    assert outbox.unfold(limit).total() == (0 if left else 6)
    assert in_journal(outbox) == left
    assert sequences(outbox.unclassified(9)) == ([] if left else [1, 2, 3, 4, 5, 6])


def test_the_oldest_blocks_come_first(outbox, batch, monkeypatch):
    monkeypatch.setattr(outboxes, "UNFOLD", 1)
    outbox.append([batch(2), batch(3), batch(1)])
    assert outbox.unfold(1).total() == 2
    assert in_journal(outbox) == [3, 6]
    assert outbox.unfold(3).total() == 3
    assert in_journal(outbox) == [6]
    assert outbox.unfold(3).total() == 1
    assert outbox.unfold(3).total() == 0


def test_a_transaction_moves_no_more_than_its_bound_or_one_block(outbox, batch, monkeypatch):
    """It holds the lock that an answer waits for."""
    assert journal.MAX_ROWS <= 5000 and outboxes.UNFOLD <= 5000
    monkeypatch.setattr(outboxes, "UNFOLD", 4)
    outbox.append([batch(rows) for rows in (3, 2, 2, 9, 1, 1, 1)])
    moved = []
    whole = outbox._transaction

    def counted(**how: bool):
        moved.append(len(in_journal(outbox)))
        return whole(**how)

    monkeypatch.setattr(outbox, "_transaction", counted)
    assert outbox.unfold(100).total() == 19
    assert moved == [7, 6, 4, 3]


def test_the_tally_counts_what_is_in_both(outbox, batch):
    outbox.append([batch(2), batch(3)])
    waiting = Counts(scored=5, uploaded=0, withheld=0, quarantined=0, expired=0, pending=5)
    assert outbox.counts() == outbox.recount() == waiting
    outbox.unfold(2)
    assert outbox.counts() == outbox.recount() == waiting


def test_sequences_go_on_after_the_journal_was_emptied(outbox, batch):
    outbox.append([batch(2)])
    outbox.unfold(9)
    assert outbox.append([batch(3)])[0].first == 3
    assert outbox.append([batch(1)])[0].first == 6
    outbox.unfold(9)
    assert outbox.append([batch(1)])[0].first == 7


# Blocks that cannot be read.


def another_schema(outbox: Outbox) -> bytes:
    outbox.append([blocks.plain(3)])
    outbox._db.execute("UPDATE journal SET schema = 9 WHERE first = 3")
    return bytes(outbox._db.execute("SELECT block FROM journal WHERE first = 3").fetchone()[0])


def torn(outbox: Outbox) -> bytes:
    outbox.append([Batch(None, "r1", 1, [(3, blocks.TORN)])])
    return blocks.TORN


def of_other_rows(outbox: Outbox) -> bytes:
    ((_, block),) = blocks.plain(2).blocks
    outbox.append([Batch(None, "r1", 1, [(3, block)])])
    return block


@pytest.mark.parametrize(("make", "schema"), [(another_schema, 9), (torn, 1), (of_other_rows, 1)])
def test_a_block_that_cannot_be_read_is_quarantined_whole_and_kept(outbox, batch, make, schema):
    outbox.append([batch(2)])
    block = make(outbox)
    outbox.append([batch(1)])
    before = outbox.rows(1, 6)
    assert insights.derive(outbox) == {"anomaly": 2, "normal": 1, "quarantined": 3}
    rows = outbox.rows(1, 6)
    assert [row.disposition for row in rows] == [None, None, *["quarantined"] * 3, None]
    assert [row.record for row in rows[2:5]] == [block, b"", b""]
    assert all(row.score is None and not row.predicted and row.release == "r1" for row in rows[2:5])
    assert rows[2].reason.startswith(f"its block, of schema {schema}, could not be read")
    assert {row.schema for row in rows[2:5]} == {-schema}
    nothing = {"kind": None, "disposition": None, "reason": None}
    assert [msgspec.structs.replace(row, **nothing) for row in rows] == before
    assert outbox.counts() == outbox.recount() == Counts(6, 0, 0, 3, 0, 3)


def test_a_block_that_cannot_be_read_can_be_read_around(outbox, batch):
    """Each row of it is there before it is unfolded, too."""
    outbox.append([batch(2), Batch(None, "r1", 1, [(4, blocks.TORN)]), batch(1)])
    assert sequences(outbox.rows(1, 9)) == [1, 2, 3, 4, 5, 6, 7]
    assert [row.record for row in outbox.rows(4, 6)] == [b"", b"", b""]


# The kinds of rows.


def test_rows_get_their_kind_as_they_are_made(outbox, batch):
    """Those of a block that cannot be read have none."""
    outbox.append([batch(4), Batch(None, "r1", 1, [(2, blocks.TORN)])])
    assert outbox.unfold(9, lambda predicted: "anomaly" if predicted else "normal") == {
        "anomaly": 2,
        "normal": 2,
        None: 2,
    }
    assert [row.kind for row in outbox.rows(1, 6)] == ["anomaly", "normal", "anomaly", "normal", None, None]
    assert sequences(outbox.unclassified(9)) == [5, 6]


def test_rows_that_were_unfolded_without_a_kind_get_it_first(outbox, batch, monkeypatch):
    """By a version before this one."""
    monkeypatch.setattr(outboxes, "UNFOLD", 1)
    outbox.append([batch(2), batch(2), Batch(None, "r1", 1, [(1, blocks.TORN)]), batch(1)])
    outbox.unfold(2)
    assert insights.derive(outbox, 1) == {"anomaly": 1}
    assert sequences(outbox.unclassified(9)) == [2]
    assert insights.derive(outbox) == {"anomaly": 2, "normal": 2, "quarantined": 1}
    assert insights.derive(outbox) == {}


def test_blocks_that_somebody_else_unfolds_meanwhile_become_rows_once(outbox, batch, monkeypatch):
    """Between reading them and taking the lock."""
    monkeypatch.setattr(outboxes, "UNFOLD", 5)
    outbox.append([batch(2), batch(3), batch(4)])
    before, whole, others = outbox.rows(1, 9), outbox._transaction, [2]

    def then(**how: bool) -> Any:
        if others:
            with Outbox(outbox.path) as other:
                other.unfold(others.pop())
        return whole(**how)

    monkeypatch.setattr(outbox, "_transaction", then)
    assert outbox.unfold(9).total() == 4
    assert outbox.rows(1, 9) == before
    assert outbox.counts() == outbox.recount()
    assert in_journal(outbox) == []


# Reading both.


@pytest.mark.parametrize("unfolded", [0, 1, 3, 6])
def test_a_range_of_rows_is_the_same_however_much_is_unfolded(outbox, batch, monkeypatch, unfolded):
    monkeypatch.setattr(outboxes, "UNFOLD", 1)
    outbox.append([batch(2), batch(3), batch(1)])
    whole = outbox.rows(1, 6)
    outbox.unfold(unfolded)
    for first in range(-1, 9):
        for last in range(-1, 9):
            assert outbox.rows(first, last) == whole[max(first, 1) - 1 : max(last, 0)], (first, last)


@pytest.mark.parametrize("unfolded", [0, 1, 3, 6])
def test_the_newest_are_the_last_in_order(outbox, batch, monkeypatch, unfolded):
    monkeypatch.setattr(outboxes, "UNFOLD", 1)
    assert outbox.newest(3) == []
    outbox.append([batch(2), batch(3), batch(1)])
    outbox.unfold(unfolded)
    for limit in range(1, 9):
        assert sequences(outbox.newest(limit)) == list(range(1, 7))[-limit:]


def test_the_newest_do_without_those_that_are_no_longer_kept(outbox, batch):
    outbox.append([batch(5)])
    outbox.unfold(5)
    outbox._db.execute("DELETE FROM scores WHERE sequence = 4")
    assert sequences(outbox.newest(3)) == [3, 5]


def test_rows_that_are_unfolded_while_they_are_read_are_all_read(outbox, batch, monkeypatch):
    """By another process, between the two queries."""
    outbox.append([batch(2), batch(3)])
    asked = outbox._scores

    def then_unfolded(*arguments: Any) -> list[ScoreRow]:
        found = asked(*arguments)
        with Outbox(outbox.path) as other:
            other.unfold(9)
        return found

    monkeypatch.setattr(outbox, "_scores", then_unfolded)
    assert sequences(outbox.rows(1, 5)) == [1, 2, 3, 4, 5]
    assert in_journal(outbox) == []


def test_what_waits_for_its_kind_may_be_unfolded_or_not(outbox, batch):
    assert not outbox.untouched()
    outbox.append([batch(2)])
    assert outbox.untouched()
    outbox.unfold(2)
    assert outbox.untouched()
    outbox.classify({1: "anomaly"})
    assert outbox.untouched()
    outbox.dispose("quarantined", {"why": [2]})
    assert not outbox.untouched()


def test_the_oldest_pending_score_is_found_wherever_it_waits(outbox, batch, monkeypatch):
    monkeypatch.setattr(outboxes, "UNFOLD", 1)
    assert outbox.oldest_pending() is None
    outbox.append([batch(1, at=at) for at in (10, 20, 30, 40)])
    seen = []
    for step in (
        lambda: None,
        lambda: outbox.unfold(1),  # 1 is a row
        lambda: outbox.classify({1: "anomaly"}),
        lambda: outbox.dispose("withheld", {"why": [1]}),  # 2 is in a block
        lambda: outbox.unfold(2),  # 2, 3 are rows
        lambda: outbox.classify({2: "anomaly", 3: "anomaly"}),
        lambda: outbox.seal(package(1), [2], [], {}, {}),  # 2 is packed
        lambda: outbox.uploaded(1, 5),  # 3 is classified
        lambda: outbox.dispose("expired", {"why": [3]}),  # 4 is in a block
        lambda: insights.derive(outbox),
        lambda: outbox.dispose("expired", {"why": [4]}),
    ):
        step()
        seen.append(outbox.oldest_pending())
    assert seen == [10, 10, 10, 20, 20, 20, 20, 30, 40, 40, None]


def test_the_oldest_pending_is_the_oldest_by_time_of_those_that_come_next(outbox, batch):
    """One is packed, one classified, one not, one in a block; a clock may step back."""
    for times, expected in (((40, 30, 20, 10), 10), ((20, 10, 30, 40), 10), ((1, 2, 3, 4), 1)):
        outbox._db.execute("DELETE FROM scores")
        outbox._db.execute("DELETE FROM journal")
        outbox._db.execute("DELETE FROM packages")
        first = outbox.append([batch(1, at=at) for at in times[:3]])[0].first
        outbox.unfold(3)
        outbox.classify({first: "anomaly", first + 1: "anomaly"})
        outbox.seal(package(1), [first], [], {}, {})
        outbox.append([batch(1, at=times[3])])
        assert outbox.oldest_pending() == expected


@pytest.mark.parametrize(
    "ask",
    [
        lambda outbox: outbox.counts(),
        lambda outbox: outbox.untouched(),
        lambda outbox: outbox.oldest_pending(),
        lambda outbox: outbox.newest(1),
        lambda outbox: outbox.rows(2_500, 2_500),
        lambda outbox: outbox.add_feedback([Feedback(4_999, True, None, "operator", 5)]),
        lambda outbox: outbox.append([blocks.plain()]),
    ],
    ids=["counts", "untouched", "oldest_pending", "newest", "rows", "add_feedback", "append"],
)
def test_what_is_asked_often_costs_the_same_however_many_blocks_wait(outbox, ask):
    """Counted in steps of SQLite's machine: walking over 5,000 blocks would take at least as many."""
    outbox.append([blocks.plain()] * 5_000)
    steps: list[None] = []
    outbox._db.set_progress_handler(lambda: steps.append(None), 100)
    ask(outbox)
    assert len(steps) < 10


# Killed.


class Killed(BaseException):
    pass


class Dying:
    """A connection that is dead after some statements; what was not committed by then is gone."""

    def __init__(self, database: sqlite3.Connection, statements: int) -> None:
        self._database, self._left = database, statements

    def __getattr__(self, name: str) -> Any:
        if name in ("execute", "executemany"):
            if self._left == 0:
                raise Killed
            self._left -= 1
        return getattr(self._database, name)


def kind(predicted: bool) -> str:
    return "anomaly" if predicted else "normal"


@pytest.mark.parametrize("statements", range(27))
@pytest.mark.parametrize(("of", "ends"), [(None, (12, 24, 25)), (kind, (14, 26, 27))], ids=["rows", "lots"])
def test_an_unfolding_stopped_before_any_statement_loses_and_doubles_nothing(
    outbox, batch, monkeypatch, of, ends, statements
):
    """Two transactions: blocks of 2 and 3 rows, and a block of 1."""
    monkeypatch.setattr(outboxes, "UNFOLD", 5)
    outbox.append([batch(2), batch(3), batch(1)])
    before, counts = outbox.rows(1, 6), outbox.counts()
    first, second, all_of_it = ends
    with Outbox(outbox.path) as dying:
        dying._db = Dying(dying._db, statements)
        with nullcontext() if statements >= all_of_it else pytest.raises(Killed):
            dying.unfold(9, of)
    assert in_journal(outbox) == ([1, 3, 6] if statements < first else [6] if statements < second else [])
    for _ in range(2):
        assert [msgspec.structs.replace(row, kind=None) for row in outbox.rows(1, 6)] == before
        assert outbox.counts() == outbox.recount() == counts
        outbox.unfold(9, of)
    assert in_journal(outbox) == []
