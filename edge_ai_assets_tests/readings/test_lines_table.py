"""Lines cut all at once are what they are when cut one by one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_ai_assets.readings.lines import DELIMITERS, decoded, split, table

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
    found = table(lines, columns, delimiter)
    expected = one_by_one(lines, width, delimiter) if lines else None
    if found is None:
        assert expected is None or not lines
    else:
        assert [column.to_pylist() for column in found.values()] == expected


@pytest.mark.parametrize("line", ["1,2,3", "1", '1,"2"', "1,\ud800"])
def test_one_line_that_needs_a_look_leaves_all_to_it(line):
    assert table(["1,2", line], ["a", "b"], ",") is None
