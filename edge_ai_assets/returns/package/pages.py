"""What the pages of a foreign Parquet file cost when they are read, found out before any of them is.

The file's metadata may say anything of its sizes; what a reader allocates is what the header of each page
says. These headers are read here, and of the metadata where they stand: pyarrow ends the process when it is
asked about columns of some damaged files. The values are `members`' matter.

Source: https://github.com/apache/parquet-format, `parquet.thrift`, in Thrift's compact protocol.
"""

from __future__ import annotations

from typing import Any

import msgspec

VALUE = 8
"""Bytes that a value takes in memory, at most but for texts."""
MAX_FOOTER = 1024 * 1024
"""Bytes of the metadata; a column takes about 100 of them."""
MAX_PAGES = 100_000
"""Of a file. One has up to 20,000 values or 1 MiB; a site's packages have some hundred."""
I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12
DEPTH = 8
DATA, DICTIONARY, DATA_2 = 0, 2, 3
HEADERS = {DATA: 5, DICTIONARY: 7, DATA_2: 8}
"""Types of pages, and the field of PageHeader that describes each."""
ENCODINGS = frozenset({0, 2, 3, 5, 8})
"""PLAIN, PLAIN_DICTIONARY, RLE, DELTA_BINARY_PACKED, RLE_DICTIONARY: those in which a value that is not in a
dictionary takes its bytes in the page too, or is a number."""


WRONG = "has a header that is not as it should be"


class PageError(ValueError):
    """Pages that are not read; the message says what is wrong with them."""


class Cost(msgspec.Struct, frozen=True):
    """What reading takes, in bytes."""

    unpacked: int
    """Of all pages, or of their values if these take more."""
    row: int
    """Most that one row can take."""


def cost(data: bytes) -> Cost:
    """The cost of a Parquet file, given as its bytes.

    Raises:
        PageError: it has headers of pages that cannot be read, or encodings that no writer of ours uses.
    """
    size = int.from_bytes(data[-8:-4], "little")
    if len(data) < 12 or size > min(MAX_FOOTER, len(data) - 12):
        raise PageError(f"has metadata of {size} bytes")
    meta, _ = _struct(data[-8 - size : -8], 0)
    unpacked = row = read = 0
    for group in _of(meta, 4, LIST):
        texts = 0
        for chunk in _of(group, 1, LIST):
            column = _of(chunk, 3, STRUCT)
            first, dictionary = _of(column, 9, I64), _of(column, 11, I64) if 11 in column else 0
            if 0 < dictionary < first:
                first = dictionary
            size, largest, pages = _chunk(data, first, first + _of(column, 7, I64), MAX_PAGES - read)
            unpacked, read = unpacked + size, read + pages
            texts += largest + VALUE
        row = max(row, texts)
    return Cost(unpacked, row)


def _chunk(data: bytes, at: int, end: int, most: int) -> tuple[int, int, int]:
    """Bytes of the pages from one place to another, those of the largest dictionary, and how many pages."""
    if not 0 <= at <= end <= len(data):
        raise PageError("has pages outside of it")
    unpacked = largest = pages = 0
    while at < end:
        if (pages := pages + 1) > most:
            raise PageError(f"has more than {MAX_PAGES} pages")
        header, at = _struct(data, at)
        kind, size = _number(header, 1), _number(header, 2)
        about = _of(header, HEADERS.get(kind, 0), STRUCT)
        values, encoding = _number(about, 1), _number(about, 4 if kind == DATA_2 else 2)
        if encoding not in ENCODINGS:
            raise PageError(f"has a page of encoding {encoding}")
        unpacked += max(size, VALUE * values)
        if kind == DICTIONARY:
            largest = max(largest, size)
        at += _number(header, 3)
    if at != end:
        raise PageError("has pages that end elsewhere than it says")
    return unpacked, largest, pages


def _number(found: dict[int, tuple[int, Any]], field: int) -> int:
    value: int = _of(found, field, I32)
    if not 0 <= value < 1 << 31:
        raise PageError(f"has a page with {value} as one of its sizes")
    return value


def _of(found: Any, field: int, kind: int) -> Any:
    # A list may hold something else than the structs that stand there in a sound file.
    if not isinstance(found, dict) or found.get(field, (0,))[0] != kind:
        raise PageError(WRONG)
    return found[field][1]


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, tuple[int, Any]], int]:
    """The fields of a struct, by id, as (type, value), and where it ends; each once, in rising order."""
    found: dict[int, tuple[int, Any]] = {}
    field = 0
    while (head := _byte(data, at)) != 0:
        at, kind, value = at + 1, head & 15, None
        if not head >> 4:  # else a field might come twice
            raise PageError(WRONG)
        field += head >> 4
        if kind not in (1, 2):  # true and false, which take no more room
            value, at = _value(data, at, kind, depth)
        found[field] = (kind, value)
    return found, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (4, I32, I64):  # zigzag
        raw, at = _varint(data, at)
        return raw >> 1 ^ -(raw & 1), at
    if kind == BINARY:
        size, at = _varint(data, at)
        return None, at + size
    if kind == STRUCT and depth < DEPTH:
        return _struct(data, at, depth + 1)
    if kind == LIST and depth < DEPTH:
        head, at = _byte(data, at), at + 1
        length, kind = head >> 4, head & 15
        if length == 15:
            length, at = _varint(data, at)
        values = []
        for _ in range(length):  # each takes a byte at least, so they end with the data
            value, at = _value(data, at, kind, depth + 1)
            values.append(value)
        return values, at
    if kind in (1, 2, 3):  # a byte, or a truth value in a list
        return _byte(data, at), at + 1
    raise PageError(WRONG)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = _byte(data, at)
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
    raise PageError(WRONG)


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise PageError("has pages outside of it")
    return data[at]
