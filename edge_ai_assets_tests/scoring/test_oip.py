"""The Open Inference Protocol: what a client sends becomes columns, scores become the bytes it expects."""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.scoring.bodies import oip, oip_tensors
from edge_ai_assets.scoring.bodies.oip import Infer, Output
from edge_ai_assets.scoring.bodies.oip_messages import HEADER
from edge_ai_assets.scoring.bodies.oip_tensors import NUMBERS
from edge_ai_assets.scoring.contract import Contract, ContractError, Input
from edge_ai_assets.scoring.refused import Refused
from edge_ai_assets.scoring.requests import MAX_ROWS
from edge_ai_assets_tests.tiny_model import INPUTS

MIXED = Contract("mixed", INPUTS, 0.5, "fault")
NUMERIC = Contract("numeric", tuple(Input(f"x{i}", "number", "", f"x{i}") for i in range(3)), 0.5, "fault")
SINGLE = Contract("single", NUMERIC.inputs[:1], 0.5, "fault")
ALL = ("score", "predicted", "outside", "id")

# As tritonclient 2.73 and kserve 0.21 sent them, with default settings.
BINARY = b"\x00\x00\xc0?\x00\x00\xc0\x7f\n\x00\x14\x00\x05\x00\x00\x00screw\x00\x00\x00\x00"
TRITON_BINARY = (
    b'{"id":"7","inputs":[{"name":"Pressure [bar]","shape":[2],"datatype":"FP32","parameters":'
    b'{"binary_data_size":8}},{"name":"Temperature","shape":[2,1],"datatype":"INT16","parameters":'
    b'{"binary_data_size":4}},{"name":"Pump type","shape":[2],"datatype":"BYTES","parameters":'
    b'{"binary_data_size":13}}],"parameters":{"binary_data_output":true}}'
)
KSERVE_BINARY = TRITON_BINARY.replace(
    b',"parameters":{"binary_data_output":true}}', b',"model_name":"mixed"}'
)
TRITON_JSON = (
    b'{"id":"7","inputs":[{"name":"Pressure [bar]","shape":[2],"datatype":"FP32","data":[1.5,NaN]},'
    b'{"name":"Temperature","shape":[2,1],"datatype":"INT16","data":[10,20]},{"name":"Pump type",'
    b'"shape":[2],"datatype":"BYTES","data":["screw",""]}],"outputs":[{"name":"score","parameters":'
    b'{"binary_data":false}}]}'
)
KSERVE_JSON = TRITON_JSON.replace(b"NaN", b"null").replace(b'"id":"7",', b'"id":"7","model_name":"mixed",')


