"""An outbox of format 1 is upgraded where it is: once, whole, by whoever opens it first."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from edge_ai_assets.returns import outbox as outboxes
from edge_ai_assets.returns.outbox import Outbox
from edge_ai_assets.returns.schema import FORMAT, UPGRADES

GOLDEN = Path(__file__).parents[1] / "golden/outbox-1.sql"
CHILD = Path(__file__).with_name("opening_site.py")
PROCESSES, FILES = 4, 10


@pytest.fixture
def earlier(tmp_path) -> Path:
    """An outbox of format 1 with four scores."""
    path = tmp_path / "earlier.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(GOLDEN.read_text("utf-8"))
    return path


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def test_every_earlier_format_has_an_upgrade():
    assert sorted(UPGRADES) == list(range(1, FORMAT))


def test_an_upgrade_keeps_every_row(earlier):
    with closing(sqlite3.connect(earlier)) as database:
        before = database.execute("SELECT * FROM scores ORDER BY sequence").fetchall()
        tally = dict(database.execute("SELECT * FROM tally"))
    with Outbox(earlier, create=False) as outbox:
        found = outbox.rows(1, 4)
        counts = outbox.counts()
        assert counts == outbox.recount()
    assert version(earlier) == FORMAT
    assert [tuple(getattr(row, name) for name in row.__struct_fields__) for row in found] == before
    assert {name: getattr(counts, name) for name in tally} == tally and counts.scored == len(before) == 4


@pytest.mark.parametrize("done", range(3))
def test_an_upgrade_that_fails_leaves_format_1_and_can_be_done_again(earlier, monkeypatch, done):
    """After none, one and both of its statements."""
    made = UPGRADES[1].split(";")[:done]
    with monkeypatch.context() as patch:
        patch.setattr(outboxes, "UPGRADES", {1: ";\n".join([*made, "SELECT * FROM nowhere;"])})
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            Outbox(earlier)
    assert version(earlier) == 1
    with Outbox(earlier) as outbox:
        assert outbox.counts() == outbox.recount()
    assert version(earlier) == FORMAT


def test_processes_that_open_it_at_once_upgrade_it_once(tmp_path, earlier):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen([sys.executable, str(CHILD)], text=True, env=environment, **pipes)
            )
            for _ in range(PROCESSES)
        ]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * PROCESSES
        for number in range(FILES):
            path = shutil.copyfile(earlier, tmp_path / f"{number}.db")
            for process in processes:
                process.stdin.write(f"{path}\n")
                process.stdin.flush()
            firsts = [int(process.stdout.readline()) for process in processes]
            assert sorted(firsts) == [5, 6, 7, 8]
            assert version(path) == FORMAT
            with Outbox(path, create=False) as outbox:
                assert outbox.counts() == outbox.recount() and outbox.counts().conserved
