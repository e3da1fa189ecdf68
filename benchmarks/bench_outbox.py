"""What the outbox's promises cost: `Outbox.append` against a bare SQLite table, `counts` against counting.

- Appending 1, 32 and 1,000 rows a commit. The bare table has the same columns and values, the same
  journal (WAL) and the same durability (`synchronous=FULL`), and nothing else: no indexes, no tally, no
  idempotency keys, no numbering without gaps, no foreign writer to give way to.
- Counting 1,000,000 rows: `counts` reads six numbers; SELECT count(*) … GROUP BY, of the same file, all rows.

Why: each score is in here before it is answered, and `counts` is what every status and every sensor asks for.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from measure import scratch, side_by_side, tell

from edge_ai_assets.returns.outbox import Batch, Outbox
from edge_ai_assets.returns.schema import RECORD_SCHEMA

COMMITS = {1: 400, 32: 200, 1_000: 20}
"""Commits a round, by rows a commit."""
COUNTED = 1_000_000
RECORD = json.dumps(
    {
        "inputs": {
            "Discharge pressure [bar]": 7.312,
            "Flow [m³/h]": 151.87,
            "Bearing temperature [°C]": 53.11,
            "Vibration: RMS [mm/s]": 2.604,
            "Motor current [A]": 51.9,
            "Pump type": "centrifugal",
        },
        "context": {"_time": "2026-03-01T00:04:00", "_run": "bergen-000001", "_row": 1},
    },
    ensure_ascii=False,
).encode()
BARE = """CREATE TABLE scores(sequence INTEGER PRIMARY KEY, scored_at INTEGER, release TEXT, score REAL,
predicted INTEGER, outside INTEGER, record BLOB, schema INTEGER)"""
RELEASE = "sha256:" + "0" * 64


def main() -> None:
    figures: dict[str, float] = {"record_bytes": len(RECORD), "counted_rows": COUNTED}
    ratios: dict[str, float] = {}
    with scratch() as folder, Outbox(folder / "outbox.db") as outbox, closing(bare_table(folder)) as bare:
        for rows, commits in COMMITS.items():
            seconds = side_by_side(
                {
                    "outbox": repeated(commits, partial(append, outbox, rows)),
                    "bare": repeated(commits, partial(insert, bare, rows)),
                },
                rounds=5,
            )
            for name, value in seconds.items():
                figures[f"{name}_{rows}_rows_per_second"] = rows * commits / value
            ratios[f"outbox_to_bare_{rows}"] = seconds["bare"] / seconds["outbox"]
        fill(outbox)
        assert outbox.counts() == outbox.recount()
        seconds = side_by_side({"counts": repeated(100, outbox.counts), "group_by": outbox.recount}, rounds=3)
        figures["counts_seconds"], figures["group_by_seconds"] = seconds["counts"] / 100, seconds["group_by"]
        ratios["group_by_to_counts"] = seconds["group_by"] / (seconds["counts"] / 100)
    tell("outbox", figures, ratios)


def batch(rows: int) -> Batch:
    return Batch(
        None, RELEASE, 1_760_000_000_000_000, [0.25] * rows, [False] * rows, [False] * rows, [RECORD] * rows
    )


def append(outbox: Outbox, rows: int) -> None:
    outbox.append([batch(rows)])


def bare_table(folder: Path) -> sqlite3.Connection:
    database = sqlite3.connect(folder / "bare.db", isolation_level=None)
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", BARE):
        database.execute(statement)
    return database


def insert(database: sqlite3.Connection, rows: int) -> None:
    row = (1_760_000_000_000_000, RELEASE, 0.25, False, False, RECORD, RECORD_SCHEMA)
    database.execute("BEGIN IMMEDIATE")
    database.executemany("INSERT INTO scores VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", [row] * rows)
    database.execute("COMMIT")


def fill(outbox: Outbox) -> None:
    """Until it holds COUNTED rows."""
    while (missing := COUNTED - outbox.counts().scored) > 0:
        outbox.append([batch(min(missing, 10_000))])


def repeated(times: int, work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            work()

    return run


if __name__ == "__main__":
    main()
