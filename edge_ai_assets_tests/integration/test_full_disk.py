"""A disk that is full: a small file system in memory, on which an outbox goes on when there is room again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_ai_assets.returns.outbox.outbox import Outbox

CHILD = Path(__file__).parents[1] / "returns/limited_site.py"
BALLAST = 30_000_000

pytestmark = pytest.mark.integration


@pytest.fixture(params=[1_200_000, 2_000_000, 8_000_000])
def disk(request, tmp_path) -> Iterator[Path]:
    """A folder where there is room for so many bytes, and for more when the file `ballast` is removed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={request.param + BALLAST}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        missing = f"no tmpfs can be mounted here: {done.stderr.strip()}"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    try:
        (folder / "ballast").write_bytes(bytes(BALLAST))
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_refuses_cleanly_and_it_goes_on_when_there_is_room(disk):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(CHILD), str(disk / "o.db"), f"disk={disk / 'ballast'}"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    said, scored = done.stdout.splitlines()
    assert said == "database or disk is full"
    with Outbox(disk / "o.db") as outbox:
        assert outbox.counts() == outbox.recount() and outbox.counts().scored == int(scored)
        assert outbox._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
