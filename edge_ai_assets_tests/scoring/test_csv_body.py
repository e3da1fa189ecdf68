"""CSV bodies: the same rows come out whichever way they were written, and what is wrong is named."""

from __future__ import annotations

import csv
import io
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_ai_assets.scoring.bodies import csv_body, csv_table
from edge_ai_assets.scoring.bodies.csv_body import answer, columns, feedback
from edge_ai_assets.scoring.bodies.csv_table import BLOCK, MAX_RECORD
from edge_ai_assets.scoring.contract import Contract, Input
from edge_ai_assets.scoring.refused import Refused
from edge_ai_assets.scoring.requests import MAX_ROWS, FeedbackItem
from edge_ai_assets_tests.tiny_model import INPUTS

CONTRACT = Contract("tiny", INPUTS, 0.5, "fault")
X, Y, KIND = (
    Input(name, kind, "", name) for name, kind in (("x", "number"), ("y", "number"), ("k", "category"))
)
FREE = Contract("free", (X, Y, KIND), 0.5, "fault")
ODD = Contract("odd", (Input('a "b", c', "number", "", "x"), Input("d;e", "number", "", "x")), 0.5, "fault")

floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
numbers = st.one_of(st.none(), floats)
rows = st.lists(st.tuples(numbers, numbers, st.one_of(st.none(), texts)), min_size=1, max_size=20)


def written(header, rows, **dialect):
    file = io.StringIO()
    writer = csv.writer(file, **dialect)
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue().encode()


def listed(read):
    inputs, context = read
    return {k: list(v) for k, v in inputs.items()}, context


def outcome(function, *arguments):
    """What a function gives, comparable; or what it refuses."""
    try:
        return repr(listed(function(*arguments)))
    except Refused as error:
        return error.status, str(error)


def refusal(body, contract=FREE):
    with pytest.raises(Refused) as caught:
        columns(body, contract)
    return caught.value.status, str(caught.value)


def test_columns_come_by_name_whatever_their_order():
    body = b"Pump type,_row,Temperature,_time,Pressure [bar],_run,_asset\n"
    body += b"screw,7,20.5,2026-01-31,1e1,a,P 1\n,,,,,,\n"
    inputs, context = columns(body, CONTRACT)
    assert inputs["Pump type"] == ["screw", None]
    np.testing.assert_array_equal(inputs["Temperature"], [20.5, np.nan])
    np.testing.assert_array_equal(inputs["Pressure [bar]"], [10, np.nan])
    assert inputs["Temperature"].dtype == np.float64
    assert context == {
        "_row": [7, None],
        "_time": ["2026-01-31", None],
        "_run": ["a", None],
        "_asset": ["P 1", None],
    }
    assert CONTRACT.widened(inputs).shape == (2, 4)


@pytest.mark.parametrize("dialect", [{}, {"quoting": csv.QUOTE_ALL}, {"delimiter": ";"}, {"delimiter": "\t"}])
@given(rows=rows)
def test_what_csv_writes_comes_back(dialect, rows):
    inputs, _ = columns(written(["x", "y", "k"], rows, **dialect), FREE)
    for position, name in enumerate("xy"):
        expected = [np.nan if row[position] is None else row[position] for row in rows]
        np.testing.assert_array_equal(inputs[name], expected)
    assert inputs["k"] == [row[2] for row in rows]


NUMBERS = [
    "",
    "1",
    "-2.5",
    "+3",
    ".5",
    "7.",
    "007",
    "1e5",
    "1E-400",
    "1e999",
    "nan",
    "NaN",
    "NULL",
    "null",
    " 4 ",
]
NUMBERS += [
    "inf",
    "-Infinity",
    "1_000",
    "0x10",
    "١",
    "1,5",
    "true",
    "-",
    "1.2.3",
    "[1]",
    "1\n",
    "\x00",
    "9" * 400,
]
cell = st.one_of(
    st.sampled_from(NUMBERS), floats.map(repr), st.text("0123456789.eE+-, \t;aN\u2028", max_size=6)
)
ends = st.sampled_from(["\n", "\r\n", "\r"])


@given(st.lists(st.lists(cell, min_size=1, max_size=4), max_size=6), ends, st.booleans())
@example([["1", "2", "a"], ["", "", ""]], "\r", True)
@example([["1"], [""], ["2"]], "\n", False)
def test_both_ways_to_split_agree(lines, end, final):
    """Without quotes a faster one is used: it must not be another one."""
    text = end.join(",".join(line).replace("\n", " ") for line in lines).rstrip("\r\n") + end * final
    text = text.rstrip("\r\n")
    for width in (1, 3):

        def split(how, width=width):
            return {str(i): cells for i, cells in enumerate(how(text.encode(), ",", width, MAX_ROWS))}, {}

        assert outcome(split, csv_table._plain) == outcome(split, csv_table._quoted)


@pytest.mark.parametrize("number", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7])
@pytest.mark.parametrize("quote", ["", '"'])
def test_rows_keep_their_order_over_blocks(number, quote):
    body = "y,x\n" + "".join(f"{quote}{-row}{quote},{row}\n" for row in range(number))
    read = columns(body.encode(), FREE)[0]
    np.testing.assert_array_equal(read["x"], np.arange(number))
    np.testing.assert_array_equal(read["y"], -np.arange(number))


