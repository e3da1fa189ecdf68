"""CSV text as columns of text. What a cell means is `csv_body`'s."""

from __future__ import annotations

import csv
import re
from codecs import BOM_UTF8, getincrementaldecoder
from collections.abc import Collection, Iterator
from typing import NoReturn

from edge_ai_assets.scoring.refused import Refused
from edge_ai_assets.scoring.requests import MAX_ROWS, limit

MAX_RECORD = 64 * 1024
"""Characters of the header, and of each row."""
BLOCK = 5_000
"""Rows that are split at once: no other thread runs meanwhile, and small requests are waiting."""
SEPARATORS = ",;\t"
LINE = re.compile(rb"[^\r\n]*+(?:\r\n|\r|\n)|[^\r\n]++")
CHECKED = 64 * 1024
"""Bytes that are decoded at once to see that they are UTF-8. As one text, a body of 32 MiB with a single
character of four bytes would take 128."""


def table(body: bytes, known: Collection[str], what: str, most: int = MAX_ROWS) -> dict[str, list[str]]:
    """The cells of each column.

    Args:
        body: UTF-8, with or without a byte order mark; RFC 4180 with any of the three line ends. The first
            line is the header. Blank lines at the end are no rows; elsewhere one is a row of one empty field.
        known: names that may be in the header, in any order.
        what: what an unknown name is not.
        most: rows that are taken.

    Returns:
        n texts by name, n at least 1; names without the blanks around them, texts as they are.

    Raises:
        Refused: 400 it is no UTF-8; 413 too many rows; 422 anything else, the row (from 0) is named.
    """
    _check(body)
    start = len(BOM_UTF8) if body.startswith(BOM_UTF8) else 0
    end = min((at for at in (body.find(b"\n", start), body.find(b"\r", start)) if at >= 0), default=len(body))
    if end - start > 4 * MAX_RECORD or len(header := body[start:end].decode()) > MAX_RECORD:
        raise Refused(422, f"the header has more than {MAX_RECORD} characters, at most so many are taken")
    names, separator = _header(header, known, what)
    rest = body[end + (2 if body.startswith(b"\r\n", end) else 1) :].rstrip(b"\r\n")
    cells = (_quoted if b'"' in rest else _plain)(rest, separator, len(names), most)
    return dict(zip(names, cells, strict=True))


def _check(body: bytes) -> None:
    """Refuse what is no UTF-8."""
    decoder = getincrementaldecoder("utf-8")()
    for start in range(0, len(body), CHECKED):
        begun = len(decoder.getstate()[0])  # bytes of a character that is cut
        try:
            decoder.decode(body[start : start + CHECKED], start + CHECKED >= len(body))
        except UnicodeDecodeError as error:
            place = start - begun + error.start
            raise Refused(400, f"the body is no CSV in UTF-8: {error.reason} at byte {place}") from error


def _header(line: str, known: Collection[str], what: str) -> tuple[list[str], str]:
    """The names in the header, and the separator under which they are known."""
    if not line.strip():
        raise Refused(422, "the first line is empty, it must name the columns")
    readings = []
    for separator in SEPARATORS:
        try:
            names = [name.strip() for name in next(csv.reader([line], delimiter=separator, strict=True))]
        except csv.Error:
            continue
        readings.append((names, separator))
    if not readings:
        raise Refused(422, "the header is no CSV: a quoted name does not end where it must")
    fits = [(names, separator) for names, separator in readings if set(names) <= set(known)]
    names, separator = fits[0] if fits else max(readings, key=lambda reading: len(reading[0]))
    seen = set()
    for name in names:
        if name not in known:
            raise Refused(422, f"field {name[:200]!r} is not {what}")
        if name in seen:
            raise Refused(422, f"field {name!r} is in the header twice")
        seen.add(name)
    return names, separator


def _plain(text: bytes, separator: str, width: int, most: int) -> list[list[str]]:
    """Columns of a text without quotes: half the time that `_quoted` takes, the same cells."""
    text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    limit(text.count(b"\n") + 1 if text else 0, "the body", most)
    lines, between = text.split(b"\n"), separator.encode()
    for row, line in enumerate(lines):
        if len(line) > MAX_RECORD and len(line.decode()) > MAX_RECORD:
            _too_long(row)
        if line.count(between) != width - 1:
            _wrong_width(row, line.count(between) + 1, width)
    columns: list[list[str]] = [[] for _ in range(width)]
    for start in range(0, len(lines), BLOCK):
        cells = between.join(lines[start : start + BLOCK]).decode().split(separator)
        for position, column in enumerate(columns):
            column += cells[position::width]
    return columns


def _quoted(text: bytes, separator: str, width: int, most: int) -> list[list[str]]:
    """Columns of a text in which fields may be quoted."""
    columns: list[list[str]] = [[] for _ in range(width)]
    block: list[list[str]] = []
    row = size = 0

    def lines() -> Iterator[str]:
        # The reader asks for lines until a row is complete: without a bound, one row could be all of them.
        nonlocal size
        for found in LINE.finditer(text):
            line = found[0].decode()
            if size + len(line.rstrip("\r\n")) > MAX_RECORD:
                _too_long(row)
            size += len(line)
            yield line

    def flush() -> None:
        for column, cells in zip(columns, zip(*block, strict=True), strict=True):
            column += cells
        block.clear()

    try:
        for fields in csv.reader(lines(), delimiter=separator, strict=True):
            cells = fields or [""]
            if len(cells) != width:
                _wrong_width(row, len(cells), width)
            block.append(cells)
            row, size = row + 1, 0
            if len(block) == BLOCK:  # before there are so many lists that the garbage collector looks at them
                limit(row, "the body", most)
                flush()
    except csv.Error as error:
        raise Refused(422, f"row {row} is no CSV: {error}") from error
    limit(row, "the body", most)
    if block:
        flush()
    return columns


def _too_long(row: int) -> NoReturn:
    raise Refused(422, f"row {row} has more than {MAX_RECORD} characters, at most so many are taken")


def _wrong_width(row: int, found: int, width: int) -> NoReturn:
    raise Refused(422, f"row {row} has {found} fields, the header names {width}")
