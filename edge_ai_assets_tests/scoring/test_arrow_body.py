"""Arrow bodies: what pyarrow writes comes out, and no bytes at all do anything but that or a refusal."""

from __future__ import annotations

import random
import struct
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_ai_assets.scoring.bodies import arrow_body
from edge_ai_assets.scoring.bodies.arrow_body import columns
from edge_ai_assets.scoring.bodies.arrow_messages import MAX_MESSAGES
from edge_ai_assets.scoring.context import checked
from edge_ai_assets.scoring.contract import Contract, Input
from edge_ai_assets.scoring.refused import Refused
from edge_ai_assets.scoring.requests import MAX_ROWS

INPUTS = tuple(
    Input(name, kind, "", name)
    for name, kind in (("x", "number"), ("y", "number"), ("k", "category"), ("m", "category"))
)
CONTRACT = Contract("free", INPUTS, 0.5, "fault")
INTS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
LAYOUTS = ["string", "large_string", "string_view", "dictionary"]
END = b"\xff\xff\xff\xff\0\0\0\0"


def stream(table, chunk=None, **options):
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=chunk)
    return sink.getvalue().to_pybytes()


def text(values, layout):
    array = pa.array(values, pa.string())
    return array.dictionary_encode() if layout == "dictionary" else array.cast(getattr(pa, layout)())


def refusal(body):
    with pytest.raises(Refused) as caught:
        columns(body, CONTRACT)
    return caught.value.status, str(caught.value)


chunks = st.one_of(st.none(), st.integers(1, 7))


@pytest.mark.parametrize("kind", [*INTS, "float16", "float32", "float64"])
@given(data=st.data(), chunk=chunks)
def test_numbers_of_every_type(kind, data, chunk):
    values = data.draw(arrays(kind, st.integers(1, 20)))
    read = columns(stream(pa.table({"x": values}), chunk), CONTRACT)[0]["x"]
    np.testing.assert_array_equal(read, values)
    assert read.dtype == values.dtype


@pytest.mark.parametrize("kind", [*INTS, "float32", "float64"])
@given(values=st.lists(st.one_of(st.none(), st.integers(0, 100)), min_size=1, max_size=20), chunk=chunks)
def test_missing_numbers_of_every_type(kind, values, chunk):
    body = stream(pa.table({"x": pa.array(values, getattr(pa, kind)())}), chunk)
    expected = [np.nan if value is None else value for value in values]
    np.testing.assert_array_equal(columns(body, CONTRACT)[0]["x"], expected)


def test_numbers_are_not_copied():
    body = stream(pa.table({"x": np.arange(5.0), "y": np.arange(5, dtype=np.int8)}))
    for values in columns(body, CONTRACT)[0].values():
        assert np.shares_memory(values, np.frombuffer(body, np.uint8))


def test_single_precision_stays_single_where_values_are_missing():
    read = columns(stream(pa.table({"x": pa.array([1, None], pa.float32())})), CONTRACT)[0]["x"]
    assert read.dtype == np.float32


@pytest.mark.parametrize("layout", LAYOUTS)
@given(values=st.lists(st.one_of(st.none(), st.text(max_size=20)), min_size=1, max_size=20), chunk=chunks)
def test_texts_of_every_layout(layout, values, chunk):
    table = pa.table(
        {
            "k": text(values, layout),
            "m": text(values[::-1], layout),
            "_run": text(values, layout),
            "_asset": text(values, layout),
        }
    )
    inputs, context = columns(stream(table, chunk), CONTRACT)
    assert inputs == {"k": values, "m": values[::-1]}
    assert context == {"_run": values, "_asset": values}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_texts_of_a_slice(layout):
    table = pa.table({"k": text(["a", None, "øre", "a longer text of many letters", "b"], layout)}).slice(
        1, 3
    )
    assert columns(stream(table), CONTRACT)[0]["k"] == [None, "øre", "a longer text of many letters"]


@pytest.mark.parametrize("index", INTS)
def test_indices_of_every_type(index):
    values = pa.DictionaryArray.from_arrays(pa.array([1, None, 0], getattr(pa, index)()), ["a", "b"])
    assert columns(stream(pa.table({"k": values})), CONTRACT)[0]["k"] == ["b", None, "a"]


