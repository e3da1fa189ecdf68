"""A bound on bandwidth: a token bucket, whose clock and sleep are passed in. What is sent is the callers'."""

from __future__ import annotations

import time
from collections.abc import Callable

SLICE = 64 * 1024
"""Bytes that are handed over at once: small, so that a slow link is used evenly and a cut is noticed soon."""


class Pace:
    """Lets bytes through at a rate. In any t seconds no more than `burst + rate * t` bytes pass.

    Args:
        rate: bytes per second, > 0; None for no bound.
        burst: bytes that may pass at once after a pause; at least one slice.
        clock: seconds, never going back; from any zero.
        sleep: waits for so many seconds, or longer.

    Raises:
        ValueError: the rate is not positive.
    """

    def __init__(
        self,
        rate: float | None,
        *,
        burst: int = SLICE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if rate is not None and not rate > 0:
            raise ValueError(f"the rate is {rate} bytes per second, it must be positive; None is no bound")
        self.rate, self.burst = rate, burst
        self._clock, self._sleep = clock, sleep
        self._full = clock()
        """When the bucket is, or was, full."""

    @classmethod
    def of(cls, kilobytes_per_second: float | None) -> Pace:
        """As a use case's `returns.kilobytes_per_second` says; a kilobyte has 1,000 bytes."""
        return cls(None if kilobytes_per_second is None else kilobytes_per_second * 1000)

    def take(self, size: int) -> None:
        """Wait until so many bytes, at most `burst`, may pass.

        Raises:
            ValueError: more than `burst`: they could never pass at once.
        """
        if self.rate is None:
            return
        if size > self.burst:
            raise ValueError(f"{size} bytes cannot pass at once, the burst is {self.burst}")
        full = max(self._full, self._clock()) + size / self.rate
        if (early := full - self.burst / self.rate - self._clock()) > 0:
            self._sleep(early)
        # Reckoned after the wait: what flowed in while it slept too long is no more than a full bucket.
        self._full = max(self._full, self._clock()) + size / self.rate


UNBOUNDED = Pace(None)
