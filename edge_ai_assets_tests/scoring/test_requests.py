"""Bodies of requests: the fast way to read JSON says what the explained one says; answers are valid JSON."""

from __future__ import annotations

import json
import tracemalloc
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_ai_assets.scoring import answers as written
from edge_ai_assets.scoring import requests
from edge_ai_assets.scoring.answers import Answer, Head
from edge_ai_assets.scoring.bodies import csv_body, json_body
from edge_ai_assets.scoring.bodies.json_body import JsonReader
from edge_ai_assets.scoring.context import CONTEXT
from edge_ai_assets.scoring.contract import Contract, ContractError, Input
from edge_ai_assets.scoring.refused import Refused
from edge_ai_assets.scoring.requests import FeedbackItem, Rows
from edge_ai_assets_tests.scoring.serving import COLUMNS, NAMES, RECORD
from edge_ai_assets_tests.tiny_model import INPUTS

CONTRACT = Contract("tiny", INPUTS, 0.5, "fault")
READER = JsonReader(CONTRACT)
HEAD = Head("sha256:aa", 1_769_866_245_000_001, 0.5)


def outcome(read: Any, body: bytes) -> Any:
    """What a way of reading gives, comparable; of a refusal its status. Context that says nothing is none."""
    try:
        rows: Rows = read(body)
        CONTRACT.narrowed(requests.matrix(rows))
    except Refused as refusal:
        return refusal.status
    except ContractError:
        return "beyond"
    context = {name: values for name, values in rows.context.items() if set(values) != {None}}
    texts = {name: list(values) for name, values in rows.texts.items()}
    numbers = np.nan_to_num(requests.matrix(rows), nan=-12345.0).tolist()
    return rows.number, numbers, texts, context, rows.columnar


numbers = (
    st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(0, 25)
    | st.integers()
    | st.integers(2**53, 2**70)
)
texts = st.none() | st.sampled_from(["screw", "centrifugal", ""]) | st.text(max_size=4)
anything = (
    numbers | texts | st.booleans() | st.lists(numbers, max_size=2) | st.dictionaries(texts.map(str), numbers)
)
good = {
    "Pressure [bar]": numbers,
    "Temperature": numbers,
    "Pump type": texts,
}
more = {
    "Temperature mean 12": numbers,
    "_time": st.none() | st.datetimes(timezones=st.none() | st.timezones()).map(datetime.isoformat) | texts,
    "_run": st.none() | st.text(max_size=4),
    "_row": st.none() | st.integers(0, 2**63),
    "_asset": st.none() | st.text(max_size=4) | st.just("x" * 201),
}
record = st.fixed_dictionaries(good, optional=more)
odd = st.dictionaries(st.sampled_from([*NAMES, *CONTEXT]) | st.text(max_size=3), anything, max_size=5)
records = st.lists(record | record | odd, max_size=4)


@st.composite
def by_columns(draw: Any) -> Any:
    size = draw(st.integers(0, 3))
    many = {name: st.lists(of, min_size=size, max_size=size) for name, of in good.items()}
    some = {name: st.lists(of, min_size=size, max_size=size) for name, of in more.items()}
    context = {name: some.pop(name) for name in CONTEXT}
    columns = draw(st.fixed_dictionaries(many, optional=some))
    if draw(st.integers(0, 5)) == 0:
        columns |= draw(
            st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), st.lists(anything, max_size=3))
        )
    body = {"columns": columns}
    if draw(st.booleans()):
        body["context"] = draw(st.none() | st.fixed_dictionaries({}, optional=context))
    return body


bodies = (
    records.map(lambda found: {"records": found})
    | by_columns()
    | st.fixed_dictionaries({}, optional={"records": records, "columns": anything, "context": anything})
)


