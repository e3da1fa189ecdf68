from __future__ import annotations

import json
import math
from collections import defaultdict

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_ai_assets import usecase
from edge_ai_assets.returns.egress import policy as policies
from edge_ai_assets.returns.egress import rules
from edge_ai_assets.returns.egress.groups import Group
from edge_ai_assets.returns.egress.policy import SMALL_CELL, Policy, Withheld
from edge_ai_assets.returns.outbox import columns
from edge_ai_assets.returns.outbox.outbox import FeedbackRow, ScoreRow
from edge_ai_assets.scoring.contract import Reference
from edge_ai_assets.usecase import EgressField


def scored(record: bytes, kind: str = "anomaly", score: float | None = 0.98765) -> ScoreRow:
    return ScoreRow(7, 5, "r1", score, 1, 0, record, 1, kind, None, None, None)


def said(note: str | None = None) -> FeedbackRow:
    return FeedbackRow(1, 7, 0, note, "operator", 6, None, None, None)


def staying(values: dict[tuple[str, str], list[float | None]]) -> dict[tuple[str, str], Group]:
    """As groups of which no row leaves by itself."""
    return {
        key: Group([], [v for v in rules.numbers(None, found).tolist() if not math.isnan(v)])
        for key, found in values.items()
    }


def test_listed_fields_leave_as_listed_and_nothing_else(policy, contract, record):
    values = policy.row(scored(record()), contract)
    run, serial = values.pop("_run"), values.pop("Serial")
    assert values == {
        "Pressure [bar]": 3.1,
        "Flow": 7.5,
        "Type": "screw",
        "_time": "2026-02-03T04:05:06",
        "_score": 0.99,
        "_predicted": True,
    }
    assert len(run) == len(serial) == 16
    assert int(run, 16) != int(serial, 16)


@pytest.mark.parametrize(("run", "leaves"), [("P-1", "P-1"), ("John Smith", None), ("p-1", None), ("", None)])
def test_free_text_leaves_only_if_it_is_listed(with_kinds, contract, record, run, leaves):
    changed = json.loads(record()) | {"context": {"_run": run}}
    row, policy = scored(json.dumps(changed).encode()), with_kinds("anomaly", run="as_is")
    assert policy.row(row, contract)["_run"] == leaves


def test_free_text_of_a_policy_from_before_it_had_to_be_listed_stays(small, contract, record):
    field = EgressField(name="_run", leaves="as_is")
    old = small.model_copy(update={"egress": small.egress.model_copy(update={"fields": (field,)})})
    assert Policy(old, b"k" * 32).row(scored(record()), contract) == {"_run": None}


def test_the_digest_covers_what_a_listed_text_may_be(small):
    def digest(categories, values):
        fields = (
            EgressField(name="Type", leaves="as_is"),
            EgressField(name="_run", leaves="as_is", values=values),
        )
        changed = [
            f.model_copy(update={"categories": categories}) if f.name == "Type" else f for f in small.features
        ]
        egress = small.egress.model_copy(update={"fields": fields})
        return Policy(
            small.model_copy(update={"features": tuple(changed), "egress": egress}), b"k" * 32
        ).digest

    known = digest(("screw", "gear"), ("a", "b"))
    assert known == digest(("gear", "screw"), ("b", "a"))
    assert (
        len({known, digest(("screw", "gear", "John Smith"), ("a", "b")), digest(("screw", "gear"), ("a",))})
        == 3
    )


@pytest.mark.parametrize("kind", ["normal", "something new", None])
def test_a_kind_that_is_not_listed_stays(policy, contract, record, kind):
    assert policy.row(scored(record(), kind), contract) == Withheld(f"kind {kind} is not listed")


def test_derived_inputs_leave_as_their_base(policy, contract, record):
    derived = {f"{name} [mean 60]": 1.23456 for name in ("Pressure [bar]", "Flow", "Secret", "Only counted")}
    values = policy.row(scored(record(**derived)), contract)
    assert values["Pressure [bar] [mean 60]"] == 1.2
    assert values["Flow [mean 60]"] == 1.23456
    assert not {"Secret [mean 60]", "Only counted [mean 60]"} & values.keys()


