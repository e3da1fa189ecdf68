"""Writing before an answer: what is on disk on return, and what each thing that goes wrong is called."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.returns.outbox import journal
from edge_ai_assets.returns.outbox.journal import Block
from edge_ai_assets.returns.outbox.outbox import Feedback, Outbox, OutboxError, OutboxFull
from edge_ai_assets.returns.outbox.schema import Batch
from edge_ai_assets.scoring import writer as module
from edge_ai_assets.scoring.writer import PATIENCE_SECONDS, Busy, DiskFull, Failed, Writer


def block(rows: int, text: str = "") -> tuple[int, bytes]:
    """Rows with one input; `text` makes them large."""
    values = struct.pack(f"<{rows}d", *range(rows))
    texts = {"kind": [text] * rows} if text else {}
    return rows, journal.encode(Block(("x",), values, texts, values, bytes(rows), {}))


def batch(rows: int = 1, key: str | None = None, text: str = "", fingerprint: bytes = b"") -> Batch:
    return Batch(key, "sha256:aa", 1, [block(rows, text)], fingerprint)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    writer = Writer(path)
    yield writer
    writer.close()


def scored(path: Path) -> int:
    with Outbox(path) as outbox:
        counts = outbox.counts()
    assert counts.conserved
    return counts.scored


def test_what_is_written_can_be_read_by_another_process_at_once(writer: Writer, path: Path):
    read = """
import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("SELECT sum(rows) FROM journal").fetchone()[0])
"""
    for number in range(1, 4):
        assert writer.write([batch(rows=number)])[0].rows == number
        found = subprocess.run([sys.executable, "-c", read, path], capture_output=True, check=True)
        assert int(found.stdout) == sum(range(number + 1))


def test_a_process_that_is_killed_loses_nothing_that_was_written(path: Path):
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path[:0] = {sys.path!r}
from edge_ai_assets.scoring.writer import Writer
from edge_ai_assets_tests.scoring.test_writer import batch
writer = Writer(Path({str(path)!r}))
for _ in range(20):
    print(writer.write([batch(3)])[0].first, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout.split() == [str(first) for first in range(1, 61, 3)]
    assert scored(path) == 60


def test_every_write_is_synchronous(writer: Writer):
    pragma: Any = lambda name: writer._outbox._db.execute(f"PRAGMA {name}").fetchone()[0]  # noqa: E731
    assert pragma("synchronous") == 2 and pragma("journal_mode") == "wal"


def test_an_outbox_that_is_held_is_busy_and_no_failure(writer: Writer, path: Path):
    assert PATIENCE_SECONDS < 5  # the event loop stands still meanwhile
    writer._outbox._patience = 0.02
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy, match="another process holds the outbox, nothing was written"):
        writer.write([batch()])
    assert writer.failure is None
    other.execute("ROLLBACK")
    other.close()
    assert writer.write([batch()])[0].first == 1


def test_a_full_disk_writes_nothing_of_the_batch_and_recovers(writer: Writer, path: Path):
    writer.write([batch()])
    db = writer._outbox._db
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0] + 4}")
    with pytest.raises(DiskFull, match="the disk of the outbox is full, nothing was written"):
        writer.write([batch(50, text="x" * 2000)])
    assert "full" in str(writer.failure) and scored(path) == 1
    assert writer.write([batch()])[0].first == 2
    assert writer.failure is None


def test_a_file_that_may_not_grow_is_a_failure_and_loses_nothing(path: Path):
    """As with a quota of the file system: the limit holds for a process, so it has one of its own."""
    script = f"""
