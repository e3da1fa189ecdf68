"""Kill -9 at random moments: what was acknowledged is there once, and everything is accounted for."""

from __future__ import annotations

import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_ai_assets import usecase
from edge_ai_assets.returns import insights, tables, uplink
from edge_ai_assets.returns.inbox import duplicates, receive
from edge_ai_assets.returns.ledger import Entry, Ledger, verify
from edge_ai_assets.returns.link import Link
from edge_ai_assets.returns.outbox import Outbox
from edge_ai_assets.returns.packages import read
from edge_ai_assets.returns.packing import pack
from edge_ai_assets.returns.policy import Policy

CHILD = Path(__file__).with_name("killed_site.py")
HOMES, KILLS = 3, 10


@pytest.fixture(scope="module")
def nursery():
    """The process that forks sites."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, str(CHILD)], text=True, bufsize=1, env=environment, **pipes
    ) as process:
        yield process
        process.stdin.close()


def live_and_die(nursery, folder: Path, seed: int, seconds: float) -> None:
    """Let a site live for a while, then kill it."""
    nursery.stdin.write(f"{folder} {seed}\n")
    site = int(nursery.stdout.readline())
    time.sleep(seconds)
    os.kill(site, signal.SIGKILL)
    assert int(nursery.stdout.readline()) == -signal.SIGKILL, "the site died by itself"


@pytest.mark.parametrize("home", range(HOMES))
def test_nothing_is_lost_and_nothing_counts_twice(tmp_path, nursery, home):
    """A home whose site is killed KILLS times at seeded moments, then drained."""
    child = runpy.run_path(str(CHILD), run_name="imported")
    key = Ed25519PrivateKey.from_private_bytes(b"0123456789abcdef0123456789abcdef")
    policy = Policy(usecase.loads(child["USECASE"]), b"k" * 32)
    chance = random.Random(home)
    for kill in range(KILLS):
        live_and_die(nursery, tmp_path, 100 * home + kill, chance.random() * 0.4)
        if (tmp_path / "outbox.db").exists():
            _check_outbox(tmp_path)
    _drain(tmp_path, policy, key)
    _check(tmp_path, key)


def _acknowledged(folder: Path) -> tuple[list[int], list[int]]:
    """Sequences and feedback ids the site was told are safe; a line that a kill cut short was not told."""
    rows: list[int] = []
    words: list[int] = []
    for line in (folder / "acknowledged").read_text().splitlines(keepends=True):
        match line.split():
            case ["A", first, number] if line.endswith("\n"):
                rows += range(int(first), int(first) + int(number))
            case ["F", number] if line.endswith("\n"):
                words.append(int(number))
    return rows, words


def _check_outbox(folder: Path) -> None:
    rows, _ = _acknowledged(folder)
    with Outbox(folder / "outbox.db", create=False) as outbox:
        counts = outbox.counts()
        assert counts.conserved
        assert counts == outbox.recount()
        assert [row.sequence for row in outbox.rows(1, counts.scored)] == list(range(1, counts.scored + 1))
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(range(1, counts.scored + 1))


def _drain(folder: Path, policy: Policy, key: Ed25519PrivateKey) -> None:
    road = uplink.FolderUplink(folder / "uplink", "bergen", Link(folder))
    with Outbox(folder / "outbox.db") as outbox:
        while insights.derive(outbox):
            pass
        while pack(outbox, "bergen", policy, {}, key, folder / "spool", at=5):
            pass
        assert uplink.upload(outbox, folder / "spool", road, Ledger(folder / "ledger.jsonl")).waiting == 0


def _check(folder: Path, key: Ed25519PrivateKey) -> None:
    _, words = _acknowledged(folder)
    sent = {}
    for path in sorted((folder / "uplink" / "bergen").glob("*.zip")):
        sent[path.name] = read(path, [key.public_key()])
    leaving = [sequence for package in sent.values() for sequence in package.insights["sequence"].to_pylist()]
    told = [number for package in sent.values() for number in package.feedback["id"].to_pylist()]
    with Outbox(folder / "outbox.db") as outbox:
        counts = outbox.counts()
        rows = outbox.rows(1, counts.scored)
        assert counts.pending == 0
        assert counts == outbox.recount()
        assert leaving == [row.sequence for row in rows if row.predicted]
        assert counts.uploaded == len(leaving)
        assert len(set(told)) == len(told)
        assert set(words) <= set(told)
        assert outbox.last_package().number == len(sent)
    keys = {"bergen": [key.public_key()]}
    while receive(folder / "uplink", folder / "tables", keys, folder / "quarantine", limit=50).packages:
        pass
    assert duplicates(folder / "tables") == 0
    assert tables.count(folder / "tables", "insights") == len(leaving)
    assert tables.count(folder / "tables", "feedback") == len(told)
    assert not (folder / "quarantine").exists()
    _check_ledger(folder, {name: package.digest for name, package in sent.items()})


def _check_ledger(folder: Path, sent: dict[str, str]) -> None:
    """Every byte of every package that left is in the ledger."""
    path = folder / "ledger.jsonl"
    assert verify(path) > 0
    entries = [msgspec.json.decode(line, type=Entry) for line in path.read_bytes().splitlines()]
    for name, digest in sent.items():
        covered = set()
        for entry in entries:
            if (entry.package, entry.digest) == (name, digest):
                covered.update(range(entry.first, entry.last))
        assert covered == set(range((folder / "uplink" / "bergen" / name).stat().st_size))
