"""What lies on a foreign medium is opened only if it is a file, and refused in words if not."""

from __future__ import annotations

import os
import stat

import pytest

from edge_ai_assets.delivery import durable
from edge_ai_assets.delivery.errors import MalformedError, MissingError


def dangling(path):
    path.symlink_to("/nowhere")


def to_itself(path):
    path.symlink_to(path.name)


def below_a_file(path):
    path.parent.rmdir()
    path.parent.write_text("x")


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda path: None, MissingError, "is not there"),
        (dangling, MissingError, "is not there"),
        (to_itself, MalformedError, "cannot be opened: Too many levels of symbolic links"),
        (below_a_file, MalformedError, "cannot be opened: Not a directory"),
        (os.mkfifo, MalformedError, "is not a regular file"),
        (os.mkdir, MalformedError, "is not a regular file"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path, make, error, said):
    path = tmp_path / "medium" / "a.bundle"
    path.parent.mkdir()
    make(path)
    with pytest.raises(error, match=said) as raised:
        durable.read_bounded(path, 10)
    assert str(path) in str(raised.value)


def test_what_replaces_has_its_mode_whatever_a_killed_process_left(tmp_path):
    path = tmp_path / "a"
    for content in (b"old", b"new"):
        (tmp_path / ".a.partial").write_bytes(b"left behind")
        (tmp_path / ".a.partial").chmod(0o444)
        with durable.replacing(path, 0o444) as file:
            file.write(content)
        assert path.read_bytes() == content and stat.S_IMODE(path.stat().st_mode) == 0o444
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_to_a_file_is_the_file(tmp_path):
    (tmp_path / "there").write_bytes(b"abc")
    (tmp_path / "here").symlink_to("there")
    assert durable.read_bounded(tmp_path / "here", 3) == b"abc"