def test_a_dictionary_as_large_as_its_indices_allow():
    names = [f"kind {i}" for i in range(128)]
    values = pa.DictionaryArray.from_arrays(pa.array([127, None, 0], pa.int8()), names)
    assert columns(stream(pa.table({"k": values})), CONTRACT)[0]["k"] == ["kind 127", None, "kind 0"]


@pytest.mark.parametrize("delta", [True, False])
def test_a_dictionary_that_grows_or_is_replaced(delta):
    schema = pa.schema({"k": pa.dictionary(pa.int8(), pa.string())})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=delta)
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        for names in (["a"], ["a", "b"], ["a", "b", "c"] if delta else ["d"]):
            array = pa.DictionaryArray.from_arrays(pa.array([len(names) - 1], pa.int8()), names)
            writer.write_batch(pa.record_batch({"k": array}))
    expected = ["a", "b", "c" if delta else "d"]
    assert columns(sink.getvalue().to_pybytes(), CONTRACT)[0]["k"] == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Oslo"])
def test_timestamps_become_times_that_the_context_takes(unit, zone):
    when = [datetime(2026, 1, 31, 13, 45, 7), None, datetime(1969, 7, 20, 20, 17)]
    table = pa.table(
        {"x": [1, 2, 3], "_time": pa.array(when, pa.timestamp(unit, zone)), "_row": [7, None, 0]}
    )
    context = columns(stream(table), CONTRACT)[1]
    assert checked(context, 3) == {
        "_time": [None if time is None else time.isoformat() for time in when],
        "_row": [7, None, 0],
    }


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["s", "ms", "us", "ns"]))
def test_any_timestamp_is_a_text(number, unit):
    table = pa.table({"x": [1], "_time": pa.array([number], pa.timestamp(unit))})
    (value,) = columns(stream(table), CONTRACT)[1]["_time"]
    assert isinstance(value, str)
    seconds = number // {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}[unit]
    if 0 <= seconds < 2**36:
        assert datetime.fromisoformat(value + "+00:00").replace(microsecond=0) == datetime.fromtimestamp(
            seconds, UTC
        )


def test_a_column_without_any_value_may_be_null():
    nothing = pa.nulls(2)
    inputs, context = columns(
        stream(pa.table({"x": nothing, "k": nothing, "_time": nothing, "_row": nothing})), CONTRACT
    )
    assert np.isnan(inputs["x"]).all() and inputs["k"] == [None, None]
    assert context == {"_time": [None, None], "_row": [None, None]}


def test_empty_batches_and_a_missing_end_do_not_matter():
    batch = pa.record_batch({"x": [1.0], "k": ["a"]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        for each in (batch.slice(0, 0), batch, batch.slice(0, 0), batch):
            writer.write_batch(each)
    body = sink.getvalue().to_pybytes()
    for whole in (body, body.removesuffix(END)):
        assert columns(whole, CONTRACT)[0]["x"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"z": [1]}, "field 'z' is not an input of this model"),
        ({"x": ["1"]}, "field 'x' must be numbers, it is utf8"),
        ({"x": [True]}, "field 'x' must be numbers, it is boolean"),
        ({"x": [[1]]}, "field 'x' must be numbers, it is list"),
        ({"k": [1]}, "field 'k' must be text, it is int64"),
        ({"k": [b"a"]}, "field 'k' must be text, it is binary"),
        ({"_run": [1.0]}, "field '_run' must be text, it is float64"),
        ({"_row": [1.0]}, "field '_row' must be whole numbers, it is float64"),
        ({"_time": [1]}, "field '_time' must be text or timestamps, it is int64"),
        ({"x": pa.array([1]).dictionary_encode()}, "field 'x' must be numbers, it is a dictionary of int64"),
        ({"x": pa.array(["1"]).dictionary_encode()}, "field 'x' must be numbers, it is a dictionary of utf8"),
        ({"x": pa.array([], pa.float64())}, "the body holds no row"),
    ],
)
def test_what_a_column_must_be_is_named(table, message):
    assert refusal(stream(pa.table(table))) == (422, message)


def test_a_column_may_not_come_twice():
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    assert refusal(stream(table)) == (422, "field 'x' is in the schema twice")


@pytest.mark.parametrize(("codec", "name"), [("lz4", "LZ4"), ("zstd", "Zstandard")])
def test_compressed_buffers_are_refused_with_a_way_out(codec, name):
    status, message = refusal(stream(pa.table({"x": np.zeros(100)}), compression=codec))
    assert status == 415 and name in message and "gzip" in message


