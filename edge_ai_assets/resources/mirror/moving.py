"""Moving many files at once without breaking their order. What moving one is, is the callers' business."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath

from edge_ai_assets.resources.mirror.mirrored import File, Kind, order

IN_FLIGHT = 6
"""Files that are moved at once; of each, one block is in memory, and the client's copy of it."""
Work = tuple[File, Callable[[], bool]]
"""A file, and what moves it unless it is there already: whether it did."""


@dataclass(frozen=True)
class Moved:
    """What one push or pull did."""

    files: int
    bytes: int
    """Of those files."""
    left: tuple[tuple[str, str], ...] = ()
    """What was not pulled: the blob's name, and why."""


def moved(work: Iterable[Work]) -> Moved:
    """Move files that are in order, IN_FLIGHT at once: none before all is there that it may need, and what is
    of one log one by one. After an error nothing new is begun, and the first error is raised."""
    files: list[File] = []
    for _, group in groupby(work, key=lambda item: order(item[0])[:2]):
        pieces: dict[str, list[Work]] = {}
        for item in group:
            name, kind = PurePosixPath(item[0].name), item[0].kind
            pieces.setdefault(str(name.parent if kind is Kind.LOG else name), []).append(item)
        files += _at_once(list(pieces.values()))
    return Moved(len(files), sum(file.size for file in files))


def _at_once(pieces: Sequence[Sequence[Work]]) -> list[File]:
    stop = threading.Event()

    def in_turn(piece: Sequence[Work]) -> list[File]:
        return [file for file, move in piece if not stop.is_set() and move()]

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        running = [pool.submit(in_turn, piece) for piece in pieces]
        try:
            return [file for done in as_completed(running) for file in done.result()]
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
