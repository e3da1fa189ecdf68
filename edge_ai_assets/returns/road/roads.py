"""What a road from a site to Azure must do, whatever it is made of. The embedded ones are in `uplink`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

Leaving = Callable[[int, int], None]


class UplinkError(RuntimeError):
    """A package cannot be delivered, and trying again will not help; the message says why."""


class SpoolError(UplinkError):
    """The file of a sealed package is lost, or is not what was sealed: it does not leave, the others do."""


class Uplink(Protocol):
    """The road from one site to Azure. Its methods raise LinkDown when the other side cannot be reached."""

    @property
    def site(self) -> str: ...

    @property
    def destination(self) -> str:
        """Where the bytes go, as the ledger names it."""

    @property
    def answers(self) -> bool:
        """Whether anything can come back. If not, `probe` and `acknowledgement` are never called."""

    @property
    def together(self) -> int:
        """Packages that may be sent at once, each in a thread of its own; 1 when one after the other."""

    def send(self, path: Path, name: str, digest: str, leaving: Leaving) -> int:
        """Deliver a file, from the block where an earlier attempt stopped; on return the other side has it.

        Without answers it starts over each time, and on return the other side has it if nothing was lost.

        Args:
            path: the file.
            name: its name on the other side; a name is given once.
            digest: SHA-256 of the file.
            leaving: called with the range of bytes (first, last + 1) before they leave.

        Returns:
            Bytes that were sent by this call; 0 when the other side had it.

        Raises:
            UplinkError: another file has that name there, or what arrived differs.
        """

    def probe(self) -> None:
        """Ask the very place that `send` writes to, with the rights that it needs there; LinkDown if that
        fails."""

    def acknowledgement(self) -> bytes | None:
        """What Azure last acknowledged, unverified, at most `acks.MAX_BYTES` + 1 bytes; None before that."""
