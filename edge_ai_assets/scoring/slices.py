"""A file of readings as requests to the scoring service: chunks of rows, their features, slices as Arrow.

Nothing is sent here, and no state of the site is kept but the lookback it is given. The same file, use case,
lookback and `Cut` give the same requests again; that is what their keys rest on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_ai_assets.scoring.context import CONTEXT
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    import pandas as pd

    from edge_ai_assets.scoring.lookback import Lookback


CELLS = 500_000
"""Most inputs in a request, over all of its rows: 4 MB of numbers, so that those on their way at once stay
below what the service lets wait. A chunk has eight times as many: it is wider than its file."""


class Cut(msgspec.Struct, frozen=True):
    """How many rows go together. What is begun with one cut must be finished with it: a slice cut otherwise
    holds other rows, and a chunk begun elsewhere rounds its windows otherwise.

    The defaults are how every file was cut before the note of a file that is begun told its cut.
    """

    first: int = 100_000
    """Rows read at first. Each chunk after it is twice as long as the one before, up to `chunk`."""
    chunk: int = 100_000
    slice: int = 2_000
    """Most rows a request."""

    def of(self, inputs: int) -> Cut:
        """The same for rows of so many inputs: of wide ones fewer go together, for memory's sake, and because
        the service refuses a request above `http.MAX_BODY`."""
        chunk, rows = min(self.chunk, 8 * CELLS // inputs), min(self.slice, CELLS // inputs)
        return msgspec.structs.replace(self, chunk=max(1, chunk), slice=max(1, rows))

    def key(self, digest: str, chunk: int, start: int) -> str:
        """Idempotency key of a slice: what is in it follows from the file, the cut and its place."""
        cut = "" if self == Cut() else f"/{self.first}-{self.chunk}-{self.slice}"
        return f"{digest}{cut}/{chunk}/{start}"


@dataclass(frozen=True)
class Slice:
    """A request."""

    key: str
    rows: int
    table: bytes
    """The rows as an Arrow IPC stream: inputs and CONTEXT."""


@dataclass(frozen=True)
class Chunk:
    """What became of some consecutive rows of a file."""

    slices: list[Slice]
    baseline: int
    """Rows that are not scored."""
    rejected: pd.DataFrame
    """See `readings.files.Batch`."""


def chunks(
    path: Path, usecase: UseCase, *, site: str, digest: str, cut: Cut, kept: Lookback
) -> Iterator[Chunk]:
    """All rows of a file, in order.

    Args:
        digest: of the file; begins the keys.
        kept: what is kept of earlier files; as it is consumed, of this one too.

    Raises:
        ReadingsError: see `readings.files.read`.
    """
    import pandas as pd

    from edge_ai_assets.ml import features
    from edge_ai_assets.readings.files import read

    names = [item.name for item in features.inputs(usecase)]
    names += [name for name in CONTEXT if name != "_asset" or usecase.plant_asset]
    batches = read(path, usecase, site=site, chunk_rows=cut.chunk, first_rows=cut.first)
    for number, batch in enumerate(batches):
        fresh = kept.continue_runs(batch.readings)
        before = kept.before(fresh)
        whole = pd.concat([before, fresh], ignore_index=True) if len(before) else fresh
        made = features.compute(whole, usecase).iloc[len(before) :]
        to_score = made.loc[features.scorable(made, usecase), names]
        slices = [
            Slice(cut.key(digest, number, start), rows, table)
            for start, rows, table in tables(to_score, cut.slice)
        ]
        yield Chunk(slices, len(fresh) - len(to_score), batch.rejected)
        # After it: only the next chunk asks for it, and the service waits for this one.
        kept.remember(features.lookback(whole, usecase))


def tables(frame: pd.DataFrame, rows: int) -> Iterator[tuple[int, int, bytes]]:
    """Slices of a table: first row, number of rows, an Arrow IPC stream; not a number, or a time, is null."""
    import pyarrow as pa

    whole = pa.RecordBatch.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    for start in range(0, whole.num_rows, rows):
        part = whole.slice(start, rows)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, whole.schema) as stream:
            stream.write_batch(part)
        yield start, part.num_rows, sink.getvalue().to_pybytes()
