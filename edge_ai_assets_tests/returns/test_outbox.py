from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import msgspec
import pytest

from edge_ai_assets.returns.outbox import store
from edge_ai_assets.returns.outbox.outbox import (
    Batch,
    Counts,
    Feedback,
    Outbox,
    OutboxError,
    OutboxFull,
    PackageRow,
)
from edge_ai_assets.returns.outbox.schema import FORMAT
from edge_ai_assets.returns.outbox.store import PAGE_BYTES
from edge_ai_assets_tests import blocks


def package(number: int, previous: str = "", rows: int = 1) -> PackageRow:
    return PackageRow(number, f"bergen-{number:08}.zip", f"digest {number}", previous, rows, 0, 10, 1)


def kinds(outbox: Outbox, limit: int = 100_000) -> None:
    outbox.unfold(limit)
    outbox.classify(
        {row.sequence: "anomaly" if row.predicted else "normal" for row in outbox.unclassified(limit)}
    )


def test_a_batch_gets_consecutive_sequences_from_1(outbox, batch):
    first, second = outbox.append([batch(3), batch(2)])
    assert (first.first, first.rows, first.repeated) == (1, 3, False)
    assert (second.first, second.rows) == (4, 2)
    assert [row.sequence for row in outbox.rows(2, 4)] == [2, 3, 4]


@pytest.mark.parametrize("unfolded", [False, True])
def test_what_is_read_is_what_was_written(outbox, unfolded):
    record = b'{"inputs":{"Flow":7.5,"Type":"screw"},"context":{"_row":1}}'
    outbox.append([blocks.batch([record], [0.25], [True], [True], key="k", release="r7", at=12)])
    assert outbox.unfold(unfolded).total() == unfolded
    (row,) = outbox.rows(1, 1)
    assert (row.scored_at, row.release, row.score, row.predicted, row.outside) == (12, "r7", 0.25, 1, 1)
    assert (row.record, row.schema) == (record, 1)
    assert (row.kind, row.disposition, row.reason, row.package) == (None, None, None, None)


def test_a_key_seen_before_writes_nothing_and_gets_the_same_receipt(outbox, batch):
    (first,) = outbox.append([batch(3, "a")])
    between, again = outbox.append([batch(1, "b"), batch(5, "a")])
    assert (again.first, again.rows, again.repeated) == (first.first, first.rows, True)
    assert between.first == 4
    assert outbox.counts().scored == 4


def test_a_key_twice_in_one_commit_is_written_once(outbox, batch):
    first, again = outbox.append([batch(2, "a"), batch(2, "a")])
    assert (first.repeated, again.repeated, again.first, outbox.counts().scored) == (False, True, 1, 2)


def test_keys_outlive_a_restart(tmp_path, batch):
    with Outbox(tmp_path / "o.db") as outbox:
        outbox.append([batch(2, "a")])
    with Outbox(tmp_path / "o.db", create=False) as outbox:
        assert outbox.append([batch(2, "a")])[0].repeated


def test_a_key_of_the_same_request_gets_the_same_rows(outbox, batch):
    made = msgspec.structs.replace(batch(3, "a"), fingerprint=b"one")
    (first,) = outbox.append([made])
    (again,) = outbox.append([made])
    assert (first.repeated, first.same) == (False, True)
    assert (again.first, again.rows, again.repeated, again.same) == (1, 3, True, True)
    assert outbox.find("a", b"one") == again


def test_a_key_with_another_fingerprint_writes_nothing_and_says_so(outbox, batch):
    outbox.append([msgspec.structs.replace(batch(3, "a"), fingerprint=b"one")])
    (other,) = outbox.append([msgspec.structs.replace(batch(1, "a"), fingerprint=b"two")])
    assert (other.first, other.rows, other.repeated, other.same) == (1, 3, True, False)
    assert outbox.find("a", b"") == other
    assert outbox.counts().scored == 3


