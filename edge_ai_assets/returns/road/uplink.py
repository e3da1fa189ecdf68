"""How packages leave a site over a link: the draining of the spool, and the embedded uplinks.

What an uplink is stands in `roads`. Making packages is `packing`'s work, taking them in `inbox`'s, carrying
them by hand `media`'s. When to try is `connectivity`'s decision.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from edge_ai_assets.delivery.durable import locked, make_folder, open_regular, sync_folder
from edge_ai_assets.delivery.errors import MalformedError, MissingError
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.egress.ledger import Entry, Ledger
from edge_ai_assets.returns.outbox.outbox import Outbox, PackageRow
from edge_ai_assets.returns.package import packages
from edge_ai_assets.returns.road import acks
from edge_ai_assets.returns.road.acknowledging import acknowledge
from edge_ai_assets.returns.road.link import Link, LinkDown
from edge_ai_assets.returns.road.pace import SLICE, UNBOUNDED, Pace
from edge_ai_assets.returns.road.roads import Leaving, SpoolError, Uplink, UplinkError
from edge_ai_assets.returns.road.together import sent

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["DiodeUplink", "FolderUplink", "Uplink", "UplinkError", "Uploaded", "upload"]

log = logging.getLogger(__name__)

BLOCK = 1024 * 1024
BATCH = 1_000
"""Packages that are looked up in one go."""
LOCK = ".upload.lock"
"""In the spool: held by whatever lets packages leave, so that one process at a time writes the ledger."""


class FolderUplink:
    """The embedded default: a folder stands for the container; `<site>/.partial/` keeps blocks till all came.

    Args:
        root: the folder of all sites.
        site: the site's name.
        link: the switch that stands for the network; asked before every slice of a block.
        pace: bounds the bandwidth.
    """

    answers = True
    together = 1

    def __init__(self, root: Path, site: str, link: Link, pace: Pace = UNBOUNDED) -> None:
        self.site, self.folder = site, root / site
        self.link, self.pace = link, pace

    @property
    def destination(self) -> str:
        return self.folder.absolute().as_uri()

    def send(self, path: Path, name: str, digest: str, leaving: Leaving) -> int:
        self.link.check()
        final = self.folder / name
        partial = self._partial(name, digest)
        sent = 0
        if final.exists():
            sync_folder(self.folder)  # whoever gave it the name may have been killed before that
        else:
            with path.open("rb") as source, partial.open("ab") as target:
                sent = self._blocks(source, target, path.stat().st_size, leaving)
            if (found := digest_of(partial)) != digest:
                partial.unlink()
                raise UplinkError(
                    f"{name}: {found} arrived, {digest} was sealed: check {path} against its outbox"
                )
            self._publish(partial, final)
        if (found := digest_of(final)) != digest:
            raise UplinkError(
                f"{final}: another package ({found}) has this name, this one is {digest}; neither is lost"
            )
        partial.unlink(missing_ok=True)
        return sent

    def probe(self) -> None:
        self.link.check()
        try:
            partial = self._partial("probe", "")
        except OSError as error:
            raise LinkDown(f"{self.folder} cannot be made: {error}") from error
        for folder in (self.folder, partial.parent):
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise LinkDown(f"{folder} may not be written to: restore the site's rights there")

    def acknowledgement(self) -> bytes | None:
        self.link.check()
        path = self.folder / acks.NAME
        try:
            with open_regular(path) as file:
                return file.read(acks.MAX_BYTES + 1)
        except MissingError:
            return None
        except (MalformedError, OSError) as error:
            log.warning("site %s: %s is no acknowledgement and is ignored: %s", self.site, path, error)
            return None

    def _partial(self, name: str, digest: str) -> Path:
        partial = self.folder / ".partial" / f"{name}.{digest[:16]}"
        make_folder(partial.parent)
        return partial

    def _publish(self, partial: Path, final: Path) -> None:
        """Give what arrived its name. Another file that got it meanwhile keeps it: names are given once."""
        with contextlib.suppress(FileExistsError):
            os.link(partial, final)
        sync_folder(self.folder)

    def _blocks(self, source: BinaryIO, target: BinaryIO, size: int, leaving: Leaving) -> int:
        start = min(target.tell(), size) // BLOCK * BLOCK
        target.truncate(start)
        source.seek(start)
        for first in range(start, size, BLOCK):
            last = min(first + BLOCK, size)
            self.link.check()
            leaving(first, last)
            for position in range(first, last, SLICE):
                piece = source.read(min(SLICE, last - position))
                self.pace.take(len(piece))
                self.link.check()
                target.write(piece)
                target.flush()
        os.fsync(target.fileno())
        return size - start


class DiodeUplink(FolderUplink):
    """A link that lets nothing back: a folder is written to, and nothing in it is looked at.

    Whether a file is there, how much of one came, what was acknowledged: all unknown. A package is sent whole
    and once, after a cut from its start; of two files with one name the receiving end keeps the first. What
    was lost behind the diode shows on Azure as a gap. Its file stays in the site's spool until an
    acknowledgement is brought by hand, so it can be carried on a medium.
    """

    answers = False

    def send(self, path: Path, name: str, digest: str, leaving: Leaving) -> int:
        self.link.check()
        partial = self._partial(name, digest)
        with path.open("rb") as source, partial.open("wb") as target:
            sent = self._blocks(source, target, path.stat().st_size, leaving)
        self._publish(partial, self.folder / name)
        partial.unlink()
        return sent

    def probe(self) -> None:
        raise UplinkError(f"{self.destination} lies behind a diode: nothing can be asked there")

    def acknowledgement(self) -> bytes | None:
        return None


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
    acknowledged: int = 0
    """Packages of which Azure's acknowledgement is new."""
    refused: str | None = None
    """Why an acknowledgement that was found is not acted upon."""
    lost: dict[str, str] = {}
    """Packages whose file in the spool is lost or damaged, and what to do about it; those after them went."""


