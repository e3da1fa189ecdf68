"""The files of a supervised site: whole, rotated, and believed only while somebody holds the lock."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edge_ai_assets.scoring import folder as files
from edge_ai_assets.scoring import supervisor
from edge_ai_assets.scoring.folder import Failure, Release, Status, Wish

STATUS = Status(
    "bergen",
    17,
    "4711",
    "http://127.0.0.1:1",
    18,
    Release("a", 2, "/a"),
    "now",
    Release("b", 1, "/b"),
    Failure("c", "why", "at"),
)


def test_state_and_wish_survive_the_disk(tmp_path: Path):
    files.write_status(tmp_path, STATUS)
    assert files.read_status(tmp_path) == STATUS
    wish = Wish(Release("a", 2, "/a"), "token", 3.0)
    files.write_wish(tmp_path, wish)
    assert files.read_wish(tmp_path) == wish
    assert sorted(os.listdir(tmp_path)) == ["desired.json", "service.json"]


def test_a_wish_by_hand_needs_three_fields(tmp_path: Path):
    (tmp_path / "desired.json").write_text('{"release_id": "a", "version": 2, "path": "/a"}')
    assert files.read_wish(tmp_path) == Wish(Release("a", 2, "/a"))
    (tmp_path / "desired.json").write_text('{"release_id": "a"}')
    with pytest.raises(ValueError, match="needs release_id, version and path"):
        files.read_wish(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"site": 1, "surprise": 2}'])
def test_a_strange_state_is_refused_with_a_way_out(tmp_path: Path, text: str):
    (tmp_path / "service.json").write_text(text)
    with pytest.raises(ValueError, match=r"service\.json"):
        files.read_status(tmp_path)


def test_nothing_there_is_nothing_said(tmp_path: Path):
    assert files.read_status(tmp_path) is None and files.read_wish(tmp_path) is None
    assert supervisor.status(tmp_path) is None and supervisor.status(tmp_path / "nowhere") is None
    assert files.log_tail(tmp_path) == []
    supervisor.stop(tmp_path)


def test_a_state_is_believed_only_while_the_lock_is_held(tmp_path: Path):
    files.write_status(tmp_path, STATUS)
    with files.hold(tmp_path / files.LOCK, seconds=0):
        assert supervisor.status(tmp_path) == STATUS
        with (
            pytest.raises(TimeoutError, match="held by another process"),
            files.hold(tmp_path / files.LOCK, seconds=0.02),
        ):
            pass
    assert supervisor.status(tmp_path) is None


def test_a_signal_goes_only_to_the_process_that_wrote_the_state(tmp_path: Path, monkeypatch):
    sent: list[int] = []
    monkeypatch.setattr(supervisor.os, "kill", lambda pid, number: sent.append(pid))
    me = os.getpid()
    files.write_status(tmp_path, Status("bergen", me, "an earlier process with this number"))
    assert not supervisor._signal(tmp_path, supervisor.signal.SIGHUP) and sent == []
    files.write_status(tmp_path, Status("bergen", me, files.process_started(me)))
    assert supervisor._signal(tmp_path, supervisor.signal.SIGHUP) and sent == [me]


def test_a_link_changes_from_one_to_the_other_and_goes(tmp_path: Path):
    for number in (1, 2, 2):
        files.link(tmp_path, "current", Release(str(number), number, f"/release/{number}"))
        assert os.readlink(tmp_path / "current") == f"/release/{number}"
    files.link(tmp_path, "current", None)
    files.link(tmp_path, "current", None)
    assert os.listdir(tmp_path) == []


def test_a_large_log_is_rotated_once(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(files, "LOG_BYTES", 100)
    for number in range(30):
        files.append_log(tmp_path, b"line %02d\n" % number)
    assert sorted(os.listdir(tmp_path)) == ["service.log", "service.log.1"]
    kept = (tmp_path / "service.log.1").read_text() + (tmp_path / "service.log").read_text()
    assert kept.endswith("line 29\n") and all(path.stat().st_size <= 108 for path in tmp_path.iterdir())


def test_log_lines_become_a_sentence():
    assert files.sentence([json.dumps({"message": "first"}), "plain", "{}", ""]) == "first; plain; {}"