def test_a_key_whose_request_left_no_fingerprint_goes_with_any(outbox, batch):
    """Format 1 kept none."""
    outbox.append([batch(1, "a")])
    assert outbox.find("a", b"two").same


def test_a_key_that_was_never_used_is_not_found(outbox, batch):
    outbox.append([batch(1, "a"), batch(1)])
    assert outbox.find("b", b"") is None


@pytest.mark.parametrize("wrong", [[], [(0, b"")], [(1, blocks.TORN), (0, b"")], [(-1, b"")]])
def test_a_wrong_batch_refuses_the_commit_with_all_its_batches(outbox, batch, wrong):
    with pytest.raises(OutboxError, match="at least one"):
        outbox.append([batch(2, "good"), Batch(None, "r", 1, wrong)])
    assert outbox.counts() == Counts(0, 0, 0, 0, 0, 0)
    assert not outbox.append([batch(2, "good")])[0].repeated


def test_a_transaction_that_fails_leaves_no_gap(outbox, batch):
    outbox.append([batch(2)])
    with pytest.raises(sqlite3.Error):
        outbox.append([batch(2), Batch(None, "r", 1, [(1, None)])])
    assert outbox.append([batch(1)])[0].first == 3
    assert outbox.counts() == outbox.recount()
    assert outbox.counts().pending == 3


def test_feedback_gets_ids_and_waits(outbox, batch):
    outbox.append([batch(2)])
    ids = outbox.add_feedback(
        [Feedback(2, False, "sensor fault", "operator", 5), Feedback(1, True, None, "engineer", 6)]
    )
    assert ids == [1, 2]
    assert [(f.sequence, f.correct, f.note, f.role) for f in outbox.waiting_feedback(10)] == [
        (2, 0, "sensor fault", "operator"),
        (1, 1, None, "engineer"),
    ]


def test_feedback_on_an_unknown_score_is_refused_with_all_of_its_request(outbox, batch):
    outbox.append([batch(2)])
    with pytest.raises(OutboxError, match=r"no score 3.*go to 2"):
        outbox.add_feedback([Feedback(1, True, None, "operator", 5), Feedback(3, True, None, "operator", 5)])
    assert outbox.waiting_feedback(10) == []


@pytest.mark.parametrize("unfolded", range(4))
def test_feedback_may_be_on_a_score_in_a_block_or_not(outbox, batch, unfolded):
    """Blocks of 2, 3 and 1 rows."""
    outbox.append([batch(2), batch(3), batch(1)])
    outbox.unfold(2 * unfolded)
    for sequence in range(1, 7):
        outbox.add_feedback([Feedback(sequence, True, None, "operator", 5)])
    for sequence in (-1, 0, 7):
        with pytest.raises(OutboxError, match=f"no score {sequence}:"):
            outbox.add_feedback([Feedback(sequence, True, None, "operator", 5)])
    assert [item.sequence for item in outbox.waiting_feedback(9)] == [1, 2, 3, 4, 5, 6]


def test_a_score_goes_from_unclassified_to_waiting_to_disposed(outbox, batch):
    outbox.append([batch(4)])
    assert outbox.unclassified(3) == []
    outbox.unfold(4)
    assert [row.sequence for row in outbox.unclassified(3)] == [1, 2, 3]
    outbox.classify({1: "anomaly", 2: "normal"})
    assert [row.sequence for row in outbox.unclassified(9)] == [3, 4]
    assert [row.sequence for row in outbox.waiting(9)] == [1, 2]
    outbox.dispose("withheld", {"kind normal is not listed": [2]})
    assert [row.sequence for row in outbox.waiting(9)] == [1]
    assert outbox.rows(2, 2)[0].reason == "kind normal is not listed"
    assert outbox.counts() == Counts(scored=4, uploaded=0, withheld=1, quarantined=0, expired=0, pending=3)


def test_a_kind_once_given_stays(outbox, batch):
    outbox.append([batch(1)])
    outbox.unfold(1)
    outbox.classify({1: "anomaly"})
    outbox.classify({1: "normal"})
    assert outbox.rows(1, 1)[0].kind == "anomaly"


