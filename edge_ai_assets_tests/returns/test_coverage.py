"""What the lines of a ledger amount to, and that a ledger that was cut off at its end is found out."""

from __future__ import annotations

import random
import tracemalloc
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.egress import ledger as ledgers
from edge_ai_assets.returns.egress.coverage import Checked, Coverage, check
from edge_ai_assets.returns.egress.ledger import Entry, Ledger, LedgerError, entries, of_package, verify
from edge_ai_assets.returns.outbox.outbox import PackageRow
from edge_ai_assets_tests.parcels import seal

DIGEST = "d" * 64


def entry(first, last, package="a.zip", digest=DIGEST, time=0, destination="file:///azure", policy="p"):
    return Entry(time, package, digest, first, last, policy, destination)


def written(folder, lines):
    """A ledger with these lines, chained as `append` does, but in one go."""
    previous = ""
    with (folder / "ledger.jsonl").open("wb") as file:
        for line in lines:
            chained = line.chained(previous)
            previous = chained.hash
            file.write(msgspec.json.encode(chained) + b"\n")
    return folder / "ledger.jsonl"


def row(name="a.zip", size=10, digest=DIGEST, uploaded=5, exported=None):
    return PackageRow(1, name, digest, "", 0, 0, size, 1, uploaded, exported_at=exported)


def test_lines_written_in_one_go_are_as_those_of_append(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    lines = [entry(0, 5), entry(5, 9), entry(0, 3, "b.zip")]
    for line in lines:
        Ledger(tmp_path / "a/ledger.jsonl").append(line)
    assert written(tmp_path / "b", lines).read_bytes() == (tmp_path / "a/ledger.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("ranges", "covered", "total"),
    [
        ([(0, 10)], 10, 10),
        ([(0, 4), (4, 10)], 10, 10),
        ([(0, 4), (0, 4), (4, 10)], 10, 14),
        ([(4, 10), (0, 4)], 10, 10),
        ([(0, 4), (5, 10)], 4, 9),
        ([(1, 10)], 0, 9),
        ([(0, 8), (2, 4), (8, 10)], 10, 12),
    ],
)
def test_a_package_is_covered_as_far_as_its_bytes_left_without_a_gap(tmp_path, ranges, covered, total):
    path = written(tmp_path, [entry(first, last, time=number) for number, (first, last) in enumerate(ranges)])
    with Coverage(path) as coverage:
        left = coverage.of("a.zip", DIGEST)
        assert (left.covered, left.bytes, left.lines) == (covered, total, len(ranges))
        assert (left.began, left.ended) == (0, len(ranges) - 1)
        assert [each.name for each in coverage.missing([row()])] == (["a.zip"] if covered < 10 else [])


def test_another_file_of_the_same_name_covers_nothing(tmp_path):
    with Coverage(written(tmp_path, [entry(0, 10, digest="e" * 64)])) as coverage:
        assert coverage.of("a.zip", DIGEST) is None
        assert len(list(coverage.missing([row()]))) == 1


@pytest.mark.parametrize(
    ("uploaded", "exported", "missing"), [(None, None, 0), (5, None, 1), (None, 5, 1), (5, 5, 1)]
)
def test_only_what_counts_as_sent_must_be_in_it(tmp_path, uploaded, exported, missing):
    with Coverage(tmp_path / "ledger.jsonl") as coverage:
        assert (coverage.lines, coverage.packages) == (0, 0)
        assert len(list(coverage.missing([row(uploaded=uploaded, exported=exported)]))) == missing


def test_several_roads_are_told_apart_and_added_up(tmp_path):
    lines = [entry(0, 6), entry(0, 6, destination="media:x"), entry(6, 10, destination="media:x")]
    with Coverage(written(tmp_path, lines)) as coverage:
        left = coverage.of("a.zip", DIGEST)
        assert left.destinations == ["file:///azure", "media:x"]
        assert (left.covered, left.bytes, coverage.lines, coverage.packages) == (10, 16, 3, 1)


@pytest.mark.parametrize(
    ("destinations", "uploaded", "exported", "missing"),
    [
        (["file:///azure"], 5, None, 0),
        (["file:///azure", "media:x"], 5, 5, 0),
        (["file:///azure"], 5, 5, 1),
        (["media:x"], 5, 5, 0),
        (["media:x"], 5, None, 0),
    ],
)
def test_what_was_put_on_a_medium_has_lines_of_one(tmp_path, destinations, uploaded, exported, missing):
    """The other way round it need not: what came home on a medium counts as uploaded when that is told."""
    with Coverage(written(tmp_path, [entry(0, 10, destination=to) for to in destinations])) as coverage:
        assert len(list(coverage.missing([row(uploaded=uploaded, exported=exported)]))) == missing


def test_the_newest_come_first(tmp_path):
    lines = [entry(0, 1, f"{number}.zip") for number in range(5)] + [entry(1, 2, "2.zip")]
    with Coverage(written(tmp_path, lines)) as coverage:
        assert [left.package for left in coverage.newest(3)] == ["2.zip", "4.zip", "3.zip"]


def test_lines_cut_off_at_the_end_leave_a_whole_chain_but_no_cover(tmp_path):
    path = written(tmp_path, [entry(0, 10, f"{number}.zip", time=number) for number in range(4)])
    rows = [row(f"{number}.zip") for number in range(4)]
    whole = path.read_bytes().splitlines(keepends=True)
    for kept in range(4, -1, -1):
        path.write_bytes(b"".join(whole[:kept]))
        assert verify(path) == kept
        with Coverage(path) as coverage:
            assert [each.name for each in coverage.missing(rows)] == [f"{n}.zip" for n in range(kept, 4)]


def test_a_broken_chain_is_no_coverage(tmp_path):
    path = written(tmp_path, [entry(0, 10), entry(0, 10, "b.zip")])
    path.write_bytes(path.read_bytes().replace(b"b.zip", b"c.zip"))
    with pytest.raises(LedgerError, match="jsonl:2: the entry was changed"):
        Coverage(path)
    with Coverage(path, as_far=True) as coverage:
        assert [left.package for left in coverage.newest(9)] == ["a.zip"]
        assert "jsonl:2: the entry was changed" in str(coverage.error)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 12), st.sampled_from("xy"))),
    st.integers(1, 40),
)
def test_it_is_the_same_as_counting_every_byte(tmp_path_factory, ranges, size):
    lines = [
        entry(first, first + length, f"{package}.zip", destination=to)
        for package, first, length, to in ranges
    ]
    left: dict[str, set[int]] = {}
    for line in lines:
        left.setdefault(line.package, set()).update(range(line.first, line.last))
    with Coverage(written(tmp_path_factory.mktemp("ledger"), lines)) as coverage:
        assert (coverage.lines, coverage.packages) == (len(lines), len(left))
        for package in range(3):
            name = f"{package}.zip"
            missing = set(range(size)) - left.get(name, set())
            assert bool(list(coverage.missing([row(name, size)]))) == bool(missing)
            found = coverage.of(name, DIGEST)
            assert (found is None) == (name not in left)
            if found:
                assert found.bytes == sum(line.last - line.first for line in lines if line.package == name)


