"""Blocks of the outbox's journal: the scores of one commit as columns, the way the scoring service has them.

A score must be on disk before its answer, so what is done for it there counts most; a block costs one insert
whatever it holds. What the way home needs, a row and a JSON record for each score, is made from it later, by
`Outbox.unfold`. Standard library and msgspec only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
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
    """n values each for some of _time (naive UTC, ISO 8601), _run and _row; None is unknown."""


class Row(NamedTuple):
    """One score of a block; `record` as in schema.RECORD_SCHEMA."""

    score: float
    predicted: bool
    outside: bool
    record: bytes


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Block).decode
_record = msgspec.json.Encoder().encode


def rows(block: bytes, schema: int, number: int) -> list[Row]:
    """The rows of a block.

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
        scores = struct.unpack(f"<{number}d", found.scores)
        if len(found.flags) != number or len(found.values) != 8 * number * len(found.names):
            raise ValueError(f"it has not {number} rows")
        records = _records(found, number)
    except (msgspec.DecodeError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"unreadable block: {error}") from error
    return [
        Row(score, bool(flags & PREDICTED), bool(flags & OUTSIDE), record)
        for score, flags, record in zip(scores, found.flags, records, strict=True)
    ]


def _records(block: Block, number: int) -> list[bytes]:
    values: Iterable[tuple[float, ...]] = repeat((), number)
    if block.names:
        values = struct.iter_unpack(f"<{len(block.names)}d", block.values)
    inputs: list[dict[str, Any]] = [dict(zip(block.names, row, strict=True)) for row in values]
    for name, texts in block.texts.items():
        for row, text in zip(inputs, texts, strict=True):
            row[name] = text
    contexts = _across(block.context, number)
    return [_record({"inputs": of, "context": context}) for of, context in zip(inputs, contexts, strict=True)]


def _across(columns: Mapping[str, Sequence[Any]], number: int) -> Sequence[Mapping[str, Any]]:
    """Columns as one mapping a row."""
    if not columns:
        return [{}] * number
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
