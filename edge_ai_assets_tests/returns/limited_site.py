"""A process that does with an outbox what a site does, within limits: `limited_site.py OUTBOX LIMIT`.

Started by test_limits.py and test_full_disk.py. With the limit `file=BYTES` no file may be larger, with
`disk=FILE` the disk is full: it appends until the outbox refuses, tries everything else, gets room (`disk`:
removes FILE) and goes on; it prints what SQLite said first and the last sequence. With `memory` it prints how
much memory it took at most, in KiB, for what is done at each step of a drain; with `everything` for reading
all scores at once.
"""

from __future__ import annotations

import resource
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edge_ai_assets.returns.outbox import insights, store
from edge_ai_assets.returns.outbox import outbox as outboxes
from edge_ai_assets.returns.outbox.outbox import Feedback, Outbox, PackageRow
from edge_ai_assets_tests import blocks

ROWS = 400
"""Of one commit."""


def seal(outbox: Outbox) -> None:
    rows = [row.sequence for row in outbox.waiting(500)]
    last = outbox.last_package()
    number = last.number + 1 if last else 1
    complete = outbox.complete_through(set(rows))
    package = PackageRow(number, f"{number}", f"d{number}", "", len(rows), 0, 1, 1, complete=complete)
    outbox.seal(package, rows, [], {}, {})


def fill(outbox: Outbox, make_room: Callable[[], None]) -> None:
    """Until the disk or the file may not grow; then everything else, as far as it goes."""
    answered = 0
    try:
        while True:
            answered = outbox.append([blocks.plain(ROWS)])[0].first + ROWS - 1
    except sqlite3.OperationalError as error:
        print(error)
    for work in (
        lambda: insights.derive(outbox, limit=300),
        lambda: seal(outbox),
        lambda: outbox.uploaded(1, 5),
        lambda: outbox.expire(1, 5, "quota"),
        lambda: outbox.add_feedback([Feedback(answered, True, None, "operator", 5)]),
    ):
        with suppress(sqlite3.OperationalError, outboxes.OutboxError):
            work()
        assert outbox.counts() == outbox.recount() and outbox.counts().scored == answered
    make_room()
    outbox.recover()
    assert outbox.append([blocks.plain(ROWS)])[0].first == answered + 1
    insights.derive(outbox, limit=1_000)
    seal(outbox)
    assert outbox.counts() == outbox.recount() and outbox.counts().conserved
    print(outbox.counts().scored)


def drain(outbox: Outbox) -> None:
    for _ in range(3):
        outbox.counts(), outbox.oldest_pending(), outbox.tally(), outbox.complete_through()
        outbox.untouched(), outbox.newest(100), outbox.unsent(), outbox.dead_letters(100)
        insights.derive(outbox, limit=2_000)
        outbox.waiting(1_000, ["anomaly"])
        seal(outbox)
        outbox.uploaded(1, 5)
        outbox.acknowledge(1, "d1", 5)
        outbox.prune(2**60)
        outbox.expire(10_000, 5, "quota")
        outbox.tombstones()


def peak() -> int:
    """Most memory that the process had resident, KiB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def main(path: Path, limit: str) -> None:
    store.PAUSE_SECONDS = outboxes.PAUSE_SECONDS = 0
    with Outbox(path) as outbox:
        name, _, value = limit.partition("=")
        if name == "file":
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), resource.RLIM_INFINITY))
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            fill(outbox, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, unlimited))
        elif name == "disk":
            fill(outbox, Path(value).unlink)
        elif name == "memory":
            drain(outbox)
            print(peak())
        else:
            outbox.rows(1, outbox.counts().scored)
            print(peak())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
