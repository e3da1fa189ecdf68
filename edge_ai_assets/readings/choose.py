"""Which use case somebody's own readings belong to: a bundled one whose columns they have, or a fresh
draft."""

from __future__ import annotations

from pathlib import Path

from edge_ai_assets import usecase as usecases
from edge_ai_assets.readings.draft import draft
from edge_ai_assets.readings.files import check_columns, files_of
from edge_ai_assets.readings.raw import RawFile, ReadingsError
from edge_ai_assets.usecase import UseCase


def choose(data: Path) -> tuple[UseCase, str | None]:
    """The use case for a file or folder, and its text if it had to be drafted.

    Raises:
        ReadingsError: there is nothing to read.
    """
    sample = files_of(data)[0]
    for path in sorted(usecases.BUNDLED.glob("*.yaml")):
        bundled = usecases.load(path)
        try:
            check_columns(RawFile(sample, bundled.source), bundled)
        except ReadingsError:
            continue
        return bundled, None
    text = draft(data)
    return usecases.loads(text, f"draft for {data.name}"), text
