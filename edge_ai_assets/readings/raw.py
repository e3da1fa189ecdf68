"""Files as chunks of raw cells: CSV, gzipped CSV and Parquet, in bounded memory, nothing interpreted.

Opening, decoding, finding the delimiter. Lines are cut into cells in `cut`; what a cell means is decided in
`rules`.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from edge_ai_assets.readings.cut import RawChunk, cut
from edge_ai_assets.readings.lines import decoded, sniff_delimiter, split, take_lines, unique
from edge_ai_assets.usecase import Source

CELLS = 1_000_000
"""Most cells in a chunk: wide files are read in fewer rows at a time."""
SEPARATOR = re.compile(r"""["']?sep=.["']?\s*$""", re.I)


class ReadingsError(ValueError):
    """A file that cannot be read at all; the message names file, column and what is there instead."""


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

    def chunks(self, rows: int, first: int | None = None) -> Iterator[RawChunk]:
        """All rows in file order, at most `rows` (and `CELLS` cells) at a time; blank lines are no rows.

        With `first`, so many at first, and each time twice as many as before, up to `rows`.
        """
        most = max(1, min(rows, CELLS // len(self.columns)))
        return (self._parquet_chunks if self.is_parquet else self._csv_chunks)(most, min(first or most, most))

    def _parquet_chunks(self, most: int, size: int) -> Iterator[RawChunk]:
        start = 1
        with _parquet(self.path) as file:
            for batch in file.iter_batches(batch_size=most):
                at = 0
                while at < batch.num_rows:
                    part = batch.slice(at, size)
                    cells = dict(zip(self.columns, part.columns, strict=True))
                    yield RawChunk(np.arange(start + at, start + at + part.num_rows), cells)
                    at, size = at + part.num_rows, min(2 * size, most)
                start += batch.num_rows

    def _csv_chunks(self, most: int, size: int) -> Iterator[RawChunk]:
        with self._open() as file:
            numbered = (number for number, line in enumerate(iter(file.readline, ""), 1) if line.strip())
            last = deque(islice(numbered, 1 + self._has_separator_line), maxlen=1)[0]  # of the header
            rest = b""
            while True:
                data, rest = take_lines(file, rest, size)
                if not data:
                    return
                lines = data.count(b"\n") + (not data.endswith(b"\n"))
                numbers = np.arange(last + 1, last + 1 + lines)
                chunk = cut(data, numbers, self.columns, self.delimiter, self.source.encoding)
                if chunk.rows:
                    yield chunk
                last, size = last + lines, min(2 * size, most)

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
