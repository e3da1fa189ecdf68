"""Supervision, with serving processes that are tiny scripts: fast, and they fail as told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_ai_assets.scoring import folder as files
from edge_ai_assets.scoring import keeper as module
from edge_ai_assets.scoring.folder import Release, Status, Wish
from edge_ai_assets.scoring.keeper import Keeper

SERVING = """
import os, sys, time
kind, options = sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2]))
print('{"message": "I am ' + kind + '"}', file=sys.stderr, flush=True)
if kind == "segfault":
    os.kill(os.getpid(), 11)
if kind == "refuse":
    sys.exit(1)
if kind == "hang":
    time.sleep(60)
os.write(int(options["--ready-fd"]), b"ready\\n")
if kind == "crash":
    os._exit(3)
os.read(int(options["--alive-fd"]), 1)
"""


def command(release: Release, options: Sequence[str]) -> list[str]:
    return [sys.executable, "-S", "-c", SERVING, release.path, *options]


def release(number: int, kind: str = "good") -> Release:
    return Release(f"sha256:{number}", number, kind)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_SECONDS", 0.005)


def supervise(folder: Path, listener: socket.socket, use: Callable[[], Awaitable[None]] | None = None) -> int:
    """Run a supervisor in this process until `use` returns; its exit code."""

    async def run() -> int:
        keeper = asyncio.create_task(
            Keeper(folder, "bergen", [listener], "http://here", command=command).run()
        )
        if use is not None:
            try:
                await asyncio.wait_for(use(), 10)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(keeper, 10)

    return asyncio.run(run())


async def until(folder: Path, true: Callable[[Status], Any]) -> Status:
    while True:
        status = files.read_status(folder)
        if status and true(status):
            return status
        await asyncio.sleep(0.005)


async def wish(folder: Path, wanted: Release, request: str, deadline: float = 5.0) -> Status:
    files.write_wish(folder, Wish(wanted, request, deadline))
    os.kill(os.getpid(), signal.SIGHUP)
    return await until(folder, lambda status: status.request == request)


def test_a_wish_is_served_and_replaced_by_the_next(tmp_path: Path, listener: socket.socket):
    files.write_wish(tmp_path, Wish(release(1), "a"))

    async def use() -> None:
        first = await until(tmp_path, lambda status: status.request == "a")
        assert (first.release_id, first.version, first.previous, first.failed) == ("sha256:1", 1, None, None)
        second = await wish(tmp_path, release(2), "b")
        assert (second.current, second.previous) == (release(2), release(1))
        assert second.child_pid != first.child_pid
        assert os.readlink(tmp_path / "current") == "good" == os.readlink(tmp_path / "previous")
        same = await wish(tmp_path, release(2), "c")
        assert same == replace(second, request="c")

    assert supervise(tmp_path, listener, use) == 0
    assert files.read_status(tmp_path).child_pid is None
    written = json.loads((tmp_path / "service.json").read_text())
    assert (written["release_id"], written["version"]) == ("sha256:2", 2)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("segfault", "it ended with signal 11 before it was ready; it said: I am segfault"),
        ("refuse", "it ended with exit code 1 before it was ready; it said: I am refuse"),
        ("hang", "it was not ready within 0.3 s; it said: I am hang"),
    ],
)
def test_a_release_that_does_not_get_ready_leaves_the_other_serving(tmp_path, listener, kind, reason):
    files.write_wish(tmp_path, Wish(release(1), "a"))

    async def use() -> None:
        before = await until(tmp_path, lambda status: status.request == "a")
        after = await wish(tmp_path, release(2, kind), "b", deadline=0.3 if kind == "hang" else 5)
        assert (after.current, after.child_pid, after.restarts) == (before.current, before.child_pid, 0)
        assert (after.failed.release_id, after.failed.reason) == ("sha256:2", reason)
        os.kill(after.child_pid, 0)
        good = await wish(tmp_path, release(3), "c")
        assert (good.current, good.previous, good.failed) == (release(3), release(1), None)

    assert supervise(tmp_path, listener, use) == 0


def test_a_first_release_that_fails_ends_the_supervisor_and_is_told(tmp_path: Path, listener: socket.socket):
    files.write_wish(tmp_path, Wish(release(1, "refuse"), "a"))
    assert supervise(tmp_path, listener) == 1
    status = files.read_status(tmp_path)
    assert (status.request, status.current, status.failed.release_id) == ("a", None, "sha256:1")


def test_a_process_that_dies_is_started_again(tmp_path: Path, listener: socket.socket):
    files.write_wish(tmp_path, Wish(release(1), "a"))

    async def use() -> None:
        first = await until(tmp_path, lambda status: status.request == "a")
        os.kill(first.child_pid, signal.SIGKILL)
        second = await until(tmp_path, lambda status: status.restarts == 1 and status.child_pid)
        assert (
            second.current == first.current and second.child_pid != first.child_pid and second.failed is None
        )

    assert supervise(tmp_path, listener, use) == 0


def test_a_release_that_keeps_crashing_is_given_up_for_the_one_before(
    tmp_path: Path, listener: socket.socket
):
    files.write_wish(tmp_path, Wish(release(1), "a"))

    async def use() -> None:
        await until(tmp_path, lambda status: status.request == "a")
        await wish(tmp_path, release(2, "crash"), "b")
        back = await until(tmp_path, lambda status: status.current == release(1) and status.child_pid)
        assert back.failed.release_id == "sha256:2" and back.previous is None
        assert back.failed.reason.startswith(
            "it crashed 3 times within 30 s: its process ended with exit code 3"
        )
        assert not (tmp_path / "previous").is_symlink()

    assert supervise(tmp_path, listener, use) == 0
    # What was given up is not tried again by the next supervisor, until somebody asks for it anew.

    async def again() -> None:
        status = await until(tmp_path, lambda status: status.pid_started and status.child_pid)
        assert status.current == release(1) and status.failed.release_id == "sha256:2"

    with socket.create_server(("127.0.0.1", 0)) as other:
        assert supervise(tmp_path, other, again) == 0


@pytest.mark.parametrize(
    ("note", "gives_up"),
    [
        ('{"withdrawn": {"sha256:1": "by ann"}}', False),
        ('{"withdrawn": {"sha256:7": "by ann"}}', True),
        ('{"withdrawn": ["sha256:1"', True),  # damaged
        ('{"withdrawn": 1}', True),
        ("[]", True),
    ],
)
def test_it_is_not_given_up_for_one_that_was_withdrawn(
    tmp_path: Path, listener: socket.socket, note: str, gives_up: bool
):
    files.write_wish(tmp_path, Wish(release(1), "a"))

    async def use() -> None:
        await until(tmp_path, lambda status: status.request == "a")
        (tmp_path / files.LEASE).write_text(note)
        await wish(tmp_path, release(2, "crash"), "b")
        status = await until(
            tmp_path, lambda status: status.restarts >= 4 or (status.failed and status.child_pid)
        )
        assert (status.current == release(1)) is gives_up

    assert supervise(tmp_path, listener, use) == 0


def test_a_crashing_release_with_none_before_is_tried_on(tmp_path: Path, listener: socket.socket):
    files.write_wish(tmp_path, Wish(release(1, "crash"), "a"))

    async def use() -> None:
        status = await until(tmp_path, lambda status: status.restarts >= 4)
        assert status.current == release(1, "crash")
        assert (await wish(tmp_path, release(2), "b")).current == release(2)

    assert supervise(tmp_path, listener, use) == 0


def test_after_a_restart_a_new_wish_that_fails_gives_way_to_what_served_last(
    tmp_path: Path, listener: socket.socket
):
    files.write_status(tmp_path, Status("bergen", 1, None, current=release(1), request="a"))
    files.write_wish(tmp_path, Wish(release(2, "refuse"), "b"))

    async def use() -> None:
        status = await until(tmp_path, lambda status: status.child_pid)
        assert (status.current, status.failed.release_id, status.request) == (release(1), "sha256:2", "b")

    assert supervise(tmp_path, listener, use) == 0


def test_a_wish_written_by_hand_while_nobody_supervised_is_served(tmp_path: Path, listener: socket.socket):
    files.write_status(tmp_path, Status("bergen", 1, None, current=release(1)))
    files.write_wish(tmp_path, Wish(release(2)))

    async def use() -> None:
        status = await until(tmp_path, lambda status: status.child_pid)
        assert (status.current, status.previous) == (release(2), release(1))

    assert supervise(tmp_path, listener, use) == 0


def test_a_wish_nobody_can_read_changes_nothing(tmp_path: Path, listener: socket.socket):
    files.write_wish(tmp_path, Wish(release(1), "a"))

    async def use() -> None:
        before = await until(tmp_path, lambda status: status.request == "a")
        (tmp_path / "desired.json").write_text("{")
        os.kill(os.getpid(), signal.SIGHUP)
        while "Expecting" not in "".join(files.log_tail(tmp_path)):
            await asyncio.sleep(0.01)
        assert files.read_status(tmp_path) == before

    assert supervise(tmp_path, listener, use) == 0


def test_a_full_disk_for_state_and_log_does_not_end_supervision(tmp_path, listener, monkeypatch):
    files.write_wish(tmp_path, Wish(release(1), "a"))
    write = files.write_status

    async def use() -> None:
        first = await until(tmp_path, lambda status: status.request == "a")

        def full(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        for name in ("write_status", "append_log", "link"):
            monkeypatch.setattr(files, name, full)
        os.kill(first.child_pid, signal.SIGKILL)
        await asyncio.sleep(0.15)
        monkeypatch.setattr(files, "write_status", write)
        assert (await wish(tmp_path, release(2), "b")).restarts == 1

    assert supervise(tmp_path, listener, use) == 0