@settings(max_examples=600)
@given(bodies, st.booleans())
@example({"records": [RECORD, RECORD | {"Temperature": 10**400}]}, True)
@example({"records": [RECORD | {"Temperature": True}]}, True)
@example({"records": [RECORD | {"Temperature": "1"}]}, True)
@example({"records": [RECORD | {"Pump type": 1}]}, True)
@example({"records": [RECORD | {"_row": 2**64}]}, True)
@example({"records": [RECORD | {"_row": 1.0}]}, True)
@example({"columns": COLUMNS, "context": None}, True)
@example({"columns": COLUMNS, "records": None}, True)
@example({"columns": {**COLUMNS, "Temperature mean 12": None}}, True)
def test_the_fast_way_says_what_the_explained_one_says(body: Any, compact: bool):
    data = json.dumps(body, separators=(",", ":") if compact else None).encode()
    assert outcome(READER.read, data) == outcome(READER.explained, data)


def test_a_request_without_plant_assets_is_what_it_was_before_there_were_any():
    """Its fingerprint, and the block that it becomes."""
    known = RECORD | {"_time": None, "_run": "r", "_row": 3}
    for records in ([known], [known, RECORD], [known | {"_asset": None}]):
        rows = READER.read(msgspec.json.encode({"records": records}))
        assert list(rows.context) == ["_time", "_run", "_row"]
    rows = READER.read(msgspec.json.encode({"records": [RECORD, RECORD | {"_asset": "P-1"}]}))
    assert rows.context["_asset"] == [None, "P-1"]


@settings(max_examples=300)
@given(bodies, st.data())
def test_so_it_does_for_what_is_no_json(body: Any, data: Any):
    whole = bytearray(json.dumps(body, separators=(",", ":")).encode())
    at = data.draw(st.integers(0, len(whole)))
    whole[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=3))
    changed = bytes(whole)
    assert outcome(READER.read, changed) == outcome(READER.explained, changed)


@pytest.mark.parametrize(
    "number",
    [
        *(
            "1",
            "-0",
            "-0.0",
            "1e5",
            "1E+5",
            "0.1",
            "123456789.123456789",
            "9007199254740993",
            "1e-320",
            "5e-324",
        ),
        *(
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "3.4028235e38",
            "1e308",
            "1e309",
        ),
        *("1" + "0" * 400, "NaN", "Infinity", "01", "+1", "1.", ".5", "0x1", "1_0", '"1"', "true", "null"),
    ],
)
def test_a_number_is_the_same_both_ways_however_it_is_written(number: str):
    for text in (
        '{"records":[{"Pressure [bar]":%s,"Temperature":1,"Pump type":null}]}',
        '{"records":[{"Pressure [bar]":1,"Temperature":1,"Pump type":null,"Temperature mean 12":%s}]}',
        '{"columns":{"Pressure [bar]":[1],"Temperature":[1],"Pump type":[null],"Temperature mean 12":[%s]}}',
    ):
        body = (text % number).encode()
        assert outcome(READER.read, body) == outcome(READER.explained, body)


def test_a_field_given_twice_is_the_last_one_both_ways():
    body = b'{"records":[{"Temperature":1,"Pressure [bar]":1,"Pump type":null,"Temperature":2}]}'
    assert outcome(READER.read, body) == outcome(READER.explained, body)
    assert requests.matrix(READER.read(body))[0, 1] == 2


@pytest.mark.parametrize(
    "names", [['a"b', "c"], ["tab\t", "c"], ["\\", "c"], ["f0", "records", "π", "", "class"]]
)
def test_names_of_any_kind_are_inputs(names: list[str]):
    reader = JsonReader(
        Contract("awkward", tuple(Input(name, "number", "", name) for name in names), 0.5, "fault")
    )
    record = {name: float(place) for place, name in enumerate(names)}
    assert requests.matrix(reader.read(json.dumps({"records": [record]}).encode())).tolist() == [
        list(record.values())
    ]
    columns = {name: [value] for name, value in record.items()}
    body = json.dumps({"columns": columns}, separators=(",", ":")).encode()
    assert requests.matrix(reader.read(body)).tolist() == [list(record.values())]


def test_good_bodies_are_read_the_fast_way(monkeypatch):
    monkeypatch.setattr(JsonReader, "explained", lambda *_: pytest.fail("it was read value by value"))
    reader = JsonReader(CONTRACT)
    assert reader.read(json.dumps({"records": [RECORD | {"_row": 1}]}).encode()).number == 1
    assert reader.read(json.dumps({"columns": COLUMNS}, separators=(",", ":")).encode()).number == 2


