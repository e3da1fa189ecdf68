"""The gold tables: a star that holds together, says what other figures say, and is written only when it
changes."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.azure import gold, gold_star
from edge_ai_assets.azure.watch import SiteDrift
from edge_ai_assets.ml.drift import Verdict
from edge_ai_assets.returns.inbox import daily, judged, tables
from edge_ai_assets.returns.inbox.heads import Head
from edge_ai_assets.returns.inbox.watermark import Watermark
from edge_ai_assets.scoring.contract import Reference

DOC = Path(__file__).parents[2] / "docs" / "powerbi.md"
TODAY = date(2026, 3, 1)
R1, R2, R9 = (f"sha256:{n}" + "0" * 63 for n in "129")
RELEASES = [
    SimpleNamespace(
        image=image,
        version=n + 1,
        created=datetime(2026, 1, 1 + n, tzinfo=UTC),
        run_id=f"run {n}",
        data_version="v",
        metrics={"cv_f1": 0.9},
    )
    for n, image in enumerate((R1, R2))
]
MARKS = [
    Watermark("north", Head(3, "0" * 64, 12, 4, received_at=1_770_000_000_000_000), (), (), 1.0, False, 0.0),
    Watermark("west", Head(), ((1, 2),), (), None, False, 0.0),
]
FEEDBACK = st.lists(
    st.tuples(
        st.sampled_from(["north", "south"]),
        st.integers(1, 6),
        st.sampled_from([R1, R2, R9]),
        st.sampled_from([True, False, None]),
        st.sampled_from([True, False, None]),
        st.integers(0, 400),
    ),
    max_size=12,
)


def add(folder, name, rows):
    schema = tables.schemas()[name]
    empty = dict.fromkeys(schema.names)
    tables.merge(folder, name, pa.Table.from_pylist([{**empty, **row} for row in rows], schema))


def feed(folder, given):
    """Feedback, numbered in order; the release of a score is one, whatever was drawn."""
    add(
        folder,
        "feedback",
        [
            {
                "site": site,
                "id": number,
                "sequence": sequence,
                "day": TODAY - timedelta(back),
                "given_at": datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=number),
                "release": (R1, R2, R9)[sequence % 3],
                "correct": correct,
                "fields": json.dumps({} if predicted is None else {"_predicted": predicted}),
            }
            for number, (site, sequence, _, predicted, correct, back) in enumerate(given)
        ],
    )


def insights(folder, rows):
    add(
        folder,
        "insights",
        [
            {
                "site": site,
                "sequence": number,
                "package": 1,
                "day": day,
                "release": release,
                "kind": "anomaly",
                "score": 0.5,
                "fields": "{}",
            }
            for number, (site, day, release) in enumerate(rows)
        ],
    )
    daily.refresh(folder, assets=True)


def refresh(folder):
    return gold.refresh(folder, RELEASES, MARKS, {"north": "canary"}, TODAY)


def drifted(psi=0.5):
    reference = Reference("Flow", (0.0,), (50, 50), 0.2)
    verdict = Verdict(psi > 0.2, 1.0, {"Flow": psi}, ("Flow",) if psi > 0.2 else ())
    return SiteDrift("north", 60, {"Flow": np.array([60, 0])}, (reference,), verdict)


@pytest.fixture
def whole(tmp_path):
    """All tables, each with rows."""
    insights(tmp_path, [("north", TODAY, R1), ("east", date(2024, 12, 31), R9)])
    feed(tmp_path, [("north", 1, R1, True, True, 0), ("south", 2, R1, True, False, 800)])
    refresh(tmp_path)
    gold.record_drift(tmp_path, R2, [drifted()], TODAY)
    return tmp_path


@pytest.mark.parametrize("name", gold_star.STAR)
def test_every_table_has_the_columns_that_are_described(whole, name):
    table = tables.existing(whole, name)
    found = {field.name: field.type for field in pa.schema(table.schema().to_arrow())}
    assert list(found) == [column.name for column in gold_star.STAR[name]]
    for column in gold_star.STAR[name]:
        assert str(found[column.name]).replace("_view", "").replace("large_", "") == column.kind, column
    # What Power BI, Fabric and Synapse read without features of their own.
    assert table.protocol().min_reader_version == 1 and table.to_pyarrow_table().num_rows


def test_every_fact_finds_its_dimensions(whole):
    days = {row["day"] for row in tables.rows(whole, gold_star.DIM_DAY)}
    sites = {row["site"] for row in tables.rows(whole, gold_star.DIM_SITE)}
    releases = {row["release"] for row in tables.rows(whole, gold_star.DIM_RELEASE)}
    for name in (gold_star.FACT_INSIGHTS, gold_star.FACT_FEEDBACK, gold_star.FACT_DRIFT):
        for row in tables.rows(whole, name):
            assert row["day"] in days and row["site"] in sites and row["release"] in releases, (name, row)
    assert sites == {"north", "south", "east", "west"} and R9 in releases


@pytest.mark.parametrize("name", [gold_star.DIM_DAY, gold_star.DIM_SITE, gold_star.DIM_RELEASE])
def test_a_dimension_has_a_key_once(whole, name):
    key = gold_star.STAR[name][0].name
    keys = [row[key] for row in tables.rows(whole, name)]
    assert len(keys) == len(set(keys)) and None not in keys


def test_the_calendar_is_whole_years_without_a_gap(whole):
    rows = sorted(tables.rows(whole, gold_star.DIM_DAY), key=lambda row: row["day"])
    days = [row["day"] for row in rows]
    assert (days[0], days[-1]) == (date(2023, 1, 1), date(2026, 12, 31))
    assert len(days) == (days[-1] - days[0]).days + 1
    (newyear,) = [row for row in rows if row["day"] == date(2024, 12, 31)]
    assert (newyear["iso_year"], newyear["iso_week"], newyear["quarter"]) == (2025, 1, 4)
    assert (newyear["weekday"], newyear["year_month"]) == (2, "2024-12")


@given(day=st.dates(date(1970, 1, 1), date(9998, 12, 31)))
def test_a_day_of_the_calendar_is_described_as_it_is(calendar, day):
    week = day.isocalendar()
    assert calendar.slice((day - date(1970, 1, 1)).days, 1).to_pylist() == [
        {
            "day": day,
            "year": day.year,
            "quarter": (day.month + 2) // 3,
            "month": day.month,
            "year_month": day.isoformat()[:7],
            "iso_year": week.year,
            "iso_week": week.week,
            "weekday": week.weekday,
        }
    ]


@pytest.fixture(scope="module")
def calendar():
    """All days that a site's clock may say, in one table: its making must not take minutes."""
    return gold._days(date(1970, 1, 1), date(9998, 12, 31))