def to_bytes(values: Any, datatype: str) -> bytes:
    """Binary tensor data, written from the specification and not from the code."""
    if datatype == "BYTES":
        texts = [(value or "").encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.array(values, NUMBERS[datatype]).tobytes()


def tensor(name: str, datatype: str, values: Any, shape: Any = None, *, binary: bool = False) -> Any:
    """An input and, if binary, its bytes."""
    head = {"name": name, "shape": [len(values)] if shape is None else shape, "datatype": datatype}
    if not binary:
        return head | {"data": list(values)}, b""
    data = to_bytes(values, datatype)
    return head | {"parameters": {"binary_data_size": len(data)}}, data


def send(*tensors: Any, contract: Contract = MIXED, more: bytes = b"", **fields: Any) -> Infer:
    """Tensors as a request, which is read."""
    body = json.dumps({"inputs": [head for head, _ in tensors], **fields}).encode()
    headers = {HEADER: str(len(body)).encode()}
    return oip.infer(headers, body + b"".join(data for _, data in tensors) + more, contract)


def whole(*, binary: bool = False, rows: int = 1, change: Any = None) -> list[Any]:
    """The tensors of a good request to MIXED; one may be replaced."""
    tensors = [
        tensor("Pressure [bar]", "FP32", [1.5] * rows, binary=binary),
        tensor("Temperature", "FP64", [20.0] * rows, binary=binary),
        tensor("Pump type", "BYTES", ["screw"] * rows, binary=binary),
    ]
    return [
        change if change and change[0]["name"] == head["name"] else (head, data) for head, data in tensors
    ]


def plain(columns: Any) -> dict[str, list[Any]]:
    """Columns as lists in which NaN is None, to be compared."""
    lists = {name: np.asarray(values, object).tolist() for name, values in columns.items()}
    return {name: [None if value != value else value for value in values] for name, values in lists.items()}


def refusal(*arguments: Any, **fields: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        send(*arguments, **fields)
    return caught.value


# What real clients send.


@pytest.mark.parametrize("head", [TRITON_BINARY, KSERVE_BINARY])
def test_binary_as_the_clients_send_it(head):
    request = oip.infer({HEADER: str(len(head)).encode()}, head + BINARY, MIXED)
    assert plain(request.columns) == {
        "Pressure [bar]": [1.5, None],
        "Temperature": [10, 20],
        "Pump type": ["screw", None],
    }
    assert (request.rows, request.id, request.context) == (2, "7", {})
    assert request.outputs == tuple(Output(name, head is TRITON_BINARY) for name in ALL)


@pytest.mark.parametrize("body", [TRITON_JSON, KSERVE_JSON])
@pytest.mark.parametrize("headers", [{}, {HEADER: b""}], ids=["no header", "with its length"])
def test_json_as_the_clients_send_it(body, headers):
    request = oip.infer({name: str(len(body)).encode() for name in headers}, body, MIXED)
    assert plain(request.columns) == {
        "Pressure [bar]": [1.5, None],
        "Temperature": [10, 20],
        "Pump type": ["screw", None],
    }
    assert request.outputs == (Output("score", False),)


# Inputs.


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_datatype_of_numbers_arrives_in_it(datatype, binary):
    values = [0, 1, 100] if datatype.startswith("U") else [-40, 0, 100]
    request = send(tensor("x0", datatype, values, binary=binary), contract=SINGLE)
    column = request.columns["x0"]
    assert isinstance(column, np.ndarray) and column.dtype == NUMBERS[datatype]
    assert column.tolist() == values
    assert SINGLE.encode(request.columns)[:, 0].tolist() == values


def test_binary_numbers_are_not_copied():
    head, data = tensor("x0", "FP32", [1, 2], binary=True)
    body = json.dumps({"inputs": [head]}).encode()
    column = oip.infer({HEADER: b"%d" % len(body)}, body + data, SINGLE).columns["x0"]
    assert isinstance(column, np.ndarray) and not column.flags.owndata and not column.flags.writeable


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_a_missing_number_is_nan(datatype, binary):
    column = send(tensor("x0", datatype, [1, float("nan")], binary=binary), contract=SINGLE).columns["x0"]
    assert plain({"x0": column}) == {"x0": [1, None]}


def test_json_is_rounded_to_its_datatype_as_binary_is():
    for datatype in ("FP16", "FP32"):
        column = send(tensor("x0", datatype, [0.1]), contract=SINGLE).columns["x0"]
        assert float(column[0]) == float(NUMBERS[datatype].type(0.1)) != 0.1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("datatype", "value"), [("FP16", 1e5), ("FP32", 1e39)])
def test_what_a_datatype_cannot_hold_is_infinite_and_left_to_the_contract(datatype, value):
    columns = send(tensor("x0", datatype, [value]), contract=SINGLE).columns
    with pytest.raises(ContractError, match="row 0: 'x0' is inf, it must be finite"):
        SINGLE.encode(columns)


@pytest.mark.parametrize("data", [[1, 2], [[1], [2]]], ids=["flat", "nested"])
@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_a_column_may_be_n_or_n_by_1_and_its_data_flat_or_nested(shape, data):
    head = {"name": "x0", "shape": shape, "datatype": "FP32", "data": data}
    assert send((head, b""), contract=SINGLE).columns["x0"].tolist() == [1, 2]


def test_json_may_have_spaces_anywhere():
    body = (
        b' { "inputs" : [ {"name":"x0", "shape":[ 2 , 1 ], "datatype":"FP32", "data": [\n [ 1 ] , [2]\t]}] } '
    )
    assert oip.infer({}, body, SINGLE).columns["x0"].tolist() == [1, 2]


@pytest.mark.parametrize("binary", [False, True])
def test_texts_are_what_was_sent_and_an_empty_one_is_missing(binary):
    texts = ["screw", "", "a,b", 'q"uo\\te', "NaN", "m³/h", "[", "\x00", "screw"]
    tensors = [
        tensor("Pressure [bar]", "FP32", [1.0] * 9, binary=binary),
        tensor("Pump type", "BYTES", texts, binary=binary),
    ]
    assert send(*tensors).columns["Pump type"] == ["screw", None, *texts[2:]]


def test_null_is_a_missing_text_and_a_nan_that_is_no_json_spares_texts():
    body = json.dumps({"inputs": [head for head, _ in whole(rows=2)]})
    body = body.replace("[1.5, 1.5]", "[NaN, 1.5]").replace('["screw", "screw"]', r'["NaN \" NaN", null]')
    assert plain(oip.infer({}, body.encode(), MIXED).columns) == {
        "Pressure [bar]": [None, 1.5],
        "Temperature": [20, 20],
        "Pump type": ['NaN " NaN', None],
    }


@pytest.mark.parametrize("binary", [False, True])
def test_features_are_all_inputs_row_by_row(binary):
    values = [1, 2, 3, 4, float("nan"), 6]
    request = send(tensor("features", "FP32", values, [2, 3], binary=binary), contract=NUMERIC)
    assert plain(request.columns) == {"x0": [1, 4], "x1": [2, None], "x2": [3, 6]}
    np.testing.assert_array_equal(NUMERIC.encode(request.columns), np.array(values, np.float32).reshape(2, 3))


def test_features_may_be_nested():
    head = {"name": "features", "shape": [2, 3], "datatype": "FP64", "data": [[1, 2, 3], [4, None, 6]]}
    columns = send((head, b""), contract=NUMERIC).columns
    assert plain(columns) == {"x0": [1, 4], "x1": [2, None], "x2": [3, 6]}


def test_an_input_that_is_called_features_is_an_input():
    contract = Contract("f", (Input("features", "number", "", "features"), *NUMERIC.inputs), 0.5, "fault")
    assert list(send(tensor("features", "FP32", [1, 2]), contract=contract).columns) == ["features"]


@pytest.mark.parametrize("binary", [False, True])
def test_what_rows_belong_to_comes_as_inputs(binary):
    context = [
        tensor("_time", "BYTES", ["2026-01-31T13:45:00", ""], binary=binary),
        tensor("_run", "BYTES", ["7", "8"], binary=binary),
        tensor("_asset", "BYTES", ["P-1", ""], binary=binary),
        tensor("_row", "UINT32", [3, 4], binary=binary),
    ]
    request = send(*context, *whole(rows=2, binary=binary))
    assert request.context == {
        "_time": ["2026-01-31T13:45:00", None],
        "_run": ["7", "8"],
        "_asset": ["P-1", None],
        "_row": [3, 4],
    }
    assert all(type(row) is int for row in request.context["_row"])
    assert set(request.columns) == {"Pressure [bar]", "Temperature", "Pump type"}


def test_binary_and_json_inputs_may_be_mixed():
    tensors = [*whole(binary=True)[:1], *whole()[1:2], *whole(binary=True)[2:]]
    assert send(*tensors).columns["Pump type"] == ["screw"]


def test_data_of_a_binary_tensor_may_be_null():
    head, data = tensor("x0", "FP32", [1], binary=True)
    assert send((head | {"data": None}, data), contract=SINGLE).columns["x0"].tolist() == [1]


def test_parameters_that_mean_nothing_here_are_passed_over():
    head, data = tensor("x0", "FP32", [1], binary=True)
    head["parameters"]["content_type"] = "np"
    parameters = {"sequence_id": 3, "priority": 1, "timeout": 5, "mine": {"a": [1]}}
    request = send((head, data), contract=SINGLE, parameters=parameters, model_name="x", id=None, outputs=[])
    assert request.rows == 1 and request.id is None and request.outputs[0] == Output("score", False)


def test_a_raw_tensor_is_taken_by_a_model_of_one_number_and_answered_in_binary():
    request = oip.infer({HEADER: b"0"}, np.array([1, 2], "<f4").tobytes(), SINGLE)
    assert plain(request.columns) == {"x0": [1, 2]}
    assert request.outputs == tuple(Output(name, True) for name in ALL)


# What is refused.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (tensor("Temperature", "BOOL", [True]), "'Temperature' has datatype 'BOOL', possible is FP16"),
        (tensor("Temperature", "BYTES", ["20"]), "'Temperature' has datatype 'BYTES'"),
        (tensor("Temperature", "fp32", [20]), "'Temperature' has datatype 'fp32'"),
        (tensor("Temperature", "BF16", [20]), "'Temperature' has datatype 'BF16'"),
        (tensor("Pump type", "FP32", [20]), "'Pump type' has datatype 'FP32', possible is BYTES"),
        (tensor("Temperature", "FP32", [20], ()), "'Temperature' has shape [], it must be"),
        (tensor("Temperature", "FP32", [20], [1, 2]), "shape [1, 2], it must be [n] or [n, 1]"),
        (tensor("Temperature", "FP32", [20], [1, 1, 1]), "shape [1, 1, 1]"),
        (tensor("Temperature", "FP32", [20], [0]), "'Temperature' holds no row"),
        (tensor("Temperature", "FP32", [20], [-1]), "Expected `int` >= 0"),
        (tensor("Temperature", "FP32", [20], [1.5]), "Expected `int`, got `float`"),
        (tensor("Temperature", "FP32", [20], [10**30]), "Expected `int` <="),
        (tensor("Temperature", "FP32", [20, 21]), "'Temperature' has 2 rows, the inputs before it have 1"),
        (tensor("Temperature", "FP32", [20, 21], [1]), "data holds more than 1 values, its shape 1"),
        (tensor("Temperature", "FP32", [], [1]), "data holds 0 values"),
        (tensor("Temperature", "FP32", [[20, 21]], [1]), "data holds more than 1 values"),
        (tensor("Temperature", "FP32", [[[20]]], [1]), "'Temperature': data: Expected `float | null`"),
        (tensor("Temperature", "FP32", ["20"]), "'Temperature': data: Expected `float | null`, got `str`"),
        (tensor("Temperature", "FP32", [True]), "'Temperature': data: Expected `float | null`, got `bool`"),
        (tensor("Temperature", "INT32", [1.5]), "'Temperature': data: Expected `int`, got `float`"),
        (tensor("Temperature", "INT8", [128]), "'Temperature': a value does not fit into INT8"),
        (tensor("Temperature", "UINT8", [-1]), "'Temperature': a value does not fit into UINT8"),
        (tensor("Temperature", "INT64", [10**30]), "'Temperature': a value does not fit into INT64"),
        (tensor("Temperature", "INT32", [None]), "a missing number is null or NaN, in a floating datatype"),
        (tensor("Pump type", "BYTES", [1]), "'Pump type': data: Expected `str | null`, got `int`"),
        (tensor("Pump type", "BYTES", ["a", "b"], [1]), "'Pump type': data holds more than 1 values"),
    ],
)
def test_an_input_that_is_refused_is_named(change, message):
    error = refusal(*whole(change=change))
    assert error.status == 400 and message in str(error)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([], "inputs holds no input of the model"),
        ([tensor("_run", "BYTES", ["a"])], "inputs holds no input of the model"),
        ([tensor("Flow", "FP32", [1])], "input 'Flow' is none of this model"),
        (whole() + whole(), "input 'Pressure [bar]' is given twice"),
        ([tensor("_row", "INT8", [1]), tensor("_row", "INT8", [1])], "input '_row' is given twice"),
        (whole(rows=2)[:1] + whole()[1:], "input 'Temperature' has 1 rows, the inputs before it have 2"),
        ([tensor("_row", "FP32", [1])], "input '_row' has datatype 'FP32', possible is INT8"),
        ([tensor("_time", "INT64", [1])], "input '_time' has datatype 'INT64', possible is BYTES"),
        ([tensor("features", "FP32", [1] * 4, [1, 4])], "input 'features' is for models of numbers only"),
        ([({"name": "Temperature", "shape": [1], "datatype": "FP32"}, b"")], "exactly one of data and"),
        (
            [({"name": "Temperature", "shape": [1], "datatype": "FP32", "data": None}, b"")],
            "exactly one of data and",
        ),
    ],
)
def test_inputs_that_do_not_belong_to_the_model(tensors, message):
    error = refusal(*tensors)
    assert error.status == 400 and message in str(error)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([tensor("features", "FP32", [1] * 4, [1, 4])], "shape [1, 4], it must be [n, 3]"),
        ([tensor("features", "FP32", [1] * 3)], "shape [3], it must be [n, 3]"),
        ([tensor("features", "FP32", [[1, 2], [3, 4], [5, 6]], [2, 3])], "data must be 2 lists of 3"),
        ([tensor("features", "FP32", [[1, 2], [3, 4, 5, 6]], [2, 3])], "data must be 2 lists of 3"),
        ([tensor("features", "FP32", [1] * 3, [1, 3]), tensor("x0", "FP32", [1])], "'x0' is given twice"),
        ([tensor("x0", "FP32", [1]), tensor("features", "FP32", [1] * 3, [1, 3])], "send it without 'x0'"),
        ([tensor("features", "BYTES", ["1"] * 3, [1, 3])], "'features' has datatype 'BYTES'"),
    ],
)
def test_features_that_do_not_fit(tensors, message):
    error = refusal(*tensors, contract=NUMERIC)
    assert error.status == 400 and message in str(error)


