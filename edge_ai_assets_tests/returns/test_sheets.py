"""Sheets: what stands in them is what was scored, as rows and as columns, and they go with the last of it."""

from __future__ import annotations

from collections import defaultdict

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.egress import rules
from edge_ai_assets.returns.outbox import columns, insights, sheets
from edge_ai_assets.returns.outbox import outbox as outboxes
from edge_ai_assets.returns.outbox.columns import Columns
from edge_ai_assets.returns.outbox.outbox import Feedback, Outbox, PackageRow
from edge_ai_assets.returns.outbox.schema import KINDS, Counts
from edge_ai_assets_tests import blocks

RECORDS = st.fixed_dictionaries(
    {
        "inputs": st.dictionaries(
            st.sampled_from(["Flow", "Pressure [bar]", "Type"]),
            st.one_of(st.floats(-1e9, 1e9), st.text(max_size=3)),
        ),
        "context": st.dictionaries(st.sampled_from(["_time", "_run"]), st.text(max_size=3)),
    }
)
SCORED = st.tuples(RECORDS, st.floats(0, 1), st.booleans(), st.booleans())


def in_sheets(outbox: Outbox) -> list[tuple[int, int, int]]:
    return list(outbox._db.execute("SELECT first, last, rows FROM sheets ORDER BY first"))


def by_sequence(parts: list[Columns]) -> dict[int, tuple[object, ...]]:
    """All that stands in columns, score by score."""
    found: dict[int, tuple[object, ...]] = {}
    for part in parts:
        numbers = (part.times, part.scores, part.predicted, part.outside)
        own = zip(*(column.tolist() for column in numbers), part.time, part.run, strict=True)
        inputs = [dict.fromkeys(part.inputs)] * len(part)
        if part.inputs:
            values = zip(*map(rules.listed, part.inputs.values()), strict=True)
            inputs = [dict(zip(part.inputs, one, strict=True)) for one in values]
        for sequence, one, of in zip(part.sequences.tolist(), own, inputs, strict=True):
            assert sequence not in found
            found[sequence] = part.release, part.kind, *one, dict(sorted(of.items()))
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scored=st.lists(SCORED, min_size=1, max_size=30),
    cuts=st.integers(1, 7),
    unfold=st.integers(1, 40),
    most=st.integers(1, 9),
)
def test_what_is_unfolded_is_what_was_scored(tmp_path_factory, scored, cuts, unfold, most):
    """Whatever stood together in blocks, and whatever stands together in sheets: as rows and as columns."""
    with pytest.MonkeyPatch.context() as patch, Outbox(tmp_path_factory.mktemp("sheets") / "o.db") as outbox:
        patch.setattr(outboxes, "UNFOLD", unfold)
        patch.setattr(sheets, "MAX_ROWS", most)
        for start in range(0, len(scored), cuts):
            records, scores, yes, beyond = zip(*scored[start : start + cuts], strict=True)
            encoded = [msgspec.json.encode(record) for record in records]
            release = f"r{start % 2}"
            outbox.append([blocks.batch(encoded, scores, yes, beyond, release=release, at=start)])
        before = outbox.rows(1, len(scored))
        insights.derive(outbox)
        after = outbox.rows(1, len(scored))
        assert [msgspec.structs.replace(row, kind=None) for row in after] == before
        assert all(rows <= most for _, _, rows in in_sheets(outbox))
        broken: defaultdict[str, list[int]] = defaultdict(list)
        parts = [part for kind in KINDS for part in outbox.parts(kind)]
        found = by_sequence(list(columns.of_parts(parts, broken)))
        assert found == by_sequence(list(columns.of_rows(after, broken)))
        assert sorted(found) == [row.sequence for row in after] and not broken


def test_scores_of_one_release_and_kind_stand_together(outbox, batch):
    """However many commits they came in."""
    outbox.append([batch(1) for _ in range(10)] + [batch(4, release="other")])
    insights.derive(outbox)
    held = outbox._db.execute("SELECT kind, release, rows FROM lots")
    assert sorted(held) == [("anomaly", "other", 2), ("anomaly", "r1", 10), ("normal", "other", 2)]


def test_only_those_of_a_sheet_that_still_wait_are_columns(outbox, batch, monkeypatch):
    """A sheet may be read in two parts."""
    outbox.append([batch(20)])
    insights.derive(outbox)
    outbox.dispose("withheld", {"why": [3, 5]})
    monkeypatch.setattr("edge_ai_assets.returns.outbox.kept.PAGE", 3)
    parts = list(outbox.parts("anomaly"))
    assert [part.sequences for part in parts] == [[1, 7, 9], [11, 13, 15], [17, 19]]
    (found,) = columns.of_parts(parts, defaultdict(list))
    assert found.sequences.tolist() == [1, 7, 9, 11, 13, 15, 17, 19]


def test_a_damaged_sheet_says_so_and_its_rows_are_still_there(outbox, batch):
    outbox.append([batch(4)])
    insights.derive(outbox)
    outbox._db.execute("UPDATE sheets SET sheet = x'00' WHERE first = 1")
    broken: defaultdict[str, list[int]] = defaultdict(list)
    parts = [part for kind in KINDS for part in outbox.parts(kind)]
    (found,) = columns.of_parts(parts, broken)
    assert found.sequences.tolist() == [2, 4]
    ((reason, lost),) = broken.items()
    assert lost == [1, 3] and reason.startswith("unreadable sheet")
    assert [row.record == b"" for row in outbox.rows(1, 4)] == [True, False, True, False]


