"""What leaves by itself can be taken away from what is told of many: what is left tells of no few rows."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.egress.groups import Group
from edge_ai_assets.returns.egress.policy import SMALL_CELL
from edge_ai_assets.returns.outbox import columns
from edge_ai_assets.returns.outbox.schema import FeedbackRow, ScoreRow
from edge_ai_assets.returns.package import sketches
from edge_ai_assets.returns.package.content import Content

pytestmark = pytest.mark.usefixtures("counting")
AT = 1_760_000_000_000_000
SMALLEST = 10
"""Of the small use case."""


def row(number: int, flow: float, anomaly: bool = False, score: float = 0.5) -> ScoreRow:
    kind = "anomaly" if anomaly else "normal"
    record = json.dumps({"inputs": {"Flow": flow, "Only counted": flow}}).encode()
    return ScoreRow(number, AT, "r1", score, int(anomaly), 0, record, 1, kind, None, None, None)


def word(sequence: int) -> FeedbackRow:
    return FeedbackRow(sequence, sequence, 1, None, "operator", 5, None, None, None)


def content(policy, contract, rows, spoken=()) -> Content:
    made = Content(policy, {"r1": contract})
    for each in rows:
        if each.sequence in spoken:
            made.add_feedback(word(each.sequence), each)
    made.add_scores(columns.of_rows(rows, made.broken), 60)
    return made


def numbers(made: Content, name: str = "Flow") -> dict[int, float]:
    """A field of the insights, by sequence."""
    if "fields" not in made.insights.column_names:
        return {}
    values = made.insights.column("fields").to_pylist()
    return {one: of[name] for one, of in zip(made.packed, values, strict=True)}


def told(made: Content, feature: str = "Flow") -> tuple[int, ...] | None:
    return next((one.counts for one in made.histograms if one.feature == feature), None)


def test_what_leaves_cannot_be_taken_away_from_a_sketch_or_a_histogram(with_kinds, contract):
    policy = with_kinds("anomaly", "histogram", "sketch")
    rows = [row(n, n / 4, True) for n in range(1, 20)] + [row(20, 3.1415)]
    made = content(policy, contract, rows)
    [sketch] = made.sketches
    assert Counter(sketches.read(sketch.sketch).values) == Counter(numbers(made).values())
    assert told(made) == (19, 0, 0)


def test_a_feature_that_leaves_in_no_row_is_one_group(with_kinds, contract):
    """Of those that leave as rows nobody knows its values either: all are protected alike."""
    policy = with_kinds("anomaly", "histogram")
    rows = [row(n, 1.0, True) for n in range(1, 20)] + [row(20, 7.0), row(21, 12.0)]
    assert told(content(policy, contract, rows)) == (19, 0, 0)
    assert told(content(policy, contract, rows), "Only counted") is None  # 2 hidden, and the 19 with them
    rows += [row(30 + n, 12.0, True) for n in range(20)]
    assert told(content(policy, contract, rows), "Only counted") == (0, 0, 21)


def test_drift_is_seen_when_all_rows_of_a_phase_are_anomalies(with_kinds, contract):
    rows = [row(n, 12.0, True) for n in range(50)]
    assert told(content(with_kinds("anomaly", "histogram"), contract, rows)) == (0, 0, 50)


@pytest.mark.parametrize(("normal", "counts"), [(1, (0, 0, 50)), (9, (0, 0, 50)), (10, (0, 10, 50))])
def test_drift_is_seen_when_few_rows_stay(with_kinds, contract, normal, counts):
    """By those that leave; the few are not counted."""
    rows = [row(n, 12.0, True) for n in range(50)] + [row(50 + n, 7.0) for n in range(normal)]
    assert told(content(with_kinds("anomaly", "histogram"), contract, rows)) == counts


def test_a_small_cell_is_one_of_rows_that_stay(with_kinds, contract):
    rows = [row(n, 12.0, True) for n in range(3)]
    rows += [row(10 + n, 1.0) for n in range(40)] + [row(60 + n, 12.0) for n in range(6)]
    policy = with_kinds("anomaly", "histogram")
    assert told(content(policy, contract, rows)) == (40, 0, 9)
    assert told(content(policy, contract, [*rows[:-2], *(row(70 + n, 7.0) for n in range(8))])) == (40, 0, 3)


@pytest.mark.parametrize("kinds", [("aggregate",), ("histogram",), ("sketch",)])
def test_feedback_that_leaves_lets_its_score_out(with_kinds, contract, kinds):
    """Nobody judged the 20th, and what is told of all cannot be taken apart."""
    policy = with_kinds("feedback", *kinds)
    rows = [row(n, n / 4, score=0.5 + n / 100) for n in range(1, 21)]
    made = content(policy, contract, rows, spoken=range(1, 20))
    assert len(made.words) == 19
    assert all(one.score_sum is None for one in made.aggregates)
    assert all(one.rows == 19 for one in (*made.histograms, *made.sketches))
    whole = content(policy, contract, rows)
    assert all(one.score_sum is not None for one in whole.aggregates)
    assert all(one.rows == 20 for one in (*whole.histograms, *whole.sketches))


def test_feedback_that_stays_lets_nothing_out(with_kinds, contract):
    rows = [row(n, 7.0) for n in range(1, 21)]
    made = content(with_kinds("aggregate", "histogram"), contract, rows, spoken=range(1, 20))
    assert told(made) == (0, 20, 0)
    assert made.aggregates[0].score_sum is not None


def test_feedback_comes_before_the_scores(with_kinds, contract):
    made = content(with_kinds("feedback"), contract, [row(1, 1.0)])
    with pytest.raises(RuntimeError, match="before"):
        made.add_feedback(word(1), row(1, 1.0))


def test_values_are_counted_as_they_leave(with_kinds, contract):
    """4.96 leaves as 5.0, the edge: on which side of it the value was is not told."""
    policy = with_kinds("histogram", "anomaly")
    rows = []
    for n in range(20):
        record = json.dumps({"inputs": {"Pressure [bar]": 4.96}}).encode()
        rows.append(ScoreRow(n, AT, "r1", 0.5, 1, 0, record, 1, "anomaly", None, None, None))
    rounded = np.histogram([5.0], [-np.inf, 5, 10, np.inf])[0] * 20
    assert told(content(policy, contract, rows), "Pressure [bar]") == tuple(rounded)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.tuples(st.sampled_from([1.0, 7.0, 12.0]), st.booleans(), st.booleans()), min_size=1, max_size=80
    )
)
def test_what_is_left_when_rows_are_taken_away_is_of_many(with_kinds, contract, rows):
    """A row is its value, whether it is an anomaly, and whether somebody judged it."""
    policy = with_kinds("anomaly", "feedback", "histogram", "sketch", "aggregate")
    made = [row(n, flow, anomaly) for n, (flow, anomaly, _) in enumerate(rows)]
    spoken = [n for n, (_, _, judged) in enumerate(rows) if judged]
    found = content(policy, contract, made, spoken)
    by_itself = numbers(found) | {one.sequence: one.fields["Flow"] for one in found.words}
    stay = len(made) - len(by_itself)
    for sketch in found.sketches:
        left = Counter(sketches.read(sketch.sketch).values)
        left.subtract(by_itself.values())
        assert left.total() == sketch.rows - len(by_itself) in (0, stay)
        assert left.total() == 0 or left.total() >= SMALLEST
    for one in found.histograms:
        if one.feature == "Flow":
            cells = np.histogram(list(by_itself.values()), [-np.inf, 5, 10, np.inf])[0]
            left = np.array(one.counts) - cells
            assert all(cell == 0 or cell >= SMALL_CELL for cell in left)
            assert left.sum() == 0 or left.sum() >= SMALLEST
            hidden = stay - left.sum()
            assert hidden == 0 or hidden >= SMALL_CELL or left.sum() == 0
    for window in found.aggregates:
        assert (window.score_sum is None) == (0 < stay < SMALLEST)


@given(st.lists(st.floats(0, 1)), st.lists(st.floats(0, 1)), st.integers(1, 12))
def test_a_group_tells_of_many_or_of_what_leaves_anyway(leave, stay, smallest):
    found = Group(leave, stay).told(smallest)
    assert found in ([], leave, leave + stay)
    assert len(found) >= smallest or not found
    assert found == [] or found == leave or len(stay) >= smallest
