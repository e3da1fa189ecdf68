"""Arrow IPC stream bodies: rows to score, as columns.

Which columns there may be and of which types is decided here, which values are plausible by the contract.
How a stream is framed is `arrow_messages`', what its buffers hold `arrow_buffers`'.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from edge_ai_assets.scoring.bodies import arrow_messages
from edge_ai_assets.scoring.bodies.arrow_buffers import OFFSETS, Buffers, masked, times, wrong
from edge_ai_assets.scoring.bodies.arrow_messages import BATCH, DICTIONARY, SCHEMA, Batch, Field
from edge_ai_assets.scoring.context import CONTEXT
from edge_ai_assets.scoring.contract import Contract
from edge_ai_assets.scoring.refused import Refused
from edge_ai_assets.scoring.requests import limit

Column = np.ndarray | list[Any]

MAX_TEXT = 32 * 1024 * 1024
"""Characters of all texts in one request. A stream can name one many times: its own size is no bound."""
WHOLE = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
NUMBER = WHOLE | {"float16", "float32", "float64"}
TEXT = frozenset((*OFFSETS, "utf8_view"))


def columns(body: bytes, contract: Contract) -> tuple[dict[str, Column], dict[str, list[Any]]]:
    """Rows to score.

    Args:
        body: an Arrow IPC stream, plain. Its columns are inputs and some of CONTEXT, in any order: numbers of
            any integer or floating type; categories, `_time`, `_run` and `_asset` as utf8, large_utf8 or
            utf8_view, with or without a dictionary; `_time` also as timestamp; `_row` as integers. Each may
            be null.
        contract: says which columns are numbers and which are text.

    Returns:
        Inputs by name: numbers int or float, shape (n,), NaN where missing, a view of the body if it is one
        batch without missing values; categories n texts, None where missing. And context by name, n values
        each, None where missing; times in ISO 8601, naive UTC if they came as timestamps.

    Raises:
        Refused: 400 it is no such stream; 413 too many rows, messages or bytes of text; 415 compressed
            buffers or another variant of the format; 422 a column that the contract does not ask for, no row.
    """
    reader = _Reader({item.name: item.kind for item in contract.inputs})
    for kind, header, data in arrow_messages.messages(body):
        if kind == SCHEMA:
            reader.declare(arrow_messages.fields(header))
        elif kind == BATCH:
            reader.add(arrow_messages.batch(header), data)
        elif kind == DICTIONARY and (values := header.table(1)) is not None:
            delta = bool(header.number(2, "B"))
            reader.define(header.number(0, "q"), arrow_messages.batch(values), data, delta=delta)
        else:
            raise wrong("a message that is none of a stream")
    limit(reader.rows, "the body")
    inputs = {name: parts for name, parts in reader.parts.items() if name not in CONTEXT}
    context = {name: parts for name, parts in reader.parts.items() if name in CONTEXT}
    return (
        {name: _joined(parts) for name, parts in inputs.items()},
        {name: [value for part in parts for value in part] for name, parts in context.items()},
    )


class _Dictionary(NamedTuple):
    texts: list[str | None]
    """The last one is None, for what is missing."""
    lengths: np.ndarray
    """Of each, in characters."""


EMPTY = _Dictionary([None], np.zeros(1, np.int64))


class _Reader:
    """What has come of a stream so far."""

    def __init__(self, kinds: dict[str, str]) -> None:
        self._kinds = {**dict.fromkeys(CONTEXT, "context"), **kinds}
        self._fields: list[Field] | None = None
        self._dictionaries: dict[int, _Dictionary] = {}
        self._budget = MAX_TEXT
        self.rows = 0
        self.parts: dict[str, list[Column]] = {}
        """Columns by name, one part for each batch."""

    def declare(self, declared: Iterable[Field]) -> None:
        """The schema. The first bad field is the last one read: there may be any number."""
        if self._fields is not None:
            raise wrong("a second schema")
        self._fields = []
        for field in declared:
            _check(field, self._kinds)
            if field.name in self.parts:
                raise Refused(422, f"field {field.name!r} is in the schema twice")
            self.parts[field.name] = []
            self._fields.append(field)

    def define(self, number: int, values: Batch, data: memoryview, *, delta: bool) -> None:
        """A dictionary: new, replaced, or with `delta` made longer."""
        field = next((field for field in self._fields or () if field.dictionary == number), None)
        if field is None:
            raise wrong("a dictionary that no column has")
        known = self._dictionaries.get(number, EMPTY) if delta else EMPTY
        if values.length > 0:
            limit(len(known.lengths) + values.length, "the dictionary")
            buffers = Buffers(values, data, 1)
            more = self._texts(field, buffers)
            buffers.end()
            lengths = np.array([len(text or "") for text in more])
            known = _Dictionary(
                known.texts[:-1] + more + [None], np.append(known.lengths[:-1], [*lengths, 0])
            )
        self._dictionaries[number] = known

    def add(self, batch: Batch, data: memoryview) -> None:
        """A batch of rows."""
        if self._fields is None or batch.length < 0:
            raise wrong("a batch before its schema, or of a negative length")
        if not batch.length:
            return
        limit(self.rows + batch.length, "the body")
        self.rows += batch.length
        buffers = Buffers(batch, data, len(self._fields))
        for field in self._fields:
            self.parts[field.name].append(self._column(field, buffers))
        buffers.end()

    def _column(self, field: Field, buffers: Buffers) -> Column:
        if field.dictionary is not None:
            return self._looked_up(field, buffers)
        if field.type in TEXT:
            return self._texts(field, buffers)
        number = self._kinds[field.name] == "number"
        if field.type == "null":
            buffers.valid(bitmap=False)
            return np.full(buffers.rows, np.nan) if number else [None] * buffers.rows
        valid = buffers.valid()
        if field.type == "timestamp":
            return masked(times(buffers.array(np.dtype("<i8")), field.unit), valid)
        values = buffers.array(np.dtype(field.type).newbyteorder("<"))
        if not number:
            return masked(values.tolist(), valid)
        return values if valid is None else np.where(valid, values, np.nan)

    def _texts(self, field: Field, buffers: Buffers) -> list[str | None]:
        texts = buffers.texts(field.type, buffers.valid(), self._budget)
        self._spend(sum(len(text) for text in texts if text))
        return texts

    def _looked_up(self, field: Field, buffers: Buffers) -> list[str | None]:
        """Texts of a column that holds indices."""
        assert field.dictionary is not None
        known = self._dictionaries.get(field.dictionary, EMPTY)
        valid, missing = buffers.valid(), len(known.texts) - 1
        places = buffers.array(np.dtype(field.indices).newbyteorder("<")).astype(np.int64)
        there = places if valid is None else places[valid]
        if ((there < 0) | (there >= missing)).any():
            raise wrong("a text that is not in its dictionary")
        if valid is not None:
            places = np.where(valid, places, missing)
        self._spend(int(known.lengths[places].sum()))
        return [known.texts[place] for place in places.tolist()]

    def _spend(self, size: int) -> None:
        if size > self._budget:
            raise Refused(413, f"the body has more than {MAX_TEXT} characters of text")
        self._budget -= size


def _check(field: Field, kinds: dict[str, str]) -> None:
    """Whether a column is one that is asked for, and of a type that it can have."""
    name, kind = field.name, field.type
    if name not in kinds:
        raise Refused(422, f"field {name[:200]!r} is not an input of this model")
    if kinds[name] == "number":
        fits, what = NUMBER, "numbers"
    elif name == "_row":
        fits, what = WHOLE, "whole numbers"
    elif name == "_time":
        fits, what = TEXT | {"timestamp"}, "text or timestamps"
    else:
        fits, what = TEXT, "text"
    if field.dictionary is not None and (kind not in TEXT or kind not in fits):
        raise Refused(422, f"field {name!r} must be {what}, it is a dictionary of {kind}")
    if kind not in fits and kind != "null":
        raise Refused(422, f"field {name!r} must be {what}, it is {kind}")


def _joined(parts: list[Column]) -> Column:
    """The parts of a column as one."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return [value for part in parts for value in part]