@pytest.mark.parametrize(
    ("data", "size", "message"),
    [
        (b"\0" * 4, 3, "4 bytes follow the JSON, but the binary_data_size of the inputs add up to 3"),
        (b"\0" * 3, 4, "3 bytes follow the JSON, but the binary_data_size of the inputs add up to 4"),
        (b"\0" * 8, 8, "'x0': 1 values of FP32 are 4 bytes, its binary_data_size is 8"),
        (b"", 0, "'x0': 1 values of FP32 are 4 bytes, its binary_data_size is 0"),
        (b"\0" * 4, -4, "Expected `int` >= 0"),
        (b"\0" * 4, True, "Expected `int"),
        (b"\0" * 4, "4", "Expected `int"),
        (b"\0" * 4, 10**40, "Expected `int"),
    ],
)
def test_sizes_must_agree_exactly(data, size, message):
    head = {"name": "x0", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": size}}
    assert message in str(refusal((head, data), contract=SINGLE))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x05\0\0",
        b"\x06\0\0\0screw",
        b"\x04\0\0\0screw",
        b"\xff\xff\xff\xffscrew",
        b"\x05\0\0\0screw" * 2,
        b"\x05\0\0\0screw\0\0\0",
    ],
)
def test_texts_in_binary_must_fill_their_bytes(data):
    parameters = {"binary_data_size": len(data)}
    head = {"name": "Pump type", "shape": [1], "datatype": "BYTES", "parameters": parameters}
    assert f"its {len(data)} bytes are not 1 texts" in str(refusal((head, data)))


