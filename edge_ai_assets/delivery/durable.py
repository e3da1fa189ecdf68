"""Files that are there whole or not at all, across a crash, and locks between processes.

What is written and where is the callers' business.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edge_ai_assets.delivery.errors import MalformedError, MissingError, TooLargeError

CHUNK = 1 << 20


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; without it a rename may be undone by a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, durably; nothing when it is there."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends well; otherwise `path` is as it was.

    The caller holds a lock that keeps others from the same path: the partial file has a fixed name, so that
    what a killed process left behind is replaced instead of piling up.

    Args:
        mode: of the file, less the umask.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)  # of any mode
    try:
        with open(partial, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` alone, waiting for it. The kernel lets go of it when the process dies.

    It also excludes other threads, and a second `locked` of the same path in one thread waits for ever.
    """
    make_folder(path.parent)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def if_unlocked(path: Path) -> Iterator[bool]:
    """Hold the lock file `path` alone, as `locked` does, or not at all: False if somebody else holds it."""
    make_folder(path.parent)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. A pipe or device on a foreign medium might never end: refused.

    Raises:
        MissingError: there is no such file.
        MalformedError: it is something else than a regular file, or cannot be opened: a link to itself, a
            medium with a bad block, a file of somebody else.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise MissingError(f"{path} is not there") from None
    except OSError as error:
        raise MalformedError(f"{path} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise MalformedError(f"{path} is not a regular file")
    return os.fdopen(handle, "rb")


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """All of a regular file of at most `max_bytes`; errors of `open_regular`, and TooLargeError."""
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLargeError(f"{path} has more than the {max_bytes} bytes allowed")
    return data


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """The rest of a file, at most `CHUNK` bytes at a time."""
    while chunk := file.read(CHUNK):
        yield chunk
