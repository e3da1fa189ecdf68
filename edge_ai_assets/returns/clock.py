"""The time as everything on the way home keeps it: µs since 1970, UTC. Simulations pass another clock."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]


def now() -> int:
    return time.time_ns() // 1000