def test_a_text_never_reaches_into_the_next_tensor():
    long, short = tensor("_run", "BYTES", ["abcd"], binary=True), tensor("_time", "BYTES", ["t"], binary=True)
    cut = long[0] | {"parameters": {"binary_data_size": 6}}, long[1][:6]
    assert "'_run': its 6 bytes are not 1 texts" in str(refusal(cut, short))


def test_a_text_must_be_utf_8():
    head, _ = tensor("Pump type", "BYTES", ["ab"], binary=True)
    assert "'Pump type': a text is not UTF-8" in str(refusal((head, b"\x02\0\0\0\xff\xfe")))


def test_data_comes_once_and_never_by_shared_memory():
    head, data = tensor("x0", "FP32", [1], binary=True)
    assert "exactly one of" in str(refusal((head | {"data": [1]}, data), contract=SINGLE))
    head["parameters"] = {"shared_memory_region": "r", "shared_memory_byte_size": 4}
    assert "shared memory is not supported" in str(refusal((head, b""), contract=SINGLE))


@pytest.mark.parametrize(
    ("headers", "body", "message"),
    [
        ({}, b"", "no JSON in UTF-8"),
        ({}, b"{", "no JSON in UTF-8"),
        ({}, b"[]", "Expected `object`, got `array`"),
        ({}, b"{}", "missing required field `inputs`"),
        ({}, b'{"inputs":[]} ' + BINARY, "no JSON in UTF-8"),
        ({}, b'{"inputs":[],"id":1}', "Expected `str | null`, got `int`"),
        ({}, b'{"inputs":[],"id":"\xff"}', "no JSON in UTF-8"),
        ({}, b'{"inputs":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        ({}, b'{"inputs":[],"parameters":{"binary_data_output":1}}', "Expected `bool`"),
        ({}, TRITON_JSON.replace(b"NaN", b"Infinity"), "no JSON in UTF-8"),
        ({}, TRITON_JSON.replace(b"NaN", b"-NaN"), "no JSON in UTF-8"),
        ({}, TRITON_JSON.replace(b"NaN", b"1e999"), "'Pressure [bar]': data: Number out of range"),
        ({HEADER: b"5"}, b"{}", "Inference-Header-Content-Length is '5', the body has 2 bytes"),
        ({HEADER: b"-1"}, b"{}", "Inference-Header-Content-Length is '-1'"),
        ({HEADER: b"2, 2"}, b"{}", "Inference-Header-Content-Length is '2, 2'"),
        ({HEADER: b""}, b"{}", "Inference-Header-Content-Length is ''"),
        ({HEADER: b"9" * 5000}, b"{}", "Inference-Header-Content-Length is '9999"),
        ({HEADER: b"\xb2"}, b"{}", "Inference-Header-Content-Length is '\xb2'"),
        ({HEADER: b"0"}, TRITON_JSON, "announces a raw tensor, which only a model whose one input is"),
    ],
)
def test_a_body_that_is_no_request(headers, body, message):
    with pytest.raises(Refused) as caught:
        oip.infer(headers, body, MIXED)
    assert caught.value.status == 400 and message in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"\0" * 6])