def test_the_calendar_reaches_into_a_new_year_in_time(tmp_path):
    gold.refresh(tmp_path, [], [], {}, date(2026, 12, 15))
    assert max(row["day"] for row in tables.rows(tmp_path, gold_star.DIM_DAY)) == date(2027, 12, 31)


@settings(max_examples=25)
@given(given_=FEEDBACK)
def test_judged_scores_add_up_to_what_the_asset_says(tmp_path_factory, given_):
    folder = tmp_path_factory.mktemp("tables")
    feed(folder, given_)
    refresh(folder)
    rows = tables.rows(folder, gold_star.FACT_FEEDBACK)
    assert len({(row["site"], row["sequence"]) for row in rows}) == len(rows)
    kinds = ("true_positive", "false_positive", "false_negative", "true_negative")
    assert all(sum(row[kind] for kind in kinds) == 1 for row in rows)
    told = {row["release"]: row for row in judged.by_release(folder)}
    assert {row["release"] for row in rows} == told.keys()
    for release, said in told.items():
        sums = {kind: sum(row[kind] for row in rows if row["release"] == release) for kind in kinds}
        positives = 2 * sums["true_positive"] + sums["false_positive"] + sums["false_negative"]
        assert sum(sums.values()) == said["rows"]
        assert said["f1"] == pytest.approx(2 * sums["true_positive"] / positives if positives else 0.0)


