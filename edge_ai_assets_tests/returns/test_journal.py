"""Blocks: what is encoded is what is read, and what cannot be read says why."""

from __future__ import annotations

import json
import math
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.returns.outbox import journal
from edge_ai_assets.returns.outbox.journal import BLOCK_SCHEMA, OUTSIDE, PREDICTED, Block

NUMBERS = st.one_of(st.just(math.nan), st.floats(allow_nan=False, allow_infinity=False))
WORDS = st.one_of(st.none(), st.text(max_size=5))
NAMES = st.lists(st.text(max_size=4), unique=True, max_size=4)


def block(**parts) -> Block:
    """Two rows of a number and a category."""
    given = {
        "names": ("Flow [m³/h]", "Type"),
        "values": struct.pack("<4d", 7.5, 1.0, math.nan, math.nan),
        "texts": {"Type": ["screw", None]},
        "scores": struct.pack("<2d", 0.25, 0.75),
        "flags": bytes([OUTSIDE, PREDICTED]),
        "context": {"_time": ["2026-03-01T00:04:00", None], "_row": [1, None]},
    }
    return Block(**{**given, **parts})


def test_a_block_is_read_row_by_row():
    first, second = journal.rows(journal.encode(block()), BLOCK_SCHEMA, 2)
    assert (first.score, first.predicted, first.outside) == (0.25, False, True)
    assert (second.score, second.predicted, second.outside) == (0.75, True, False)
    assert json.loads(first.record) == {
        "inputs": {"Flow [m³/h]": 7.5, "Type": "screw"},
        "context": {"_time": "2026-03-01T00:04:00", "_row": 1},
    }
    assert json.loads(second.record) == {
        "inputs": {"Flow [m³/h]": None, "Type": None},
        "context": {"_time": None, "_row": None},
    }


def test_a_block_may_have_neither_inputs_nor_context():
    bare = block(names=(), values=b"", texts={}, context={})
    found = journal.rows(journal.encode(bare), BLOCK_SCHEMA, 2)
    assert [row.record for row in found] == [b'{"inputs":{},"context":{}}'] * 2


@given(st.data(), NAMES, st.integers(1, 5))
def test_what_is_encoded_is_what_is_read(data, names, rows):
    def columns(of):
        return data.draw(st.lists(of, min_size=rows, max_size=rows))

    values = columns(st.tuples(*[NUMBERS] * len(names)))
    texts = {name: columns(WORDS) for name in names if data.draw(st.booleans())}
    context = {
        name: columns(kind)
        for name, kind in (
            ("_time", WORDS),
            ("_run", WORDS),
            ("_row", st.one_of(st.none(), st.integers(0, 9))),
        )
        if data.draw(st.booleans())
    }
    scores, flags = columns(st.floats(allow_nan=False)), columns(st.integers(0, 3))
    made = Block(
        tuple(names),
        b"".join(struct.pack(f"<{len(names)}d", *row) for row in values),
        texts,
        struct.pack(f"<{rows}d", *scores),
        bytes(flags),
        context,
    )
    found = journal.rows(journal.encode(made), BLOCK_SCHEMA, rows)
    assert [row.score for row in found] == scores
    assert [row.predicted * PREDICTED + row.outside * OUTSIDE for row in found] == flags
    for number, row in enumerate(found):
        numbers = {n: None if v != v else v for n, v in zip(names, values[number], strict=True)}
        assert json.loads(row.record) == {
            "inputs": numbers | {name: words[number] for name, words in texts.items()},
            "context": {name: column[number] for name, column in context.items()},
        }


@pytest.mark.parametrize("schema", [-1, 0, BLOCK_SCHEMA + 1])
def test_another_schema_is_refused_though_the_block_could_be_read(schema):
    with pytest.raises(
        ValueError, match=f"^block schema {schema} is not known, this version reads {BLOCK_SCHEMA}"
    ):
        journal.rows(journal.encode(block()), schema, 2)


NESTED = msgspec.msgpack.encode({**msgspec.structs.asdict(block()), "context": {"_run": [[]] * 2}})


@pytest.mark.parametrize(
    "torn",
    [
        b"",
        b"\xc1",
        journal.encode(block())[:-1],
        journal.encode(block()) + b"\0",
        msgspec.msgpack.encode({"names": []}),
        journal.encode(block(values=struct.pack("<3d", 1, 2, 3))),
        journal.encode(block(scores=struct.pack("<d", 1))),
        journal.encode(block(scores=b"x" * 15)),
        journal.encode(block(flags=b"\0")),
        journal.encode(block(names=("Flow",))),
        journal.encode(block(texts={"Type": ["screw"]})),
        journal.encode(block(texts={"Type": ["screw"] * 3})),
        journal.encode(block(context={"_row": [1]})),
        journal.encode(block(context={"_row": [1, 2], "_run": ["a"]})),
        journal.encode(block(context={"_row": [1, 2, 3]})),
        journal.encode(block(context={"_row": [1.5, 2.5]})),
        msgspec.msgpack.encode({**msgspec.structs.asdict(block()), "texts": {"Type": [1, 2]}}),
        msgspec.msgpack.encode({**msgspec.structs.asdict(block()), "scores": "x" * 16}),
        NESTED,
        # What the encoder of records would stumble over, or the stack.
        NESTED.replace(b"\x92\x90\x90", b"\x92" + b"\xd4\x05\x00" * 2),
        NESTED.replace(b"\x92\x90\x90", b"\x92" + b"\x81\x90\x90" * 2),
        NESTED.replace(b"\x92\x90\x90", b"\x92" + b"\x91" * 100_000 + b"\x90\x90"),
        # A list that says it has 4,294,967,295 items.
        NESTED.replace(b"\x92\x90\x90", b"\xdd\xff\xff\xff\xff\x90\x90"),
    ],
    ids=range(23),
)
def test_a_torn_block_says_so(torn):
    with pytest.raises(ValueError, match=r"^unreadable block: "):
        journal.rows(torn, BLOCK_SCHEMA, 2)


@pytest.mark.parametrize("rows", [0, 1, 3, 2**40])
def test_a_block_of_another_number_of_rows_says_so(rows):
    with pytest.raises(ValueError, match=r"^unreadable block: "):
        journal.rows(journal.encode(block()), BLOCK_SCHEMA, rows)


@given(st.data())
def test_whatever_bytes_are_changed_it_is_read_or_refused_with_a_sentence(data):
    made = bytearray(journal.encode(block()))
    for _ in range(data.draw(st.integers(1, 3))):
        made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = journal.rows(bytes(made), BLOCK_SCHEMA, 2)
    except ValueError as error:
        assert str(error).startswith("unreadable block: ")
    else:
        assert len(found) == 2 and all(
            json.loads(row.record).keys() == {"inputs", "context"} for row in found
        )


@given(st.binary(max_size=200), st.integers(0, 3))
def test_whatever_bytes_are_given_nothing_but_a_sentence_comes(given_bytes, rows):
    try:
        found = journal.rows(given_bytes, BLOCK_SCHEMA, rows)
    except ValueError:
        return
    assert len(found) == rows
