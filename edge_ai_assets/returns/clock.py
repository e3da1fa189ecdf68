"""The time as everything on the way home keeps it: µs since 1970, UTC. Simulations pass another clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], int]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> int:
    return time.time_ns() // 1000


def moment(microseconds: int) -> datetime:
    """In UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


def iso(microseconds: int) -> str:
    """ISO 8601, to the second."""
    return moment(microseconds).isoformat(timespec="seconds")
