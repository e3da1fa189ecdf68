"""What the outbox's promises cost: `Outbox.append` against a bare SQLite table and a file, `counts` against
counting.

- Appending 1, 32 and 1,000 rows a commit. Ours makes a block of the rows and inserts it. The bare table gets
  one insert a row, with a record that is made already; it has the same columns and values, the same journal
  (WAL) and the same durability (`synchronous=FULL`), and nothing else: no numbering without gaps, no
  idempotency keys, no foreign writer to give way to. The file is what little can beat: our block, made
  already, at its end, and fdatasync.
- Unfolding blocks of 1, 32 and 1,000 rows: sheets of their records, lots, tally, and the pauses that it makes
  for the service; beside it the bare table, 1,000 rows a commit.
- Counting 1,000,000 scores with a row each: `counts` reads the tally; SELECT count(*) … GROUP BY, of the same
  file, all rows.

Why: each score is in here before it is answered, the way home takes up what was scored in an hour in a
minute, and `counts` is what every status and every sensor asks for.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import cache, partial
from pathlib import Path
from typing import Any

import blocks
import numpy as np
from measure import ROUNDS, scratch, side_by_side, tell

from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Batch, Outbox
from edge_ai_assets.returns.outbox.schema import RECORD_SCHEMA

COMMITS = {1: 400, 32: 200, 1_000: 20}
"""Commits a round, by rows a commit."""
UNFOLDED = 20_000
"""Rows a round."""
COUNTED = 1_000_000
INPUTS = {
    "Discharge pressure [bar]": 7.312,
    "Flow [m³/h]": 151.87,
    "Bearing temperature [°C]": 53.11,
    "Vibration: RMS [mm/s]": 2.604,
    "Motor current [A]": 51.9,
}
TYPE = {"Pump type": "centrifugal"}
CONTEXT = {"_time": "2026-03-01T00:04:00", "_run": "bergen-000001", "_row": 1}
RECORD = json.dumps({"inputs": INPUTS | TYPE, "context": CONTEXT}, ensure_ascii=False).encode()
BARE = """CREATE TABLE scores(sequence INTEGER PRIMARY KEY, scored_at INTEGER, release TEXT, score REAL,
predicted INTEGER, outside INTEGER, record BLOB, schema INTEGER)"""
RELEASE, AT = "sha256:" + "0" * 64, 1_760_000_000_000_000


def main() -> None:
    figures: dict[str, float] = {"record_bytes": len(RECORD), "counted_rows": COUNTED}
    ratios: dict[str, float] = {}
    with scratch() as folder, closing(bare_table(folder)) as bare:
        with Outbox(folder / "outbox.db") as outbox, (folder / "file").open("wb", buffering=0) as file:
            for rows, commits in COMMITS.items():
                seconds = side_by_side(
                    {
                        "outbox": repeated(commits, partial(append, outbox, rows)),
                        "bare": repeated(commits, partial(insert, bare, rows)),
                        "file": repeated(commits, partial(write, file.fileno(), block(rows)[1])),
                    },
                    rounds=5,
                )
                for name, value in seconds.items():
                    figures[f"{name}_{rows}_rows_per_second"] = rows * commits / value
                ratios[f"outbox_to_bare_{rows}"] = seconds["bare"] / seconds["outbox"]
                ratios[f"outbox_to_file_{rows}"] = seconds["file"] / seconds["outbox"]
        unfolding(folder, bare, figures, ratios)
        counting(folder, figures, ratios)
    tell("outbox", figures, ratios)


def unfolding(
    folder: Path, bare: sqlite3.Connection, figures: dict[str, float], ratios: dict[str, float]
) -> None:
    with ExitStack() as stack:
        outboxes = {
            rows: stack.enter_context(Outbox(folder / f"unfolded-{rows}.db")) for rows in (1, 32, 1_000)
        }
        for rows, outbox in outboxes.items():
            fill(outbox, rows, ROUNDS * UNFOLDED)
        ways = {str(rows): partial(insights.derive, outbox, UNFOLDED) for rows, outbox in outboxes.items()}
        seconds = side_by_side({**ways, "bare": repeated(UNFOLDED // 1_000, partial(insert, bare, 1_000))})
        for outbox in outboxes.values():
            assert outbox.counts() == outbox.recount() and outbox.waiting(1)
    for rows in outboxes:
        figures[f"unfold_blocks_of_{rows}_rows_per_second"] = UNFOLDED / seconds[str(rows)]
        ratios[f"unfold_blocks_of_{rows}_to_bare_1000"] = seconds["bare"] / seconds[str(rows)]


def counting(folder: Path, figures: dict[str, float], ratios: dict[str, float]) -> None:
    with Outbox(folder / "counted.db") as outbox:
        fill(outbox, 1_000, COUNTED)
        outbox.unfold(COUNTED)
        assert outbox.counts() == outbox.recount()
        seconds = side_by_side({"counts": repeated(100, outbox.counts), "group_by": outbox.recount}, rounds=3)
    figures["counts_seconds"], figures["group_by_seconds"] = seconds["counts"] / 100, seconds["group_by"]
    ratios["group_by_to_counts"] = seconds["group_by"] / (seconds["counts"] / 100)


@cache
def scored(rows: int) -> tuple[Any, ...]:
    """What `blocks.of` takes."""
    columns = {name: np.full(rows, value) for name, value in INPUTS.items()}
    columns |= {name: np.zeros(rows) for name in TYPE}
    texts = {name: [value] * rows for name, value in TYPE.items()}
    context = {name: [value] * rows for name, value in CONTEXT.items()}
    return columns, texts, np.full(rows, 0.25), context


def block(rows: int) -> tuple[int, bytes]:
    (made,) = blocks.of(*scored(rows))
    return made


def append(outbox: Outbox, rows: int) -> None:
    outbox.append([Batch(None, RELEASE, AT, [block(rows)])])


def bare_table(folder: Path) -> sqlite3.Connection:
    database = sqlite3.connect(folder / "bare.db", isolation_level=None)
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", BARE):
        database.execute(statement)
    return database


def insert(database: sqlite3.Connection, rows: int) -> None:
    row = (AT, RELEASE, 0.25, False, False, RECORD, RECORD_SCHEMA)
    database.execute("BEGIN IMMEDIATE")
    database.executemany("INSERT INTO scores VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", [row] * rows)
    database.execute("COMMIT")


def write(file: int, made: bytes) -> None:
    os.write(file, made)
    os.fdatasync(file)


def fill(outbox: Outbox, rows: int, total: int) -> None:
    """With blocks of so many rows, until it has scored so many or a few more."""
    made = [block(rows)] * -(-10_000 // rows)
    while outbox.counts().scored < total:
        outbox.append([Batch(None, RELEASE, AT, made)])


def repeated(times: int, work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            work()

    return run


if __name__ == "__main__":
    main()
