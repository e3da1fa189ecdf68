"""What is removed was home or had to go, and is counted ever after; what may not go stays."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.outbox import deadletters, insights, journal, retention, schema, store
from edge_ai_assets.returns.outbox import outbox as outboxes
from edge_ai_assets.returns.outbox.outbox import (
    Batch,
    Counts,
    Feedback,
    Outbox,
    OutboxError,
    PackageRow,
    ScoreRow,
)
from edge_ai_assets.returns.outbox.schema import Expired, Pruned, Record, Tally, Tombstone
from edge_ai_assets_tests import blocks


def sequences(rows: list[ScoreRow]) -> list[int]:
    return [row.sequence for row in rows]


def kept(outbox: Outbox) -> list[int]:
    return sequences(outbox.rows(1, outbox.counts().scored))


def keys(outbox: Outbox) -> list[str]:
    return [key for (key,) in outbox._db.execute("SELECT key FROM requests ORDER BY first")]


def score(outbox: Outbox, kinds: str, at: int = 1) -> None:
    """One score each, by the first letter of its kind; classified."""
    outbox.append([blocks.plain(predicted=kind == "a", at=at) for kind in kinds])
    insights.derive(outbox)


def seal(
    outbox: Outbox,
    packed: list[int],
    withheld: tuple[int, ...] = (),
    feedback: tuple[int, ...] = (),
    complete: int | None = None,
    made_at: int = 1,
) -> int:
    last = outbox.last_package()
    number = last.number + 1 if last else 1
    done = outbox.complete_through({*packed, *withheld}) if complete is None else complete
    row = PackageRow(number, f"{number}.zip", f"d{number}", "", len(packed), 0, 9, made_at, complete=done)
    outbox.seal(row, packed, feedback, {"not listed": withheld}, {})
    return number


def acknowledge(outbox: Outbox, number: int) -> int:
    return outbox.acknowledge(number, f"d{number}", 7)


# Acknowledgements.


def test_an_acknowledgement_stands_for_all_packages_up_to_its_own(outbox):
    score(outbox, "aaaa")
    for sequence in (1, 2, 3):
        seal(outbox, [sequence])
    outbox.uploaded(1, 5)
    assert acknowledge(outbox, 2) == 2
    assert outbox.counts() == Counts(4, 2, 0, 0, 0, 2)
    rows = outbox._db.execute("SELECT uploaded_at, acknowledged_at FROM packages ORDER BY number").fetchall()
    assert rows == [(5, 7), (7, 7), (None, None)]
    assert [package.number for package in outbox.unsent()] == [3]


@pytest.mark.parametrize("number", [1, 2])
def test_an_acknowledgement_again_or_an_older_one_changes_nothing(outbox, number):
    score(outbox, "aaa")
    for sequence in (1, 2):
        seal(outbox, [sequence])
    acknowledge(outbox, 2)
    before = outbox._db.execute("SELECT * FROM packages").fetchall()
    assert outbox.acknowledge(number, f"d{number}", 99) == 0
    assert outbox._db.execute("SELECT * FROM packages").fetchall() == before


@pytest.mark.parametrize(
    ("number", "digest", "said"),
    [
        (3, "d3", "package 3 was acknowledged, this site's go to 2"),
        (0, "d0", "package 0 was acknowledged, this site's go to 2"),
        (-1, "d1", "package -1 was"),
        (2, "d1", "package 2 was acknowledged with digest d1, this site's is d2"),
    ],
)
def test_an_acknowledgement_of_something_else_is_refused_and_changes_nothing(outbox, number, digest, said):
    score(outbox, "aa")
    for sequence in (1, 2):
        seal(outbox, [sequence])
    with pytest.raises(OutboxError, match=said):
        outbox.acknowledge(number, digest, 7)
    assert outbox.counts().pending == 2
    assert [package.number for package in outbox.unsent()] == [1, 2]


def test_an_outbox_without_packages_has_nothing_to_acknowledge(outbox):
    with pytest.raises(OutboxError, match="this site's go to 0"):
        acknowledge(outbox, 1)


def test_what_was_exported_waits_for_its_acknowledgement(outbox):
    score(outbox, "aa")
    seal(outbox, [1, 2])
    outbox.exported(1, 6)
    assert (outbox.last_package().exported_at, outbox.counts().pending) == (6, 2)
    assert [package.number for package in outbox.unsent()] == [1]
    with pytest.raises(OutboxError, match="no package 2"):
        outbox.exported(2, 6)


def test_the_columns_of_a_package_are_kept(outbox):
    package = PackageRow(1, "1.zip", "d1", "d0", 2, 3, 4, 5, None, 6, 7, 8, None, None)
    outbox.seal(package, [], [], {}, {})
    assert outbox.last_package() == package


def test_unsent_packages_come_in_bounded_numbers(outbox):
    for _ in range(5):
        seal(outbox, [])
    assert [package.number for package in outbox.unsent(3)] == [1, 2, 3]
    assert outbox.unsent_total() == 5


# What the manifest tells.


def test_what_waits_of_one_kind_comes_alone_and_in_order(outbox):
    score(outbox, "nanna")
    assert sequences(outbox.waiting(9)) == [1, 2, 3, 4, 5]
    assert sequences(outbox.waiting(9, ["anomaly"])) == [2, 5]
    assert sequences(outbox.waiting(2, ["normal"])) == [1, 3]
    assert sequences(outbox.waiting(3, ["anomaly", "normal"])) == [1, 2, 3]
    assert outbox.waiting(0) == []


def test_a_kind_nobody_knows_is_refused(outbox):
    score(outbox, "")
    outbox.append([blocks.plain(2)])
    outbox.unfold(2)
    with pytest.raises(OutboxError, match="normal or anomaly, not odd"):
        outbox.classify({1: "anomaly", 2: "odd"})
    assert len(outbox.unclassified(9)) == 2


def test_it_is_complete_up_to_the_first_score_that_may_still_come(outbox):
    assert outbox.complete_through() == 0
    outbox.append([blocks.plain(3), blocks.plain(3)])
    seen = []
    for step in (
        lambda: None,  # all in blocks
        lambda: insights.derive(outbox),
        lambda: seal(outbox, [1, 2]),
        lambda: outbox.dispose("withheld", {"why": [3]}),
        lambda: outbox.append([blocks.plain(1)]),
        lambda: outbox.dispose("quarantined", {"why": [5]}),
        lambda: seal(outbox, [6]),
        lambda: seal(outbox, [], (4,)),  # 7 is in a block
        lambda: insights.derive(outbox),
        lambda: outbox.expire(1, 5, "quota"),
    ):
        step()
        seen.append(outbox.complete_through())
    assert seen == [0, 0, 2, 3, 3, 3, 3, 6, 6, 7]


def test_what_the_next_package_accounts_for_counts_as_complete(outbox):
    score(outbox, "nanna")
    outbox.append([blocks.plain(1)])
    assert outbox.complete_through({1, 2, 4}) == 2
    assert outbox.complete_through({1, 2, 3, 4, 5}) == 5
    outbox.unfold(1)
    assert outbox.complete_through({1, 2, 3, 4, 5}) == 5


def test_claims_of_a_killed_seal_are_not_complete(outbox):
    score(outbox, "aaa")
    seal(outbox, [1])
    outbox._db.execute("UPDATE scores SET package = 2 WHERE sequence IN (2, 3)")
    assert outbox.complete_through() == 1


def test_the_tally_tells_what_left_the_outbox_whatever_was_acknowledged(outbox):
    score(outbox, "aannaa")
    outbox.append([blocks.plain(2), Batch(None, "r1", 1, [(1, blocks.TORN)])])
    assert outbox.tally() == Tally(scored=9, packed=0, withheld=0, quarantined=0, expired=0, waiting=9)
    seal(outbox, [1, 2], (3,))
    packed = Tally(scored=9, packed=2, withheld=1, quarantined=0, expired=0, waiting=6)
    assert outbox.tally() == packed
    for step in (
        lambda: outbox.uploaded(1, 5),
        lambda: acknowledge(outbox, 1),
        lambda: outbox.prune(9),
    ):
        step()
        assert outbox.tally() == packed
    insights.derive(outbox)
    outbox.expire(1, 5, "quota")
    assert outbox.tally() == Tally(scored=9, packed=2, withheld=1, quarantined=1, expired=5, waiting=0)


def test_what_is_in_a_package_does_not_get_into_another(outbox):
    score(outbox, "aaan")
    seal(outbox, [1, 2])
    seal(outbox, [2, 3], (1, 4))
    assert [row.package for row in outbox.rows(1, 4)] == [1, 1, 2, 2]
    assert outbox.tally() == Tally(scored=4, packed=3, withheld=1, quarantined=0, expired=0, waiting=0)


# Pruning.


def test_what_is_acknowledged_and_old_goes_and_is_counted(outbox):
    score(outbox, "aan", at=10)
    score(outbox, "aan", at=20)
    seal(outbox, [1, 2], (3,))
    seal(outbox, [4, 5], (6,))
    before = outbox.counts()
    assert outbox.prune(15) == Pruned(0, 0, [])
    acknowledge(outbox, 1)
    after = outbox.counts()
    assert outbox.prune(15) == Pruned(3, 0, ["1.zip"])
    assert kept(outbox) == [4, 5, 6]
    assert outbox.counts() == outbox.recount() == after != before
    assert outbox.tombstones() == [
        Tombstone(0, "uploaded", "anomaly", "", 1, 2, 2, 15),
        Tombstone(0, "withheld", "normal", "not listed", 3, 3, 1, 15),
    ]
    acknowledge(outbox, 2)
    assert outbox.prune(15).rows == 0
    assert outbox.prune(21).rows == 3
    assert [(grave.first, grave.last, grave.rows) for grave in outbox.tombstones()] == [(1, 5, 4), (3, 6, 2)]
    assert outbox.counts() == outbox.recount() == Counts(6, 4, 2, 0, 0, 0)


def test_what_was_only_uploaded_stays(outbox):
    score(outbox, "aa")
    seal(outbox, [1, 2])
    outbox.uploaded(1, 5)
    assert outbox.prune(99) == Pruned(0, 0, [])
    assert kept(outbox) == [1, 2]


def test_what_was_withheld_without_a_package_goes_when_an_acknowledged_one_told_of_it(outbox):
    score(outbox, "nnna")
    outbox.dispose("withheld", {"why": [1, 2, 3]})
    seal(outbox, [4], complete=2)
    assert outbox.prune(99).rows == 0
    acknowledge(outbox, 1)
    assert outbox.prune(99).rows == 3
    assert kept(outbox) == [3]


def test_quarantined_scores_are_never_removed(outbox):
    outbox.append([blocks.plain(1), Batch(None, "r1", 1, [(2, blocks.TORN)])])
    insights.derive(outbox)
    seal(outbox, [1])
    acknowledge(outbox, 1)
    outbox.prune(99)
    outbox.expire(1_000_000, 5, "quota")
    assert kept(outbox) == [2, 3]
    assert outbox.counts() == outbox.recount() == Counts(3, 1, 0, 2, 0, 0)


def test_a_score_stays_while_feedback_on_it_waits(outbox):
    score(outbox, "aa")
    seal(outbox, [1, 2])
    outbox.add_feedback([Feedback(1, True, None, "o", 1)])
    acknowledge(outbox, 1)
    assert outbox.prune(99).packages == []
    assert kept(outbox) == [1]
    seal(outbox, [], feedback=(1,))
    assert outbox.prune(99).rows == 0, "the package with the feedback may never arrive"
    acknowledge(outbox, 2)
    assert outbox.prune(99) == Pruned(1, 1, ["1.zip", "2.zip"])
    assert kept(outbox) == []
    with pytest.raises(OutboxError, match="score 1 is no longer kept"):
        outbox.add_feedback([Feedback(1, True, None, "o", 1)])


def test_feedback_goes_when_it_is_home_and_old(outbox):
    score(outbox, "aa", at=50)
    outbox.add_feedback([Feedback(1, True, None, "o", at) for at in (10, 20, 30, 40)])
    seal(outbox, [1, 2], feedback=(1, 2))
    outbox.dispose("withheld", {"why": [3]}, table="feedback")
    acknowledge(outbox, 1)
    assert outbox.prune(15).feedback == 1
    assert outbox.prune(50).feedback == 2
    assert [item.id for item in outbox.waiting_feedback(9)] == [4]


def test_keys_go_with_the_last_score_of_their_request(outbox):
    for key in ("b", "", "c", "a"):
        outbox.append([msgspec.structs.replace(blocks.plain(2), key=key)])
    insights.derive(outbox)
    outbox.append([msgspec.structs.replace(blocks.plain(2), key="folded")])
    seal(outbox, [1, 2, 3, 4, 5])
    acknowledge(outbox, 1)
    outbox.prune(99)
    assert keys(outbox) == ["c", "a", "folded"]
    assert outbox.append([msgspec.structs.replace(blocks.plain(2), key="b")])[0].repeated is False
    assert outbox.append([msgspec.structs.replace(blocks.plain(2), key="c")])[0].repeated


def test_a_key_stays_while_a_part_of_its_request_is_folded(outbox, monkeypatch):
    monkeypatch.setattr(outboxes, "UNFOLD", 1)
    made = blocks.plain(1).blocks * 2
    outbox.append([Batch("both", "r1", 1, made)])
    outbox.unfold(1)
    outbox.classify({1: "normal"})
    assert outbox.expire(1, 5, "quota").rows == 1
    assert keys(outbox) == ["both"]
    insights.derive(outbox)
    assert outbox.expire(1, 5, "quota").rows == 1
    assert keys(outbox) == []


def test_many_keys_are_looked_at_page_by_page(outbox, monkeypatch):
    monkeypatch.setattr(retention, "KEYS", 3)
    outbox.append([msgspec.structs.replace(blocks.plain(1), key=f"key {n}") for n in range(20)])
    insights.derive(outbox)
    seal(outbox, list(range(1, 21, 2)))
    acknowledge(outbox, 1)
    outbox.prune(99)
    assert keys(outbox) == [f"key {n}" for n in range(1, 20, 2)]


def test_files_are_named_until_they_are_forgotten_and_the_last_acknowledged_stays(outbox):
    score(outbox, "aaaa")
    for sequence in (1, 2, 3, 4):
        seal(outbox, [sequence])
    acknowledge(outbox, 3)
    assert outbox.prune(99).packages == ["1.zip", "2.zip", "3.zip"]
    assert outbox.prune(99).packages == ["1.zip", "2.zip", "3.zip"]
    assert outbox.forget(["1.zip", "2.zip", "3.zip", "4.zip", "other"]) == 2
    assert outbox.prune(99).packages == ["3.zip"]
    assert outbox.acknowledge(2, "d2", 9) == 0, "an older acknowledgement of a package that was forgotten"
    assert acknowledge(outbox, 4) == 1
    assert outbox.counts() == outbox.recount() == Counts(4, 4, 0, 0, 0, 0)
    assert seal(outbox, []) == 5


def test_a_package_of_which_something_is_kept_is_not_forgotten(outbox):
    score(outbox, "a", at=1)
    score(outbox, "a", at=50)
    seal(outbox, [1, 2])
    seal(outbox, [])
    acknowledge(outbox, 2)
    assert outbox.prune(9) == Pruned(1, 0, ["2.zip"])
    assert outbox.forget(["1.zip"]) == 0


def test_a_young_package_keeps_its_file(outbox):
    seal(outbox, [], made_at=50)
    acknowledge(outbox, 1)
    assert outbox.prune(50).packages == []
    assert outbox.prune(51).packages == ["1.zip"]


# Expiry.


def test_normal_scores_expire_before_anomalies_and_the_oldest_first(outbox, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 1)
    score(outbox, "anan")
    blocks.apart(outbox)
    gone = []
    for _ in range(4):
        monkeypatch.setattr(outbox, "size", cycle([100, 90]).__next__)
        before = kept(outbox)
        assert outbox.expire(1, 5, "quota").rows == 1
        gone += sorted(set(before) - set(kept(outbox)))
    assert gone == [2, 4, 1, 3]


def test_expiry_ends_when_enough_is_free(outbox):
    score(outbox, "n" * 4_000)
    before = outbox.size()
    expired = outbox.expire(20_000, 5, "quota")
    assert before - outbox.size() == expired.bytes >= 20_000
    assert expired.rows == expired.by_kind["normal"] < 2_500
    assert kept(outbox)[0] == expired.rows + 1
    assert outbox.counts() == outbox.recount()
    assert outbox.counts().expired == expired.rows


def test_what_may_not_expire_stays_whatever_is_asked(outbox):
    """In a package, in a block, quarantined, not classified, or with feedback that waits."""
    score(outbox, "nnnn")
    seal(outbox, [1], (2,))
    outbox.add_feedback([Feedback(3, True, None, "o", 1)])
    outbox.append([blocks.plain(1), Batch(None, "r1", 1, [(1, blocks.TORN)])])
    insights.derive(outbox)
    outbox.append([blocks.plain(1)])
    outbox.unfold(1)
    outbox.append([blocks.plain(1)])
    found = outbox.expire(1_000_000_000, 5, "quota")
    assert (found.rows, found.by_kind) == (2, {"normal": 1, "anomaly": 1})
    assert kept(outbox) == [1, 2, 3, 6, 7, 8]
    assert outbox.expire(1_000_000_000, 5, "quota") == Expired(0, {}, 0)
    assert outbox.counts() == outbox.recount()


def test_what_was_sent_already_does_not_expire(outbox):
    """By kind: a queue has anomalies before normal scores."""
    score(outbox, "nanana")
    assert outbox.expire(10_000_000, 5, "quota", {"normal": 3, "anomaly": 4}).by_kind == {
        "normal": 1,
        "anomaly": 1,
    }
    assert kept(outbox) == [1, 2, 3, 4]


# At the quota.


def test_what_was_withheld_without_a_package_can_go_and_stays_counted(outbox, monkeypatch):
    monkeypatch.setattr(retention, "ROWS", 2)
    score(outbox, "nnnnnn")
    outbox.dispose("withheld", {"not listed": [1, 2, 3, 4]})
    outbox.dispose("quarantined", {"torn": [6]})
    outbox.add_feedback([Feedback(2, True, None, "o", 1)])
    assert outbox.drop_withheld(10_000_000, 7) == 3
    assert kept(outbox) == [2, 5, 6]
    assert outbox.tombstones() == [Tombstone(0, "withheld", "normal", "not listed", 1, 4, 3, 7)]
    assert outbox.counts() == outbox.recount()
    assert (outbox.counts().withheld, outbox.counts().expired) == (4, 0)


def test_what_a_package_accounts_for_is_not_dropped_before_it_is_acknowledged(outbox):
    score(outbox, "nn")
    seal(outbox, [], (1, 2))
    assert outbox.drop_withheld(10_000_000, 7) == 0


def test_no_more_is_dropped_than_asked_for(outbox):
    score(outbox, "n" * 4_000)
    outbox.dispose("withheld", {"not listed": range(1, 4_001)})
    before = outbox.size()
    dropped = outbox.drop_withheld(50_000, 7)
    assert 50_000 <= before - outbox.size() < 200_000
    assert kept(outbox)[0] == dropped + 1


@pytest.mark.parametrize("sent", [False, True])
def test_as_many_scores_may_be_packed_as_a_share_of_the_file_has_room_for(outbox, sent):
    score(outbox, "n" * 4_000)
    half = outbox.size() // 2
    assert outbox.may_be_packed(half) == pytest.approx(2_000, abs=1)
    seal(outbox, list(range(1, 1_001)), tuple(range(1_001, 1_501)))
    if sent:
        outbox.uploaded(1, 5)
    assert outbox.may_be_packed(half) == pytest.approx(500, abs=100), "what it accounts for counts, too"
    seal(outbox, list(range(1_501, 4_001)))
    assert outbox.may_be_packed(half) == 0
    assert outbox.unacknowledged() == (2, 18)
    acknowledge(outbox, 2)
    assert outbox.may_be_packed(half) == pytest.approx(2_000, abs=200)
    assert outbox.unacknowledged() == (0, 0)
    outbox.prune(99)
    assert outbox.may_be_packed(0) == 0


def test_tombstones_of_one_package_and_reason_merge(outbox, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 2)
    score(outbox, "nnnann")
    outbox.expire(10_000_000, 5, "quota")
    assert outbox.tombstones() == [
        Tombstone(1, "expired", "anomaly", "quota", 4, 4, 1, 5),
        Tombstone(1, "expired", "normal", "quota", 1, 6, 5, 5),
    ]
    score(outbox, "nn")
    outbox.expire(10_000_000, 6, "disk")
    assert outbox.expired_for(1) == {"quota": 6, "disk": 2}
    seal(outbox, [])
    assert outbox.expired_for(2) == {}
    score(outbox, "n")
    outbox.expire(10_000_000, 7, "quota")
    assert (outbox.expired_for(1), outbox.expired_for(2)) == ({"quota": 6, "disk": 2}, {"quota": 1})


def test_a_wrong_tally_and_a_wrong_tombstone_are_caught(outbox):
    score(outbox, "nnnn")
    outbox.expire(1, 5, "quota")
    for statement in (
        "UPDATE tally SET rows = rows - 1 WHERE state = 'expired'",
        "UPDATE tombstones SET rows = rows + 1",
        "DELETE FROM tombstones",
    ):
        with pytest.raises(AssertionError):
            outbox._db.execute("BEGIN")
            try:
                outbox._db.execute(statement)
                assert outbox.counts() == outbox.recount()
            finally:
                outbox._db.execute("ROLLBACK")
    outbox._db.execute("UPDATE tally SET rows = rows - 1 WHERE state = 'expired'")
    assert not outbox.counts().conserved


def test_the_file_is_bounded_by_its_quota_while_scores_expire(tmp_path, batch):
    """Pages that expiry frees are used again: the file is as large as the quota and what came between."""
    quota, made = 400_000, batch(200)
    with Outbox(tmp_path / "o.db") as outbox:
        largest = 0
        for _ in range(60):
            outbox.append([made])
            insights.derive(outbox)
            if (over := outbox.size() - quota) > 0:
                outbox.expire(over, 5, "quota")
            outbox._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            largest = max(largest, (tmp_path / "o.db").stat().st_size)
        counts = outbox.counts()
        assert counts == outbox.recount() and counts.conserved
        assert counts.expired > counts.scored / 2
    assert quota < largest < quota + 150_000


# Killed.


class Killed(BaseException):
    pass


@pytest.mark.parametrize("transactions", range(12))
@pytest.mark.parametrize("what", ["acknowledge", "prune", "expire"])
def test_it_may_be_killed_between_any_two_transactions(outbox, monkeypatch, what, transactions):
    monkeypatch.setattr(store, "CHUNK", 2)
    outbox.append([msgspec.structs.replace(blocks.plain(3), key=f"{n}") for n in range(3)])
    insights.derive(outbox)
    seal(outbox, [1, 2, 3], (4,))
    seal(outbox, [5])
    if what == "prune":
        acknowledge(outbox, 1)
    work = {
        "acknowledge": lambda: acknowledge(outbox, 2),
        "prune": lambda: outbox.prune(99),
        "expire": lambda: outbox.expire(10_000_000, 5, "quota"),
    }[what]
    whole, left = outbox._transaction, [transactions]

    def dying(**how: bool) -> Any:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return whole(**how)

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "_transaction", dying)
        try:
            work()
        except Killed:
            assert transactions < 9
    assert outbox.counts() == outbox.recount() and outbox.counts().conserved
    work()
    expected = {
        "acknowledge": Counts(9, 4, 1, 0, 0, 4),
        "prune": Counts(9, 3, 1, 0, 0, 5),
        "expire": Counts(9, 0, 1, 0, 4, 4),
    }
    assert outbox.counts() == outbox.recount() == expected[what]
    score(outbox, "a")
    if what == "prune":
        outbox.dispose("withheld", {"why": [10]})
        seal(outbox, [6])
        acknowledge(outbox, 3)
        outbox.prune(99)
        assert keys(outbox) == ["2"], "keys that a kill left go with the next rows"


def test_a_chunk_bounds_what_one_transaction_removes(outbox, monkeypatch):
    """Each holds the write lock while scores wait."""
    monkeypatch.setattr(store, "CHUNK", 5)
    score(outbox, "a" * 12 + "n" * 12)
    seal(outbox, list(range(1, 13)))
    acknowledge(outbox, 1)
    blocks.apart(outbox)
    moved = []
    whole = outbox._transaction

    def counted(**how: bool) -> Any:
        moved.append(outbox._db.total_changes)
        return whole(**how)

    monkeypatch.setattr(outbox, "_transaction", counted)
    outbox.prune(99)
    assert len(moved) == 3
    outbox.expire(10_000_000, 5, "quota")
    assert len(moved) == 3 + 4 + 1


# Dead letters.


def test_dead_letters_are_listed_with_their_reason(outbox):
    outbox.append([blocks.plain(1), Batch(None, "r1", 1, [(2, blocks.TORN)]), blocks.plain(1)])
    insights.derive(outbox)
    outbox.dispose("quarantined", {"a reason": [4]})
    assert [(row.sequence, row.reason) for row in outbox.dead_letters(9, after=3)] == [(4, "a reason")]
    assert sequences(outbox.dead_letters(2)) == [2, 3]
    assert "could not be read" in str(outbox.dead_letters(1)[0].reason)


def test_a_newer_version_gives_records_it_knows_another_try(outbox, monkeypatch):
    """Record schema 2, as a later version might write it: quarantined here, read there."""
    score(outbox, "aa")
    blocks.apart(outbox)
    outbox._db.execute("UPDATE scores SET kind = NULL, schema = 2, record = ?", (b'{"values":{"Flow":7}}',))
    insights.derive(outbox)
    assert outbox.counts().quarantined == 2
    with pytest.raises(OutboxError, match="record schema 2 is not known"):
        outbox.requeue(2)

    class Second(msgspec.Struct):
        values: dict[str, schema.Value]

    def upcast(data: bytes) -> Record:
        return Record(msgspec.json.decode(data, type=Second).values)

    monkeypatch.setitem(schema.DECODERS, 2, upcast)
    assert outbox.requeue(2) == 2
    assert outbox.counts() == outbox.recount() == Counts(2, 0, 0, 0, 0, 2)
    assert insights.derive(outbox) == {"anomaly": 2}
    assert schema.decode(outbox.rows(1, 1)[0]) == Record({"Flow": 7})
    assert (outbox.dead_letters(9), outbox.requeue(2)) == ([], 0)


def test_a_record_that_still_cannot_be_read_is_quarantined_again(outbox):
    score(outbox, "aa")
    blocks.apart(outbox)
    outbox._db.execute("UPDATE scores SET kind = NULL, record = x'00' WHERE sequence = 1")
    insights.derive(outbox)
    assert outbox.requeue(1) == 1
    assert insights.derive(outbox) == {"quarantined": 1}


def test_a_newer_version_reads_blocks_that_this_one_could_not(outbox, monkeypatch):
    """Blocks of schema 9 between others, one of them torn: their rows get what the block holds, once each."""
    outbox.append([blocks.plain(2), blocks.plain(3, score=0.7), blocks.plain(2, score=0.5)])
    outbox.append([Batch(None, "r1", 1, [(2, blocks.TORN)]), blocks.plain(1), blocks.plain(2, score=0.3)])
    outbox._db.execute("UPDATE journal SET schema = 9 WHERE first IN (3, 6, 8, 11)")
    insights.derive(outbox)
    assert sequences(outbox.dead_letters(99)) == [3, 4, 5, 6, 7, 8, 9, 11, 12]
    assert {row.schema for row in outbox.dead_letters(99)} == {-9}
    with pytest.raises(OutboxError, match="block schema 9 is not known"):
        outbox.requeue(-9)
    monkeypatch.setattr(deadletters, "BLOCK_SCHEMA", 9)
    monkeypatch.setattr(journal, "BLOCK_SCHEMA", 9)
    assert outbox.requeue(-9) == 7
    rows = outbox.rows(1, 12)
    assert [row.score for row in rows[2:7]] == [0.7] * 3 + [0.5] * 2
    assert [row.score for row in rows[10:]] == [0.3] * 2
    assert all(schema.decode(row) == Record({}) for row in rows[:7])
    assert sequences(outbox.dead_letters(99)) == [8, 9]
    assert outbox.counts() == outbox.recount() == Counts(12, 0, 0, 2, 0, 10)
    assert insights.derive(outbox) == {"anomaly": 7}
    assert outbox.requeue(-9) == 0


# Any order.

ROUNDS = st.lists(
    st.tuples(
        st.sampled_from(["score", "seal", "acknowledge", "prune", "expire", "feedback", "forget"]),
        st.integers(1, 9),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(ROUNDS, st.integers(1, 5))
def test_whatever_is_done_in_any_order_is_counted(tmp_path_factory, rounds, chunk):
    path = tmp_path_factory.mktemp("rounds") / "o.db"
    with pytest.MonkeyPatch.context() as patch, Outbox(path) as outbox:
        patch.setattr(store, "CHUNK", chunk)
        for module in (outboxes, store):
            patch.setattr(module, "PAUSE_SECONDS", 0)
        packed: set[int] = set()
        for step, value in rounds:
            _round(outbox, packed, step, value)
            counts, tally = outbox.counts(), outbox.tally()
            assert counts == outbox.recount() and counts.conserved
            assert tally.packed == len(packed)
            assert tally.scored == sum(msgspec.structs.astuple(tally)) - tally.scored
            assert tally.waiting == len(outbox.waiting(999))
            gone = counts.scored - len(kept(outbox))
            assert gone == sum(grave.rows for grave in outbox.tombstones())
            pending = outbox._db.execute("SELECT sequence FROM feedback WHERE disposition IS NULL").fetchall()
            assert {sequence for (sequence,) in pending} <= set(kept(outbox))


def _round(outbox: Outbox, packed: set[int], step: str, value: int) -> None:
    last = outbox.last_package()
    if step == "score":
        score(outbox, "an" * value, at=value)
    elif step == "seal":
        rows = sequences(outbox.waiting(value))
        words = tuple(item.id for item in outbox.waiting_feedback(value))
        seal(outbox, rows[1:], tuple(rows[:1]), words, made_at=value)
        packed.update(rows[1:])
    elif step == "acknowledge" and last:
        number = min(value, last.number)
        outbox.acknowledge(number, f"d{number}", 5)
    elif step == "prune":
        outbox.prune(value)
    elif step == "forget":
        outbox.forget(outbox.prune(value).packages)
    elif step == "expire":
        outbox.expire(value * 500, 5, "quota")
    elif step == "feedback":
        for sequence in kept(outbox)[:value]:
            outbox.add_feedback([Feedback(sequence, True, None, "o", value)])


def test_no_query_of_retention_walks_over_what_stays(outbox):
    """Counted in steps of SQLite's machine: a walk over 20,000 scores would take at least as many."""
    outbox.append([blocks.plain(1_000, predicted=n % 2 == 0) for n in range(20)])
    insights.derive(outbox)
    seal(outbox, list(range(1, 6)))
    acknowledge(outbox, 1)
    steps: list[None] = []
    outbox._db.set_progress_handler(lambda: steps.append(None), 100)
    for ask in (
        lambda: outbox.prune(99),
        lambda: outbox.waiting(5),
        lambda: outbox.waiting(5, ["normal"]),
        lambda: outbox.complete_through(),
        lambda: outbox.tally(),
        lambda: outbox.dead_letters(5),
        lambda: outbox.unsent(),
    ):
        steps.clear()
        ask()
        assert len(steps) < 100, "a page"
