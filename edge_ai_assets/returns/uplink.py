"""How packages leave a site: the uplink's interface, its embedded default, and the draining of the spool.

Making packages is `packing`'s work, taking them in `inbox`'s.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from edge_ai_assets.delivery.durable import locked, sync_folder
from edge_ai_assets.returns import clock, packages
from edge_ai_assets.returns.ledger import Entry, Ledger
from edge_ai_assets.returns.link import Link, LinkDown
from edge_ai_assets.returns.outbox import Outbox, PackageRow

BLOCK = 1024 * 1024
Leaving = Callable[[int, int], None]


class UplinkError(RuntimeError):
    """A package cannot be delivered, and trying again will not help; the message says why."""


class Uplink(Protocol):
    """The road from one site to Azure. Its methods raise LinkDown when the other side cannot be reached."""

    @property
    def destination(self) -> str:
        """Where the bytes go, as the ledger names it."""

    def send(self, path: Path, name: str, digest: str, leaving: Leaving) -> int:
        """Deliver a file, from the block where an earlier attempt stopped; on return the other side has it.

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


class FolderUplink:
    """The embedded default: a folder stands for the container; `<site>/.partial/` keeps blocks till all came.

    Args:
        root: the folder of all sites.
        site: the site's name.
        link: the switch that stands for the network; asked before every block.
    """

    def __init__(self, root: Path, site: str, link: Link) -> None:
        self.folder = root / site
        self.link = link

    @property
    def destination(self) -> str:
        return self.folder.absolute().as_uri()

    def send(self, path: Path, name: str, digest: str, leaving: Leaving) -> int:
        self.link.check()
        final = self.folder / name
        partial = self.folder / ".partial" / f"{name}.{digest[:16]}"
        partial.parent.mkdir(parents=True, exist_ok=True)
        sent = 0
        if not final.exists():
            with path.open("rb") as source, partial.open("ab") as target:
                sent = self._blocks(source, target, path.stat().st_size, leaving)
            if (found := _digest(partial)) != digest:
                partial.unlink()
                raise UplinkError(
                    f"{name}: {found} arrived, {digest} was sealed: check {path} against its outbox"
                )
            with contextlib.suppress(
                FileExistsError
            ):  # delivered by another meanwhile: the check below judges it
                os.link(partial, final)
            sync_folder(self.folder)
        if (found := _digest(final)) != digest:
            raise UplinkError(
                f"{final}: another package ({found}) has this name, this one is {digest}; neither is lost"
            )
        partial.unlink(missing_ok=True)
        return sent

    def _blocks(self, source: BinaryIO, target: BinaryIO, size: int, leaving: Leaving) -> int:
        start = min(target.tell(), size) // BLOCK * BLOCK
        target.truncate(start)
        source.seek(start)
        for first in range(start, size, BLOCK):
            block = source.read(BLOCK)
            self.link.check()
            leaving(first, first + len(block))
            target.write(block)
            target.flush()
        os.fsync(target.fileno())
        return size - start


class Uploaded(msgspec.Struct, frozen=True):
    """What one drain of the spool delivered."""

    packages: int
    rows: int
    """Scores in them."""
    feedback: int
    bytes: int
    waiting: int
    """Packages that are still to be sent."""
    interrupted: str | None
    """Why it stopped early: what the link said. None when all was sent."""
    names: list[str]
    """Of the packages that were delivered."""


def upload(
    outbox: Outbox, spool: Path, uplink: Uplink, ledger: Ledger, now: clock.Clock = clock.now
) -> Uploaded:
    """Send the sealed packages that Azure does not have, in order, and mark each once it is there.

    A cut is no error: what was delivered counts, the rest waits and resumes at the block where it stopped.
    Killed anywhere, the next call sends the same package again, under the same name: it cannot arrive twice.
    Nothing is removed from the spool.

    Raises:
        UplinkError: a package cannot be delivered.
        OSError: a sealed package's file is gone from the spool.
    """
    done: list[PackageRow] = []
    interrupted, sent = None, 0
    with locked(spool / ".upload.lock"):
        unsent = outbox.unsent()
        for package in unsent:
            path = spool / package.name
            policy = packages.peek(path).policy

            def leaving(first: int, last: int, package: PackageRow = package, policy: str = policy) -> None:
                ledger.append(
                    Entry(now(), package.name, package.digest, first, last, policy, uplink.destination)
                )

            try:
                sent += uplink.send(path, package.name, package.digest, leaving)
            except LinkDown as error:
                interrupted = str(error)
                break
            outbox.uploaded(package.number, now())
            done.append(package)
    rows, feedback = sum(package.rows for package in done), sum(package.feedback for package in done)
    return Uploaded(
        len(done),
        rows,
        feedback,
        sent,
        len(unsent) - len(done),
        interrupted,
        [package.name for package in done],
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
