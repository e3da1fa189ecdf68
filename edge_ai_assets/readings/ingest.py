"""A file of a plant into the lake, once: good rows to `raw_telemetry`, broken ones to `quarantine`.

What a good row is, is decided in `files`. Which files there are to ingest, and when, is not known here.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from edge_ai_assets.readings.files import read
from edge_ai_assets.readings.raw import ReadingsError
from edge_ai_assets.usecase import UseCase

METADATA = b"edge_ai_assets.ingested"


@dataclass(frozen=True)
class Ingested:
    """What became of one file. `rows` were good, `rejected` were not; `reasons` counts those by class."""

    source: str
    digest: str
    rows: int
    rejected: int
    reasons: dict[str, int]
    first: datetime | None
    last: datetime | None
    new: bool
    """False when the lake already held this file, read by the same declarations."""


def ingest(path: Path, usecase: UseCase, lake: Path, *, site: str | None = None) -> Ingested:
    """Write `raw_telemetry/<digest>.parquet` and, if a row was rejected, `quarantine/<digest>.parquet`.

    The digest is that of the file's bytes, and of its site when no column names it: the same bytes from two
    sites are two files. A file is written whole or not at all, and again only when the use case now reads it
    differently.

    Args:
        path: CSV, gzipped CSV or Parquet.
        usecase: see `files.read`.
        lake: the lake's folder; made when it is not there.
        site: where the file comes from. Without it and without a site column the parent folder's name is the
            site.

    Raises:
        ReadingsError: see `files.read`.
    """
    if site is None and usecase.site is None:
        site = path.resolve().parent.name
    digest = _digest(path, site if usecase.site is None else None)
    reading = _reading_digest(usecase, site)
    target, quarantine = (lake / folder / f"{digest}.parquet" for folder in ("raw_telemetry", "quarantine"))
    if target.exists() and (known := _known(target, reading)):
        return known
    counts: Counter[str] = Counter()
    rows = 0
    first: pd.Timestamp | None = None
    last: pd.Timestamp | None = None
    with _Table(target) as good, _Table(quarantine) as bad:
        for batch in read(path, usecase, site=site):
            good.write(batch.readings)
            if len(batch.rejected):
                bad.write(batch.rejected)
                counts.update(batch.rejected["_problem"].tolist())
            rows += len(batch.readings)
            times = batch.readings["_time"].dropna()
            if len(times):
                first = min(times.min(), first) if first is not None else times.min()
                last = max(times.max(), last) if last is not None else times.max()
        result = Ingested(
            source=path.name,
            digest=digest,
            rows=rows,
            rejected=counts.total(),
            reasons=dict(counts.most_common()),
            first=first.to_pydatetime() if first is not None else None,
            last=last.to_pydatetime() if last is not None else None,
            new=True,
        )
        good.note({METADATA: json.dumps({"reading": reading, **asdict(result)}, default=str).encode()})
        # The quarantine first: once the readings are there, the file counts as ingested.
        bad.commit()
        good.commit()
    return result


def _known(target: Path, reading: str) -> Ingested | None:
    """What an earlier call returned, unless the file was read by other declarations."""
    noted = json.loads((pq.read_metadata(target).metadata or {}).get(METADATA, b"{}"))
    if noted.pop("reading", None) != reading:
        return None
    for name in ("first", "last"):
        noted[name] = datetime.fromisoformat(noted[name]) if noted[name] else None
    return Ingested(**{**noted, "new": False})


def _digest(path: Path, site: str | None) -> str:
    digest = hashlib.sha256(f"{site}\0".encode() if site is not None else b"")
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ReadingsError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()[:16]


def _reading_digest(usecase: UseCase, site: str | None) -> str:
    """Changes when the use case would read the file differently, and not when, say, a gate changes."""
    read_by = {"source", "time", "site", "plant_asset", "runs", "features", "label", "sites"}
    parts = usecase.model_dump_json(include=read_by)
    return hashlib.sha256(f"{parts}\0{site}".encode()).hexdigest()


class _Table:
    """A Parquet file that appears whole under its name when committed, and not at all otherwise."""

    def __init__(self, path: Path) -> None:
        self._path, self._temporary = path, path.with_name(f".{path.name}.{os.getpid()}")
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def write(self, frame: pd.DataFrame) -> None:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._temporary, table.schema, compression="zstd")
        self._writer.write_table(table)

    def note(self, metadata: dict[bytes, bytes]) -> None:
        if self._writer is not None:
            self._writer.add_key_value_metadata(metadata)

    def commit(self) -> None:
        """Rename into place; without a row written, what an earlier reading left is removed."""
        if self._writer is None:
            self._path.unlink(missing_ok=True)
            return
        self._writer.close()
        with _descriptor(self._temporary) as file:
            os.fsync(file)
        self._temporary.replace(self._path)
        with _descriptor(self._path.parent) as folder:
            os.fsync(folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
        self._temporary.unlink(missing_ok=True)


@contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