def test_without_a_contract_derived_inputs_stay(policy, record):
    values = policy.row(scored(record(**{"Flow [mean 60]": 1.0})), None)
    assert "Flow" in values
    assert "Flow [mean 60]" not in values


def test_a_feature_cannot_leave_under_the_rule_of_another(policy, contract, record):
    """A contract that calls Secret derived from Flow does not let it out."""
    inputs = tuple(
        msgspec.structs.replace(item, base="Flow") if item.name == "Secret" else item
        for item in contract.inputs
    )
    assert "Secret" not in policy.row(scored(record()), msgspec.structs.replace(contract, inputs=inputs))


@pytest.mark.parametrize("name", ["_note", "_correct", "_role", "_run", "_score", "_row", "_anything"])
def test_an_input_cannot_take_a_reserved_name(policy, contract, record, name):
    values = policy.row(scored(record(**{name: "CANARY"})), contract)
    assert "CANARY" not in json.dumps(values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Pressure [bar]", "CANARY"),
        ("Flow", "CANARY"),
        ("Flow", True),
        ("Type", "CANARY"),
        ("Type", 5),
        ("Flow", None),
        ("Pressure [bar]", None),
    ],
)
def test_a_value_of_the_wrong_kind_leaves_as_null(policy, contract, record, name, value):
    values = policy.row(scored(record(**{name: value})), contract)
    assert values[name] is None


@pytest.mark.parametrize("score", [None, float("nan"), float("inf")])
def test_a_score_that_is_no_number_leaves_as_null(policy, contract, record, score):
    assert policy.row(scored(record(), score=score), contract)["_score"] is None


@pytest.mark.parametrize("text", ["CANARY", "", "yesterday"])
def test_a_time_that_is_none_leaves_as_null(policy, contract, text):
    record = json.dumps({"inputs": {}, "context": {"_time": text}}).encode()
    assert policy.row(scored(record), contract)["_time"] is None


def test_pseudonyms_depend_on_site_key_field_and_value(small, contract, record):
    one, other = Policy(small, b"a" * 16), Policy(small, b"b" * 16)
    row, again = scored(record()), scored(record(Flow=2))
    assert one.row(row)["Serial"] == one.row(again)["Serial"]
    assert one.row(row)["Serial"] != other.row(row)["Serial"]
    assert one.row(row)["Serial"] != one.row(scored(record(Serial="4712")))["Serial"]


def test_a_short_site_key_is_refused(small):
    with pytest.raises(ValueError, match="7 bytes"):
        Policy(small, b"too few")


def test_feedback_leaves_with_the_row_even_if_its_kind_is_not_listed(policy, contract, record):
    values = policy.feedback(scored(record(), "normal"), said("confirmed"), contract)
    assert values["_correct"] is False
    assert values["_note"] == "confirmed"
    assert values["Flow"] == 7.5
    assert "_role" not in values
    assert "Secret" not in values


@pytest.mark.parametrize("note", ["CANARY", "Confirmed", "confirmed ", "", None])
def test_a_note_that_is_not_listed_stays(policy, contract, record, note):
    values = policy.feedback(scored(record()), said(note), contract)
    assert values["_note"] is None


def test_feedback_needs_its_kind(small, contract, record):
    silent = small.model_copy(update={"egress": small.egress.model_copy(update={"kinds": ("anomaly",)})})
    found = Policy(silent, b"k" * 32).feedback(scored(record()), said(), contract)
    assert found == Withheld("kind feedback is not listed")


def test_nothing_listed_means_nothing_leaves(small, contract, record):
    bare = small.model_copy(update={"egress": usecase.Egress()})
    assert Policy(bare, b"k" * 32).row(scored(record()), contract) == {}
    assert Policy(bare, b"k" * 32).counted == set()


def test_fields_without_a_kind_let_nothing_out(small, contract, record, counting):
    mute = Policy(
        small.model_copy(update={"egress": small.egress.model_copy(update={"kinds": ()})}), b"k" * 32
    )
    assert mute.row(scored(record()), contract) == Withheld("kind anomaly is not listed")
    assert mute.feedback(scored(record()), said(), contract) == Withheld("kind feedback is not listed")
    flow = Reference("Flow", (5.0,), (1, 1), 0.2)
    assert mute.histograms(staying({("r1", "Flow"): [1.0] * 50}), {"r1": [flow]}) == []


