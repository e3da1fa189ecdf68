"""What is derived from what came home: by day, where something came; by release, by people's last word."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.inbox import daily, judged, tables
from edge_ai_assets.returns.inbox.daily import Refreshed, refresh

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ROW = st.tuples(
    st.integers(0, 4), st.sampled_from("ab"), st.sampled_from(["r1", "r2"]), st.booleans(), st.floats(0, 1)
)
BATCHES = st.lists(st.lists(ROW, max_size=5), min_size=1, max_size=4)


def add(folder, name, rows):
    schema = tables.schemas()[name]
    empty = dict.fromkeys(schema.names)
    tables.merge(folder, name, pa.Table.from_pylist([{**empty, **row} for row in rows], schema))


def add_insights(folder, rows, first=0):
    add(
        folder,
        "insights",
        [
            {
                "site": site,
                "sequence": first + number,
                "package": 1,
                "day": date(2026, 1, 1) + timedelta(day),
                "scored_at": EPOCH + timedelta(day),
                "release": release,
                "kind": "anomaly" if anomaly else "normal",
                "score": score,
                "fields": "{}",
            }
            for number, (day, site, release, anomaly, score) in enumerate(rows)
        ],
    )


def content(folder):
    """The daily table, by its key; mean scores rounded, since sums come in any order."""
    return {
        (row["day"], row["site"], row["release"]): (
            row["insights"],
            row["anomalies"],
            round(row["mean_score"], 9),
        )
        for row in tables.rows(folder, daily.NAME)
    }


def test_before_anything_came_there_is_nothing(tmp_path):
    assert refresh(tmp_path) == Refreshed(0, 0, 0, 0, 0, {})
    assert not (tmp_path / daily.NAME).exists()


@given(BATCHES)
@settings(max_examples=6, deadline=None)
def test_batch_by_batch_is_as_all_at_once_and_only_touched_days_are_computed(tmp_path_factory, batches):
    step, once = tmp_path_factory.mktemp("step"), tmp_path_factory.mktemp("once")
    first, done = 0, None
    for batch in batches:
        add_insights(step, batch, first)
        first += len(batch)
        done = refresh(step)
        assert done.days_computed == len({day for day, *_ in batch})
        assert refresh(step).days_computed == 0
    everything = [row for batch in batches for row in batch]
    add_insights(once, list(reversed(everything)))
    whole = refresh(once)
    if everything:
        assert content(step) == content(once)
        expected = Counter((date(2026, 1, 1) + timedelta(d), s, r) for d, s, r, *_ in everything)
        assert {key: row[0] for key, row in content(step).items()} == expected
    assert (done.rows, done.insights, done.anomalies, done.days, done.by_site) == (
        *(whole.rows, len(everything), sum(row[3] for row in everything)),
        *(len({row[0] for row in everything}), Counter(row[1] for row in everything)),
    )


def test_killed_before_the_refresh_the_next_one_makes_up_for_it(tmp_path, monkeypatch):
    add_insights(tmp_path, [(0, "a", "r1", True, 0.9)])
    refresh(tmp_path)
    add_insights(tmp_path, [(1, "a", "r1", True, 0.9)], first=1)
    add_insights(tmp_path, [(1, "a", "r1", True, 0.9), (2, "a", "r1", False, 0.1)], first=2)
    assert refresh(tmp_path).days_computed == 2 and len(content(tmp_path)) == 3


def test_days_that_are_not_touched_are_not_written_again(tmp_path, monkeypatch):
    add_insights(tmp_path, [(0, "a", "r1", True, 0.9), (1, "a", "r1", True, 0.9)])
    refresh(tmp_path)
    add_insights(tmp_path, [(1, "b", "r1", True, 0.5)], first=9)
    import deltalake

    written = []
    monkeypatch.setattr(deltalake, "write_deltalake", lambda _, rows, **how: written.append((rows, how)))
    refresh(tmp_path)
    ((rows, how),) = written
    assert set(rows["day"].to_pylist()) == {date(2026, 1, 2)} and rows.num_rows == 2
    assert how == {"mode": "overwrite", "predicate": "day IN ('2026-01-02')", "schema_mode": "merge"}


def test_only_rows_of_stale_days_are_read_whole(tmp_path, monkeypatch):
    add_insights(tmp_path, [(0, "a", "r1", True, 0.9), (1, "a", "r1", True, 0.9)])
    refresh(tmp_path)
    add_insights(tmp_path, [(1, "b", "r1", True, 0.5)], first=9)
    from deltalake import DeltaTable

    read, whole = [], DeltaTable.to_pyarrow_table

    def watched(self, *args, **options):
        found = whole(self, *args, **options)
        read.append(found)
        return found

    monkeypatch.setattr(DeltaTable, "to_pyarrow_table", watched)
    done = refresh(tmp_path)
    scores = [table for table in read if "score" in table.column_names]
    assert {day for table in scores for day in table["day"].to_pylist()} == {date(2026, 1, 2)}
    assert (done.rows, done.insights, done.by_site) == (3, 3, {"a": 2, "b": 1})


def aggregate(day, rows, anomalies, site="a", release="r1", package=1, hour=0):
    window = EPOCH + timedelta(day, hours=hour)
    return {
        "site": site,
        "package": package,
        "day": window.date(),
        "release": release,
        "window": window,
        "rows": rows,
        "anomalies": anomalies,
    }


def scored(folder):
    return {
        (row["day"].day, row["site"], row["release"]): (
            row["insights"],
            row["scored"],
            row["anomalies_share"],
        )
        for row in tables.rows(folder, daily.NAME)
    }


def test_what_was_scored_comes_from_aggregates_where_they_leave(tmp_path):
    add_insights(tmp_path, [(0, "a", "r1", True, 0.9), (0, "b", "r1", True, 0.9)])
    assert refresh(tmp_path).days_computed == 1
    assert scored(tmp_path) == {(1, "a", "r1"): (1, None, None), (1, "b", "r1"): (1, None, None)}
    add(tmp_path, "aggregates", [aggregate(0, 60, 3), aggregate(0, 40, 1, hour=1), aggregate(2, 10, None)])
    done = refresh(tmp_path)
    assert (done.days_computed, done.rows, done.insights, done.days) == (2, 3, 2, 2)
    assert scored(tmp_path) == {
        (1, "a", "r1"): (1, 100, 0.04),
        (1, "b", "r1"): (1, None, None),
        (3, "a", "r1"): (0, 10, None),
    }
    assert refresh(tmp_path).days_computed == 0
    add(
        tmp_path, "aggregates", [aggregate(0, 100, None, package=2)]
    )  # late, and the policy keeps anomalies now
    assert refresh(tmp_path).days_computed == 1
    assert scored(tmp_path)[1, "a", "r1"] == (1, 200, None)


DAYS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.integers(1, 50)), max_size=4)


@given(st.lists(DAYS, min_size=1, max_size=3), st.permutations(range(3)))
@settings(max_examples=6, deadline=None)
def test_late_aggregates_touch_their_days_only(tmp_path_factory, batches, order):
    """The packages' numbers say nothing of when they come: another site's come between."""
    step, once = tmp_path_factory.mktemp("step"), tmp_path_factory.mktemp("once")
    packages = [
        [
            aggregate(day, rows, 0, site, package=number, hour=place)
            for place, (day, site, rows) in enumerate(batch)
        ]
        for number, batch in enumerate(batches)
    ]
    for folder in (step, once):
        add_insights(folder, [(9, "a", "r1", True, 0.9)])
    refresh(step)
    for number in order:
        rows = packages[number] if number < len(packages) else []
        add(step, "aggregates", rows)
        assert refresh(step).days_computed == len({row["day"] for row in rows})
    add(once, "aggregates", [row for rows in packages for row in rows])
    refresh(once)
    assert scored(step) == scored(once)


def test_a_daily_table_of_an_older_version_gets_the_new_columns(tmp_path):
    from deltalake import write_deltalake

    add_insights(tmp_path, [(0, "a", "r1", True, 0.9)])
    refresh(tmp_path)
    old = tables.existing(tmp_path, daily.NAME).to_pyarrow_table().drop_columns(["scored", "anomalies_share"])
    write_deltalake(str(tmp_path / daily.NAME), old, mode="overwrite", schema_mode="overwrite")
    assert refresh(tmp_path).days_computed == 0
    add_insights(tmp_path, [(1, "a", "r1", True, 0.9)], first=5)
    add(tmp_path, "aggregates", [aggregate(1, 7, 7)])
    assert refresh(tmp_path).days_computed == 1
    assert scored(tmp_path) == {(1, "a", "r1"): (1, None, None), (2, "a", "r1"): (1, 7, 1.0)}


def word(sequence, given_at, correct, predicted, release="r1", site="a", identity=None, **fields):
    fields |= {} if predicted is None else {"_predicted": predicted}
    return {
        "site": site,
        "id": given_at if identity is None else identity,
        "sequence": sequence,
        "package": 1,
        "given_at": EPOCH + timedelta(minutes=given_at),
        "release": release,
        "correct": correct,
        "fields": json.dumps(fields),
    }


def test_nobody_said_anything(tmp_path):
    assert judged.by_release(tmp_path) == []


def test_figures_are_those_of_the_last_word_on_each_score(tmp_path):
    words = [
        word(1, 1, False, True),
        word(1, 5, True, True),  # it was a fault after all
        word(2, 2, False, True),
        word(3, 3, True, False),
        word(4, 4, False, False),
        word(1, 6, True, True, site="b"),
        word(5, 7, True, None),  # the policy kept the prediction
        word(6, 8, None, True),  # or the label
    ]
    add(tmp_path, "feedback", words)
    (found,) = judged.by_release(tmp_path)
    assert (found["release"], found["rows"]) == ("r1", 5)
    assert found["f1"] == pytest.approx(4 / 6)
    assert found["false_alarm_rate"] == 1 / 2 and found["miss_rate"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("last", ["r1", "r2"])
def test_the_release_that_was_judged_last_is_at_the_end(tmp_path, last):
    words = [word(1, 1, True, True, "r1"), word(2, 2, True, True, "r2"), word(3, 3, True, True, last)]
    add(tmp_path, "feedback", words)
    assert [row["release"] for row in judged.by_release(tmp_path)][-1] == last


def test_a_later_word_on_an_old_score_counts_as_late(tmp_path):
    words = [word(1, 1, True, True, "r1"), word(2, 2, True, True, "r2"), word(1, 3, False, True, "r1")]
    add(tmp_path, "feedback", words)
    assert [row["release"] for row in judged.by_release(tmp_path)] == ["r2", "r1"]


def test_the_last_word_is_by_the_sites_count_even_if_its_clock_steps_back(tmp_path):
    words = [word(1, 9, False, True, identity=1), word(1, 2, True, True, identity=2)]
    add(tmp_path, "feedback", words)
    (found,) = judged.by_release(tmp_path)
    assert (found["rows"], found["f1"]) == (1, 1.0)
