"""The network of the embedded default: a switch in a file. `edge-ai link down` sets it, sensors read it.

A real uplink has no such thing: there the state of the link follows what its operations meet.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from edge_ai_assets.delivery import durable

log = logging.getLogger(__name__)


class LinkDown(ConnectionError):
    """There is no way to the other side just now; what was to be sent waits."""


class LinkState(msgspec.Struct, frozen=True):
    """What `link.json` holds."""

    state: Literal["up", "down"] = "up"
    since: str = ""
    """ISO 8601, UTC; '' when it was never changed."""
    changes: int = 0


class Link:
    """The link of one site. It is up until somebody cuts it.

    Args:
        folder: holds `link.json`; made when the link is changed.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "link.json"

    @property
    def state(self) -> LinkState:
        """What the file says. One that cannot be understood is a link that is down until it is restored."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=LinkState)
        except FileNotFoundError:
            return LinkState()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("%s cannot be read, the link counts as down: %s", self.path, error)
            return LinkState("down")

    @property
    def up(self) -> bool:
        return self.state.state == "up"

    def cut(self) -> LinkState:
        """Take the link down; a link that is down stays as it is."""
        return self._change("down")

    def restore(self) -> LinkState:
        """Bring the link up; a link that is up stays as it is."""
        return self._change("up")

    def check(self) -> None:
        """Raise LinkDown when the link is down."""
        if (state := self.state).state != "up":
            since = f"since {state.since}" if state.since else f"as {self.path} cannot be read"
            raise LinkDown(f"the link is down {since}; `edge-ai link up` restores it")

    def _change(self, to: Literal["up", "down"]) -> LinkState:
        with durable.locked(self.path.with_name(".link.lock")):
            if (now := self.state).state == to:
                return now
            changed = LinkState(to, datetime.now(UTC).isoformat(timespec="seconds"), now.changes + 1)
            with durable.replacing(self.path) as file:
                file.write(msgspec.json.encode(changed))
            return changed
