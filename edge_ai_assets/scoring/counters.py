"""Counters in files that are mapped into memory: one file a process, all of a service's in one folder.

Counting is a store into memory, no system call, and what was counted outlives a process that is killed. Any
process can read all files, so that one of several workers can speak for all. What is counted is `metrics`'.
Whoever starts the first process makes the folder empty.

A file is a line with the length of its head, the head in JSON, and float64 in the machine's byte order.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

SUFFIX = ".counters-1"
"""Changes with the layout: files of another version are not looked at."""
LENGTH = 16


class Series(NamedTuple):
    """Where some values belong: `width` of them, one after the other."""

    name: str
    labels: tuple[str, ...]
    width: int


class Worker(NamedTuple):
    """What one process has counted."""

    pid: int
    alive: bool
    values: dict[tuple[str, tuple[str, ...]], list[float]]
    """By name and labels, as many as the series is wide."""


class _Head(msgspec.Struct):
    pid: int
    series: list[Series]


class Counters:
    """The values of this process, all 0 at first.

    Args:
        series: what there is, in order.
        folder: where the file is made; without one the values are in this process's memory only.

    Attributes:
        values: float64, shape (sum of widths,). Adding to one is safe if one thread does it at a time.
    """

    def __init__(self, series: Sequence[Series], folder: Path | None = None) -> None:
        size = 8 * sum(each.width for each in series)
        self.values = memoryview(bytearray(size)).cast("d")
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        head = msgspec.json.encode(_Head(os.getpid(), list(series)))
        head += b" " * (-len(head) % 8)
        name = folder / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        # Open and locked as long as this process lives: that is how others see that it does.
        self._file = name.with_suffix(".partial").open("w+b")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._file.write(b"%*d\n%b" % (LENGTH - 1, len(head), head) + bytes(size))
        self._file.flush()
        os.replace(self._file.name, name)
        self.values = memoryview(mmap.mmap(self._file.fileno(), 0))[LENGTH + len(head) :].cast("d")


def workers(folder: Path) -> Iterator[Worker]:
    """What each process that ever counted in a folder has counted, those that have ended included."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with suppress(FileNotFoundError), path.open("rb") as file:  # cleared just now
            length = int(file.read(LENGTH))
            head = msgspec.json.decode(file.read(length), type=_Head)
            values = memoryview(file.read()).cast("d")
            found: dict[tuple[str, tuple[str, ...]], list[float]] = {}
            at = 0
            for name, labels, width in head.series:
                found[name, labels] = list(values[at : at + width])
                at += width
            yield Worker(head.pid, not _free(file), found)


def _free(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
