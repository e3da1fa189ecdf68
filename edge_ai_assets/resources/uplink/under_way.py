"""What is under way to storage at once, and at which pace. What is sent, and where to, is the uplink's."""

from __future__ import annotations

import io
import threading

from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets.returns.road.pace import SLICE, Pace

SLOW_SECONDS = 2.5
"""What takes longer had too much beside it."""


class UnderWay:
    """Room for what waits for its answer: a step more with each block that comes through, a step less with
    each that was slow. Shared by threads.

    Args:
        first: bytes at the start.
        most: bytes.
        step: bytes.
    """

    def __init__(self, first: int, most: int, step: int) -> None:
        self.bytes = 0
        """That wait for an answer now."""
        self._room, self._most, self._step = first, most, step
        self._changed = threading.Condition()

    def begin(self, size: int, most: int | None = None) -> None:
        """Wait until there is room for so many bytes, and no more than `most` with them; more than there ever
        is go alone."""

        def fits() -> bool:
            room = self._room if most is None else min(self._room, most)
            return not self.bytes or self.bytes + size <= room

        with self._changed:
            self._changed.wait_for(fits)
            self.bytes += size

    def end(self, size: int, seconds: float | None) -> None:
        """They came through, after so many seconds; None when they did not."""
        with self._changed:
            self.bytes -= size
            if seconds is not None:
                change = -self._step if seconds > SLOW_SECONDS else self._step
                self._room = max(self._step, min(self._most, self._room + change))
            self._changed.notify_all()


class Paced(io.BytesIO):
    """A block that is handed out no faster than the pace, until it has `ended`; `turn` is of all that share
    the pace."""

    def __init__(self, data: bytes, pace: Pace, turn: threading.Lock, ended: threading.Event) -> None:
        super().__init__(data)
        self._pace, self._turn, self._ended = pace, turn, ended

    def read(self, size: int | None = -1) -> bytes:
        """As many bytes as are asked for: a client takes fewer for the end."""
        data = super().read(size)
        for first in range(0, len(data), SLICE):
            with self._turn:
                if self._ended.is_set():
                    raise LinkDown("the sending has ended")
                self._pace.take(min(SLICE, len(data) - first))
        return data