KEYED = [
    b'{"records":[{"Pressure [bar]":1,"Temperature":2,"Pump type":"screw","_run":"r"}]}',
    b'{"columns":{"Pressure [bar]":[1],"Temperature":[2],"Pump type":["screw"]},"context":{"_run":["r"]}}',
    b'{"columns":{"Pressure [bar]":[1],"Temperature":[2],"Pump type":["screw"]},'
    b'"context":{"_asset":[null],"_run":["r"],"_time":[null]}}',
]


def test_a_request_is_known_again_however_its_context_is_written():
    found = {requests.fingerprint(READER.read(body), CONTRACT) for body in KEYED}
    # As it was before _asset could be given: a key that was used then is still known.
    assert [each.hex() for each in found] == ["cf0e803deffa6e310bd63ac161364569"]
    bare = [body.replace(b'"r"', b"null") for body in KEYED]
    (nothing,) = {requests.fingerprint(READER.read(body), CONTRACT) for body in bare}
    assert nothing not in found
    other = {requests.fingerprint(READER.read(body.replace(b'"r"', b'"s"')), CONTRACT) for body in KEYED}
    assert len(other) == 1 and not other & found


HUGE = 32 * 1024 * 1024


def filled(head: bytes, piece: bytes, tail: bytes) -> bytes:
    return head + piece * ((HUGE - len(head) - len(tail)) // len(piece)) + piece.rstrip(b",") + tail


_INPUTS = b'"Pressure [bar]":1,"Temperature":2,"Pump type":null'
_ONE = Contract("one", (Input("x", "number", "", "x"),), 0.5, "fault")
_MANY = Contract("many", tuple(Input(f"x{i}", "number", "", f"x{i}") for i in range(200)), 0.5, "fault")
_ODD = Contract("odd", (Input("x\\", "number", "", "x\\"),), 0.5, "fault")


@pytest.mark.parametrize(
    ("contract", "parts"),
    [
        pytest.param(CONTRACT, (b'{"records":[', b"{},", b"]}"), id="records of nothing"),
        pytest.param(_ODD, (b'{"records":[', b"{},", b"]}"), id="records, explained"),
        pytest.param(_ONE, (b'{"records":[', b'{"x":1},', b"]}"), id="good records"),
        pytest.param(CONTRACT, (b'{"columns":{"Temperature":[', b"[],", b"]}}"), id="lists in a column"),
        pytest.param(_ONE, (b'{"columns":{"x":[', b"[],", b"]}}"), id="lists in a column of numbers"),
        pytest.param(CONTRACT, (b'{"columns":{"Temperature":[', b"[[]],", b"]}}"), id="nested lists"),
        pytest.param(CONTRACT, (b'{"columns":{"Pump type":[', b'"",', b"]}}"), id="texts"),
        pytest.param(CONTRACT, (b'{"columns":{"Pump type":[', b'"a,",', b"]}}"), id="texts with commas"),
        pytest.param(_ONE, (b'{"columns":{"x":[', b"1,", b"]}}"), id="numbers"),
        pytest.param(_MANY, (b'{"columns":{"x0":[', b"1,", b"]}}"), id="numbers, of many inputs"),
        pytest.param(_ONE, (b'{"columns":{"x":[1]},"context":{"_row":[', b"1,", b"]}}"), id="row numbers"),
        pytest.param(CONTRACT, (b'{"records":[{%b,"_time":[' % _INPUTS, b"[],", b"]}]}"), id="times"),
        pytest.param(CONTRACT, (b'{"records":[{%b,"_run":[' % _INPUTS, b"{},", b"]}]}"), id="runs"),
        pytest.param(CONTRACT, (b'{"records":[{', b'"a":1,', b'"a":1}]}'), id="one name often"),
    ],
)
def test_a_body_takes_no_more_memory_than_a_good_one(contract: Contract, parts: tuple[bytes, bytes, bytes]):
    body, reader = filled(*parts), JsonReader(contract)
    tracemalloc.start()
    try:
        with pytest.raises(Refused) as caught:
            reader.read(body)
        assert caught.value.status == 413
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_marks_within_texts_are_not_counted():
    texts = ['{[,"\\'] * 70_000
    body = json.dumps(
        {"columns": {"Pressure [bar]": [1] * 70_000, "Temperature": [2] * 70_000, "Pump type": texts}}
    )
    assert READER.read(body.encode()).texts["Pump type"] == texts


@pytest.mark.parametrize("form", ["json", "csv"])
def test_feedback_takes_no_more_memory_than_may_be_given(form: str):
    if form == "json":
        body = filled(b'{"items":[', b'{"id":"b/1","correct":true},', b"]}")
    else:
        body = filled(b"id,correct\n", b"b/1,true\n", b"")
    tracemalloc.start()
    try:
        with pytest.raises(Refused) as caught:
            (json_body if form == "json" else csv_body).feedback(body)
        assert caught.value.status == 413
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024 + 3 * len(body) * (form == "csv")
    finally:
        tracemalloc.stop()


def test_made_up_names_take_no_square_of_memory():
    body = json.dumps({"records": [{f"field {n}": n} for n in range(20_000)]}).encode()
    with pytest.raises(Refused, match="field 'field 0' is not an input"):
        READER.read(body)


scores = st.floats(0, 1, width=32)
answers = st.lists(st.tuples(scores, st.booleans(), st.booleans()), min_size=1, max_size=4)
sites = st.sampled_from(["bergen", 'a"b', "π\\n", "x/y"])


@given(answers, sites, st.integers(1, 2**62), st.booleans(), st.none() | st.floats(0, 1))
def test_answers_say_what_was_scored(
    rows: Any, site: str, first: int, repeated: bool, threshold: float | None
):
    head = HEAD._replace(repeated=repeated, threshold=threshold)
    answer = Answer(first, *(list(each) for each in zip(*rows, strict=True)), head)
    said = json.loads(written.by_records(msgspec.json.encode(site)[1:-1])(answer))
    assert [tuple(each.values()) for each in said.pop("results")] == [
        (f"{site}/{first + row}", *of) for row, of in enumerate(rows)
    ]
    columnar = json.loads(written.by_columns(site, answer))
    assert columnar.pop("first") == f"{site}/{first}"
    assert (
        list(zip(columnar.pop("scores"), columnar.pop("predicted"), columnar.pop("outside"), strict=True))
        == rows
    )
    expected = {"release": "sha256:aa", "scored_at": "2026-01-31T13:30:45.000001Z", "threshold": threshold}
    assert said == columnar == (expected | {"repeated": True} if repeated else expected)


def test_heads_of_different_answers_are_not_mixed_up():
    write = written.by_records(b"bergen")
    other = HEAD._replace(release="sha256:bb")
    answers = [
        Answer(1, [0.5], [True], [False], head) for head in (HEAD, other, HEAD, HEAD._replace(scored_at=0))
    ]
    assert [json.loads(write(answer))["release"][-2:] for answer in answers] == ["aa", "bb", "aa", "aa"]
    assert json.loads(write(answers[3]))["scored_at"] == "1970-01-01T00:00:00Z"


def test_the_role_of_feedback_is_its_token_s():
    items = [FeedbackItem("bergen/1", True, None, "operator"), FeedbackItem("bergen/2", False)]
    assert [each.role for each in requests.feedback("bergen", items, 0)] == ["operator", ""]
    assert [each.role for each in requests.feedback("bergen", items, 0, "panel")] == ["panel", "panel"]


@given(st.text(max_size=12))
def test_no_text_is_an_id_unless_it_is_one(text: str):
    for given_id in (text, f"bergen/{text}", f"bergen{text}/1"):
        try:
            (found,) = requests.feedback("bergen", [FeedbackItem(given_id, True)], 0)
        except Refused as refusal:
            assert refusal.status == 404
        else:
            assert given_id == f"bergen/{given_id[7:]}" and int(given_id[7:]) == found.sequence >= 0


def test_a_site_with_a_slash_in_its_name_has_ids_too():
    (found,) = requests.feedback("a/b", [FeedbackItem("a/b/7", True)], 0)
    assert found.sequence == 7
