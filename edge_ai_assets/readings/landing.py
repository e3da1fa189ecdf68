"""The landing zone: files as Data Factory leaves them, taken into the lake once each.

A file that was taken moves from `landing/` to `landing/taken/`, one that cannot be read to
`landing/unreadable/`. Killed in between, it is taken again, which changes nothing: a file's name in the lake
is its content's digest.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from edge_ai_assets.readings.files import ReadingsError
from edge_ai_assets.readings.ingest import Ingested, ingest
from edge_ai_assets.usecase import UseCase

TAKEN, UNREADABLE = "taken", "unreadable"


@dataclass
class Landed:
    """What one pass over the landing zone did."""

    files: list[Ingested] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    lake_rows: int = 0

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def rejected(self) -> int:
        return sum(file.rejected for file in self.files)

    @property
    def reasons(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for file in self.files:
            total.update(file.reasons)
        return dict(total)


def waiting(landing: Path) -> list[Path]:
    """Files that wait in the landing zone, by path. Hidden ones, or in hidden folders, are being written."""
    return sorted(path for path in landing.rglob("*") if path.is_file() and _waits(path.relative_to(landing)))


def ingest_all(landing: Path, usecase: UseCase, lake: Path) -> Landed:
    """Take every waiting file into the lake."""
    import pyarrow.parquet as parquet

    landed = Landed()
    for path in waiting(landing):
        try:
            landed.files.append(ingest(path, usecase, lake))
        except ReadingsError as error:
            landed.unreadable.append((path.name, str(error)))
            _move(path, landing, UNREADABLE)
        else:
            _move(path, landing, TAKEN)
    landed.lake_rows = sum(
        parquet.read_metadata(file).num_rows for file in (lake / "raw_telemetry").glob("*.parquet")
    )
    return landed


def _waits(path: Path) -> bool:
    return path.parts[0] not in (TAKEN, UNREADABLE) and not any(part.startswith(".") for part in path.parts)


def _move(path: Path, landing: Path, folder: str) -> None:
    """Set a file aside under its own name; one of that name from an earlier day stays beside it."""
    target = landing / folder / path.relative_to(landing)
    target.parent.mkdir(parents=True, exist_ok=True)
    copies = 0
    while target.exists():
        copies += 1
        target = target.with_name(f"{path.name}.{copies}")
    os.replace(path, target)
