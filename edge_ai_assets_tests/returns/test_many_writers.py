"""Several processes append, one unfolds meanwhile: one sequence without a gap, each receipt in its place."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Outbox

CHILD = Path(__file__).with_name("appending_site.py")
PROCESSES, BATCHES = 8, 200


def start(path: Path, name: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(CHILD), str(path), name, str(BATCHES)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, **pipes)


def test_processes_that_append_at_once_share_one_sequence(tmp_path):
    path = tmp_path / "outbox.db"
    names = [f"process {number}" for number in range(PROCESSES)]
    with ExitStack() as stack, Outbox(path) as outbox:
        processes = [stack.enter_context(start(path, name)) for name in names]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * PROCESSES
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        while any(process.poll() is None for process in processes):
            insights.derive(outbox, limit=100)
            assert outbox.counts().conserved
        expected: dict[int, tuple[str, float]] = {}
        for name, process in zip(names, processes, strict=True):
            said = process.communicate()[0].splitlines()
            assert (process.returncode, len(said)) == (0, BATCHES)
            firsts = [int(line.split()[0]) for line in said]
            assert firsts == sorted(firsts)
            for number, line in enumerate(said):
                first, rows = map(int, line.split())
                assert rows == 1 + number % 5
                for row in range(rows):
                    assert first + row not in expected, "a sequence was given out twice"
                    expected[first + row] = (f"{name}/{number}", float(row))
        counts = outbox.counts()
        assert counts == outbox.recount() and counts.conserved
        assert (
            counts.pending
            == counts.scored
            == len(expected)
            == PROCESSES * sum(1 + number % 5 for number in range(BATCHES))
        )
        rows = outbox.rows(1, counts.scored)
        assert [row.sequence for row in rows] == list(range(1, counts.scored + 1))
        assert {row.sequence: (row.release, row.score) for row in rows} == expected
        for name in names:
            found = outbox.find(f"{name}/7", name.encode())
            assert found and expected[found.first] == (f"{name}/7", 0.0) and found.same