def test_other_formats_are_named():
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, pa.schema({"x": pa.float64()})):
        pass
    assert refusal(sink.getvalue().to_pybytes())[0] == 415
    assert refusal(b'{"records": []}') == (
        400,
        "the body is no Arrow IPC stream: no message starts at byte 0",
    )
    assert refusal(b"") == (422, "the body holds no row")


def test_rows_are_limited_before_they_are_read():
    zeros = np.zeros(MAX_ROWS + 1)
    assert len(columns(stream(pa.table({"x": zeros[1:]})), CONTRACT)[0]["x"]) == MAX_ROWS
    assert refusal(stream(pa.table({"x": zeros}), 30_000))[0] == 413
    assert refusal(stream(pa.table({"x": pa.nulls(10**9)})))[0] == 413  # a body of some hundred bytes


def test_messages_are_limited():
    body = stream(pa.table({"x": np.zeros(MAX_MESSAGES - 1)}), 1)  # and one for the schema
    assert len(columns(body, CONTRACT)[0]["x"]) == MAX_MESSAGES - 1
    assert refusal(stream(pa.table({"x": np.zeros(MAX_MESSAGES)}), 1))[0] == 413


@pytest.mark.parametrize("layout", ["dictionary", "string_view"])
def test_a_text_that_is_named_many_times_is_limited(layout, monkeypatch):
    """It is in the stream once, and would be in memory and in the outbox as often as it is named."""
    long = "x" * 1000
    array = pa.DictionaryArray.from_arrays(np.zeros(200, np.int8), [long])
    if layout == "string_view":
        views = np.tile(np.frombuffer(struct.pack("<i4sii", 1000, b"xxxx", 0, 0), np.uint8), 200)
        array = pa.Array.from_buffers(
            pa.string_view(), 200, [None, pa.py_buffer(views), pa.py_buffer(long.encode())]
        )
    body = stream(pa.table({"k": array}))
    assert len(body) < 8_000
    assert columns(body, CONTRACT)[0]["k"] == [long] * 200
    monkeypatch.setattr(arrow_body, "MAX_TEXT", 199_999)
    assert refusal(body)[0] == 413


def test_all_texts_count_together(monkeypatch):
    monkeypatch.setattr(arrow_body, "MAX_TEXT", 10)
    columns(stream(pa.table({"k": ["12345"], "m": ["12345"]})), CONTRACT)
    for values in ({"k": ["12345"], "m": ["123456"]}, {"k": ["12345", "12345", "1"]}):
        assert refusal(stream(pa.table(values), 1))[0] == 413


def view(length, buffer, offset):
    packed = struct.pack("<i4sii", length, b"xxxx", buffer, offset)
    return pa.Array.from_buffers(pa.string_view(), 1, [None, pa.py_buffer(packed), pa.py_buffer(b"x" * 20)])


def spanned(offsets):
    packed = np.array(offsets, np.int32)
    buffers = [None, pa.py_buffer(packed), pa.py_buffer(b"abcdefgh")]
    return pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)


@pytest.mark.parametrize(
    "values",
    [
        view(20, 0, 1),
        view(20, 0, -1),
        view(20, 1, 0),
        view(20, -1, 0),
        view(-1, 0, 0),
        spanned([0, 5, 3]),
        spanned([0, 5, 3, 8]),
        pa.DictionaryArray.from_arrays(pa.array([0, 1]), ["a"], safe=False),
        pa.DictionaryArray.from_arrays(pa.array([-1, None, 0]), ["a"], safe=False),
    ],
)
def test_a_text_outside_what_holds_it_is_refused(values):
    assert refusal(stream(pa.table({"k": values})))[0] == 400


def test_a_batch_must_have_the_buffers_of_its_schema():
    full, none = stream(pa.table({"x": [1.0, 2.0]})), stream(pa.table({"x": pa.nulls(2)}))

    def split(body):
        second = body.index(END[:4], 4)
        return body[:second], body[second:]

    assert "more buffers" in refusal(split(none)[0] + split(full)[1])[1]
    assert "too few" in refusal(split(full)[0] + split(none)[1])[1]


def test_a_column_must_be_as_long_as_its_batch():
    body = stream(pa.table({"x": np.zeros(12_345, np.int8)}))
    length, shorter = struct.pack("<q", 12_345), struct.pack("<q", 12_344)
    places = [at for at in range(len(body)) if body.startswith(length, at)]
    assert len(places) == 3  # of the batch, of its column, and of the buffer
    refused = [refusal(body[:at] + shorter + body[at + 8 :])[0] for at in places]
    assert refused == [400, 400, 400]