def test_a_raw_tensor_must_be_numbers_of_four_bytes(body):
    with pytest.raises(Refused, match=f"this one has {len(body)} bytes"):
        oip.infer({HEADER: b"0"}, body, SINGLE)


@pytest.mark.parametrize("rows", [MAX_ROWS + 1, 2**62])
def test_too_many_rows_are_refused_before_anything_else(rows):
    head = {"name": "x0", "shape": [rows], "datatype": "FP32", "data": [1]}
    assert refusal((head, b""), contract=SINGLE).status == 413


def test_the_most_rows_that_are_taken():
    assert send(tensor("x0", "FP32", np.zeros(MAX_ROWS), binary=True), contract=SINGLE).rows == MAX_ROWS


@pytest.mark.parametrize("value", ["1,", "null,", '"a",', '"a,",'])
def test_values_beyond_the_shape_take_no_memory(value):
    data = "[" + (value * 1_000_000)[:-1] + "]"
    name, datatype = ("Pump type", "BYTES") if "a" in value else ("Temperature", "FP32")
    body = f'{{"inputs":[{{"name":"{name}","shape":[1],"datatype":"{datatype}","data":{data}}}]}}'.encode()
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match="data holds more than 1 values, its shape 1"):
            oip.infer({}, body, MIXED)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(body)
    finally:
        tracemalloc.stop()


