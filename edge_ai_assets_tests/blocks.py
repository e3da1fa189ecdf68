"""Batches for tests: from rows without inputs, or from the records that their rows shall have.

What a block must hold is `journal`'s matter; here one is made the way the scoring service makes it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec

from edge_ai_assets.returns.outbox import journal
from edge_ai_assets.returns.outbox.journal import OUTSIDE, PREDICTED, Block
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.outbox.schema import Batch

TORN = b"\x86\xa5names\x92"
"""The beginning of a block: it cannot be read."""


def plain(
    rows: int = 1, *, predicted: bool = True, score: float = 0.9, release: str = "r1", at: int = 1
) -> Batch:
    """Rows that are all alike and keep no input."""
    return batch([b'{"inputs":{}}'] * rows, [score] * rows, [predicted] * rows, release=release, at=at)


def batch(
    records: Sequence[bytes],
    scores: Sequence[float],
    predicted: Sequence[bool],
    outside: Sequence[bool] | None = None,
    *,
    key: str | None = None,
    release: str = "r1",
    at: int = 1,
    fingerprint: bytes = b"",
) -> Batch:
    """Rows with these records, as in schema.RECORD_SCHEMA; those that stand together in a block have the same
    fields."""
    made = [msgspec.json.decode(record) for record in records]
    beyond = outside or [False] * len(made)
    rows = zip(made, scores, predicted, beyond, strict=True)
    blocks = [block(list(alike)) for _, alike in groupby(rows, lambda row: _fields(row[0]))]
    return Batch(key, release, at, blocks, fingerprint)


def apart(outbox: Outbox) -> None:
    """Give each score that is in a lot a row of its own, as where the fates of some part."""
    for (first,) in outbox._db.execute("SELECT first FROM lots").fetchall():
        outbox._divide(first)


def block(rows: Sequence[tuple[Mapping[str, Any], float, bool, bool]]) -> tuple[int, bytes]:
    """Rows of record, score, predicted and outside, whose records have the same fields."""
    inputs = [record["inputs"] for record, *_ in rows]
    contexts = [record.get("context", {}) for record, *_ in rows]
    names = tuple(inputs[0])
    texts = {name: [row[name] for row in inputs] for name in names if isinstance(inputs[0][name], str)}
    numbers = [
        math.nan if name in texts or row[name] is None else float(row[name])
        for row in inputs
        for name in names
    ]
    return len(rows), journal.encode(
        Block(
            names,
            struct.pack(f"<{len(numbers)}d", *numbers),
            texts,
            struct.pack(f"<{len(rows)}d", *(score for _, score, *_ in rows)),
            bytes(PREDICTED * yes + OUTSIDE * beyond for *_, yes, beyond in rows),
            {name: [row[name] for row in contexts] for name in contexts[0]},
        )
    )


def _fields(record: Mapping[str, Any]) -> tuple[Any, ...]:
    inputs = ((name, isinstance(value, str)) for name, value in record["inputs"].items())
    return *inputs, None, *record.get("context", {})
