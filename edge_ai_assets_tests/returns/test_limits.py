"""A disk that is full, and a backlog that is larger than the memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets_tests import blocks

CHILD = Path(__file__).with_name("limited_site.py")
ROWS = int(os.environ.get("EDGE_AI_BACKLOG", "100000"))
"""Of the large backlog; of the small one a hundredth."""


def limited(path: Path, limit: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(CHILD), str(path), limit]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("size", [150_000, 200_000, 300_000, 500_000, 5_000_000])
def test_a_file_that_cannot_grow_refuses_cleanly_and_goes_on_when_it_can(tmp_path, size):
    said, scored = limited(tmp_path / "o.db", f"file={size}")
    assert "disk" in said
    assert int(scored) > 50
    with Outbox(tmp_path / "o.db") as outbox:
        assert outbox.counts() == outbox.recount() and outbox.counts().scored == int(scored)
        assert outbox._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.fixture(scope="module")
def backlogs(tmp_path_factory) -> list[Path]:
    """A small one and a large one: a fifth of the scores are rows, the others wait in blocks; half as
    many packages wait as well."""
    made = []
    for rows in (ROWS // 100, ROWS):
        path = tmp_path_factory.mktemp("backlog") / "o.db"
        made.append(path)
        with Outbox(path) as outbox:
            for number in range(rows // 500):
                outbox.append([blocks.plain(500, predicted=number % 2 == 0)])
            insights.derive(outbox, limit=rows // 5)
            packages = ((number, f"{number}" * 5, f"d{number}") for number in range(1, rows // 2))
            columns = "number, name, digest, previous, rows, feedback, bytes, created_at"
            with outbox._transaction():
                insert = f"INSERT INTO packages({columns}) VALUES (?, ?, ?, '', 0, 0, 0, 0)"
                outbox._db.executemany(insert, packages)
    return made


def test_memory_does_not_grow_with_the_backlog(backlogs):
    small, large = (int(limited(path, "memory")[0]) for path in backlogs)
    assert large - small < 6_000


def test_reading_everything_would_be_seen(backlogs):
    small, large = (int(limited(path, "everything")[0]) for path in backlogs)
    assert large - small > 20_000
