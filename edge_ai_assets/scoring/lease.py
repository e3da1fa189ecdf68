"""The end of a site's trust lease, and which releases were withdrawn, as the scoring service knows it: a note
in the site's folder, or mounted.

Who renews it, and by what, is the site's Dagster's matter (`stack_hub.lease`); without a note it never ends.
Standard library and msgspec only.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec

FILE = "lease.json"
MOUNTED = Path("/etc/edge-ai-lease")
"""Where a cluster puts the note, whose Dagster does not write into the volume of the service."""
LOOK_SECONDS = 5.0
"""A note is looked at again after so long."""
DUE = 0.75
"""Once so much of a lease is over, it is due: a site with a link renews its own when a tenth is."""

Time = Annotated[datetime, msgspec.Meta(tz=True)]
State = Literal["none", "current", "due", "stale"]


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """`lease.json`"""

    until: Time
    when_stale: Literal["keep", "stop"]
    issued: Time | None = None
    """When it began."""
    withdrawn: dict[str, str] = {}
    """Releases on the site's disk that were withdrawn, by digest: by whom, when and why."""


class Trust(NamedTuple):
    """How the lease stands, for people."""

    state: State
    until: str | None
    """When it ends or ended, ISO 8601."""
    scoring: Literal["goes on", "stops"] | None
    """What happens then."""


class Lease:
    """Asks how the lease stands, and whether scoring is to stop. A note that cannot be read stops nothing:
    its absence would not.

    Args:
        folders: where the note may lie; the first that has one counts.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders: Sequence[Path] = folders
        self._next = 0.0
        self._note: Note | None = None

    def ended(self) -> str | None:
        """Why nothing is scored now; None while something is. By this machine's clock."""
        note = self._look()
        if note is None or note.when_stale == "keep" or datetime.now(UTC) < note.until:
            return None
        return (
            f"the trust lease of this site ended on {note.until:%Y-%m-%d}, and its use case says "
            "`when_stale: stop`: bring a newer bundle"
        )

    def trust(self) -> Trust:
        """How it stands, by this machine's clock."""
        note = self._look()
        if note is None:
            return Trust("none", None, None)
        left = note.until - datetime.now(UTC)
        state: State = "current"
        if left <= timedelta(0):
            state = "stale"
        elif note.issued is not None and left <= (1 - DUE) * (note.until - note.issued):
            state = "due"
        return Trust(state, note.until.isoformat(), "stops" if note.when_stale == "stop" else "goes on")

    def withdrawn(self, release: str) -> str | None:
        """Who withdrew a release, when and why; None when nobody did."""
        note = self._look()
        return note.withdrawn.get(release) if note else None

    def _look(self) -> Note | None:
        if (now := time.monotonic()) >= self._next:
            self._next = now + LOOK_SECONDS
            found = (read(folder / FILE) for folder in self._folders)
            self._note = next((note for note in found if note is not None), None)
        return self._note


def read(path: Path) -> Note | None:
    """A note; None when there is none, or none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