def seeds():
    names = ["a", None, "bc", "a long text of many letters", "ø"] * 3
    numbers = pa.array([1.5, None, 2.0] * 5)
    when = pa.array([datetime(2026, 1, 1)] * 14 + [None], pa.timestamp("us", "UTC"))
    large = text(names, "large_string")
    return [
        stream(pa.table({"k": text(names, "string"), "_run": large}), 7),
        stream(pa.table({"k": text(names, "dictionary"), "m": large.dictionary_encode()}), 7),
        stream(pa.table({"k": text(names, "string_view"), "x": numbers}), 7),
        stream(
            pa.table(
                {"x": numbers, "y": pa.nulls(15), "_time": when, "_row": pa.array(range(15), pa.uint16())}
            ),
            7,
        ),
        stream(pa.table({"x": numbers}), compression="lz4"),
    ]


def mutated(number, seeds):
    """One of the seeds with some bits, bytes or lengths changed, moved or cut off."""
    chance = random.Random(number)
    body = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.randrange(len(body) - 8)
        match chance.randrange(6):
            case 0:
                body[at] ^= 1 << chance.randrange(8)
            case 1:
                body[at] = chance.randrange(256)
            case 2:
                edge = chance.choice((-1, 0, 1, 2**31 - 1, -(2**31), chance.randrange(-1000, 1000)))
                body[at & ~3 : (at & ~3) + 4] = struct.pack("<i", edge)
            case 3:
                edge = chance.choice((-1, 0, 1, 2**63 - 1, -(2**63), 1 << chance.randrange(63)))
                body[at & ~7 : (at & ~7) + 8] = struct.pack("<q", edge)
            case 4:
                source = chance.randrange(len(body) - 8)
                body[at : at + 8] = body[source : source + 8]
            case _:
                del body[max(16, at) :]
    return bytes(body)


def test_mutated_streams_are_read_or_refused():
    ours, seen = seeds(), set()
    for number in range(6_000):
        try:
            inputs, context = columns(mutated(number, ours), CONTRACT)
            seen.add(200)
        except Refused as error:
            assert len(str(error)) < 600
            seen.add(error.status)
        else:
            assert len({len(values) for values in (*inputs.values(), *context.values())}) == 1
    assert seen == {200, 400, 413, 415, 422}


def test_what_pyarrow_reads_of_mutated_streams_is_what_is_read_here():
    """Never another answer: stricter is fine, other values are not."""
    ours, agreed = seeds()[:4], 0
    for number in range(3_000):
        body = mutated(number, ours)
        try:
            inputs, context = columns(body, CONTRACT)
            table = pa.ipc.open_stream(body).read_all()
            table.validate(full=True)
        except (Refused, pa.ArrowException, OSError, ValueError):
            continue
        for name, values in (inputs | context).items():
            column = table[name]
            if pa.types.is_timestamp(column.type):
                continue
            expected = column.to_pylist()
            if isinstance(values, np.ndarray):
                expected = [np.nan if value is None else value for value in expected]
                np.testing.assert_array_equal(values, np.array(expected, np.float64))
            else:
                assert values == expected
        agreed += 1
    assert agreed > 100


@given(st.binary(max_size=60), st.integers(0, 4))
def test_any_bytes_are_refused(body, seed):
    for candidate in (body, END[:4] + body, END[:4] + struct.pack("<I", len(body)) + body):
        with pytest.raises(Refused):
            columns(candidate, CONTRACT)


def test_a_stream_that_is_cut_off_ends_with_a_whole_batch_or_is_refused():
    """Its end may be left out, the format says; half a batch is never read."""
    body = seeds()[1]
    whole, lengths = columns(body, CONTRACT)[0]["k"], set()
    for size in range(len(body)):
        try:
            read = columns(body[:size], CONTRACT)[0]["k"]
        except Refused:
            continue
        assert read == whole[: len(read)]
        lengths.add(len(read))
    assert lengths == {7, 14, 15}


def test_what_follows_the_end_is_refused():
    body = stream(pa.table({"x": [1.0]}))
    status, message = refusal(body + body)
    assert status == 400 and f"ends at byte {len(body)}" in message
