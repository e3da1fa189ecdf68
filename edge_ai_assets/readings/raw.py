"""Files as chunks of raw cells: CSV, gzipped CSV and Parquet, in bounded memory, nothing interpreted.

Opening, decoding, finding the delimiter, cutting lines into cells. What a cell means is decided in `rules`;
only rows that cannot be cut into the header's columns are called broken here. One line is one record: a line
break inside quotes ends the record all the same, so that one stray quote costs one row and not the rest of
the file.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from edge_ai_assets.readings.lines import decoded, sniff_delimiter, split, table, unique
from edge_ai_assets.usecase import Source

CELLS = 1_000_000
"""Most cells in a chunk: wide files are read in fewer rows at a time."""
SEPARATOR = re.compile(r"""["']?sep=.["']?\s*$""", re.I)
TEXT = 2000
"""Most characters kept of a rejected row."""


class ReadingsError(ValueError):
    """A file that cannot be read at all; the message names file, column and what is there instead."""


@dataclass(frozen=True)
class RawChunk:
    """Some consecutive rows. `cells` are text from CSV, typed from Parquet, and null in broken rows."""

    numbers: np.ndarray
    """Line in the file (CSV) or row (Parquet) of each row, from 1; int64, shape (n,)."""
    cells: dict[str, pa.Array]
    broken: dict[int, str] = field(default_factory=dict)
    """Why a row of this chunk could not be cut into cells, by position in the chunk."""
    lines: Sequence[str] | None = None
    """The lines as they stand in a CSV file; None for Parquet."""

    @property
    def rows(self) -> int:
        return len(self.numbers)

    def text(self, row: int) -> str:
        """The raw row as JSON, at most `TEXT` characters: an object, or the line if broken or too long."""
        if row in self.broken and self.lines is not None:
            return _short_json(self.lines[row])
        cells = {name: column[row].as_py() for name, column in self.cells.items()}
        text = json.dumps(cells, ensure_ascii=False, default=str)
        return text if len(text) <= TEXT else _short_json(self.lines[row] if self.lines is not None else text)


def _short_json(line: str) -> str:
    line = line.encode("utf-8", "backslashreplace").decode()
    keep = TEXT
    while len(text := json.dumps(line[:keep], ensure_ascii=False)) > TEXT:
        keep = keep * 3 // 4
    return text


@dataclass(frozen=True)
class RawFile:
    """A file of readings, its header read. Raises `ReadingsError` when it is none."""

    path: Path
    source: Source

    @cached_property
    def _magic(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                return file.read(4)
        except OSError as error:
            raise ReadingsError(f"{self.path}: cannot be read: {error.strerror}") from error

    @property
    def is_parquet(self) -> bool:
        return self._magic == b"PAR1"

    @cached_property
    def header_line(self) -> str:
        """The first line that is not blank nor Excel's `sep=;`, as it stands; CSV only."""
        return next(self._head, "")

    @property
    def _head(self) -> Iterator[str]:
        with self._open() as file:
            lines = (line for line in islice(file, 200) if line.strip())
            yield from islice(lines, int(self._has_separator_line), None)

    @cached_property
    def _has_separator_line(self) -> bool:
        """Whether the first line is the `sep=;` that Excel writes for itself."""
        with self._open() as file:
            first = next((line for line in islice(file, 200) if line.strip()), "")
            return bool(SEPARATOR.match(first))

    @cached_property
    def delimiter(self) -> str:
        if self.source.delimiter:
            return self.source.delimiter
        return sniff_delimiter(list(islice(self._head, 50)))

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns: trimmed, empty ones at the end left out, made unique the way pandas does."""
        if self.is_parquet:
            with _parquet(self.path) as file:
                return unique([str(name) for name in file.schema_arrow.names])
        line = self.header_line
        if not line:
            raise ReadingsError(f"{self.path}: the file is empty, a header and rows are expected")
        if not decoded(line):
            raise ReadingsError(
                f"{self.path}: the header is no {self.source.encoding} text; set source.encoding"
            )
        if "\0" in line:
            raise ReadingsError(
                f"{self.path}: this is neither CSV nor Parquet, it begins with {self._magic!r}"
            )
        names = [name.strip() for name in split(line, self.delimiter)]
        while names and not names[-1]:
            names.pop()
        if not names:
            raise ReadingsError(f"{self.path}: line 1 is no header, it holds only delimiters")
        return unique(names)

    def chunks(self, rows: int) -> Iterator[RawChunk]:
        """All rows in file order, at most `rows` (and `CELLS` cells) at a time; blank lines are no rows."""
        rows = max(1, min(rows, CELLS // len(self.columns)))
        return self._parquet_chunks(rows) if self.is_parquet else self._csv_chunks(rows)

    def _parquet_chunks(self, rows: int) -> Iterator[RawChunk]:
        start = 1
        with _parquet(self.path) as file:
            for batch in file.iter_batches(batch_size=rows):
                cells = dict(zip(self.columns, batch.columns, strict=True))
                yield RawChunk(np.arange(start, start + batch.num_rows), cells)
                start += batch.num_rows

    def _csv_chunks(self, rows: int) -> Iterator[RawChunk]:
        with self._open() as file:
            numbered = (number for number, line in enumerate(file, 1) if line.strip())
            last = deque(islice(numbered, 1 + self._has_separator_line), maxlen=1)[0]  # of the header
            while lines := list(islice(file, rows)):
                numbers = np.arange(last + 1, last + 1 + len(lines))
                last += len(lines)
                if not all(map(str.strip, lines)):
                    there = [bool(line.strip()) for line in lines]
                    numbers, lines = numbers[there], list(compress(lines, there))
                if lines:
                    yield self._cut(numbers, [line.rstrip("\n") for line in lines])

    def _cut(self, numbers: np.ndarray, lines: list[str]) -> RawChunk:
        cells = table(lines, self.columns, self.delimiter)
        if cells is not None:
            return RawChunk(numbers, cells, {}, lines)
        columns, delimiter, broken = self.columns, self.delimiter, {}
        width, records = len(columns), []
        nothing: list[str | None] = [None] * width
        for row, line in enumerate(lines):
            try:
                record: list[str | None] = [*split(line, delimiter)]
            except csv.Error as error:
                broken[row], record = f"the line cannot be cut into fields: {error}", nothing
            else:
                if not decoded(line):
                    broken[row], record = f"the line holds bytes that are not {self.source.encoding}", nothing
                elif len(record) < width or any(record[width:]):
                    broken[row] = f"the row has {len(record)} fields, the header has {width}"
                    record = nothing
            records.append(record[:width] if len(record) > width else record)
        cells = {
            name: pa.array(column, pa.string())
            for name, column in zip(columns, zip(*records, strict=True), strict=True)
        }
        return RawChunk(numbers, cells, broken, lines)

    @contextmanager
    def _open(self) -> Iterator[IO[str]]:
        """The file as text lines. Bytes that cannot be decoded become surrogates: one costs only its row."""
        encoding = "utf-8-sig" if self.source.encoding.lower() in ("utf-8", "utf8") else self.source.encoding
        magic = self._magic
        if magic[:2] in (b"\xff\xfe", b"\xfe\xff") and encoding == "utf-8-sig":
            encoding = "utf-16"
        if magic[:2] == b"PK":
            raise ReadingsError(f"{self.path}: a ZIP archive or spreadsheet; unpack it or save it as CSV")
        opened: Any = gzip.open if magic[:2] == b"\x1f\x8b" else open
        try:
            with (
                opened(self.path, "rb") as binary,
                io.TextIOWrapper(binary, encoding, errors="surrogateescape") as text,
            ):
                yield text
        except (OSError, EOFError, zlib.error, UnicodeError, LookupError) as error:
            raise ReadingsError(
                f"{self.path}: cannot be read as {self.source.encoding} text: {error}"
            ) from error


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise ReadingsError(f"{path}: cannot be read as Parquet: {error}") from error
