"""Tar archives of which there is exactly one valid form, so that reading them leaves nothing to interpret.

Regular files only, under plain names, owned by 0:0, mode 0644, time 0, no padding beyond the format's own.
Any tar reads what `pack` writes; `members` reads only that. A link, a device, a traversal, an extended header
or a flipped bit anywhere in a header or in padding is refused by the same comparison. What the members mean
is `image`'s and `bundle`'s.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from edge_ai_assets.delivery.durable import CHUNK
from edge_ai_assets.delivery.errors import MalformedError, MismatchError

BLOCK = 512
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.DIRTYPE: "a folder",
}


@dataclass(frozen=True)
class Member:
    """One file of an archive: `chunks` must give, or gives, exactly `size` bytes."""

    name: str
    size: int
    chunks: Iterable[bytes]


def pack(members: Iterable[Member]) -> Iterator[bytes]:
    """The bytes of an archive: the same members give the same bytes.

    Raises:
        MalformedError: a name that is not plain.
        MismatchError: a member's chunks do not add up to its size.
    """
    for member in members:
        yield _header(member.name, member.size)
        written = 0
        for chunk in member.chunks:
            written += len(chunk)
            yield chunk
        if written != member.size:
            raise MismatchError(
                f"{member.name} has {written} bytes, {member.size} were announced; was it changed?"
            )
        yield bytes(-member.size % BLOCK)
    yield bytes(2 * BLOCK)


def members(stream: BinaryIO, what: str) -> Iterator[Member]:
    """The members of an archive that `pack` wrote; each one's chunks can be read until the next is asked for.

    Args:
        stream: buffered, at the archive's beginning; it must end where the archive ends.
        what: names the archive in messages.

    Raises:
        MalformedError: anything that `pack` would not have written, including an early end.
    """
    while True:
        block = _exactly(stream, BLOCK, what)
        if block == bytes(BLOCK):
            if stream.read(BLOCK + 1) != bytes(BLOCK):
                raise MalformedError(f"{what} is refused: it does not end where its archive ends")
            return
        name, size = _parsed(block, what)
        content = _content(stream, size, what)
        yield Member(name, size, content)
        for _ in content:
            pass  # what the caller did not want still stands before the next header
        padding = -size % BLOCK
        if _exactly(stream, padding, what) != bytes(padding):
            raise MalformedError(f"{what} is refused: bytes are hidden behind {name}")


def _is_plain(name: str) -> bool:
    return len(name) <= 100 and NAME.fullmatch(name) is not None


def _header(name: str, size: int) -> bytes:
    if not _is_plain(name):
        raise MalformedError(f"{name!r} is no plain name: letters, digits, '.', '_', '-', '/', at most 100")
    info = tarfile.TarInfo(name)
    info.size = size
    # GNU rather than ustar: the same bytes for all but the magic, and sizes beyond 8 GiB fit.
    return info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def _parsed(block: bytes, what: str) -> tuple[str, int]:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise MalformedError(f"{what} is refused: it is no archive, or a damaged one ({error})") from error
    if info.type in _KINDS:
        raise MalformedError(
            f"{what} is refused: {info.name!r} is {_KINDS[info.type]}, only files are allowed"
        )
    if not _is_plain(info.name):
        raise MalformedError(f"{what} is refused: {info.name!r} is no plain name")
    if info.size < 0 or _header(info.name, info.size) != block:
        raise MalformedError(f"{what} is refused: the header of {info.name!r} is not in the one form allowed")
    return info.name, info.size


def _content(stream: BinaryIO, size: int, what: str) -> Iterator[bytes]:
    while size:
        chunk = _exactly(stream, min(size, CHUNK), what)
        size -= len(chunk)
        yield chunk


def _exactly(stream: BinaryIO, size: int, what: str) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise MalformedError(f"{what} is torn: it ends {size - len(data)} or more bytes too early")
    return data
