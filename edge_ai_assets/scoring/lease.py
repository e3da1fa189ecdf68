"""The end of a site's trust lease, as the scoring service knows it: a note in the site's folder.

Who renews it, and by what, is the site's Dagster's matter (`stack_hub.lease`); without a note it never ends.
Standard library and msgspec only.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

FILE = "lease.json"
LOOK_SECONDS = 5.0
"""A note is looked at again after so long."""


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`lease.json`"""

    until: Annotated[datetime, msgspec.Meta(tz=True)]
    when_stale: Literal["keep", "stop"]


class Lease:
    """Asks whether scoring is to stop. A note that cannot be read stops nothing: its absence would not."""

    def __init__(self, folder: Path) -> None:
        self._path, self._next = folder / FILE, 0.0
        self._note: Note | None = None

    def ended(self) -> str | None:
        """Why nothing is scored now; None while something is. By this machine's clock."""
        if (now := time.monotonic()) >= self._next:
            self._next, self._note = now + LOOK_SECONDS, read(self._path)
        note = self._note
        if note is None or note.when_stale == "keep" or datetime.now(UTC) < note.until:
            return None
        return (
            f"the trust lease of this site ended on {note.until:%Y-%m-%d}, and its use case says "
            "`when_stale: stop`: bring a newer bundle"
        )


def read(path: Path) -> Note | None:
    """A note; None when there is none, or none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