def test_memory_does_not_grow_with_the_ledger(tmp_path):
    peaks = []
    for packages in (500, 20_000):
        path = written(tmp_path, (entry(0, 10, f"{number}.zip") for number in range(packages)))
        tracemalloc.start()
        with Coverage(path) as coverage:
            assert coverage.packages == packages
            assert list(coverage.missing(row(f"{number}.zip") for number in range(packages))) == []
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000


def test_a_ledger_is_checked_against_its_outbox(tmp_path, outbox):
    rows = seal(outbox, tmp_path / "spool", "bergen", [10] * 30)
    path = written(
        tmp_path, [entry(0, row.bytes, row.name, row.digest, destination="media:x") for row in rows[:5]]
    )
    assert check(path, None) == check(path, outbox) == Checked(5, 5, 0, [])  # nothing counts as sent yet
    for row in rows:
        outbox.exported(row.number, 9)
    assert check(path, outbox) == Checked(5, 5, 25, [row.name for row in rows[5:25]])


def test_what_leaves_while_it_is_checked_is_no_suspect(tmp_path, outbox, monkeypatch):
    (row,) = seal(outbox, tmp_path / "spool", "bergen", [10])
    path = tmp_path / "ledger.jsonl"
    whole = outbox.packages

    def leaving(*arguments):
        if not path.exists():
            Ledger(path).append(entry(0, row.bytes, row.name, row.digest))
            outbox.uploaded(1, 9)
        return whole(*arguments)

    monkeypatch.setattr(outbox, "packages", leaving)
    assert check(path, outbox).uncovered == 0
    path.write_bytes(b"")
    assert check(path, outbox).uncovered == 1


# The lines of one package.


def test_the_lines_of_a_package_are_found_among_those_of_others(tmp_path):
    chance = random.Random(4)
    lines = [entry(n, n + 1, chance.choice(["a.zip", "b.zip", "aa.zip"]), time=n) for n in range(200)]
    path = written(tmp_path, lines)
    for name in ("a.zip", "b.zip", "aa.zip", "none.zip", ".zip", '"'):
        expected = [line.time for line in lines if line.package == name]
        assert [line.time for line in of_package(path, name)] == expected
    assert list(of_package(tmp_path / "none", "a.zip")) == []


def test_a_name_in_another_field_is_no_line_of_that_package(tmp_path):
    path = written(tmp_path, [entry(0, 1, destination='media:"package":"b.zip",')])
    assert list(of_package(path, "b.zip")) == []


def test_a_changed_line_of_a_package_is_found_and_one_cut_short_is_none(tmp_path):
    path = written(tmp_path, [entry(0, 5), entry(5, 9)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert [line.first for line in of_package(path, "a.zip")] == [0]
    path.write_bytes(whole.replace(b'"last":9', b'"last":8'))
    with pytest.raises(LedgerError, match="jsonl:2: the entry was changed"):
        list(of_package(path, "a.zip"))


def test_entries_are_a_chain(tmp_path):
    lines = list(entries(written(tmp_path, [entry(n, n + 1) for n in range(9)])))
    assert all(after.previous == before.hash for before, after in pairwise(lines))
    assert list(entries(tmp_path / "none")) == []
    assert ledgers.verify(tmp_path / "none") == 0
