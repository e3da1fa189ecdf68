"""What a row belongs to: times become one spelling, what is not what it must be is named."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.scoring.context import CONTEXT, checked
from edge_ai_assets.scoring.contract import ContractError


def test_columns_stay_as_they_are_where_they_are_right():
    given = {"_time": ["2026-01-31T12:45:00", None], "_run": ["run 1", None], "_row": [0, None]}
    assert checked(given, 2) == given


@pytest.mark.parametrize(
    ("given_time", "kept"),
    [
        ("2026-01-31T13:45:00+01:00", "2026-01-31T12:45:00"),
        ("2026-01-31T12:45:00Z", "2026-01-31T12:45:00"),
        ("2026-01-31 12:45", "2026-01-31T12:45:00"),
        ("2026-01-31", "2026-01-31T00:00:00"),
        ("2026-01-31T12:45:00.5", "2026-01-31T12:45:00.500000"),
        ("20260131T124500", "2026-01-31T12:45:00"),
        ("2026-12-31T23:30:00-01:00", "2027-01-01T00:30:00"),
    ],
)
def test_a_time_has_one_spelling(given_time: str, kept: str):
    assert checked({"_time": [given_time]}, 1) == {"_time": [kept]}


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.timezones()))
def test_a_time_is_the_same_moment(moment: datetime):
    (kept,) = checked({"_time": [moment.isoformat()]}, 1)["_time"]
    offset = datetime.fromisoformat(
        moment.isoformat()
    )  # time zones lose seconds of odd offsets in no other way
    assert datetime.fromisoformat(kept).replace(tzinfo=UTC) == offset


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "_time",
            "yesterday",
            "row 1: '_time' must be an ISO 8601 time such as 2026-01-31T13:45:00, it is 'yest",
        ),
        ("_time", 17, "it is 17"),
        ("_time", True, "it is True"),
        ("_time", [], "it is a list"),
        ("_time", {}, "it is an object"),
        ("_time", "", "it is ''"),
        ("_time", "x" * 1000, "it is '" + "x" * 60 + "'"),
        ("_time", "0001-01-01T00:00:00+10:00", "must be an ISO 8601 time"),
        ("_time", 10**4000, "it is a whole number beyond 64 bits"),
        ("_run", 17, "row 1: '_run' must be text of at most 200 characters, it is 17"),
        ("_run", "x" * 201, "row 1: '_run' must be text of at most 200"),
        ("_run", ["a"], "it is a list"),
        ("_asset", 17, "row 1: '_asset' must be text of at most 200 characters, it is 17"),
        ("_asset", "x" * 201, "row 1: '_asset' must be text of at most 200"),
        ("_row", -1, "row 1: '_row' must be a whole number from 0 to 2^63 - 1, it is -1"),
        ("_row", 2**63, "it is 9223372036854775808"),
        ("_row", 10**4000, "it is a whole number beyond 64 bits"),
        ("_row", True, "it is True"),
        ("_row", 1.0, "it is 1.0"),
        ("_row", "1", "it is '1'"),
    ],
)
def test_what_is_refused_is_named(name: str, value: Any, message: str):
    with pytest.raises(ContractError) as caught:
        checked({name: [None, value]}, 2)
    assert message in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize("name", CONTEXT)
@pytest.mark.parametrize("values", [[], [None], [None] * 3])
def test_a_column_of_another_length_is_refused(name: str, values: list[None]):
    with pytest.raises(ContractError, match=rf"context '{name}' has {len(values)} values for 2 rows"):
        checked({name: values}, 2)


@given(
    st.sampled_from(CONTEXT),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
)
def test_anything_is_either_kept_or_refused(name: str, value: Any):
    try:
        (kept,) = checked({name: [value]}, 1)[name]
    except ContractError as error:
        assert f"'{name}'" in str(error)
    else:
        assert kept is None or type(kept) is (int if name == "_row" else str)


@pytest.mark.parametrize(
    ("name", "value"), [("_run", "x" * 200), ("_asset", "x" * 200), ("_row", 0), ("_row", 2**63 - 1)]
)
def test_the_bounds_themselves_are_inside(name: str, value: Any):
    assert checked({name: [value]}, 1) == {name: [value]}