def upload(
    outbox: Outbox,
    spool: Path,
    uplink: Uplink,
    ledger: Ledger,
    now: clock.Clock = clock.now,
    keys: Sequence[Ed25519PublicKey] = (),
) -> Uploaded:
    """Send the sealed packages that Azure does not have, in order, and mark each once it is there; as many at
    once as the uplink takes. Then look for Azure's acknowledgement, if an answer can come and there are keys.

    A cut is no error: what was delivered counts, the rest waits and resumes at the block where it stopped.
    Killed anywhere, the next call sends the same package again, under the same name: it cannot arrive twice.
    Nothing is removed from the spool.

    Args:
        keys: release keys that the site trusts: one of them must have signed an acknowledgement.

    Raises:
        UplinkError: a package cannot be delivered.
    """
    names: list[str] = []
    lost: dict[str, str] = {}
    rows = feedback = total = 0
    interrupted, applied = None, None

    def send(package: PackageRow, in_turn: Callable[[Leaving], Leaving]) -> int:
        try:
            leaving = in_turn(leaving_as(ledger, spool, package, uplink.destination, now))
        except SpoolError as error:  # it must not keep the others from leaving
            lost[package.name] = str(error)
            return 0
        return uplink.send(spool / package.name, package.name, package.digest, leaving)

    with locked(spool / LOCK):
        try:
            while batch := [row for row in outbox.unsent(BATCH + len(lost)) if row.name not in lost]:
                for package, size in sent(batch, uplink.together, send):
                    if package.name in lost:
                        continue
                    total += size
                    outbox.uploaded(package.number, now())
                    names.append(package.name)
                    rows += package.rows
                    feedback += package.feedback
            if keys and uplink.answers and (data := uplink.acknowledgement()) is not None:
                applied = acknowledge(outbox, data, uplink.site, keys, now())
        except LinkDown as error:
            interrupted = str(error)
    return Uploaded(
        packages=len(names),
        rows=rows,
        feedback=feedback,
        bytes=total,
        waiting=outbox.unsent_total(),
        interrupted=interrupted,
        names=names,
        acknowledged=applied.packages if applied else 0,
        refused=applied.refused if applied else None,
        lost=lost,
    )


def leaving_as(
    ledger: Ledger, spool: Path, package: PackageRow, destination: str, now: clock.Clock
) -> Leaving:
    """What to call before bytes of a package leave for a destination: it writes them into the ledger.

    Raises:
        SpoolError: the file in the spool is lost, or not what was sealed: nothing of it may leave.
    """
    path = spool / package.name
    mend = (
        f"Put a copy of it back there, from outgoing/ or a medium, or carry that to Azure, which waits for "
        f"package {package.number} and merges none after it until it comes"
    )
    try:
        found = digest_of(path)
    except OSError as error:
        raise SpoolError(f"{path} cannot be read ({error.strerror}) and does not leave. {mend}") from error
    if found != package.digest:
        raise SpoolError(
            f"{path}: {found} is in the spool, {package.digest} was sealed: it was changed and does not "
            f"leave. {mend}"
        )
    policy = packages.peek(path).policy

    def leaving(first: int, last: int) -> None:
        ledger.append(Entry(now(), package.name, package.digest, first, last, policy, destination))

    return leaving


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
