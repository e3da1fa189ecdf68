"""Some rows of a file as raw cells, and lines of CSV cut into them.

Only rows that cannot be cut into the header's columns are called broken here; what a cell means is decided in
`rules`. One line is one record: a line break inside quotes ends the record all the same, so that one stray
quote costs one row and not the rest of the file.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress

import numpy as np
import pyarrow as pa

from edge_ai_assets.readings.lines import as_data, as_lines, decoded, split, table

TEXT = 2000
"""Most characters kept of a rejected row."""


@dataclass(frozen=True)
class RawChunk:
    """Some consecutive rows. `cells` are text from CSV, typed from Parquet, and null in broken rows."""

    numbers: np.ndarray
    """Line in the file (CSV) or row (Parquet) of each row, from 1; int64, shape (n,)."""
    cells: dict[str, pa.Array]
    broken: dict[int, str] = field(default_factory=dict)
    """Why a row of this chunk could not be cut into cells, by position in the chunk."""
    data: bytes | None = None
    """The lines as they stand in a CSV file, see `lines.as_data`; None for Parquet."""

    @cached_property
    def lines(self) -> list[str] | None:
        return None if self.data is None else as_lines(self.data)

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


def cut(data: bytes, numbers: np.ndarray, columns: list[str], delimiter: str, encoding: str) -> RawChunk:
    """Lines as rows of cells: all at once if nothing is wrong with any, else those one by one that need it.

    Args:
        data: the lines, see `lines.as_data`; numbers: of each in the file, int64, shape (n,).
        encoding: what the file is said to be in, for what is told of a line that is not.
    """
    # A blank line is no row. To `table` it is none either where it has one cell and a row has more.
    if len(columns) > 1 and not delimiter.isspace():
        cells = table(data, len(numbers), columns, delimiter)
        if cells is not None:
            return RawChunk(numbers, cells, {}, data)
    lines = as_lines(data)
    if not all(map(str.strip, lines)):
        there = [bool(line.strip()) for line in lines]
        numbers, lines = numbers[there], list(compress(lines, there))
        data = as_data(lines)
    plain = [
        line.count(delimiter) + 1 == len(columns) and '"' not in line and decoded(line) for line in lines
    ]
    cells = table(as_data(compress(lines, plain)), sum(plain), columns, delimiter)
    if cells is None:  # none is plain
        plain, cells = [False] * len(lines), {name: pa.array([], pa.string()) for name in columns}
    rows = [row for row, is_plain in enumerate(plain) if not is_plain]
    broken: dict[int, str] = {}
    records = [_record(lines[row], row, len(columns), delimiter, encoding, broken) for row in rows]
    # First all that are plain, then the others: where each row is found.
    where = pa.array(np.argsort(np.argsort(~np.array(plain, bool), kind="stable"), kind="stable"))
    return RawChunk(
        numbers,
        {
            name: pa.concat_arrays([cells[name], pa.array(each, pa.string())]).take(where)
            for name, each in zip(columns, zip(*records, strict=True), strict=True)
        }
        if records
        else cells,
        broken,
        data,
    )


def _record(
    line: str, row: int, width: int, delimiter: str, encoding: str, broken: dict[int, str]
) -> list[str | None]:
    """The cells of one line, all None if it has others than the header; why is said in `broken`."""
    try:
        record: list[str | None] = [*split(line, delimiter)]
    except csv.Error as error:
        broken[row] = f"the line cannot be cut into fields: {error}"
    else:
        if not decoded(line):
            broken[row] = f"the line holds bytes that are not {encoding}"
        elif len(record) < width or any(record[width:]):
            broken[row] = f"the row has {len(record)} fields, the header has {width}"
        else:
            return record[:width]
    return [None] * width
