"""The buffers of one Arrow batch, as arrays and texts. Which column they belong to is `arrow_body`'s.

Source: the Arrow columnar format 1.5, "Physical Memory Layout" and "RecordBatch message".
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from edge_ai_assets.scoring.bodies.arrow_messages import Batch
from edge_ai_assets.scoring.refused import Refused

OFFSETS = {"utf8": "<i4", "large_utf8": "<i8"}
VIEW = np.dtype([("length", "<i4"), ("prefix", "S4"), ("buffer", "<i4"), ("offset", "<i4")])
INLINE = 12
"""Bytes of the longest text that a view holds in itself, after its length."""


class Buffers:
    """Goes through the columns of a batch, in order; every access is checked against the end of the body."""

    def __init__(self, batch: Batch, body: memoryview, columns: int) -> None:
        nulls = batch.nodes["nulls"]
        if len(nulls) != columns or (batch.nodes["length"] != batch.length).any():
            raise wrong("a column of another length than its batch, or of none")
        if (nulls < 0).any() or (nulls > batch.length).any():
            raise wrong("a number of missing values that cannot be")
        self.rows = batch.length
        self._body = body
        self._nulls = iter(nulls.tolist())
        self._places = iter(batch.buffers.tolist())
        self._variadic = iter(batch.variadic.tolist())

    def valid(self, *, bitmap: bool = True) -> np.ndarray | None:
        """Starts the next column: which of its values are there, bool, shape (rows,); None if all are.

        `bitmap` is False for the one type that has no buffers, null.
        """
        nulls = next(self._nulls)
        if not bitmap:
            return np.zeros(self.rows, bool)
        bits = self._next()
        if not nulls:
            return None
        size = (self.rows + 7) // 8
        if len(bits) < size:
            raise wrong("a bitmap that is too short")
        packed = np.frombuffer(bits, np.uint8, size)
        return np.unpackbits(packed, count=self.rows, bitorder="little").view(bool)

    def array(self, kind: np.dtype[Any], more: int = 0) -> np.ndarray:
        """The next buffer as rows + more values, a view of the body."""
        return _array(self._next(), kind, self.rows + more)

    def texts(self, kind: str, valid: np.ndarray | None, budget: int) -> list[str | None]:
        """The next buffers as texts, None where missing; together they have at most `budget` bytes."""
        if kind in OFFSETS:
            return self._after_offsets(np.dtype(OFFSETS[kind]), valid, budget)
        return self._behind_views(valid, budget)

    def end(self) -> None:
        """All columns were read: nothing may be left."""
        if next(self._places, None) is not None:
            raise wrong("more buffers than its columns have")

    def _after_offsets(self, kind: np.dtype[Any], valid: np.ndarray | None, budget: int) -> list[str | None]:
        offsets, data = self.array(kind, 1), self._next()
        first, last = int(offsets[0]), int(offsets[-1])
        if first < 0 or last > len(data) or (offsets[1:] < offsets[:-1]).any():
            raise wrong("a text outside its buffer")
        _spend(last - first, budget)
        raw = bytes(data[first:last])
        spans = pairwise((offsets - offsets[0]).tolist())
        if raw.isascii():  # then bytes and characters are the same, and one decoding is enough
            text = raw.decode("ascii")
            return masked([text[start:end] for start, end in spans], valid)
        there = [True] * self.rows if valid is None else valid.tolist()
        return [
            _decoded(raw[start:end]) if is_there else None
            for (start, end), is_there in zip(spans, there, strict=True)
        ]

    def _behind_views(self, valid: np.ndarray | None, budget: int) -> list[str | None]:
        packed = self._next()
        views = _array(packed, VIEW, self.rows)
        data = [self._next() for _ in range(next(self._variadic, 0))]
        lengths = views["length"] if valid is None else np.where(valid, views["length"], 0)
        if (lengths < 0).any():
            raise wrong("a text of a negative length")
        _spend(int(lengths.sum(dtype=np.int64)), budget)
        texts = []
        places = zip(lengths.tolist(), views["buffer"].tolist(), views["offset"].tolist(), strict=True)
        for row, (length, number, offset) in enumerate(places):
            if length <= INLINE:
                start = VIEW.itemsize * row + 4
                texts.append(_decoded(packed[start : start + length]))
            elif 0 <= number < len(data) and 0 <= offset <= len(data[number]) - length:
                texts.append(_decoded(data[number][offset : offset + length]))
            else:
                raise wrong("a text outside its buffer")
        return masked(texts, valid)

    def _next(self) -> memoryview:
        offset, length = next(self._places, (-1, 0))
        if offset < 0 or length < 0 or offset + length > len(self._body):
            raise wrong("a buffer outside itself, or too few of them")
        return self._body[offset : offset + length]


def masked(values: list[Any], valid: np.ndarray | None) -> list[Any]:
    """The values, with None where they are missing."""
    if valid is None:
        return values
    return [value if there else None for value, there in zip(values, valid.tolist(), strict=True)]


def times(values: np.ndarray, unit: str) -> list[str]:
    """Timestamps as ISO 8601, naive UTC; `values` are int64, the number of `unit`s since 1970."""
    if unit == "ns":
        values, unit = values // 1000, "us"  # Python's clock has no nanoseconds
    texts: list[str] = np.datetime_as_string(values.view(f"<M8[{unit}]")).tolist()
    return texts


def wrong(what: str) -> Refused:
    return Refused(400, f"the Arrow stream is damaged: it has {what}")


def _array(data: memoryview, kind: np.dtype[Any], count: int) -> np.ndarray:
    if kind.itemsize * count > len(data):
        raise wrong("a buffer that is shorter than its values")
    return np.frombuffer(data, kind, count)


def _spend(size: int, budget: int) -> None:
    if size > budget:
        raise Refused(413, "the texts of the Arrow stream are too many bytes for one request")


def _decoded(raw: bytes | memoryview) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise wrong("a text that is no UTF-8") from None