def test_a_text_without_end_is_looked_through_once():
    body = b'{"inputs":[],"x":NaN,"y":"' + b'\\"' * 2_000_000 + b"\\"  # hours if each quote began anew
    with pytest.raises(Refused, match="no JSON"):
        oip.infer({}, body, MIXED)


@pytest.mark.parametrize("piece", [b"NaN,", b'"",', b'"a,",', b"NNaN"])
def test_nan_is_replaced_in_bounded_memory(piece):
    body = b'{"inputs":[],"x":[NaN,' + piece * 300_000 + b"1]}"
    tracemalloc.start()
    try:
        with pytest.raises(Refused):
            oip.infer({}, body, MIXED)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(body)
    finally:
        tracemalloc.stop()


# Outputs.


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [(name, False) for name in ALL]),
        ({"outputs": None, "parameters": None}, [(name, False) for name in ALL]),
        ({"parameters": {"binary_data_output": True}}, [(name, True) for name in ALL]),
        ({"outputs": [{"name": "id"}, {"name": "score"}]}, [("id", False), ("score", False)]),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "id", "parameters": {"binary_data": False}}, {"name": "score"}],
            },
            [("id", False), ("score", True)],
        ),
        ({"outputs": [{"name": "score", "parameters": {"binary_data": True}}]}, [("score", True)]),
    ],
)
def test_outputs_are_answered_as_they_are_asked_for(fields, expected):
    assert send(*whole(), **fields).outputs == tuple(Output(*output) for output in expected)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([{"name": "label"}], "output 'label' is none of this model, it gives score, predicted, outside, id"),
        ([{"name": "score"}, {"name": "score"}], "output 'score' is asked for twice"),
        ([{"name": "score", "parameters": {"classification": 2}}], "neither classification nor"),
        ([{"name": "score", "parameters": {"shared_memory_region": "r"}}], "nor shared memory"),
        ([{}], "missing required field `name`"),
    ],
)
def test_outputs_that_are_not_possible(outputs, message):
    error = refusal(*whole(), outputs=outputs)
    assert error.status == 400 and message in str(error)


def answered(outputs: list[tuple[str, bool]], rows: int = 3, first: int = 9, id: str | None = None) -> Any:
    """Head, rest and response of an answer to rows with scores 0, 1/8, 2/8 and so on."""
    request = Infer({}, {}, rows, id, tuple(Output(*output) for output in outputs))
    scores = np.arange(rows, dtype=np.float32) / 8
    response = oip.answer(
        request,
        model="mixed",
        version="4",
        site="bergen",
        first=first,
        scores=scores,
        predicted=scores >= 0.25,
        outside=scores == 0,
    )
    size = int(dict(response.headers).get(HEADER, str(len(response.body)).encode()))
    return json.loads(response.body[:size]), response.body[size:], response