import resource, signal, sys
from pathlib import Path
sys.path[:0] = {sys.path!r}
from edge_ai_assets.scoring.writer import DiskFull, Failed, Writer
from edge_ai_assets_tests.scoring.test_writer import batch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = Writer(Path({str(path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, {resource.RLIM_INFINITY}))
written = 0
try:
    while True:
        writer.write([batch(100, text="x" * 200)])
        written += 100
except (DiskFull, Failed):
    assert writer.failure
resource.setrlimit(resource.RLIMIT_FSIZE, ({resource.RLIM_INFINITY}, {resource.RLIM_INFINITY}))
assert writer.write([batch()])[0].first == written + 1
print(written + 1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert scored(path) == int(done.stdout) > 1


def test_any_other_error_of_the_disk_is_a_failure_until_it_can_write(writer: Writer, monkeypatch, caplog):
    def fail(self: Outbox, batches: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "append", fail)
        for _ in range(2):
            with pytest.raises(Failed, match="the outbox cannot be written: disk I/O error"):
                writer.write([batch()])
    assert writer.failure == caplog.messages[-1] == "the outbox cannot be written: disk I/O error"
    writer.write([batch()])
    assert writer.failure is None


def test_a_failure_is_not_held_against_it_for_ever(writer: Writer, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with pytest.raises(module.Failed):
        writer.run(lambda outbox: outbox._db.execute("SELECT * FROM nowhere"))
    assert writer.failure
    now[0] += module.REMEMBERED_SECONDS + 1
    assert (
        writer.failure is None
    )  # who waits for it to be ready would wait for the request that he holds back


def test_a_closed_outbox_is_a_failure(path: Path):
    writer = Writer(path)
    writer.close()
    with pytest.raises(Failed, match="closed"):
        writer.write([batch()])


def test_what_the_outbox_refuses_is_no_failure_of_it(writer: Writer):
    with pytest.raises(OutboxError, match="at least one block"):
        writer.write([Batch(None, "r", 1, [])])
    with pytest.raises(OutboxError, match="no score 7"):
        writer.run(lambda outbox: outbox.add_feedback([Feedback(7, True, None, "", 1)]))
    assert writer.failure is None


def test_an_outbox_at_its_quota_is_full_until_there_is_room(path: Path):
    writer = Writer(path, quota=600_000)
    written = 0
    with pytest.raises(OutboxFull, match="its quota is 600000"):
        for _ in range(1000):
            written += writer.write([batch(100, text="x" * 100)])[0].rows
    assert scored(path) == written > 0 and writer.failure is None
    with Outbox(path) as outbox:
        outbox._db.execute("DELETE FROM journal WHERE first < (SELECT max(first) FROM journal)")
    assert writer.write([batch()])[0].first == written + 1
    writer.close()


@pytest.mark.parametrize("place", ["nowhere/outbox.db", "."])
def test_an_outbox_that_cannot_be_opened_is_told(tmp_path: Path, place: str):
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        Writer(tmp_path / place)


def test_what_is_no_outbox_is_told(path: Path):
    path.write_bytes(os.urandom(8192))
    with pytest.raises(OutboxError, match="it is no SQLite file"):
        Writer(path)


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from([None, "a", "b"]), st.booleans()),
        min_size=1,
        max_size=15,
    )
)
def test_sequences_have_no_gap_and_a_key_counts_once(tmp_path_factory, requests):
    path = tmp_path_factory.mktemp("outbox") / "outbox.db"
    first, second = Writer(path), Writer(path)  # two workers
    seen: dict[str, tuple[int, int]] = {}
    fresh = 0
    for by_second, commit in groupby(requests, key=itemgetter(2)):
        together = list(commit)
        written = (second if by_second else first).write(
            [batch(rows, key, fingerprint=bytes([rows])) for rows, key, _ in together]
        )
        for (rows, key, _), receipt in zip(together, written, strict=True):
            assert receipt.repeated == (key in seen)
            if receipt.repeated:
                assert (receipt.first, receipt.rows) == seen[key]
                assert receipt.same == (rows == seen[key][1])
            else:
                assert (receipt.first, receipt.rows) == (fresh + 1, rows)
                fresh += rows
                if key:
                    seen[key] = receipt.first, rows
    first.close()
    second.close()
    assert scored(path) == fresh