@pytest.mark.parametrize(
    "fields", ['{"_predicted": "maybe"}', '{"_predicted": 3.0}', '{"_predicted": "true"}', "[]", "no JSON"]
)
def test_a_prediction_that_is_no_truth_value_counts_for_nobody(tmp_path, fields):
    """What a site signs is text, number or truth, by its own choice: none may stop everybody's tables."""
    feed(tmp_path, [("north", 1, R1, True, True, 0)])
    row = {
        "site": "o'hara",
        "id": 9,
        "sequence": 9,
        "day": TODAY,
        "given_at": datetime(2026, 3, 1, tzinfo=UTC),
    }
    add(tmp_path, "feedback", [{**row, "release": R9, "correct": True, "fields": fields}])
    refresh(tmp_path)
    assert [each["site"] for each in tables.rows(tmp_path, gold_star.FACT_FEEDBACK)] == ["north"]
    assert sum(each["rows"] for each in judged.by_release(tmp_path)) == 1


def test_nothing_is_written_that_did_not_change(whole):
    before = {name: tables.existing(whole, name).version() for name in gold_star.STAR}
    refresh(whole)
    assert {name: tables.existing(whole, name).version() for name in gold_star.STAR} == before
    known = [("north", 1, R1, True, True, 0), ("south", 2, R1, True, False, 800)]
    feed(whole, [*known, ("south", 3, R1, True, True, 0)])
    refresh(whole)
    changed = {name for name in gold_star.STAR if tables.existing(whole, name).version() != before[name]}
    assert changed == {gold_star.FACT_FEEDBACK}


def test_the_last_look_of_a_day_counts_and_other_days_stay(tmp_path):
    gold.record_drift(tmp_path, R1, [drifted(0.1)], TODAY - timedelta(1))
    gold.record_drift(tmp_path, R1, [drifted(0.9)], TODAY)
    gold.record_drift(tmp_path, R2, [drifted(0.5)], TODAY)
    rows = sorted(tables.rows(tmp_path, gold_star.FACT_DRIFT), key=lambda row: row["day"])
    assert [(row["index"], row["moved"], row["release"]) for row in rows] == [(0.1, 0, R1), (0.5, 1, R2)]
    gold.record_drift(tmp_path, R2, [], TODAY)
    assert [row["index"] for row in tables.rows(tmp_path, gold_star.FACT_DRIFT)] == [0.1]


def test_before_anything_came_there_is_a_star_without_rows(tmp_path):
    made = gold.refresh(tmp_path, [], [], {}, TODAY)
    assert made == {
        gold_star.FACT_FEEDBACK: 0,
        gold_star.DIM_SITE: 0,
        gold_star.DIM_RELEASE: 0,
        gold_star.DIM_DAY: 365,
    }
    assert tables.count(tmp_path, gold_star.FACT_DRIFT) == 0


def test_the_documentation_has_every_table_and_column_as_it_is():
    text = DOC.read_text("utf-8")
    told = {}
    for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        name = part.splitlines()[0].strip("` ")
        told[name] = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", part, flags=re.MULTILINE)
    assert told == {
        name.removeprefix(f"{gold_star.FOLDER}/"): [(c.name, c.kind, c.meaning) for c in columns]
        for name, columns in gold_star.STAR.items()
    }


def test_two_runs_at_once_both_get_through(whole):
    """Each in a thread of its own: what they hold is a lock on a file."""
    with ThreadPoolExecutor(4) as pool:
        days = [TODAY - timedelta(n) for n in range(6)]
        looks = [pool.submit(gold.record_drift, whole, R2, [drifted()], day) for day in days]
        rings = [pool.submit(gold.refresh, whole, RELEASES, MARKS, {"north": str(day)}, day) for day in days]
        for run in looks + rings:
            run.result()
    assert tables.count(whole, gold_star.FACT_DRIFT) == 6 and tables.count(whole, gold_star.DIM_SITE) == 4
