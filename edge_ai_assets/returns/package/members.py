"""The members of a return package as bytes: rows to Parquet, lineage to zstd, and back under bounds.

What the columns are is `parts`' matter; the file around the members, and whether one is what its manifest
says, is `packages`'.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edge_ai_assets.returns.egress.rules import listed
from edge_ai_assets.returns.outbox.columns import Column
from edge_ai_assets.returns.package import pages
from edge_ai_assets.returns.package.parts import OPTIONAL, schemas

if TYPE_CHECKING:
    import pyarrow as pa

LEVEL, LARGE_LEVEL, LARGE = 9, 3, 1024 * 1024
"""Of zstd, that of a table of so many bytes before, and how many that are. 9 takes twice as long as 3 for 1 %
less, which a site that packs little at a time does not notice; 19 takes eight times as long for 2 % less."""
SAMPLE = 1_000
"""Rows of a column that are looked at: if most have a text of their own, a dictionary would be as large."""
COUNTING = frozenset({"sequence", "id", "scored_at", "given_at", "window"})
"""Columns whose values mostly rise: what stands in the file is by how much."""
BATCH, BATCH_BYTES = 4_096, 64 * 1024 * 1024
"""Rows unpacked at a time, and what they may take, so that a member that unpacks to too much is refused
before it has: a text that stands in the file once may be in every row."""


class MemberError(ValueError):
    """A member that cannot be used; the message says what is wrong, without the member's name."""


def columns(name: str, rows: Sequence[Any]) -> pa.Table:
    """Rows of a table as columns; `fields` becomes a struct with one typed column for each of its names."""
    import pyarrow as pa

    made: dict[str, pa.Array] = {}
    for field in schemas()[name]:
        values = [getattr(row, field.name) for row in rows]
        if field.name == OPTIONAL.get(name) and values.count(None) == len(values):
            continue
        if field.name != "fields":
            made[field.name] = pa.array(values, field.type)
            continue
        names = sorted(set[str]().union(*values))
        found = {name: column([[row.get(name) for row in values]]) for name in names}
        if fields := {name: array for name, array in found.items() if array is not None}:
            made["fields"] = struct(fields)
    return pa.table(made)


def column(parts: Sequence[Column]) -> pa.Array | None:
    """The values of a field that leaves, of one part after the other; None if there is none."""
    import pyarrow as pa

    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if arrays and len(arrays) == len(parts):
        found = np.concatenate(arrays)
        missing = np.isnan(found)
        return None if missing.all() else pa.array(found, mask=missing)
    values = [value for part in parts for value in listed(part)]
    kinds = set(map(type, values)) - {NoneType}
    if not kinds:
        return None
    if kinds == {str}:
        return pa.array(values, pa.string())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds <= {int, float}:
        return pa.array(values, pa.float64())
    # The policy gives a field values of one kind. Should releases differ on that, it leaves as text.
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def struct(fields: Mapping[str, pa.Array]) -> pa.Array:
    """Columns as one, in order of their names."""
    import pyarrow as pa

    names = sorted(fields)
    return pa.StructArray.from_arrays([fields[name] for name in names], names)


