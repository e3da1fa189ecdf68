"""A request that is not served; apart, so that whatever reads a body can raise it."""

from __future__ import annotations


class Refused(ValueError):
    """A request that is answered with `status` and this message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
