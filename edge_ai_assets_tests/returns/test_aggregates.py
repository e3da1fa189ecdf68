from __future__ import annotations

import math
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.egress.policy import SMALL_CELL, Policy
from edge_ai_assets.returns.outbox import columns
from edge_ai_assets.returns.outbox.schema import ScoreRow
from edge_ai_assets.returns.package import aggregates as windows
from edge_ai_assets.returns.package.parts import Aggregate

HOUR = 3_600_000_000
START = 1_760_000_000_000_000 // HOUR * HOUR


def row(at: int = START, anomaly=False, outside=False, score: float | None = 0.5, release="r1") -> ScoreRow:
    kind = "anomaly" if anomaly else "normal"
    record = b'{"inputs":{}}'
    return ScoreRow(1, at, release, score, int(anomaly), int(outside), record, 1, kind, None, None, None)


def aggregates(rows: list[ScoreRow], policy: Policy, minutes: int) -> list[Aggregate]:
    broken: defaultdict[str, list[int]] = defaultdict(list)
    found = windows.aggregates(columns.of_rows(rows, broken), policy, minutes)
    assert not broken
    return found


def some(rows: int, anomalies: int = 0, outside: int = 0) -> list[ScoreRow]:
    return [row(anomaly=i < anomalies, outside=i < outside) for i in range(rows)]


def test_windows_start_at_multiples_of_their_length(with_kinds):
    policy = with_kinds("aggregate", smallest=2)
    rows = [row(START + at) for at in (0, HOUR - 1, HOUR, 2 * HOUR - 1, 5 * HOUR)]
    assert [(a.window, a.rows) for a in aggregates(rows, policy, 60)] == [(START, 2), (START + HOUR, 2)]
    assert [(a.window - START, a.rows) for a in aggregates(rows, policy, 120)] == [(0, 4)]
    before_1970 = [row(-1), row(-HOUR)]
    assert [(a.window, a.rows) for a in aggregates(before_1970, policy, 60)] == [(-HOUR, 2)]


def test_releases_have_windows_of_their_own(with_kinds):
    rows = some(12) + [row(release="r2")] * 11 + [row(release="r3")] * 9
    found = aggregates(rows, with_kinds("aggregate"), 60)
    assert [(a.release, a.rows) for a in found] == [("r1", 12), ("r2", 11)]


def test_aggregates_need_their_kind(with_kinds):
    assert aggregates(some(50), with_kinds("anomaly", "normal", "histogram", "sketch", "feedback"), 60) == []


@pytest.mark.parametrize(("rows", "leaves"), [(9, False), (10, True)])
def test_a_small_group_stays(with_kinds, rows, leaves):
    assert bool(aggregates(some(rows), with_kinds("aggregate"), 60)) is leaves


@pytest.mark.parametrize(
    ("kinds", "leaves", "anomalies", "told"),
    [
        (("anomaly",), {"predicted": None}, 1, 1),  # each leaves as a row with its time anyway
        (("anomaly",), {}, 0, 0),
        ((), {}, 0, 0),
        ((), {}, 1, None),
        ((), {}, SMALL_CELL - 1, None),
        ((), {}, SMALL_CELL, SMALL_CELL),
        ((), {}, 30 - SMALL_CELL, 30 - SMALL_CELL),
        ((), {}, 31 - SMALL_CELL, None),  # or the few others could be told
        ((), {}, 30, 30),
        ((), {"predicted": "aggregated"}, 9, 9),
        ((), {"predicted": None}, 9, None),
        (("normal",), {"predicted": None}, 9, None),
    ],
)
def test_who_may_know_of_anomalies(with_kinds, kinds, leaves, anomalies, told):
    (found,) = aggregates(some(30, anomalies), with_kinds("aggregate", *kinds, **leaves), 60)
    assert found.anomalies == told


@pytest.mark.parametrize(
    ("leaves", "outside", "told"),
    [
        ({}, 9, None),  # Secret may be why
        ({"Secret": "aggregated"}, 9, 9),
        ({"Secret": "aggregated"}, 0, 0),
        ({"Secret": "aggregated"}, SMALL_CELL - 1, None),
        ({"Secret": "aggregated"}, 31 - SMALL_CELL, None),
    ],
)
def test_who_may_know_of_readings_outside_the_range_of_training(with_kinds, leaves, outside, told):
    (found,) = aggregates(some(30, 0, outside), with_kinds("aggregate", **leaves), 60)
    assert found.outside == told


@pytest.mark.parametrize(
    ("how", "told"), [("as_is", 30 * 0.123456), ("aggregated", 30 * 0.123456), (None, None)]
)
def test_who_may_know_of_scores(with_kinds, how, told):
    rows = [row(score=0.123456)] * 30
    (found,) = aggregates(rows, with_kinds("aggregate", score=how), 60)
    assert found.score_sum is None if told is None else math.isclose(found.score_sum, told)


def test_rounded_scores_are_rounded_before_they_are_added(with_kinds):
    (found,) = aggregates([row(score=0.126)] * 30, with_kinds("aggregate"), 60)
    assert math.isclose(found.score_sum, 30 * 0.13)


@pytest.mark.parametrize("score", [None, math.nan, math.inf])
def test_there_is_no_sum_of_what_is_no_number(with_kinds, score):
    (found,) = aggregates([*some(29), row(score=score)], with_kinds("aggregate"), 60)
    assert (found.rows, found.score_sum) == (30, None)


@pytest.mark.parametrize(("stay", "told"), [(0, True), (1, False), (9, False), (10, True), (30, True)])
def test_the_scores_that_leave_as_rows_do_not_give_the_others_away(with_kinds, stay, told):
    """Their sum could be taken away from the sum of all."""
    policy = with_kinds("aggregate", "anomaly", Secret="aggregated")
    (found,) = aggregates(some(30, 30 - stay, 30), policy, 60)
    assert (found.rows, found.anomalies) == (30, 30 - stay)
    assert (found.score_sum is not None, found.outside is not None) == (told, told)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0, 1)), max_size=120),
    cut=st.integers(0, 120),
)
def test_parts_add_up_to_no_more_than_the_whole(with_kinds, rows, cut):
    """What two packages say of a window adds up, but for groups that are too small in one of them."""
    policy = with_kinds("aggregate", "anomaly", "normal", score="as_is")
    made = [row(START + hour * HOUR, anomaly, score=score) for hour, anomaly, score in rows]
    whole = {a.window: a for a in aggregates(made, policy, 60)}
    parts = [aggregates(part, policy, 60) for part in (made[:cut], made[cut:])]
    for window, found in whole.items():
        told = [a for part in parts for a in part if a.window == window]
        left = found.rows - sum(a.rows for a in told)
        assert 0 <= left < 2 * policy.egress.minimum_group_size
        if not left:
            assert sum(a.anomalies for a in told) == found.anomalies
            assert math.isclose(sum(a.score_sum for a in told), found.score_sum, abs_tol=1e-9)