@pytest.mark.parametrize("kinds", [(), ("anomaly", "feedback"), ("anomaly", "feedback", "normal")])
def test_histograms_need_their_kind(small, counting, kinds):
    silent = small.model_copy(update={"egress": small.egress.model_copy(update={"kinds": kinds})})
    values, references = {("r1", "Flow"): [1.0] * 50}, {"r1": [Reference("Flow", (5.0,), (1, 1), 0.2)]}
    assert Policy(silent, b"k" * 32).histograms(staying(values), references) == []
    loud = small.model_copy(update={"egress": small.egress.model_copy(update={"kinds": ("histogram",)})})
    assert len(Policy(loud, b"k" * 32).histograms(staying(values), references)) == 1


@pytest.mark.parametrize("kind", ["histogram", "aggregate", "sketch", "lineage", "normal"])
def test_a_kind_is_not_let_out_by_default_and_changes_the_digest(with_kinds, kind):
    assert kind not in usecase.Egress().kinds
    assert with_kinds("anomaly", kind).digest == with_kinds(kind, "anomaly").digest
    assert with_kinds("anomaly", kind).digest != with_kinds("anomaly").digest


def test_only_what_leaves_as_it_is_or_rounded_is_sketched(with_kinds):
    assert with_kinds("sketch").sketched == {"Pressure [bar]", "Flow"}
    assert with_kinds("sketch", Flow="aggregated").sketched == {"Pressure [bar]"}
    assert with_kinds("sketch", Flow=None).sketched == {"Pressure [bar]"}
    assert with_kinds("anomaly", "histogram", "normal").sketched == set()


def test_missing_values_are_no_hidden_cell(policy, counting):
    """3 of 103 are missing: that is told, and costs no bin."""
    values = {("r1", "Flow"): [1.0] * 50 + [9.0] * 50 + [None] * 3}
    (found,) = policy.histograms(staying(values), {"r1": [Reference("Flow", (5.0,), (1, 1), 0.2)]})
    assert (found.rows, found.counts) == (100, (50, 50))


@pytest.mark.parametrize(
    ("value", "left"), [(3.14159, 3.1), (3, 3.0), (True, None), ("3", None), (None, None), (math.inf, None)]
)
def test_a_number_goes_in_as_it_leaves(policy, value, left):
    assert rules.listed(policy.numbers("Pressure [bar]", [value])) == [left]


def test_an_input_cannot_leave_under_the_rule_of_one_of_our_own_fields(policy, contract, record):
    """Not even its pseudonym, though a contract calls it derived from _run."""
    made = msgspec.structs.replace(contract.inputs[-1], name="unheard of", base="_run")
    other = msgspec.structs.replace(contract, inputs=(*contract.inputs, made))
    assert "unheard of" not in policy.row(scored(record(**{"unheard of": "x"})), other)


def test_a_rounded_category_leaves_as_null_even_if_a_number_stands_there(small, contract, record):
    fields = tuple(f for f in small.egress.fields if f.name != "Type")
    fields += (usecase.EgressField(name="Type", leaves="rounded", digits=1),)
    rounding = small.model_copy(update={"egress": small.egress.model_copy(update={"fields": fields})})
    values = Policy(rounding, b"k" * 32).row(scored(record(Type=5.25)), contract)
    assert values["Type"] is None


def test_rows_of_several_releases_each_leave_by_their_own_contract(policy, contract, record):
    row = scored(record(**{"Flow [mean 60]": 1.5}))
    found = [policy.row(row, each) for each in (contract, None, contract, None)]
    assert [("Flow [mean 60]" in values) for values in found] == [True, False, True, False]


def test_the_digest_is_of_what_it_says_not_of_its_order(small):
    egress = small.egress
    turned = small.model_copy(
        update={
            "egress": egress.model_copy(update={"fields": egress.fields[::-1], "kinds": egress.kinds[::-1]})
        }
    )
    other = small.model_copy(update={"egress": egress.model_copy(update={"minimum_group_size": 11})})
    digests = [Policy(u, b"k" * 32).digest for u in (small, turned, other)]
    assert digests[0] == digests[1] != digests[2]
    assert Policy(small, b"x" * 32).digest == digests[0]