def test_a_disposition_once_given_stays(outbox, batch):
    outbox.append([batch(1)])
    outbox.unfold(1)
    outbox.dispose("quarantined", {"broken": [1]})
    outbox.dispose("withheld", {"other": [1]})
    assert outbox.rows(1, 1)[0].disposition == "quarantined"


def test_a_disposition_nobody_knows_is_refused(outbox, batch):
    outbox.append([batch(1)])
    outbox.unfold(1)
    with pytest.raises(sqlite3.IntegrityError):
        outbox.dispose("lost", {"why": [1]})
    assert outbox.counts().conserved


def test_sealed_rows_wait_for_the_upload_and_withheld_ones_are_done(outbox, batch):
    outbox.append([batch(4)])
    kinds(outbox)
    outbox.seal(package(1), [1, 3], [], {"not listed": [2, 4]}, {})
    assert outbox.counts() == Counts(scored=4, uploaded=0, withheld=2, quarantined=0, expired=0, pending=2)
    assert outbox.waiting(9) == []
    assert [p.number for p in outbox.unsent()] == [1]
    outbox.uploaded(1, 99)
    assert outbox.counts() == Counts(scored=4, uploaded=2, withheld=2, quarantined=0, expired=0, pending=0)
    assert outbox.unsent() == []
    assert outbox.last_package().uploaded_at == 99


def test_uploaded_again_changes_nothing(outbox, batch):
    outbox.append([batch(1)])
    outbox.unfold(1)
    outbox.seal(package(1), [1], [], {}, {})
    outbox.uploaded(1, 99)
    outbox.uploaded(1, 100)
    assert outbox.last_package().uploaded_at == 99
    assert outbox.counts().uploaded == 1


def test_uploaded_needs_a_package(outbox):
    with pytest.raises(OutboxError, match="no package 4"):
        outbox.uploaded(4, 1)


@pytest.mark.parametrize("number", [1, 3])
def test_package_numbers_have_no_gaps(outbox, batch, number):
    outbox.append([batch(1)])
    outbox.seal(package(1), [1], [], {}, {})
    with pytest.raises(OutboxError, match="next number is 2"):
        outbox.seal(package(number), [], [], {}, {})


class Killed(BaseException):
    pass


@pytest.mark.parametrize("transactions", range(8))
def test_a_seal_stopped_between_any_two_transactions_is_whole_or_not_there(
    outbox, batch, monkeypatch, transactions
):
    """Four rows packed, two withheld, one feedback, in transactions of two rows."""
    outbox.append([batch(6)])
    outbox.add_feedback([Feedback(1, True, None, "operator", 5)])
    kinds(outbox)
    monkeypatch.setattr(store, "CHUNK", 2)
    whole, left = outbox._transaction, [transactions]

    def dying(**how: bool):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return whole(**how)

    monkeypatch.setattr(outbox, "_transaction", dying)
    finished = True
    try:
        outbox.seal(package(1, rows=4), [1, 2, 3, 4], [1], {"no": [5, 6]}, {})
    except Killed:
        finished = False
    monkeypatch.setattr(outbox, "_transaction", whole)
    outbox.recover()
    sealed = outbox.last_package() is not None
    assert sealed or not finished
    assert outbox.counts() == Counts(6, 0, 2 if sealed else 0, 0, 0, 4 if sealed else 6) == outbox.recount()
    assert len(outbox.waiting(9)) == (0 if sealed else 6)
    assert len(outbox.waiting_feedback(9)) == (0 if sealed else 1)
    assert all(row.reason is None and row.package is None for row in outbox.waiting(9))


def test_a_lost_block_breaks_the_sum_of_the_rows(outbox, batch):
    outbox.append([batch(2), batch(3), batch(1)])
    outbox._db.execute("DELETE FROM journal WHERE first = 3")
    assert not outbox.recount().conserved
    outbox.unfold(9)
    assert not outbox.counts().conserved