@given(st.lists(cell, min_size=1, max_size=8))
@example(["1", "2,null"])
@example(["1,2", ""])
@example(["[1", "2]"])
@example(['"', '"'])
def test_numbers_read_at_once_are_those_read_one_by_one(cells):
    def one_by_one(cells):
        parts = [csv_body._numbers("x", ["+0", one])[1] for one in cells]
        return {"x": parts}, {}

    def at_once(cells):
        return {"x": csv_body._numbers("x", cells)}, {}

    first, second = outcome(at_once, cells), outcome(one_by_one, cells)
    assert (first == second) if isinstance(first, str) else first[0] == second[0] == 422


@given(floats)
def test_numbers_are_exact(value):
    for text in (repr(value), f"{value:+.17e}", f"{value:.17g}"):
        assert columns(f"x\n{text}\n".encode(), FREE)[0]["x"][0] == float(text)


@pytest.mark.parametrize("text", ["", "nan", "NaN", "NAN", "null", "NULL", " ", '""', '" nan "'])
def test_a_missing_number(text):
    read = columns(f"x,y\n1,{text}\n".encode(), FREE)[0]["y"]
    assert np.isnan(read).all()


def test_a_category_may_be_called_nan():
    assert columns(b"k\nnan\nnull\n,\n"[:-2] + b'""\n', FREE)[0]["k"] == ["nan", "null", None]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("final", [0, 1, 3])
@pytest.mark.parametrize("quote", [b"", b'"'])
def test_line_ends_and_marks(start, end, final, quote):
    body = start + b"x,k" + end + b"1,%ba%b" % (quote, quote) + end + b"2,b" + end * final
    assert listed(columns(body, FREE)) == ({"x": [1, 2], "k": ["a", "b"]}, {})


def test_quoted_text_may_hold_anything():
    body = 'x,k\n1,"a ""b"", c\r\nd;e"\n2,æ"ø\n'.encode()
    assert columns(body, FREE)[0]["k"] == ['a "b", c\r\nd;e', 'æ"ø']


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_names_that_hold_separators_are_found(separator):
    body = written(['a "b", c', "d;e"], [[1, 2]], delimiter=separator)
    assert listed(columns(body, ODD)) == ({'a "b", c': [1], "d;e": [2]}, {})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the first line is empty, it must name the columns"),
        (b"\nx\n1\n", "the first line is empty, it must name the columns"),
        (b"x\n", "the body holds no row"),
        (b'"x"\n\n\n', "the body holds no row"),
        (b"x,z\n1,2\n", "field 'z' is not an input of this model"),
        (b"x,\n1,2\n", "field '' is not an input of this model"),
        (b"x;z\n1;2\n", "field 'z' is not an input of this model"),
        (b"x,y,x\n1,2,3\n", "field 'x' is in the header twice"),
        (b'"x,y\n1,2\n', "the header is no CSV: a quoted name does not end where it must"),
        (b"x,y\n1,2\n3\n", "row 1 has 1 fields, the header names 2"),
        (b"x,y\n1,2\n\n3,4\n", "row 1 has 1 fields, the header names 2"),
        (b'x,y\n1,2\n1,"2",3\n', "row 1 has 3 fields, the header names 2"),
        (b'x,y\n1,"2\n3,4', "row 0 is no CSV: unexpected end of data"),
        (b'x,y\n1,"2"3\n', "row 0 is no CSV: ',' expected after '\"'"),
        (b"x,y\n1,2\n3,warm\n", "row 1: 'y' must be a number with a decimal point, it is text 'warm'"),
        (b"x;y\n1;2,5\n", "row 0: 'y' must be a number with a decimal point, it is text '2,5'"),
        (b"x\n1_000\n", "row 0: 'x' must be a number with a decimal point, it is text '1_000'"),
        (b"x\n1\ninf\n", "row 1: 'x' must be finite, it is text 'inf'"),
        (b"x\n1\n-Infinity\n", "row 1: 'x' must be finite, it is text '-Infinity'"),
        (b"x\n-1e999\n", "row 0: 'x' must be finite and within float32, it is a number '-1e999'"),
        (b"x,_row\n1,1.0\n", "row 0: '_row' must be a whole number from 0 to 2^63 - 1, it is a number '1.0'"),
        (b"x,_row\n1,-1\n", "row 0: '_row' must be a whole number from 0 to 2^63 - 1, it is a number '-1'"),
    ],
)
def test_what_is_wrong_is_named(body, message):
    assert refusal(body) == (422, message)


def test_another_encoding_is_named():
    assert refusal("x,k\n1,ø".encode("latin-1")) == (
        400,
        "the body is no CSV in UTF-8: invalid start byte at byte 6",
    )
    assert refusal("x,k\n1,2".encode("utf-16"))[0] == 400