def test_an_answer_in_json():
    head, rest, response = answered([(name, False) for name in ALL], id="7")
    assert head == {
        "model_name": "mixed",
        "model_version": "4",
        "id": "7",
        "outputs": [
            {"name": "score", "datatype": "FP32", "shape": [3], "data": [0.0, 0.125, 0.25]},
            {"name": "predicted", "datatype": "BOOL", "shape": [3], "data": [False, False, True]},
            {"name": "outside", "datatype": "BOOL", "shape": [3], "data": [True, False, False]},
            {"name": "id", "datatype": "BYTES", "shape": [3], "data": ["bergen/9", "bergen/10", "bergen/11"]},
        ],
    }
    assert (rest, response.status, response.content_type) == (b"", 200, b"application/json")
    assert response.headers == ()


def test_an_answer_in_binary_is_in_the_order_that_was_asked_for():
    head, rest, response = answered([("id", True), ("predicted", True), ("outside", False), ("score", True)])
    assert "id" not in head and [output["name"] for output in head["outputs"]] == [
        "id",
        "predicted",
        "outside",
        "score",
    ]
    ids = b"\x08\0\0\0bergen/9\x09\0\0\0bergen/10\x09\0\0\0bergen/11"
    assert rest == ids + b"\0\0\1" + np.array([0, 0.125, 0.25], "<f4").tobytes()
    sizes = [output.get("parameters", {}).get("binary_data_size") for output in head["outputs"]]
    assert sizes == [len(ids), 3, None, 12]
    assert ["data" in output for output in head["outputs"]] == [False, False, True, False]
    assert response.content_type == b"application/octet-stream"


@given(st.integers(1, 10**15), st.integers(1, 200), st.sampled_from(["bergen", "a%d", "ø"]))
def test_ids_in_binary_are_those_in_json(first, rows, site):
    expected = to_bytes([f"{site}/{number}" for number in range(first, first + rows)], "BYTES")
    assert oip_tensors.numbered(f"{site}/", first, rows) == expected


@pytest.mark.parametrize("first", [1, 9, 98, 995, 99_990])
def test_ids_that_grow_by_a_digit(first):
    expected = to_bytes([f"s/{number}" for number in range(first, first + 1200)], "BYTES")
    assert oip_tensors.numbered("s/", first, 1200) == expected


# Metadata.


def test_what_the_server_and_the_model_say_of_themselves():
    assert oip.server_metadata()["extensions"] == ["binary_tensor_data"]
    assert set(oip.server_metadata()) == {"name", "version", "extensions"}
    described = oip.model_metadata(MIXED, versions=("3", "4"))
    assert described["name"] == "mixed" and described["versions"] == ["3", "4"]
    assert [(each["name"], each["datatype"], each["shape"]) for each in described["inputs"]] == [
        ("Pressure [bar]", "FP32", [-1]),
        ("Temperature", "FP32", [-1]),
        ("Pump type", "BYTES", [-1]),
        ("Temperature mean 12", "FP32", [-1]),
    ]
    assert [(each["name"], each["datatype"]) for each in described["outputs"]] == [
        ("score", "FP32"),
        ("predicted", "BOOL"),
        ("outside", "BOOL"),
        ("id", "BYTES"),
    ]
    assert oip.server_health(ready=False) == {"live": True, "ready": False}
    assert oip.model_ready(MIXED, ready=True) == {"name": "mixed", "ready": True}


def test_a_request_made_from_the_metadata_is_taken():
    described = oip.model_metadata(MIXED, versions=["1"])
    values = {"FP32": [1.0, 2.0], "BYTES": ["screw", "piston"]}
    tensors = [
        tensor(each["name"], each["datatype"], values[each["datatype"]]) for each in described["inputs"]
    ]
    assert MIXED.encode(send(*tensors).columns).shape == (2, 4)


# Properties.

floats = st.floats(width=16, allow_infinity=False) | st.just(float("nan"))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@st.composite
def requests(draw: st.DrawFn) -> tuple[int, dict[str, tuple[str, list[Any]]]]:
    """The number of rows, and by input its datatype and values."""
    rows = draw(st.integers(1, 5))
    result = {}
    for item in draw(st.permutations(MIXED.inputs)):
        if item.kind == "category":
            datatype, values = "BYTES", texts
        else:
            datatype = draw(st.sampled_from(sorted(NUMBERS)))
            whole = st.integers(0 if datatype.startswith("U") else -128, 127)
            values = floats if datatype.startswith("FP") else whole
        result[item.name] = datatype, draw(st.lists(values, min_size=rows, max_size=rows))
    return rows, result


