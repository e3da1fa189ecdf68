"""Notes outlive the process, and are of one place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.resources.storage import blob_names
from edge_ai_assets.resources.storage.noted import Noted, NotesError

PART = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\."), min_size=1, max_size=20
)


def test_notes_are_of_one_place(tmp_path):
    with Noted(tmp_path / "n.db", "one") as one, Noted(tmp_path / "n.db", "other") as other:
        one.put("a", "1")
        one.put("a", "2")
        assert (one.get("a"), other.get("a"), one.get("b")) == ("2", None, None)
        other.put("b", "3")
        assert (one.names(), other.names()) == (["a"], ["b"])
        other.remove("a", "2"), other.remove("b", "2")
        assert (one.names(), other.names()) == (["a"], ["b"])
        other.remove("b", "3")
        assert (one.names(), other.names()) == (["a"], [])


def test_they_outlive_a_kill(tmp_path):
    program = (
        "import sys, os, signal; from pathlib import Path; "
        "from edge_ai_assets.resources.storage.noted import Noted\n"
        "with Noted(Path(sys.argv[1]), 'p') as notes:\n"
        "    for n in range(100): notes.put(str(n), 'x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "n.db")], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with Noted(tmp_path / "n.db", "p") as notes:
        assert len(notes.names()) == 100


def test_a_damaged_file_says_what_to_do(tmp_path):
    (tmp_path / "n.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(NotesError, match=r"n\.db cannot be used.*remove it"), Noted(tmp_path / "n.db", "p"):
        pass
    (tmp_path / "n.db").unlink()
    with Noted(tmp_path / "n.db", "p") as notes:
        assert notes.names() == []


def test_so_does_one_that_is_damaged_further_on(tmp_path):
    """A power cut takes pages, not the head."""
    with Noted(tmp_path / "notes.db", "here") as noted:
        for number in range(500):
            noted.put(f"file-{number}", "x" * 70)
    data = (tmp_path / "notes.db").read_bytes()
    (tmp_path / "notes.db").write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with Noted(tmp_path / "notes.db", "here") as noted:
        for ask in (lambda: noted.get("file-7"), noted.names, lambda: noted.put("file-7", "y")):
            with pytest.raises(NotesError, match="remove it if it is damaged"):
                ask()


def test_processes_share_them(tmp_path):
    program = (
        "import sys; from pathlib import Path; from edge_ai_assets.resources.storage.noted import Noted\n"
        "with Noted(Path(sys.argv[1]), 'p') as notes:\n"
        "    for n in range(100): notes.put(f'{sys.argv[2]}/{n}', 'x')"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "n.db")]
    running = [subprocess.Popen([*command, str(start)]) for start in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    with Noted(tmp_path / "n.db", "p") as notes:
        assert len(notes.names()) == 300


def test_threads_share_them(tmp_path):
    with Noted(tmp_path / "n.db", "p") as notes:
        threads = [
            threading.Thread(target=lambda start=start: [notes.put(f"{start}/{n}", "") for n in range(50)])
            for start in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(notes.names()) == 200


@given(st.lists(PART, min_size=1, max_size=4))
def test_a_name_of_plain_parts_is_taken(parts):
    assert blob_names.refused("/".join(parts)) is None


@given(
    st.lists(PART, max_size=3),
    st.sampled_from(["", ".", "..", ".a", "a\\b", "a\0", "a\n", "x" * 256]),
    st.data(),
)
def test_a_name_with_one_bad_part_is_refused(parts, bad, data):
    place = data.draw(st.integers(0, len(parts)))
    assert blob_names.refused("/".join([*parts[:place], bad, *parts[place:]]))


@given(st.text(max_size=60))
def test_what_is_taken_stays_below_the_folder(name):
    if blob_names.refused(name) is None:
        path = os.path.normpath(os.path.join("/folder", name))
        assert path == f"/folder/{name}"