def test_histograms_leave_for_listed_numbers_only(policy, counting):
    references = {
        "r1": [Reference(n, (5.0,), (1, 1), 0.2) for n in ("Flow", "Secret", "Serial", "Only counted")]
    }
    values = {("r1", name): [1.0] * 20 + [9.0] * 30 for name in ("Flow", "Secret", "Serial", "Only counted")}
    found = policy.histograms(staying(values), references)
    assert [(h.feature, h.rows, h.counts) for h in found] == [
        ("Flow", 50, (20, 30)),
        ("Only counted", 50, (20, 30)),
    ]


@pytest.mark.parametrize(("rows", "leaves"), [(9, False), (10, True)])
def test_a_small_group_stays(policy, counting, rows, leaves):
    values = {("r1", "Flow"): [1.0] * rows + [None, float("nan")] * 10}
    assert (
        bool(policy.histograms(staying(values), {"r1": [Reference("Flow", (5.0,), (1, 1), 0.2)]})) is leaves
    )


@settings(max_examples=100)
@given(st.lists(st.floats(0, 15) | st.none(), max_size=60))
def test_no_small_number_can_be_told_from_a_histogram(policy, values):
    reference = Reference("Flow", (5.0, 10.0), (1, 1, 1), 0.2)

    def counted(numbers, _):
        import numpy as np

        return np.histogram(numbers, [-np.inf, 5, 10, np.inf])[0]

    whole, policies._counted = policies._counted, counted
    try:
        found = policy.histograms(staying({("r1", "Flow"): values}), {"r1": [reference]})
    finally:
        policies._counted = whole
    for histogram in found:
        assert all(count == 0 or count >= SMALL_CELL for count in histogram.counts)
        assert histogram.rows == sum(histogram.counts) >= policy.egress.minimum_group_size


@pytest.mark.parametrize(
    ("cells", "left"),
    [
        ((40, 60, 0), (40, 60, 0)),
        ((3, 40, 60), (0, 0, 60)),  # or the total of another feature tells the 3
        ((60, 3, 60), (0, 0, 60)),  # only one of two equal ones
        ((4, 4, 60), (0, 0, 60)),  # 8 hidden rows are not few
        ((3, 60, 0), None),
        ((0, 9, 4), None),  # 9 alone would be below the minimum, and nothing is left
        ((3, 1, 0), None),
    ],
)
def test_few_hidden_rows_take_the_smallest_cell_with_them(policy, counting, cells, left):
    values = [number for number, rows in zip((1.0, 7.0, 12.0), cells, strict=True) for _ in range(rows)]
    found = policy.histograms(
        staying({("r1", "Flow"): values}), {"r1": [Reference("Flow", (5.0, 10.0), (1, 1, 1), 0.2)]}
    )
    assert [(h.rows, h.counts) for h in found] == ([] if left is None else [(sum(left), left)])


def cut(total):
    """How so many rows may fall into three bins."""
    return st.tuples(st.integers(0, total), st.integers(0, total)).map(
        lambda cuts: (min(cuts), max(cuts) - min(cuts), total - max(cuts))
    )


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.integers(10, 60).flatmap(lambda total: st.lists(cut(total), min_size=3, max_size=3)))
def test_no_small_number_can_be_told_from_the_totals_of_other_features(policy, counting, cells):
    names = ("Flow", "Only counted", "Pressure [bar]")
    values = {
        ("r1", name): [1.0] * low + [7.0] * middle + [12.0] * high
        for name, (low, middle, high) in zip(names, cells, strict=True)
    }
    references = {"r1": [Reference(name, (5.0, 10.0), (1, 1, 1), 0.2) for name in names]}
    total = sum(cells[0])
    for histogram in policy.histograms(staying(values), references):
        hidden = total - histogram.rows
        assert hidden == 0 or hidden >= SMALL_CELL
        assert histogram.rows == sum(histogram.counts) >= policy.egress.minimum_group_size


def test_histograms_are_counted_by_the_drift_module(policy):
    pytest.importorskip("edge_ai_assets.ml.drift")
    found = policy.histograms(
        staying({("r1", "Flow"): [1.0] * 20 + [7.0] * 30}),
        {"r1": [Reference("Flow", (5.0, 10.0), (1, 1, 1), 0.2)]},
    )
    assert [(h.rows, h.counts) for h in found] == [(50, (20, 30, 0))]