def test_a_full_quota_refuses_scores_until_there_is_room(tmp_path, batch):
    with Outbox(tmp_path / "o.db", quota=600_000) as outbox:
        with pytest.raises(OutboxFull, match=r"o\.db holds \d+ bytes, its quota is 600000"):
            while True:
                outbox.append([batch(50, f"key {outbox.counts().scored}")])
        before = outbox.counts()
        assert before == outbox.recount() and before.scored % 50 == 0
        assert 600_000 < outbox.size() < 650_000
        with pytest.raises(OutboxFull):
            outbox.append([batch(1, "new")])
        assert outbox.find("new", b"") is None
        kinds(outbox)  # the way home goes on
        outbox._db.execute("DELETE FROM scores")
        outbox._db.execute("DELETE FROM sheets")
        assert outbox.append([batch(1, "new")])[0].first == before.scored + 1


def test_what_was_freed_does_not_count_for_the_size(outbox, batch):
    empty = outbox.size()
    for _ in range(50):
        outbox.append([batch(100)])
    full = outbox.size()
    assert full > empty + 50 * 100 * 20
    outbox._db.execute("DELETE FROM journal")
    assert outbox.size() < empty + 2 * PAGE_BYTES
    assert outbox._db.execute("PRAGMA page_count").fetchone()[0] * PAGE_BYTES >= full


def test_patience_bounds_the_wait_for_another_process(tmp_path, batch):
    with Outbox(tmp_path / "o.db") as holder, Outbox(tmp_path / "o.db", patience=0.05) as waiting:
        with holder._transaction():
            started = time.perf_counter()
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                waiting.append([batch(1)])
            assert 0.04 < time.perf_counter() - started < 30
        assert waiting.append([batch(1)])[0].first == 1


def test_long_writes_go_in_small_transactions(outbox, batch, monkeypatch):
    """Each holds the write lock while scores wait: never more than CHUNK rows, and CHUNK is small."""
    assert store.CHUNK <= 5000
    outbox.append([batch(10)])
    outbox.unfold(10)
    begun: list[str] = []
    monkeypatch.setattr(store, "CHUNK", 3)
    writes = "BEGIN IMMEDIATE"
    outbox._db.set_trace_callback(lambda query: begun.append(query) if query == writes else None)
    for write, transactions in (
        (lambda: kinds(outbox), 4),
        (lambda: outbox.seal(package(1), range(1, 6), [], {"no": range(6, 11)}, {}), 4 + 1 + 2),
        (lambda: outbox.uploaded(1, 5), 1),
    ):
        begun.clear()
        write()
        assert len(begun) == transactions


def test_a_transaction_ends_when_its_time_is_up(outbox, batch, monkeypatch):
    """Whatever CHUNK says: on a slow machine rows take longer."""
    outbox.append([batch(1_000)])
    outbox.unfold(1_000)
    begun: list[str] = []
    writes = "BEGIN IMMEDIATE"
    outbox._db.set_trace_callback(lambda query: begun.append(query) if query == writes else None)
    monkeypatch.setattr(store, "HOLD_SECONDS", -1)
    kinds(outbox)
    assert len(begun) == 1_000 / store.STEP
    assert outbox.unclassified(1) == []


def test_claims_of_a_killed_seal_do_not_get_into_the_next_package(outbox, batch):
    outbox.append([batch(3)])
    kinds(outbox)
    outbox._db.execute("UPDATE scores SET package = 1, reason = 'stale' WHERE sequence > 1")
    outbox.seal(package(1), [1], [], {}, {})
    outbox.uploaded(1, 5)
    assert outbox.counts() == Counts(3, 1, 0, 0, 0, 2)
    assert [row.sequence for row in outbox.waiting(9)] == [2, 3]


def test_a_lost_row_breaks_the_sum(outbox, batch):
    outbox.append([batch(5)])
    outbox.unfold(5)
    assert outbox.counts().conserved
    outbox._db.execute("DELETE FROM scores WHERE sequence = 5")
    assert not outbox.counts().conserved
    assert not outbox.recount().conserved
    assert outbox.counts().scored == 5