@pytest.mark.parametrize("quote", ["", '"'])
def test_the_number_of_rows_is_limited(quote):
    row = f"{quote}1{quote}\n"
    assert len(columns(("x\n" + row * MAX_ROWS).encode(), FREE)[0]["x"]) == MAX_ROWS
    assert refusal(("x\n" + row * (MAX_ROWS + 1)).encode())[0] == 413


@pytest.mark.parametrize("quote", ["", '"'])
def test_the_length_of_a_row_is_limited(quote):
    room = MAX_RECORD - len("1,") - 2 * len(quote)
    assert columns(f"x,k\n1,{quote}{'a' * room}{quote}\n".encode(), FREE)[0]["k"] == ["a" * room]
    status, message = refusal(f"x,k\n1,b\n1,{quote}{'a' * (room + 1)}{quote}\n".encode())
    assert status == 422 and message.startswith("row 1 has more than 65536 characters")


def test_a_row_of_many_lines_is_limited_too():
    status, message = refusal(b'x,k\n1,"' + b"a\n" * MAX_RECORD + b'"\n')
    assert status == 422 and message.startswith("row 0 has more than 65536 characters")


def test_the_length_of_the_header_is_limited():
    assert refusal(b"x" * (MAX_RECORD + 1)) == (
        422,
        "the header has more than 65536 characters, at most so many are taken",
    )


@given(
    st.one_of(
        st.binary(max_size=80),
        st.text('x,yk";\t\r\n1 ', max_size=40).map(lambda text: b"x,k\n" + text.encode()),
    )
)
def test_any_bytes_are_read_or_refused(body):
    for read in (
        lambda: columns(body, FREE),
        lambda: feedback(body),
        lambda: feedback(b"id,correct\n" + body),
    ):
        try:
            read()
        except Refused as error:
            assert error.status in (400, 422) and len(str(error)) < 500


def test_feedback_is_read_with_what_is_optional():
    body = b'correct,id,note,role\nTRUE,oslo/1,"a, b",operator\nno,oslo/2,,\n0,oslo/3,x,\n yes ,oslo/4,,\n'
    assert feedback(body) == [
        FeedbackItem("oslo/1", True, "a, b", "operator"),
        FeedbackItem("oslo/2", False),
        FeedbackItem("oslo/3", False, "x"),
        FeedbackItem("oslo/4", True),
    ]
    assert feedback(b"id;correct\noslo/1;1\n") == [FeedbackItem("oslo/1", True)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"id\noslo/1\n", "field 'correct' is missing"),
        (b"correct\n1\n", "field 'id' is missing"),
        (
            b"id,correct,score\na,1,1\n",
            "field 'score' is not a column of feedback, which are id, correct, note, role",
        ),
        (b"id,correct\na,1\nb,perhaps\n", "row 1: 'correct' must be true or false, it is text 'perhaps'"),
        (b"id,correct\na,\n", "row 0: 'correct' must be true or false, it is empty: ''"),
        (
            b"id,correct,note\na,1,\nb,1," + b"x" * 501 + b"\n",
            "row 1: Expected `str` of length <= 500 - at `$.note`",
        ),
        (b"id,correct\n" + b"a" * 101 + b",1\n", "row 0: Expected `str` of length <= 100 - at `$.id`"),
        (b"id,correct\na,2\n", "row 0: 'correct' must be true or false, it is a number '2'"),
    ],
)
def test_wrong_feedback_is_named(body, message):
    with pytest.raises(Refused) as caught:
        feedback(body)
    assert (caught.value.status, str(caught.value)) == (422, message)


@given(
    st.lists(st.tuples(st.one_of(st.none(), floats), st.booleans(), st.booleans()), max_size=9),
    st.integers(1, 2**62),
)
def test_an_answer_is_read_back(rows, first):
    scores, predicted, outside = ([row[i] for row in rows] for i in range(3))
    read = list(
        csv.DictReader(io.StringIO(answer("oslo-1", first, scores, predicted, outside).decode(), newline=""))
    )
    assert [line["id"] for line in read] == [f"oslo-1/{first + i}" for i in range(len(rows))]
    assert [float(line["score"]) if line["score"] else None for line in read] == scores
    assert [line["predicted"] == "true" for line in read] == predicted
    assert [line["outside"] == "true" for line in read] == outside


def test_an_answer_looks_the_same_from_arrays():
    expected = b"id,score,predicted,outside\r\noslo/5,0.25,true,false\r\noslo/6,,false,true\r\n"
    assert (
        answer("oslo", 5, np.array([0.25, np.nan]), np.array([True, False]), np.array([False, True]))
        == expected
    )
    assert answer("oslo", 5, [0.25, None], [True, False], [False, True]) == expected
    with pytest.raises(ValueError, match="shorter"):
        answer("oslo", 5, [0.25, None], [True], [False, True])


def test_many_rows_are_read_in_time():
    """Far above what is measured (0.3 s), so that only another order of magnitude fails."""
    values = np.random.default_rng(0).normal(size=(MAX_ROWS, 2)).tolist()
    body = ("x,y\n" + "\n".join(f"{a!r},{b!r}" for a, b in values)).encode()
    began = time.thread_time()
    assert len(columns(body, FREE)[0]["x"]) == MAX_ROWS
    assert time.thread_time() - began < 2
