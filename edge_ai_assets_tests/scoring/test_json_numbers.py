"""Columns of numbers: the quick way reads what others read, bit for bit, and leaves them what it cannot."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_ai_assets.scoring import requests
from edge_ai_assets.scoring.bodies import json_numbers
from edge_ai_assets.scoring.bodies.json_body import JsonReader
from edge_ai_assets.scoring.bodies.json_numbers import NumbersReader
from edge_ai_assets.scoring.contract import Contract, Input
from edge_ai_assets.scoring.refused import Refused

NAMES = ("Speed [rpm]", "Öl", "x")
CONTRACT = Contract(
    "numbers",
    (*(Input(name, "number", "", name) for name in NAMES), Input("x mean 12", "number", "", "x")),
    0.5,
    "fault",
)
pytest.importorskip("simdjson")


def told(body: bytes) -> Any:
    """What a body comes to, bits of the matrix or refusal."""
    try:
        rows = JsonReader(CONTRACT).read(body)
    except Refused as refusal:
        return refusal.status, str(refusal)
    return requests.matrix(rows).tobytes(), rows.number, rows.context, rows.columnar


def without(body: bytes) -> Any:
    """The same where simdjson is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_numbers, "simdjson", None)
        return told(body)


def text(**columns: Any) -> bytes:
    return json.dumps({"columns": dict(zip(NAMES, ([1.0], [2], [3]), strict=True)) | columns}).encode()


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**62), 2**62) | st.integers()
values = st.lists(numbers | st.just(0.1), min_size=2, max_size=2)
odd = st.sampled_from([None, [], [None, 1], [True, 1], ["1", 2], [[1], [2]], [[1, 2]], {}, 5, "[", [1, 2, 3]])


@settings(max_examples=400)
@given(
    st.fixed_dictionaries(
        dict.fromkeys(NAMES, values | values | odd), optional={"x mean 12": values | odd, "[": values}
    ),
    st.sampled_from([None, 1]),
)
@example({name: [[1], [2]] for name in NAMES}, None)
@example({name: [1e-320, -0.0] for name in NAMES}, None)
def test_it_reads_what_others_read(columns: dict[str, Any], indent: int | None):
    body = json.dumps({"columns": columns}, indent=indent, ensure_ascii=False).encode()
    body = body.replace(b'{\n "columns"', b'{"columns"')
    assert told(body) == without(body)


@settings(max_examples=300)
@given(st.data())
def test_broken_bodies_are_refused_alike(data: Any):
    whole = bytearray(text())
    at = data.draw(st.integers(0, len(whole)))
    whole[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=3))
    assert told(bytes(whole)) == without(bytes(whole))


def test_numbers_are_read_the_quick_way(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(JsonReader, "explained", lambda *_: pytest.fail("it was read value by value"))
    found = NumbersReader(NAMES).read(text())
    assert found is not None
    assert {name: column.tolist() for name, column in found.items()} == dict(
        zip(NAMES, ([1.0], [2.0], [3.0]), strict=True)
    )
    assert all(column.dtype == np.float64 for column in found.values())


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(text(x=[None]), id="a missing value"),
        pytest.param(text(x=["1"]), id="text"),
        pytest.param(text(x=[True]), id="a boolean"),
        pytest.param(text(x=[[1]]), id="a list in a list"),
        pytest.param(text(x=[{}]), id="an object"),
        pytest.param(text(x=1), id="no list"),
        pytest.param(b'{"columns":{"x":[1],"x":[2]}}', id="a name twice"),
        pytest.param(b'{"columns":{"x":[1]},"context":{"_row":[1]}}', id="context"),
        pytest.param(b'{"columns":{"x":[1e999]}}', id="beyond float64"),
        pytest.param(b'{"columns":{"x":[-9223372036854775809]}}', id="a whole number beyond 64 bits"),
        pytest.param(b'{"columns":{"x":[1]}', id="cut"),
        pytest.param(b'{"columns":[[1]]}', id="columns are a list"),
        pytest.param(b'{"columns":"x"}', id="columns are text"),
        pytest.param(b'[{"columns":1}]', id="a list"),
        pytest.param(b"1", id="a number"),
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"columns":{"\xff":[1]}}', id="no UTF-8"),
    ],
)
def test_what_it_cannot_read_is_left_to_others_and_the_next_body_is_read_again(body: bytes):
    reader = NumbersReader(NAMES)
    assert reader.read(body) is None
    assert reader.read(text()) is not None


def test_a_body_that_would_need_much_memory_is_left_to_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_numbers, "MAX_BYTES", len(text()) - 1)
    assert NumbersReader(NAMES).read(text()) is None
    monkeypatch.setattr(json_numbers, "MAX_BYTES", len(text()))
    assert NumbersReader(NAMES).read(text()) is not None
