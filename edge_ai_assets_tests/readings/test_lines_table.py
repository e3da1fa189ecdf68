"""Lines cut all at once are what they are when cut one by one."""

from __future__ import annotations

import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_ai_assets.readings import lines as module
from edge_ai_assets.readings.lines import DELIMITERS, as_data, as_lines, decoded, split, table, take_lines
from edge_ai_assets.readings.raw import RawFile
from edge_ai_assets.usecase import Source

CELLS = st.text(st.sampled_from("a1 .,;\t|-\0\x0b\x85\u2028é😀'\ud800\""), max_size=6)
"""TextIOWrapper has made every line end a newline, so that none is in a line."""


def one_by_one(lines, width, delimiter):
    """The cells, or None if a line cannot be cut into so many."""
    records = []
    for line in lines:
        if '"' in line or not decoded(line):
            return None
        records.append(split(line, delimiter))
        if len(records[-1]) != width:
            return None
    return [list(column) for column in zip(*records, strict=True)]


@given(st.sampled_from(DELIMITERS), st.integers(1, 4), st.lists(st.lists(CELLS, min_size=1, max_size=5)))
@example(",", 2, [["", ""], ["", ""]])
@example(",", 1, [["nan"], ["NULL"]])
def test_all_at_once_is_one_by_one(delimiter, width, rows):
    lines = [line for row in rows if (line := delimiter.join(row)).strip()]
    columns = [f"c{place}" for place in range(width)]
    found = table(as_data(lines), len(lines), columns, delimiter)
    expected = one_by_one(lines, width, delimiter) if lines else None
    if found is None:
        assert expected is None or not lines
    else:
        assert [column.to_pylist() for column in found.values()] == expected


@pytest.mark.parametrize("line", ["1,2,3", "1", '1,"2"', "1,\ud800", ""])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_line_that_needs_a_look_leaves_all_to_it(line, place):
    lines = ["1,2", "3,4"]
    lines.insert(place, line)
    assert table(as_data(lines), 3, ["a", "b"], ",") is None


@given(st.lists(CELLS, min_size=1), st.integers(1, 5), st.integers(1, 9), st.booleans())
def test_lines_are_the_same_however_they_are_read(lines, at_a_time, block, ended):
    text = "\n".join(lines) + "\n" * ended
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        file, rest, found = io.StringIO(text), b"", []
        while True:
            data, rest = take_lines(file, rest, at_a_time)
            if not data:
                break
            taken = as_lines(data)
            assert len(taken) == at_a_time or not rest
            found += taken
    assert found == text.removesuffix("\n").split("\n") or not text


@pytest.mark.parametrize("size", [1, 2, 10])
def test_a_byte_order_mark_inside_a_file_is_part_of_its_cell_wherever_a_chunk_begins(tmp_path, size):
    path = tmp_path / "joined.csv"
    path.write_bytes("a,b\n1,2\n\ufeff3,4\n\ufeff,5\n".encode())
    chunks = list(RawFile(path, Source()).chunks(size))
    assert [cell for chunk in chunks for cell in chunk.cells["a"].to_pylist()] == ["1", "\ufeff3", "\ufeff"]
