"""Small documents that several processes share and replace only if nobody else has: the function's memory.

What is noted, and under which names, is `forwarding`'s matter.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple, Protocol

from edge_ai_assets.delivery import durable


class Note(NamedTuple):
    data: bytes
    tag: str
    """Of this very content: what `write` must be told to replace it."""


class Notes(Protocol):
    """Notes by name, as `site/part`. Methods raise LinkDown when they are out of reach."""

    def read(self, name: str) -> Note | None:
        """None when there is no such note."""

    def write(self, name: str, data: bytes, tag: str | None) -> bool:
        """Replace the note with that tag, or make a new one (None); on return it is kept.

        Returns:
            False when the note is another by now, or there is one already: nothing was written.
        """


class FolderNotes:
    """Notes as files of a folder on the site: the embedded default."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> Note | None:
        try:
            data = (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None
        return Note(data, hashlib.sha256(data).hexdigest())

    def write(self, name: str, data: bytes, tag: str | None) -> bool:
        path = self.folder / name
        with durable.locked(self.folder / ".lock"):
            found = self.read(name)
            if (found.tag if found else None) != tag:
                return False
            durable.make_folder(path.parent)
            with durable.replacing(path) as file:
                file.write(data)
        return True
