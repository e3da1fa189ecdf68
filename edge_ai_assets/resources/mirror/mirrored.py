"""Which files below a folder are mirrored, as what, and in which order. Reads folders; no network.

The order is what keeps the other side whole: a file is sent after all that it refers to. So that nothing is
sent whose company came too late to be seen, files are listed the other way round.

A Delta table is valid with any first part of this order: data files are nothing until an entry of the log
names them, and the log grows without a gap, each checkpoint right before the entry that it includes. Source:
Delta transaction log protocol, sections "Delta Log Entries" and "Checkpoints".
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

LOG_FOLDER = "_delta_log"
OF_LOG = re.compile(r"(\d{20})(\.json|\.checkpoint[.0-9a-f-]*\.parquet)")
"""Version, and whether it is an entry or a checkpoint, which has the entries up to its version in it."""
POINTERS = frozenset({"_last_checkpoint", "newest.json", "index.html"})
IMMUTABLE = frozenset({"global", "models"})
"""Top folders in which a name has one content for ever. Elsewhere a file is named by what it was made from,
and is made again when the use case, or a library, makes something else of that."""


class Kind(IntEnum):
    """What a file is to its mirror. In the order of sending."""

    MADE = 0
    """Replaced when it was made anew."""
    IMMUTABLE = 1
    """Created once."""
    LOG = 2
    """Entry or checkpoint of a Delta log; created once, each after those before it."""
    POINTER = 3
    """Names the newest of something; replaced."""

    @property
    def once(self) -> bool:
        return self in (Kind.IMMUTABLE, Kind.LOG)


Kinds = Callable[[str], Kind | None]
"""Of the name of a file, parted by '/'."""


@dataclass(frozen=True)
class File:
    """A file, or a link, as it was when it was listed."""

    path: Path
    name: str
    """Below the mirrored folder, parted by '/'."""
    kind: Kind
    size: int
    changed: int
    """When it was last written to, ns."""
    data: bytes | None = None
    """All of it, if it is a pointer, which is small: what it named when it was listed is what is sent."""
    link: bool = False
    """Whether it is a link, and `data` what it points to."""

    def open(self) -> BinaryIO:
        """What it holds, from its beginning."""
        return io.BytesIO(self.data) if self.data is not None else self.path.open("rb")


def of_lake(name: str) -> Kind | None:
    """The kind of a file of the lake or of the models; None when it is not mirrored: temporary files, and
    whatever else a library leaves in a log."""
    *folders, last = name.split("/")
    if "#" in last or name.startswith(".") or "/." in name:
        return None
    if LOG_FOLDER in folders and last not in POINTERS:
        return Kind.LOG if OF_LOG.fullmatch(last) else None
    if last in POINTERS:
        return Kind.POINTER
    return Kind.IMMUTABLE if folders and folders[0] in IMMUTABLE else Kind.MADE


def of_site(name: str) -> Kind | None:
    """The kind of a file of the static site: pages come last, what they load comes before."""
    if name.startswith(".") or "/." in name:
        return None
    return Kind.POINTER if name.rpartition("/")[2] in POINTERS else Kind.MADE


def listed(folder: Path, below: Path, kinds: Kinds) -> list[File]:
    """The files at and below a path, in the order of sending; none when nothing is there.

    Args:
        folder: that names are relative to.
        below: a folder, a file, or a link: that is the folder it points to, and the link itself after it.
        kinds: the kind of a name.

    Raises:
        ValueError: the path, or what the link points to, is not below `folder`.
    """
    root, found = folder.resolve(), list[File]()
    place = below
    if below.is_symlink():
        target = os.readlink(below)  # once: it may be pointed elsewhere meanwhile
        found.append(_link(root, below, target))
        place = below.parent / target
    place = place.resolve()
    if not place.is_relative_to(root):
        raise ValueError(f"{below} leads to {place}, which is not below {folder} and has no name there")
    for kind in reversed(Kind):
        for name in _names(root, place):
            if kinds(name) is kind and (file := _file(root / name, name, kind)):
                found.append(file)
    return sorted(without_gaps(found), key=order)


def order(file: File) -> tuple[Kind, bool, str]:
    """What to sort files by for sending or fetching: only those that differ in nothing but the name can do
    without each other, but for the entries of one log."""
    return file.kind, file.link, file.name


def without_gaps(found: Iterable[File]) -> Iterator[File]:
    """Files, but of each Delta log only what is a log by itself: it begins with the first entry or, when old
    entries were cleaned away, a checkpoint, and ends where an entry is missing: while a log grows, a later
    entry may be seen without the one before it. Of several, the newest: those before it miss what was cleaned
    away before it came here, and a checkpoint after them has it all.
    """
    logs: dict[str, dict[int, list[File]]] = {}
    for file in found:
        if file.kind is not Kind.LOG:
            yield file
        else:
            version = int(file.path.name.partition(".")[0])
            logs.setdefault(str(file.path.parent), {}).setdefault(version, []).append(file)
    for versions in logs.values():
        newest: list[int] = []
        for version in sorted(versions):
            if newest and version == newest[-1] + 1:
                newest.append(version)
            elif version == 0 or any(file.path.suffix != ".json" for file in versions[version]):
                newest = [version]
        for version in newest:
            yield from versions[version]


def _names(root: Path, place: Path) -> Iterator[str]:
    """Of the files at and below a path; as text, since there may be many."""
    skip = len(str(root)) + 1
    if place.is_file():
        yield str(place)[skip:]
    for folder, _, names in os.walk(place):
        inside = f"{folder}/"[skip:]
        for name in names:
            yield inside + name


def _file(path: Path, name: str, kind: Kind) -> File | None:
    """What is there under a name; None when it is gone meanwhile, or is no file."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return None
        data = path.read_bytes() if kind is Kind.POINTER else None
    except FileNotFoundError:
        return None
    size = found.st_size if data is None else len(data)
    return File(path, name, kind, size, found.st_mtime_ns, data)


def _link(root: Path, link: Path, target: str) -> File:
    name = (link.parent.resolve() / link.name).relative_to(root).as_posix()
    data = os.fsencode(target)
    return File(link, name, Kind.POINTER, len(data), link.lstat().st_mtime_ns, data, link=True)
