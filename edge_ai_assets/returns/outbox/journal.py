"""Blocks of the outbox's journal: the scores of one commit as columns, the way the scoring service has them.

A score must be on disk before its answer, so what is done for it there counts most; a block costs one insert
whatever it holds. What the way home needs is made from it later, by `Outbox.unfold`: a row for each score,
and `sheets` of their records. Standard library and msgspec only.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgspec

BLOCK_SCHEMA = 1
MAX_ROWS = 2_000
"""Of one block: it is unfolded in one transaction, which must not keep the service's next commit waiting."""
PREDICTED, OUTSIDE = 1, 2
"""Bits of `Block.flags`."""


class Block(msgspec.Struct, frozen=True):
    """The scores of n rows, in MessagePack."""

    names: tuple[str, ...]
    """Inputs that are kept, in the order of the release's contract."""
    values: bytes
    """IEEE 754 double, little-endian, shape (n, names), row by row; NaN is missing, or stands in `texts`."""
    texts: dict[str, list[str | None]]
    """Of inputs that are categories: n texts each, as they were given; None is missing."""
    scores: bytes
    """IEEE 754 double, little-endian, shape (n,)."""
    flags: bytes
    """One byte a row: PREDICTED if the score reached the threshold, OUTSIDE the range of training."""
    context: dict[str, list[str | int | None]]
    """n values each for some of _time (naive UTC, ISO 8601), _run, _row and _asset; None is unknown."""


class Row(NamedTuple):
    """One score of a block; `record` as in schema.RECORD_SCHEMA."""

    score: float
    predicted: bool
    outside: bool
    record: bytes


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Block).decode


def opened(block: bytes, schema: int, number: int) -> Block:
    """A block, checked.

    Args:
        block: what the journal holds.
        schema: version of it; number: how many rows it must have.

    Raises:
        ValueError: the version is not known here, or the block is not what its version says.
    """
    if schema != BLOCK_SCHEMA:
        raise ValueError(f"block schema {schema} is not known, this version reads {BLOCK_SCHEMA}")
    try:
        found = _decode(block)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"unreadable block: {error}") from error
    check(found, number)
    return found


def check(block: Block, number: int) -> None:
    """Raises ValueError if a block has not so many rows in each of its parts."""
    sizes = len(block.scores), len(block.values), len(block.flags)
    fits = sizes == (8 * number, 8 * number * len(block.names), number)
    for columns in (block.texts, block.context):  # plain loops: it is done for each block of one row
        for values in columns.values():
            fits = fits and len(values) == number
    if not fits:
        raise ValueError(f"unreadable block: it has not {number} rows")


def rows(block: bytes, schema: int, number: int) -> list[Row]:
    """The rows of a block; arguments and errors as of `opened`."""
    found = opened(block, schema, number)
    return [
        Row(score, bool(flags & PREDICTED), bool(flags & OUTSIDE), record(found, place))
        for place, (score, flags) in enumerate(zip(scores(found), found.flags, strict=True))
    ]


def scores(block: Block) -> tuple[float, ...]:
    return struct.unpack(f"<{len(block.flags)}d", block.scores)


def record(block: Block, place: int) -> bytes:
    """The record of the row at a place, from 0, as in schema.RECORD_SCHEMA."""
    width = len(block.names)
    values = struct.unpack_from(f"<{width}d", block.values, 8 * width * place)
    inputs: dict[str, Any] = dict(zip(block.names, values, strict=True))
    inputs |= {name: texts[place] for name, texts in block.texts.items()}
    context = {name: given[place] for name, given in block.context.items()}
    return _record({"inputs": inputs, "context": context})


_record = msgspec.json.Encoder().encode
