"""Kill -9 of the inbox at random moments: the tables end as if nothing had happened, and no head is ahead."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_ai_assets.returns.inbox import heads, tables
from edge_ai_assets_tests import sent

CHILD = Path(__file__).with_name("killed_inbox.py")
CHAIN, OTHER = sent.chain("bergen", 12, rows=2), sent.chain("narvik", 5, rows=2, events=1)


@pytest.fixture(scope="module")
def nursery():
    """The process that forks inboxes."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, str(CHILD)], text=True, bufsize=1, env=environment, **pipes
    ) as process:
        yield process
        process.stdin.close()


def kill_often(nursery, folder: Path, seed: int, points: int) -> int:
    """Receive both chains, killed at seeded points, then in peace; how many left tables half written."""
    chance = random.Random(seed)
    world = sent.Arrivals(folder)
    world.put(*CHAIN)
    world.put(*OTHER, site="narvik")
    halfway = 0
    for _ in range(points):
        step, delay = chance.randint(1, len(tables.KEYS) + 3), chance.random() * 0.04
        nursery.stdin.write(f"{folder} {chance.randint(1, 3)} {step} {delay}\n")
        code = int(nursery.stdout.readline())
        assert code in (0, -signal.SIGKILL), "the inbox died by itself"
        halfway += check(world)
        if code == 0:
            break
    world.receive()
    assert not check(world)
    assert {site: head.number for site, head in heads.read(world.tables).items()} == {
        "bergen": 12,
        "narvik": 5,
    }
    return halfway


def check(world: sent.Arrivals) -> bool:
    """What the heads say was merged is there, and nothing is there twice; whether more is there than they
    say."""
    known = heads.read(world.tables)
    for name, key in tables.KEYS.items():
        rows = tables.rows(world.tables, name, key)
        assert len(rows) == len({tuple(row.values()) for row in rows}), name
    packages = {tuple(row.values()) for row in tables.rows(world.tables, "packages", ("site", "number"))}
    scores = {tuple(row.values()) for row in tables.rows(world.tables, "insights", ("site", "sequence"))}
    events = {tuple(row.values()) for row in tables.rows(world.tables, "lineage", ("site", "n"))}
    for site, head in known.items():
        assert {(site, number) for number in range(1, head.number + 1)} <= packages
        assert {(site, number) for number in range(1, 2 * head.number + 1)} <= scores
        assert {(site, n) for n in range(1, head.lineage + 1)} <= events
    return len(scores) > sum(2 * head.number for head in known.values())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> str:
    world = sent.Arrivals(tmp_path_factory.mktemp("undisturbed"))
    world.put(*CHAIN)
    world.put(*OTHER, site="narvik")
    world.receive()
    return world.digest()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_inbox_loses_and_doubles_nothing(tmp_path, nursery, undisturbed, seed):
    assert kill_often(nursery, tmp_path, seed, 40) >= 1
    assert sent.Arrivals(tmp_path).digest() == undisturbed


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(100, 100 + int(os.environ.get("EDGE_AI_KILLS", "400")) // 20))
def test_a_killed_inbox_loses_and_doubles_nothing_for_long(tmp_path, nursery, undisturbed, seed):
    assert kill_often(nursery, tmp_path, seed, 40) >= 1
    assert sent.Arrivals(tmp_path).digest() == undisturbed
