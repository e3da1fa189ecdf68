"""What a Parquet file costs is told from its bytes, whatever its metadata says."""

from __future__ import annotations

import io
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.package import members, pages
from edge_ai_assets.returns.package.members import MemberError
from edge_ai_assets.returns.package.pages import PageError
from edge_ai_assets.returns.package.parts import FORMAT, SKETCHES, Sketch

MB = 1024 * 1024


def parquet(table: pa.Table, **options: object) -> bytes:
    buffer = io.BytesIO()
    settings = {"compression": "zstd", "write_statistics": False, "store_schema": False, **options}
    pq.write_table(table, buffer, **settings)
    return buffer.getvalue()


def repeated(rows: int, size: int) -> bytes:
    """Sketches that are all the same and stand in the file once."""
    same = pa.DictionaryArray.from_arrays(
        pa.array([0] * rows, pa.int32()), pa.array([bytes(size)], pa.binary())
    )
    names = {"release": ["r"] * rows, "feature": ["f"] * rows}
    numbers = {"rows": pa.array([1] * rows, pa.int64()), "k": pa.array([8] * rows, pa.int32())}
    return parquet(pa.table({**names, **numbers, "sketch": same}), use_dictionary=True)


@pytest.mark.parametrize("size", [200_000, 3_000_000])
def test_a_text_that_is_in_every_row_is_stopped_at_the_bound(size):
    data, before = repeated(4_096, size), pa.total_allocated_bytes()
    peak: list[int] = []
    whole = pq.ParquetFile.iter_batches

    def watched(self, *arguments):
        for batch in whole(self, *arguments):
            peak.append(pa.total_allocated_bytes() - before)
            yield batch

    with pytest.MonkeyPatch.context() as patch, pytest.raises(MemberError, match="more bytes than it may"):
        patch.setattr(pq.ParquetFile, "iter_batches", watched)
        members.read_table(SKETCHES, data, 4_096, 64 * MB, form=FORMAT)
    assert len(data) < 2_000 and max(peak) < 2 * (64 * MB + members.BATCH_BYTES)


def test_one_row_that_is_too_large_is_refused_before_it_is_read():
    data, before = repeated(2, 65 * MB), pa.total_allocated_bytes()
    with pytest.raises(MemberError, match="a row of"):
        members.read_table(SKETCHES, data, 2, 500 * MB, form=FORMAT)
    assert pa.total_allocated_bytes() - before < MB


def test_what_sites_write_costs_what_it_holds():
    rows = [Sketch("r1", f"f{n}", n, 8, bytes([n]) * 1_000) for n in range(200)]
    data = members.parquet(members.columns(SKETCHES, rows))
    cost = pages.cost(data)
    assert 200_000 < cost.unpacked < 230_000 and 1_000 < cost.row < 230_000
    assert members.read_table(SKETCHES, data, 200, 400_000, form=FORMAT).num_rows == 200


def test_a_page_that_says_that_it_is_huge_is_refused_whatever_the_metadata_says():
    data = bytearray(parquet(pa.table({"a": pa.array(range(100), pa.int64())}), use_dictionary=False))
    assert data[4:7] == b"\x15\x00\x15" and pages.cost(bytes(data)).unpacked == 807
    data[7:9] = b"\xfe\x7f"  # 8,191 bytes
    assert pages.cost(bytes(data)).unpacked == 8_191


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_other_encodings_are_refused(encoding):
    data = parquet(pa.table({"a": ["x"]}), use_dictionary=False, column_encoding={"a": encoding})
    with pytest.raises(PageError, match="encoding"):
        pages.cost(data)


def test_the_number_of_pages_is_bounded(monkeypatch):
    monkeypatch.setattr(pages, "MAX_PAGES", 3)
    data = parquet(pa.table({"a": range(9)}), use_dictionary=False, row_group_size=3)
    assert pages.cost(data).unpacked == 90
    with pytest.raises(PageError, match="more than 3 pages"):
        pages.cost(parquet(pa.table({"a": range(12)}), use_dictionary=False, row_group_size=3))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_changed_nothing_else_is_raised(data):
    whole = bytearray(repeated(3, 9))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(PageError):
        pages.cost(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


@pytest.mark.parametrize("kind", [5, 8])
def test_a_list_of_something_else_than_structs_is_refused(kind):
    footer = bytes([0x49, 1 << 4 | kind, 0, 0])  # field 4, where the row groups stand
    with pytest.raises(PageError, match="not as it should be"):
        pages.cost(b"PAR1" * 2 + footer + len(footer).to_bytes(4, "little") + b"PAR1")