scalar = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)


@settings(max_examples=200)
@given(
    inputs=st.dictionaries(
        st.sampled_from(["Flow", "Type", "Serial", "_note", "_role", "x"]) | st.text(), scalar
    ),
    kind=st.sampled_from(["anomaly", "normal"]),
    canary=st.sampled_from(
        ["Secret", "Secret [mean 60]", "Only counted", "Only counted [mean 60]", "unheard of"]
    ),
)
def test_a_canary_in_a_forbidden_field_never_leaves(policy, contract, inputs, kind, canary):
    record = json.dumps({"inputs": {**inputs, canary: "CANARY"}, "context": {"_run": "CANARY"}}).encode()
    for values in (
        policy.row(scored(record, kind), contract),
        policy.feedback(scored(record, kind), said("CANARY"), contract),
    ):
        text = values.reason if isinstance(values, Withheld) else json.dumps(values)
        assert "CANARY" not in text


def test_an_unreadable_record_is_an_error_not_an_empty_row(policy):
    with pytest.raises(ValueError, match="unreadable"):
        policy.row(scored(b"{"))


# Many rows at once.

VALUES = st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.floats(), st.text(max_size=3))
RECORDS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("Pressure [bar]", "Flow", "Type", "Serial", "Secret", "_note"), VALUES)
)
ROWS = st.lists(
    st.tuples(RECORDS, st.sampled_from(["anomaly", "normal"]), st.none() | st.floats()), max_size=9
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(ROWS)
def test_rows_together_leave_as_each_by_itself(policy, contract, rows):
    """Whatever their records hold, and in whatever order they come."""
    made = [
        msgspec.structs.replace(scored(msgspec.json.encode({"inputs": inputs}), kind, score), sequence=number)
        for number, (inputs, kind, score) in enumerate(rows)
    ]
    broken: defaultdict[str, list[int]] = defaultdict(list)
    together: dict[int, object] = {}
    for scores in columns.of_rows(made, broken):
        found = policy.columns(scores, contract)
        if isinstance(found, Withheld):
            together |= dict.fromkeys(scores.sequences.tolist(), found)
        else:
            values = zip(*map(rules.listed, found.values()), strict=True)
            each = [dict(zip(found, one, strict=True)) for one in values]
            together |= dict(zip(scores.sequences.tolist(), each, strict=True))
    assert not broken
    assert together == {row.sequence: policy.row(row, contract) for row in made}


@pytest.mark.parametrize("values", [[0.0, -0.0], [-0.0, 0.0], [1, 1.0, True], [True, 1.0, 1]])
def test_a_pseudonym_does_not_depend_on_what_came_before(values):
    def rule() -> rules.Rule:
        field = usecase.EgressField(name="Flow", leaves="pseudonymised")
        return rules.of(field, usecase.Feature(name="Flow"), "Flow", b"k" * 16)

    assert list(rule()(values)) == [rule()([value])[0] for value in values]


@given(st.lists(VALUES), st.integers(0, 12))
def test_a_column_is_rounded_as_its_values_are(values, digits):
    field = usecase.EgressField(name="Flow", leaves="rounded", digits=digits)
    rule = rules.of(field, usecase.Feature(name="Flow"), "Flow", b"k" * 16)
    real = [type(value) in (int, float) and math.isfinite(value) for value in values]
    told = [round(float(one), digits) if yes else None for one, yes in zip(values, real, strict=True)]
    assert repr(rules.listed(rule(values))) == repr(told)
    numbers = np.array([one if yes else np.nan for one, yes in zip(values, real, strict=True)], np.float64)
    assert repr(rules.listed(rule(numbers))) == repr(told)


@pytest.mark.parametrize(
    "value", [2.675, 0.285, 1.005, -1.005, 0.5, 1.5, 2.5e-3, 1e300, 1.7e308, 2.0**52 / 100, 1e15 + 0.3]
)
def test_what_is_nearly_half_way_is_rounded_as_python_does(value):
    near = [value, math.nextafter(value, 0), math.nextafter(value, math.copysign(1.7e308, value))]
    assert rules.numbers(2, np.array(near)).tolist() == [round(one, 2) for one in near]