def test_no_sequence_is_given_out_twice_even_after_the_last_row_is_gone(outbox, batch):
    outbox.append([batch(5)])
    outbox.unfold(5)
    outbox._db.execute("DELETE FROM scores WHERE sequence > 2")
    assert outbox.append([batch(1)])[0].first == 6


def test_there_must_be_an_outbox_unless_it_may_be_made(tmp_path):
    with pytest.raises(OutboxError, match="no outbox"):
        Outbox(tmp_path / "o.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_newer_format_is_refused_with_a_sentence(tmp_path):
    Outbox(tmp_path / "o.db").close()
    with sqlite3.connect(tmp_path / "o.db") as db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(OutboxError, match=f"format {FORMAT + 1}, this version reads {FORMAT}"):
        Outbox(tmp_path / "o.db")


def test_a_file_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "o.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(OutboxError, match="no SQLite file"):
        Outbox(tmp_path / "o.db")


def test_it_is_opened_durable(outbox):
    pragma = {
        name: outbox._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
    }
    assert pragma == {"journal_mode": "wal", "synchronous": 2}
    assert outbox._db.execute("PRAGMA busy_timeout").fetchone()[0] >= 1000


def test_several_may_make_it_at_once(tmp_path):
    errors: list[BaseException] = []

    def make() -> None:
        try:
            Outbox(tmp_path / "o.db").close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_waiting_queries_use_their_index(outbox):
    seen: list[str] = []
    outbox._db.set_trace_callback(seen.append)
    outbox.untouched(), outbox.oldest_pending(), outbox.newest(5), outbox.unfold(5), outbox._kept(1)
    outbox.unclassified(5), outbox.waiting(5), outbox.waiting_feedback(5), outbox.unsent(), outbox.recover()
    outbox.counts()
    outbox._db.set_trace_callback(None)
    for query in [query for query in seen if query.startswith("SELECT")]:
        plan = " / ".join(str(row[3]) for row in outbox._db.execute(f"EXPLAIN QUERY PLAN {query}"))
        assert "SCAN scores" not in plan.replace("SCAN scores USING INDEX", ""), (query, plan)


def test_counts_stay_fast_and_a_scorer_is_hardly_held_up(tmp_path, batch):
    """6,000 rows classified, sealed and acknowledged while another thread appends."""
    path, waits, stop = tmp_path / "o.db", [], threading.Event()
    with Outbox(path) as outbox:
        for _ in range(6):
            outbox.append([batch(1000)])

        def score() -> None:
            with Outbox(path) as other:
                while not stop.is_set():
                    started = time.perf_counter()
                    other.append([batch(1)])
                    waits.append(time.perf_counter() - started)
                    time.sleep(0.005)

        thread = threading.Thread(target=score)
        thread.start()
        try:
            outbox.unfold(6000)
            rows = outbox.unclassified(6000)
            kinds(outbox, 6000)
            outbox.seal(
                package(1), [r.sequence for r in rows[::2]], [], {"no": [r.sequence for r in rows[1::2]]}, {}
            )
            outbox.uploaded(1, 5)
        finally:
            stop.set()
            thread.join()
        started = time.thread_time()
        counts = outbox.counts()
        assert time.thread_time() - started < 0.05
    assert counts.conserved
    assert (counts.uploaded, counts.withheld, counts.pending) == (3000, 3000, len(waits))
    # Generous, for busy machines.
    assert sorted(waits)[int(len(waits) * 0.99)] < 2


def test_only_small_things_are_imported_by_the_outbox():
    import subprocess
    import sys

    code = (
        "import sys, edge_ai_assets.returns.outbox.outbox; "
        "print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    heavy = {"numpy", "pyarrow", "pydantic", "cryptography", "pandas", "dagster", "yaml"}
    assert heavy.isdisjoint(loaded.stdout.split())
