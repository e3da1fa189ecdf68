"""Where a model came from: a small file beside it, which later stands in its release."""

from __future__ import annotations

from pathlib import Path

import msgspec

NAME = "lineage.json"


class Lineage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the module."""

    training_run: str
    """Dagster run that trained the model."""
    training_set: str
    """Version of the training set, from its content."""
    usecase: str
    """Digest of the use case it was trained by."""

    def write(self, folder: Path) -> None:
        (folder / NAME).write_bytes(msgspec.json.encode(self))


def read(folder: Path) -> Lineage:
    """Raises `msgspec.ValidationError` naming the field of a malformed file."""
    return msgspec.json.decode((folder / NAME).read_bytes(), type=Lineage)
