from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.ml.split import SplitError, split

RUN = ["_site", "_run"]


def frame(runs, origin="lake", site="a", first=0):
    """Rows of runs given as (rows, labels) or as a string of labels, one an hour."""
    return pd.DataFrame(
        [
            {
                "_site": site,
                "_run": f"{origin}-{first + number}",
                "_time": pd.Timestamp("2026-01-01") + pd.Timedelta(hours=first + number, seconds=row),
                "_label": {"0": False, "1": True, "?": None}[label],
                "_origin": origin,
            }
            for number, labels in enumerate(runs)
            for row, label in enumerate(labels)
        ]
    )


def held(table, **how):
    return sorted(table["_run"][split(table, **how) == "holdout"].unique())


def test_the_latest_runs_are_held_back():
    assert held(frame(["01"] * 10)) == ["lake-8", "lake-9"]


def test_time_decides_and_not_the_order_of_rows():
    table = frame(["01"] * 5)
    assert held(table.iloc[::-1]) == held(table) == ["lake-4"]


@pytest.mark.parametrize("times", [lambda t: t.drop(columns="_time"), lambda t: t.assign(_time=pd.NaT)])
def test_without_time_the_order_of_rows_decides(times):
    assert held(times(frame(["01"] * 5))) == ["lake-4"]


def test_the_share_is_one_of_rows():
    assert held(frame(["01" * 50, "01", "01", "01", "01", "01"])) == ["lake-3", "lake-4", "lake-5"]


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.2, 2), (0.5, 5), (0.9, 5)])
def test_at_least_one_and_at_most_half_of_the_runs(share, count):
    assert len(held(frame(["01"] * 10), holdout_share=share)) == count


def test_earlier_runs_are_added_until_both_classes_are_held_back():
    assert held(frame(["01", "01", "01", "01", "0", "0"])) == ["lake-3", "lake-4", "lake-5"]


def test_runs_are_not_added_when_that_does_not_help():
    assert held(frame(["01", "01", "00", "00", "00"])) == ["lake-4"]


def test_unknown_labels_are_of_no_class():
    assert held(frame(["01", "01", "01", "01", "01", "0?"])) == ["lake-4", "lake-5"]


def test_feedback_holds_back_its_own_latest():
    table = pd.concat([frame(["01"] * 5), frame(["01"] * 4, "feedback", first=10)])
    assert held(table) == ["feedback-13", "lake-4"]


def test_a_single_feedback_run_is_trained_on():
    assert held(pd.concat([frame(["01"] * 5), frame(["01"], "feedback", first=10)])) == ["lake-4"]


def test_two_single_runs_are_split_as_one():
    assert held(pd.concat([frame(["01"]), frame(["01"], "feedback", first=10)])) == ["feedback-10"]


def test_a_run_in_both_origins_is_in_one_part():
    table = pd.concat([frame(["01"] * 4), frame(["01"] * 4).assign(_origin="feedback")])
    parts = (
        table.assign(part=split(table.reset_index(drop=True)).to_numpy()).groupby("_run")["part"].nunique()
    )
    assert (parts == 1).all()


def test_runs_of_one_name_on_two_sites_are_two():
    assert len(split(pd.concat([frame(["01"]), frame(["01"], site="b")], ignore_index=True)).unique()) == 2


@pytest.mark.parametrize("runs", [[], ["01"]])
def test_too_few_runs_say_what_to_declare(runs):
    empty = frame(["01"]).iloc[:0]
    with pytest.raises(SplitError, match=r"runs\.every .* or runs\.rows"):
        split(frame(runs) if runs else empty)


runs = st.lists(st.text("01?", min_size=1, max_size=6), max_size=12)


@given(runs, runs, st.floats(0.05, 0.6))
def test_no_run_is_in_both_parts_and_none_is_lost(lake, feedback, share):
    table = pd.concat([frame(lake), frame(feedback, "feedback", first=20)], ignore_index=True)
    if len(lake) + len(feedback) < 2:
        return
    part = split(table, holdout_share=share)
    assert set(part) == {"train", "holdout"}
    assert (part.groupby(table["_run"]).nunique() == 1).all()
    for origin, given_runs in (("lake", lake), ("feedback", feedback)):
        mine = table[table["_origin"] == origin]
        count = mine["_run"][part[mine.index] == "holdout"].nunique()
        if len(given_runs) >= 2:
            assert 1 <= count <= len(given_runs) // 2
        order = mine.groupby("_run")["_time"].min().sort_values().index
        assert set(order[len(order) - count :]) == set(mine["_run"][part[mine.index] == "holdout"])


@given(runs)
def test_both_classes_are_held_back_when_half_of_the_runs_allow_it(lake):
    if len(lake) < 2:
        return
    table = frame(lake)
    latest_half = "".join(lake[len(lake) - len(lake) // 2 :])
    labels = set(table["_label"][split(table) == "holdout"].dropna())
    if "0" in latest_half and "1" in latest_half:
        assert labels == {True, False}
