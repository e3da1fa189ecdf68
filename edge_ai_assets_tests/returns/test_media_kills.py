"""Kill -9 while packages are carried or sent: what stands under a package's name is that package, whole."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_ai_assets.returns.egress.coverage import Coverage
from edge_ai_assets.returns.egress.ledger import Ledger
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.road import media, uplink
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets_tests.parcels import seal

CHILD = Path(__file__).with_name("carrying_site.py")
HOMES = 4
KILLS = int(os.environ.get("EDGE_AI_KILLS", "240")) // HOMES


@pytest.fixture(scope="module")
def nursery():
    """The process that forks those to be killed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, str(CHILD)], text=True, bufsize=1, env=environment, **pipes
    ) as process:
        yield process
        process.stdin.close()


def lives(nursery, folder, seed, life):
    """Whether it came to its end before it was killed."""
    nursery.stdin.write(f"{folder} {seed} {life}\n")
    nursery.stdout.readline()
    ended = int(nursery.stdout.readline())
    assert ended in (0, -signal.SIGKILL)
    return ended == 0


@pytest.mark.parametrize("home", range(HOMES))
def test_nothing_torn_is_ever_under_a_packages_name(tmp_path, nursery, home):
    for folder in ("medium", "uplink"):
        (tmp_path / folder).mkdir()
    chance, rows, killed = random.Random(home), {}, 0
    for kill in range(KILLS):
        if kill % 3 == 0:
            with Outbox(tmp_path / "outbox.db") as outbox:
                sealed = seal(outbox, tmp_path / "spool", "bergen", [chance.randint(0, 3_000)])
            rows |= {row.name: row for row in sealed}
        life = ("export", "import", "upload")[kill % 3]
        killed += not lives(nursery, tmp_path, 1_000 * home + kill, life)
        check(tmp_path, rows)
        if kill % 20 == 10:  # the medium is lost, or another one is taken
            for path in (tmp_path / "medium").iterdir():
                path.unlink()
        if kill % 20 == 15:  # a lake was restored from a backup, and all is carried again
            for path in (tmp_path / "uplink/bergen").glob("*.zip"):
                path.unlink()
    assert killed >= KILLS // 3
    with Outbox(tmp_path / "outbox.db") as outbox:
        media.export(outbox, tmp_path / "spool", Ledger(tmp_path / "ledger.jsonl"), tmp_path / "medium")
        assert all(row.exported_at is not None for row in outbox.packages())
        road = uplink.FolderUplink(tmp_path / "uplink", "bergen", Link(tmp_path))
        assert uplink.upload(outbox, tmp_path / "spool", road, Ledger(tmp_path / "ledger.jsonl")).waiting == 0
    media.import_(tmp_path / "medium", tmp_path / "uplink")
    check(tmp_path, rows)
    for folder in (tmp_path / "medium", tmp_path / "uplink/bergen"):
        assert sorted(path.name for path in folder.iterdir() if path.is_file()) == sorted(rows)
    assert list((tmp_path / "uplink/bergen/.partial").iterdir()) == []


def check(folder, rows):
    there = [*(folder / "medium").glob("*.zip"), *(folder / "uplink").glob("*/*.zip")]
    for path in there:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == rows[path.name].digest
    with Outbox(folder / "outbox.db") as outbox, Coverage(folder / "ledger.jsonl") as coverage:
        left = {row.name: coverage.of(row.name, row.digest) for row in outbox.packages()}
        assert list(coverage.missing(outbox.packages())) == []
    for path in (folder / "medium").iterdir():
        name = path.name.removeprefix(".").removesuffix(".partial")
        assert path.stat().st_size <= (left[name].covered if left[name] else 0), (
            "bytes left before their line"
        )