def parquet(made: pa.Table) -> bytes:
    """A table as Parquet."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    flat = made.flatten()
    counting = COUNTING & set(made.column_names)
    alike = [name for name in flat.column_names if name not in counting and not _own_values(flat[name])]
    pq.write_table(
        made,
        buffer,
        compression="zstd",
        compression_level=LARGE_LEVEL if made.nbytes > LARGE else LEVEL,
        column_encoding=dict.fromkeys(sorted(counting), "DELTA_BINARY_PACKED"),
        use_dictionary=alike,
        write_statistics=False,  # they would repeat the smallest and largest value of each column
        store_schema=False,
    )
    return buffer.getvalue()


def _own_values(values: pa.ChunkedArray) -> bool:
    """Whether most rows have a text that no other has, as far as a sample tells."""
    import pyarrow as pa

    return bool(pa.types.is_string(values.type) and len(values.slice(0, SAMPLE).unique()) > SAMPLE / 2)


def read_table(name: str, data: bytes, rows: int, limit: int, *, form: int) -> pa.Table:
    """What `parquet` made, with the columns of `schemas`.

    Args:
        name: of the member.
        data: its bytes.
        rows: how many it must have.
        limit: most bytes that it may unpack to. Arrow grows what it fills by doubling, so that up to twice as
            much may be in use.
        form: format of the package. In format 1 `fields` is JSON text in the file already; since format 3 the
            file may have the column of OPTIONAL.

    Raises:
        MemberError: it is no Parquet, has other columns or another number of rows, or unpacks to more.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, texts = schemas()[name], form == 1
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        meta = file.metadata
        cost = pages.cost(data)
        if cost.unpacked > limit:
            raise MemberError(f"unpacks to {cost.unpacked} bytes, the limit is {limit}")
        if cost.row > BATCH_BYTES:
            raise MemberError(f"may have a row of {cost.row} bytes, the limit is {BATCH_BYTES}")
        told = form > 2 and OPTIONAL.get(name) in file.schema_arrow.names
        held = pa.schema([field for field in schema if told or field.name != OPTIONAL.get(name)])
        if not _fits(file.schema_arrow, held, texts=texts):
            raise MemberError("has other columns than its format")
        if meta.num_rows != rows:
            raise MemberError(f"has {meta.num_rows} rows, its manifest says otherwise")
        batches: list[pa.RecordBatch] = []
        for batch in file.iter_batches(max(1, min(BATCH, BATCH_BYTES // max(1, cost.row)))):
            batches.append(batch)
            limit -= batch.nbytes
            if limit < 0:
                raise MemberError("unpacks to more bytes than it may")
        found = pa.Table.from_batches(batches, file.schema_arrow)
        if found.num_rows != rows:
            raise MemberError(f"holds {found.num_rows} rows, it says {rows}")
        found.validate(full=True)  # Parquet says of any bytes that they are text
        if "fields" in schema.names and not texts:
            found = found.drop_columns(["fields"] if "fields" in found.column_names else [])
            found = found.append_column("fields", _json(batches, rows))
        for field in list(schema)[len(held) :]:
            found = found.append_column(field, pa.nulls(rows, field.type))
        return found.cast(schema)
    except (ValueError, OSError, OverflowError, MemoryError) as error:  # ArrowInvalid is a ValueError
        if isinstance(error, MemberError):
            raise
        raise MemberError(f"is no readable Parquet: {error}") from error


def lines(events: Sequence[bytes]) -> bytes:
    """Lineage events, one a line, compressed."""
    import pyarrow as pa

    text = b"".join(event + b"\n" for event in events)
    return bytes(pa.Codec("zstd", LEVEL).compress(text, asbytes=True))


def read_lines(data: bytes, rows: int, limit: int) -> list[bytes]:
    """What `lines` made.

    Args:
        data: the member's bytes.
        rows: how many lines it must have.
        limit: most bytes that it may unpack to.

    Raises:
        MemberError: it is no zstd, unpacks to more, or has another number of lines.
    """
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            text: bytes = stream.read(limit + 1)
    except (ValueError, OSError, MemoryError) as error:
        raise MemberError(f"is no readable zstd: {error}") from error
    if len(text) > limit:
        raise MemberError(f"unpacks to more than {limit} bytes")
    if (found := text.count(b"\n")) != rows or text[-1:] not in (b"", b"\n"):
        raise MemberError(f"has {found} whole lines, its manifest says otherwise")
    return text.split(b"\n")[:-1]


def _fits(found: pa.Schema, schema: pa.Schema, *, texts: bool) -> bool:
    """Whether a file has the columns of a table, and `fields` as its format wants it."""
    import pyarrow as pa

    if texts or "fields" not in schema.names:
        return bool(found.equals(schema))
    fixed = pa.schema([field for field in schema if field.name != "fields"])
    if found.names == fixed.names:
        return bool(found.equals(fixed))
    *own, last = found
    if last.name != "fields" or not pa.types.is_struct(last.type) or not pa.schema(own).equals(fixed):
        return False
    names = [last.type.field(place).name for place in range(last.type.num_fields)]
    types = {last.type.field(place).type for place in range(last.type.num_fields)}
    return names == sorted(set(names)) and types <= {pa.float64(), pa.bool_(), pa.string()}


def _json(batches: Sequence[pa.RecordBatch], rows: int) -> pa.Array:
    """The struct column `fields` as JSON text with sorted keys, nulls left out."""
    import pyarrow as pa

    encode = msgspec.json.Encoder().encode
    texts: list[str] = []
    for batch in batches:
        if "fields" not in batch.schema.names:
            break
        fields = batch.column("fields")
        names = [field.name for field in fields.type]
        columns = [fields.field(place).to_pylist() for place in range(len(names))]
        for values in zip(*columns, strict=True):
            row = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            texts.append(encode(row).decode())
    return pa.array(texts or ["{}"] * rows, pa.string())
