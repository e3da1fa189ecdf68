"""An outbox of an earlier format is upgraded where it is: once, whole, by whoever opens it first."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_ai_assets.returns.outbox import insights, store
from edge_ai_assets.returns.outbox import outbox as outboxes
from edge_ai_assets.returns.outbox.layout import UPGRADES
from edge_ai_assets.returns.outbox.outbox import Outbox, PackageRow
from edge_ai_assets.returns.outbox.schema import FORMAT, ScoreRow
from edge_ai_assets_tests import blocks

GOLDEN = Path(__file__).parents[1] / "golden"
CHILD = Path(__file__).with_name("opening_site.py")
PROCESSES, FILES = 4, 10


@pytest.fixture(params=range(1, FORMAT))
def earlier(request, tmp_path) -> Path:
    """An outbox of each earlier format with four scores, and one in a block if it has blocks."""
    path = tmp_path / "earlier.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript((GOLDEN / f"outbox-{request.param}.sql").read_text("utf-8"))
    return path


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def test_every_earlier_format_has_an_upgrade():
    assert sorted(UPGRADES) == list(range(1, FORMAT))


def test_an_upgrade_keeps_every_row(earlier):
    with closing(sqlite3.connect(earlier)) as database:
        columns = ", ".join(ScoreRow.__struct_fields__)
        before = database.execute(f"SELECT {columns} FROM scores ORDER BY sequence").fetchall()
        tally = dict(database.execute("SELECT * FROM tally WHERE state <> 'packed'"))
        folded = 0
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'journal'").fetchone():
            folded = database.execute("SELECT coalesce(sum(rows), 0) FROM journal").fetchone()[0]
    with Outbox(earlier, create=False) as outbox:
        found = outbox.rows(1, 4)
        counts = outbox.counts()
        assert counts == outbox.recount()
    assert version(earlier) == FORMAT
    assert [told(msgspec.structs.astuple(row)) for row in found] == [told(row) for row in before]
    assert all(row.record for row in found)
    assert {name: getattr(counts, name) for name in tally} == tally | {"pending": tally["pending"] + folded}


def told(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Without the record, which may stand in a sheet, and the disposition that its package tells."""
    return tuple("" if value == "uploaded" or isinstance(value, bytes) else value or "" for value in row)


def test_an_upgraded_file_has_the_tables_of_a_new_one(tmp_path, earlier):
    Outbox(earlier).close()
    Outbox(tmp_path / "new.db").close()
    assert shape(earlier) == shape(tmp_path / "new.db")


def shape(path: Path) -> tuple[object, ...]:
    """Columns with what they may hold; indexes and triggers as they were written."""
    with closing(sqlite3.connect(path)) as database:
        made = database.execute("SELECT name, type, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        columns = {
            name: database.execute(f"PRAGMA table_info({name})").fetchall()
            for name, kind, _ in made
            if kind == "table"
        }
    return columns, {name: " ".join(sql.split()) for name, kind, sql in made if kind != "table"}


def test_the_way_home_goes_on_in_an_upgraded_file(earlier):
    """Its package is acknowledged, told what is complete by the next one, and pruned."""
    with Outbox(earlier) as outbox:
        insights.derive(outbox)
        assert outbox.tally().packed == 1
        rows = [row.sequence for row in outbox.waiting(9)]
        assert outbox.complete_through(set(rows)) == outbox.counts().scored
        done = outbox.counts().scored
        package = PackageRow(2, "2.zip", "two", "0a" * 32, len(rows), 0, 9, 1, complete=done)
        outbox.seal(package, rows, [], {}, {})
        outbox.acknowledge(1, "0a" * 32, 5)
        pruned = outbox.prune(2**60).rows
        outbox.acknowledge(2, "two", 5)
        pruned += outbox.prune(2**60).rows
        assert pruned == len(rows) + 2, "with the one in package 1, and one withheld without a package"
        assert outbox.counts() == outbox.recount() and outbox.counts().conserved


def test_whoever_opens_it_while_it_is_upgraded_waits_for_that_however_impatient(earlier, monkeypatch):
    """A large file takes seconds, and the service has the patience of an answer."""
    holder = sqlite3.connect(earlier, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    tries = []

    def passed(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 5 and holder.in_transaction:
            holder.execute("ROLLBACK")

    monkeypatch.setattr(store.time, "sleep", passed)
    with closing(holder), Outbox(earlier, patience=0) as outbox:
        assert len(tries) >= 5 and version(earlier) == FORMAT
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            outbox.append([blocks.plain()])


@pytest.mark.parametrize("left", [0, 1, 5])
def test_an_upgrade_that_fails_leaves_the_file_and_can_be_done_again(earlier, monkeypatch, left):
    """All but the last statements of the last upgrade were done."""
    before = version(earlier)
    last = FORMAT - 1
    statements = list(store._statements(UPGRADES[last] + "\n"))
    done = "".join(statements[: len(statements) - left])
    with monkeypatch.context() as patch:
        patch.setattr(outboxes, "UPGRADES", UPGRADES | {last: done + "\nSELECT * FROM nowhere;\n"})
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            Outbox(earlier)
    assert version(earlier) == before
    with Outbox(earlier) as outbox:
        assert outbox.counts() == outbox.recount()
    assert version(earlier) == FORMAT


def test_processes_that_open_it_at_once_upgrade_it_once(tmp_path, earlier):
    with Outbox(shutil.copyfile(earlier, tmp_path / "counted.db")) as outbox:
        scored = outbox.counts().scored
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
            assert sorted(firsts) == list(range(scored + 1, scored + 1 + PROCESSES))
            assert version(path) == FORMAT
            with Outbox(path, create=False) as outbox:
                assert outbox.counts() == outbox.recount() and outbox.counts().conserved
