"""Packages that are carried by hand: from a site's spool onto a medium, and from a medium to the inbox.

Neither side trusts the medium: what leaves the site is signed and in the ledger before its bytes leave, what
arrives is checked by the inbox. A medium may be lost, full, or the same as last month; whatever is done again
changes nothing. It may have a file system without links, times or rights, so none is needed there.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec

from edge_ai_assets.delivery import durable
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.egress.ledger import MEDIA, Ledger
from edge_ai_assets.returns.outbox.outbox import Outbox, PackageRow
from edge_ai_assets.returns.package import archives, packages
from edge_ai_assets.returns.package.foreign import Rejected, opened, package_of
from edge_ai_assets.returns.package.packing import READ_ONLY
from edge_ai_assets.returns.package.parts import name_of
from edge_ai_assets.returns.road.roads import SpoolError
from edge_ai_assets.returns.road.uplink import BLOCK, LOCK, digest_of, leaving_as

MARGIN = 1024 * 1024
"""Bytes that are left free on a medium, for its file system."""
MAX_LABEL = 200
"""Characters: it stands in each line of the ledger."""
Progress = Callable[[int], None]
"""Told how many bytes more are done."""


class MediaError(RuntimeError):
    """The medium cannot be used as asked; the message says why. What is on it stays."""


class Exported(msgspec.Struct, frozen=True):
    """What one export put on a medium."""

    packages: int
    """That were copied."""
    bytes: int
    there: int
    """Packages that were on the medium already."""
    left: int
    """Packages that did not fit: they go on another medium, with `only_new`."""
    names: list[str]
    """Of the packages that were copied."""
    lost: dict[str, str] = {}
    """Packages whose file in the spool is lost or damaged, with what to do about it; those after them were
    copied."""


class Imported(msgspec.Struct, frozen=True):
    """What one import took from a medium."""

    packages: int
    """That were copied."""
    bytes: int
    there: int
    """Packages that had been copied before."""
    ignored: int
    """Files that are no return packages by their name, such as a release bundle."""
    rejected: dict[str, str]
    """Files that look like packages and were not taken, with the reason."""
    names: list[str]
    """Of the packages that were copied."""


def export(
    outbox: Outbox,
    spool: Path,
    ledger: Ledger,
    into: Path,
    *,
    limit_bytes: int | None = None,
    only_new: bool = False,
    label: str | None = None,
    link: bool = False,
    now: clock.Clock = clock.now,
    progress: Progress = lambda size: None,
) -> Exported:
    """Copy the sealed packages of which no acknowledgement came to a medium, in order, as far as they fit.

    Media get lost, so what was exported or sent before is copied again until Azure acknowledged it. Killed
    anywhere, the next call goes on with the package it was at.

    Args:
        into: a folder of the medium. It is not made: that might be where a medium is not mounted.
        limit_bytes: most that is copied; what is free on the medium bounds it anyway.
        only_new: leave out what was exported before.
        label: names the medium in the ledger, in at most MAX_LABEL characters; its path when absent.
        link: for a folder at the site itself: on the spool's disk a package is there under a second name, and
            takes no room, where the file system can do so. Nobody may write to it, it might be the spool's.

    Raises:
        MediaError: there is no such folder, not even the first package fits, another file has the name of
            a package, or the label is too long or not printable.
        OSError: the medium cannot be written.
    """
    if label is not None and not (len(label) <= MAX_LABEL and label.isprintable()):
        raise MediaError(
            f"the label has {len(label)} characters: it stands in each line of the ledger, so give at most "
            f"{MAX_LABEL}, all printable"
        )
    if not into.is_dir():
        raise MediaError(f"{into} is no folder: is the medium mounted?")
    destination = f"{MEDIA}{label or into.absolute()}"
    names: list[str] = []
    lost: dict[str, str] = {}
    there = left = copied = 0
    with durable.locked(spool / LOCK):
        durable.sync_folder(into)  # a killed export may have left names that a power cut would undo
        for package in _unacknowledged(outbox, only_new):
            final = into / package.name
            _partial(final).unlink(missing_ok=True)  # of a killed export; it takes up room
            if os.path.lexists(final):
                _same(final, package)
                there += 1
            elif left or not _fits(into, package, limit_bytes, copied):
                left += 1
                continue
            else:
                try:
                    leaving = leaving_as(ledger, spool, package, destination, now)
                except SpoolError as error:  # it must not keep the others from leaving
                    lost[package.name] = str(error)
                    continue
                _put(spool / package.name, final, leaving, progress, link)
                names.append(package.name)
                copied += package.bytes
            outbox.exported(package.number, now())
    if left and not names and not there:
        raise MediaError(
            f"{into} has no room for {left} packages: {shutil.disk_usage(into).free} bytes are free"
            + (f", and {limit_bytes} are allowed" if limit_bytes is not None else "")
        )
    return Exported(len(names), copied, there, left, names, lost)


def import_(
    folder: Path,
    root: Path,
    sites: Collection[str] | None = None,
    *,
    progress: Progress = lambda size: None,
) -> Imported:
    """Copy the packages on a medium to where the inbox finds them: `<root>/<site>/`.

    Only what is cheap is checked here: name, size, and that the manifest says the same. Whether a package is
    genuine is the inbox's to find out. Links are never followed. Again, it copies what is missing.

    Args:
        folder: of the medium; folders in it are not looked into.
        root: Azure's end of the links; made when missing.
        sites: the names that are known; any when absent.

    Raises:
        MediaError: there is no such folder.
        OSError: it cannot be read, or `root` not be written.
    """
    if not folder.is_dir():
        raise MediaError(f"{folder} is no folder: is the medium mounted?")
    names: list[str] = []
    rejected: dict[str, str] = {}
    there = ignored = copied = 0
    with durable.locked(root / ".import.lock"):
        for name in sorted(entry.name for entry in os.scandir(folder)):
            match = packages.NAME.fullmatch(name)
            if not match or name != name_of(match["site"], int(match["number"])):
                ignored += 1
                continue
            try:
                size = _take(folder / name, root, match["site"], int(match["number"]), sites, progress)
            except Rejected as error:
                rejected[name] = str(error)
                continue
            if size is None:
                there += 1
            else:
                names.append(name)
                copied += size
    return Imported(len(names), copied, there, ignored, rejected, names)


def _unacknowledged(outbox: Outbox, only_new: bool) -> Iterator[PackageRow]:
    after = 0
    while some := outbox.packages(after):
        for package in some:
            if package.acknowledged_at is None and not (only_new and package.exported_at is not None):
                yield package
        after = some[-1].number


def _fits(into: Path, package: PackageRow, limit_bytes: int | None, copied: int) -> bool:
    if limit_bytes is not None and copied + package.bytes > limit_bytes:
        return False
    return package.bytes + MARGIN <= shutil.disk_usage(into).free


def _same(final: Path, package: PackageRow) -> None:
    if not stat.S_ISREG(final.lstat().st_mode):
        raise MediaError(f"{final} is no regular file: remove it, or take another medium")
    if final.stat().st_size != package.bytes or digest_of(final) != package.digest:
        raise MediaError(
            f"{final} is there with other content than package {package.number} of this site: it is not "
            "overwritten; remove it if it is damaged, or take another medium"
        )


def _partial(final: Path) -> Path:
    return final.with_name(f".{final.name}.partial")


def _put(
    source: Path, final: Path, leaving: Callable[[int, int], None], progress: Progress, link: bool
) -> None:
    """Copy a file to the medium, or link it: under its name it is there whole or not at all."""
    partial = _partial(final)
    if link and source.stat().st_dev == final.parent.stat().st_dev:
        size = source.stat().st_size
        for first in range(0, size, BLOCK):
            leaving(first, min(first + BLOCK, size))
        source.chmod(READ_ONLY)  # a version before this one sealed it for writing
        if _linked(source, partial):
            os.rename(partial, final)
            durable.sync_folder(final.parent)
            progress(size)
            return
    with source.open("rb") as file:
        handle = os.open(
            partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, READ_ONLY if link else 0o644
        )
        with os.fdopen(handle, "wb") as target:
            first = 0
            while block := file.read(BLOCK):
                leaving(first, first + len(block))
                target.write(block)
                progress(len(block))
                first += len(block)
            target.flush()
            os.fsync(target.fileno())
    # Not a link, which the file systems of media do not have. Nobody else writes this site's names here.
    os.rename(partial, final)
    durable.sync_folder(final.parent)


def _linked(source: Path, partial: Path) -> bool:
    """Whether a file could be given a second name. If not, it is to be copied, and noted once more."""
    try:
        os.link(source, partial)
    except OSError:  # the file system has no links, or lets this user make none
        partial.unlink(missing_ok=True)  # never to be written to: it might be the spool's file
        return False
    return True


def _take(
    path: Path, root: Path, site: str, number: int, sites: Collection[str] | None, progress: Progress
) -> int | None:
    """Copy one package; its size, or None when it was copied before."""
    if sites is not None and site not in sites:
        raise Rejected(f"site {site!r} is not known here")
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > packages.MAX_BYTES:
            raise Rejected(f"it has {size} bytes, a package has at most {packages.MAX_BYTES}")
        if (said := package_of(file)) != (site, number):
            raise Rejected(archives.short(f"its manifest is that of package {said[1]} of {said[0]!r}"))
        folder = root / site
        final, partial = folder / path.name, folder / ".partial" / f"{path.name}.media"
        durable.make_folder(partial.parent)
        try:
            file.seek(0)
            with partial.open("wb") as target:
                for chunk in durable.chunks_of(file):
                    target.write(chunk)
                    progress(len(chunk))
                target.flush()
                os.fsync(target.fileno())
            try:
                os.link(partial, final)
            except FileExistsError:
                if digest_of(final) != digest_of(partial):
                    raise Rejected(
                        f"another file of this name is in {folder}: run the inbox first, which sorts out "
                        "damaged ones, then import again"
                    ) from None
                durable.sync_folder(folder)  # whoever gave it the name may have been killed before that
                return None
            durable.sync_folder(folder)
        finally:
            partial.unlink(missing_ok=True)
        return size
