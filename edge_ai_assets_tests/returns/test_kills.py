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
from edge_ai_assets.returns.egress.ledger import Entry, Ledger, verify
from edge_ai_assets.returns.egress.policy import Policy
from edge_ai_assets.returns.inbox import tables
from edge_ai_assets.returns.inbox.inbox import duplicates, receive
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Batch, Outbox
from edge_ai_assets.returns.outbox.schema import ScoreRow
from edge_ai_assets.returns.package.packages import read
from edge_ai_assets.returns.package.packing import pack
from edge_ai_assets.returns.road import uplink
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets_tests import blocks

CHILD = Path(__file__).with_name("killed_site.py")
POINTS = int(os.environ.get("EDGE_AI_KILLS", "80"))
"""Moments at which a site is killed, in all: 10,000 take about eight minutes with two workers."""
KILLS = 40
"""Of one home: what is checked after each grows with what was scored."""


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


def live_and_die(nursery, folder: Path, seed: int, seconds: float, life: str = "live") -> None:
    """Let a site live for a while, then kill it."""
    nursery.stdin.write(f"{folder} {seed} {life}\n")
    site = int(nursery.stdout.readline())
    time.sleep(seconds)
    os.kill(site, signal.SIGKILL)
    assert int(nursery.stdout.readline()) == -signal.SIGKILL, "the site died by itself"


@pytest.mark.parametrize("home", range(-(-POINTS // KILLS)))
def test_nothing_is_lost_and_nothing_counts_twice(tmp_path, nursery, home):
    """A home whose site is killed KILLS times at seeded moments, then drained."""
    child = runpy.run_path(str(CHILD), run_name="imported")
    key = Ed25519PrivateKey.from_private_bytes(b"0123456789abcdef0123456789abcdef")
    policy = Policy(usecase.loads(child["USECASE"]), b"k" * 32)
    chance = random.Random(home)
    for kill in range(KILLS):
        live_and_die(nursery, tmp_path, 100 * home + kill, chance.random() ** 3 * 0.15)
        if (tmp_path / "outbox.db").exists():
            _check_outbox(tmp_path)
    _drain(tmp_path, policy, key)
    _check(tmp_path, key)


def test_an_unfolding_that_is_killed_loses_and_doubles_nothing(tmp_path, nursery):
    """1,500 blocks, some of which cannot be read, killed at seeded moments until all are rows."""
    chance = random.Random(7)
    with Outbox(tmp_path / "outbox.db") as outbox:
        batches = [blocks.plain(chance.randint(1, 4), score=number, at=number) for number in range(1_500)]
        for number in range(0, 1_500, 20):
            batches[number] = Batch(None, "r1", number, [(batches[number].rows, blocks.TORN)])
        outbox.append(batches)
        before, counts = outbox.rows(1, outbox.counts().scored), outbox.counts()
        killed_midway = 0
        for seed in range(60):
            live_and_die(nursery, tmp_path, seed, 0.002 + chance.random() * 0.02, "unfold")
            assert outbox.counts() == outbox.recount() == counts
            assert outbox.rows(1, counts.scored) == before
            left = outbox._db.execute("SELECT count(*) FROM journal").fetchone()[0]
            killed_midway += 0 < left < 1_500
            if not left:
                break
        assert killed_midway >= 3
        outbox.unfold(counts.scored)
        assert outbox.rows(1, counts.scored) == before
        assert outbox.counts() == outbox.recount() == counts


def _acknowledged(folder: Path) -> tuple[dict[int, float | None], list[int]]:
    """Scores by sequence and feedback ids the site was told are safe; a line that a kill cut short was not
    told."""
    rows: dict[int, float | None] = {}
    words: list[int] = []
    for line in (folder / "acknowledged").read_text().splitlines(keepends=True):
        match line.split():
            case ["A", first, number, score] if line.endswith("\n"):
                for row in range(int(number)):
                    assert int(first) + row not in rows, "a sequence was given out twice"
                    rows[int(first) + row] = None if score == "-" else float(score) + row
            case ["F", number] if line.endswith("\n"):
                words.append(int(number))
    return rows, words


def _check_outbox(folder: Path) -> None:
    with Outbox(folder / "outbox.db", create=False) as outbox:
        _check_rows(outbox, _acknowledged(folder)[0])


def _check_rows(outbox: Outbox, told: dict[int, float | None]) -> dict[int, ScoreRow]:
    """The rows that are kept; of all others there are tombstones."""
    counts = outbox.counts()
    assert counts == outbox.recount()
    assert counts.conserved
    assert counts.scored >= max(told, default=0)
    kept = {row.sequence: row for row in outbox.rows(1, counts.scored)}
    gone = set(range(1, counts.scored + 1)) - kept.keys()
    graves = outbox.tombstones()
    assert sum(grave.rows for grave in graves) == len(gone)
    assert all(any(grave.first <= sequence <= grave.last for grave in graves) for sequence in gone)
    assert sum(grave.rows for grave in graves if grave.state == "expired") == counts.expired
    assert all(kept[sequence].score == score for sequence, score in told.items() if sequence in kept)
    return kept


def _drain(folder: Path, policy: Policy, key: Ed25519PrivateKey) -> None:
    road = uplink.FolderUplink(folder / "uplink", "bergen", Link(folder))
    with Outbox(folder / "outbox.db") as outbox:
        while insights.derive(outbox):
            pass
        while pack(outbox, "bergen", policy, {}, key, folder / "spool", at=5):
            pass
        assert uplink.upload(outbox, folder / "spool", road, Ledger(folder / "ledger.jsonl")).waiting == 0


def _check(folder: Path, key: Ed25519PrivateKey) -> None:
    scores, words = _acknowledged(folder)
    sent = {}
    for path in sorted((folder / "uplink" / "bergen").glob("*.zip")):
        sent[path.name] = read(path, [key.public_key()])
    leaving = [sequence for package in sent.values() for sequence in package.insights["sequence"].to_pylist()]
    told = [number for package in sent.values() for number in package.feedback["id"].to_pylist()]
    with Outbox(folder / "outbox.db") as outbox:
        kept, counts = _check_rows(outbox, scores), outbox.counts()
        assert counts.pending == 0
        assert len(set(leaving)) == len(leaving) == counts.uploaded
        rows = kept.values()
        assert {row.sequence for row in rows if row.predicted} <= set(leaving)
        assert {row.sequence for row in rows if row.disposition != "uploaded"}.isdisjoint(leaving)
        assert counts.quarantined == sum(row.score is None for row in rows)
        assert all(score is not None or sequence in kept for sequence, score in scores.items())
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