def test_a_sheet_that_has_not_all_of_its_scores_is_damaged(outbox, batch):
    """Else those that it has not would wait for ever."""
    outbox.append([batch(4)])
    insights.derive(outbox)
    (other,) = outbox._db.execute("SELECT sheet FROM sheets WHERE first = 2").fetchone()
    outbox._db.execute("UPDATE sheets SET sheet = ? WHERE first = 1", (other,))
    broken: defaultdict[str, list[int]] = defaultdict(list)
    parts = [part for kind in KINDS for part in outbox.parts(kind)]
    (found,) = columns.of_parts(parts, broken)
    assert found.sequences.tolist() == [2, 4]
    assert broken == {"unreadable sheet: it has not all of its scores": [1, 3]}
    assert [row.record == b"" for row in outbox.rows(1, 4)] == [True, False, True, False]


def test_sheets_that_take_turns_are_read_once(outbox, monkeypatch):
    """Rows of two releases, say, that score side by side: a sheet for each row would fill the memory."""
    outbox.append([blocks.plain(release=f"r{number % 2}") for number in range(20)])
    insights.derive(outbox)
    blocks.apart(outbox)
    opened: list[bytes] = []
    whole = sheets.opened
    monkeypatch.setattr(sheets, "opened", lambda data: (opened.append(data), whole(data))[1])
    parts = list(outbox.parts("anomaly"))
    assert [part.sequences for part in parts] == [[number] for number in range(1, 21)]
    assert len({id(part.sheet) for part in parts}) == 2
    found = list(columns.of_parts(parts, defaultdict(list)))
    assert [part.sequences.tolist() for part in found] == [[*range(1, 21, 2)], [*range(2, 21, 2)]]
    assert len(opened) == 2


@pytest.mark.parametrize(
    "parts", [{"times": b""}, {"sequences": bytes(9)}, {"scores": b""}, {"flags": b"\0"}]
)
def test_a_sheet_must_have_all_of_each_row(parts):
    whole = sheets.Sheet((), b"", {}, bytes(16), bytes(2), {}, bytes(16), bytes(16))
    assert sheets.sequences(sheets.opened(sheets.encode(whole))) == (0, 0)
    with pytest.raises(ValueError, match="unreadable"):
        sheets.opened(sheets.encode(msgspec.structs.replace(whole, **parts)))


def test_a_sheet_goes_with_the_last_of_its_scores(outbox, batch, monkeypatch):
    monkeypatch.setattr(sheets, "MAX_ROWS", 4)
    monkeypatch.setattr("edge_ai_assets.returns.outbox.retention.ROWS", 2)
    outbox.append([batch(12)])
    insights.derive(outbox)
    outbox.add_feedback([Feedback(4, True, None, "operator", 5)])
    assert in_sheets(outbox) == [(1, 7, 4), (2, 8, 4), (9, 11, 2), (10, 12, 2)]
    assert outbox.expire(1 << 20, 5, "quota").by_kind == {"normal": 5, "anomaly": 6}
    assert in_sheets(outbox) == [(2, 8, 4)], "feedback on the 4th waits"
    assert [row.sequence for row in outbox.rows(1, 12) if row.record] == [4]


def test_a_score_is_uploaded_with_its_package(outbox, batch):
    """Nothing is written to its row, and its state is the same wherever it is asked for."""
    outbox.append([batch(4)])
    insights.derive(outbox)
    outbox.seal(PackageRow(1, "1.zip", "one", "", 2, 0, 9, 1), [1, 2], [], {"no": [3]}, {})
    before = outbox._db.execute("SELECT * FROM scores").fetchall()
    assert outbox.counts() == outbox.recount() == Counts(4, 0, 1, 0, 0, 3)
    outbox.uploaded(1, 5)
    outbox.uploaded(1, 6)
    assert outbox._db.execute("SELECT * FROM scores").fetchall() == before
    assert [row.disposition for row in outbox.rows(1, 4)] == ["uploaded", "uploaded", "withheld", None]
    assert outbox.packages()[0].uploaded_at == 5
    assert outbox.counts() == outbox.recount() == Counts(4, 2, 1, 0, 0, 1)
    outbox._db.execute("DELETE FROM scores WHERE sequence = 1")
    outbox.acknowledge(1, "one", 7)
    assert outbox.prune(1 << 60).rows == 2 and in_sheets(outbox) == [(2, 4, 2)]
    assert outbox.counts().uploaded == 1 and not outbox.counts().conserved, "who deletes by hand is found out"


def test_the_oldest_score_that_is_not_sent_is_found_behind_a_package_without_scores(outbox, batch):
    """As one of lineage alone; and packages may be sent in any order."""
    for at in (5, 3, 7):
        outbox.append([blocks.plain(at=at)])
    insights.derive(outbox)
    for number, sequences in enumerate(([], [1], [2], [3]), 1):
        package = PackageRow(number, f"{number}.zip", "", "", len(sequences), 0, 9, 1)
        outbox.seal(package, sequences, [], {}, {})
    for number, oldest in ((None, 3), (4, 3), (3, 5), (2, None), (1, None)):
        if number:
            outbox.uploaded(number, 9)
        assert outbox.oldest_pending() == oldest