@given(requests(), st.lists(st.booleans(), min_size=4, max_size=4), st.booleans(), st.booleans())
def test_a_request_means_the_same_in_binary_and_in_json_flat_and_nested(request, which, wide, nested):
    rows, inputs = request
    shape = [rows, 1] if wide else [rows]
    one = [
        tensor(name, datatype, values, shape, binary=binary)
        for (name, (datatype, values)), binary in zip(inputs.items(), which, strict=True)
    ]
    other = [
        tensor(name, datatype, [[value] for value in values] if nested else values, shape)
        for name, (datatype, values) in inputs.items()
    ]
    expected = {
        name: [value or None for value in values]
        if datatype == "BYTES"
        else np.array(values, NUMBERS[datatype])
        for name, (datatype, values) in inputs.items()
    }
    assert plain(send(*one).columns) == plain(send(*other).columns) == plain(expected)


def never_anything_else(headers: dict[bytes, bytes], body: bytes, contract: Contract) -> None:
    """A request is refused with a sentence, or it is read, and its columns have one length."""
    try:
        request = oip.infer(headers, body, contract)
    except Refused as error:
        assert error.status in (400, 413) and 0 < len(str(error)) < 1000
    else:
        assert {len(values) for values in (*request.columns.values(), *request.context.values())} == {
            request.rows
        }


CONTRACTS = st.sampled_from([MIXED, NUMERIC, SINGLE])


@given(
    st.none() | st.binary(max_size=4) | st.integers(0, 300).map(lambda n: b"%d" % n), st.binary(), CONTRACTS
)
def test_any_bytes_are_read_or_refused(header, body, contract):
    never_anything_else({} if header is None else {HEADER: header}, body, contract)


@given(
    st.sampled_from([TRITON_BINARY + BINARY, TRITON_JSON, KSERVE_JSON]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)), max_size=4),
    st.none() | st.integers(len(TRITON_BINARY) - 3, len(TRITON_BINARY) + 3),
)
def test_a_damaged_request_is_read_or_refused(body, damages, length):
    for at, cut, put in damages:
        body = body[:at] + put + body[at + cut :]
    never_anything_else({} if length is None else {HEADER: b"%d" % length}, body, MIXED)


def json_values(*special: Any) -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
    return st.sampled_from(special) | st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=4
    )


names = st.sampled_from(
    [*(item.name for item in MIXED.inputs), "features", "x0", "x1", "x2", "_row", "_run", "_asset"]
)
tensors_of_any_kind = st.fixed_dictionaries(
    {
        "name": names | json_values("y"),
        "shape": json_values([1], [2], [1, 1], [2, 1], [1, 3], [2, 3], [10**6], [2**63], [-1]),
        "datatype": st.sampled_from([*NUMBERS, "BYTES"]) | json_values("BOOL", "BF16"),
    },
    optional={
        "data": json_values([1], [1, 2], [[1], [2]], ["screw"], [None, 1.5], [1] * 6, [[1] * 3] * 2),
        "parameters": st.fixed_dictionaries(
            {},
            optional={
                "binary_data_size": json_values(0, 4, 8, 24, 9),
                "shared_memory_region": json_values("r"),
            },
        ),
    },
)
outputs_of_any_kind = st.fixed_dictionaries(
    {"name": json_values(*ALL)},
    optional={"parameters": st.fixed_dictionaries({}, optional={"binary_data": json_values(True, False)})},
)


@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(tensors_of_any_kind, max_size=3) | json_values([])},
        optional={
            "id": json_values("7"),
            "outputs": st.lists(outputs_of_any_kind, max_size=3) | json_values([]),
            "parameters": st.fixed_dictionaries({}, optional={"binary_data_output": json_values(True)}),
        },
    ),
    st.binary(max_size=30) | st.sampled_from([b"\0" * 4, b"\0" * 8, b"\0" * 24, b"\x05\0\0\0screw"]),
    CONTRACTS,
)
def test_any_json_is_read_or_refused(request, data, contract):
    head = json.dumps(request).encode()
    never_anything_else({HEADER: b"%d" % len(head)}, head + data, contract)
