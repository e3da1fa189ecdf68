"""A bundle in parts: whole again, or it is said which part is missing or damaged."""

from __future__ import annotations

import json
import os

import pytest

from edge_ai_assets.delivery import split
from edge_ai_assets.delivery.errors import DeliveryError, MalformedError, MismatchError, MissingError

MIB = 1 << 20


@pytest.fixture
def content():
    return os.urandom(2 * MIB + 1234)


@pytest.fixture
def index(tmp_path, content):
    (tmp_path / "medium").mkdir()
    path = tmp_path / "medium" / "pump-1.bundle"
    path.write_bytes(content)
    return split.split(path, MIB)


def test_numbered_parts_take_its_place_and_become_it_again(index, content, tmp_path):
    names = sorted(path.name for path in index.parent.iterdir() if not path.name.startswith("."))
    assert names == [f"pump-1.bundle{end}" for end in (".001", ".002", ".003", ".parts")]
    path = split.join(index, tmp_path / "site")
    assert path.name == "pump-1.bundle" and path.read_bytes() == content
    before = path.stat().st_mtime_ns
    assert split.join(index, tmp_path / "site").stat().st_mtime_ns == before


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("kind", ["lost", "cut", "longer", "flipped", "swapped"])
def test_a_bad_part_is_named_and_nothing_is_made(index, tmp_path, number, kind):
    part = index.with_name(f"pump-1.bundle.{number:03}")
    data = part.read_bytes()
    if kind == "lost":
        part.unlink()
    else:
        other = index.with_name(f"pump-1.bundle.{number % 3 + 1:03}").read_bytes()
        changed = {"cut": data[:-1], "longer": data + b"x", "flipped": data[:-1] + bytes([data[-1] ^ 1])}
        part.write_bytes(changed.get(kind, other))
    with pytest.raises((MismatchError, MissingError), match=rf"{part.name}.*copy"):
        split.join(index, tmp_path / "site")
    assert not (tmp_path / "site" / "pump-1.bundle").exists()
    part.write_bytes(data)
    split.join(index, tmp_path / "site")


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": "../evil.bundle"},
        {"bundle": "other.bundle"},
        {"parts": []},
        {"format": 2},
        {"extra": 1},
        {"digest": "sha256:" + "0" * 64},
    ],
)
def test_a_list_that_says_something_else_is_refused(index, tmp_path, change):
    index.write_text(json.dumps({**json.loads(index.read_bytes()), **change}))
    with pytest.raises(DeliveryError):
        split.join(index, tmp_path / "site")
    assert not list((tmp_path / "site").glob("*.bundle")) if (tmp_path / "site").exists() else True


def test_parts_that_are_too_small_are_refused(tmp_path):
    path = tmp_path / "pump-1.bundle"
    path.write_bytes(b"x" * 100)
    with pytest.raises(MalformedError, match="too small"):
        split.split(path, 10)
    assert path.exists()


@pytest.mark.parametrize(
    ("text", "size"), [("4GiB", (4 << 30) - 1), ("700MiB", 700 << 20), ("2GiB", 2 << 30)]
)
def test_sizes(text, size):
    assert split.bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "4", "4GB", "-1GiB", "0GiB", "4 GiB", "1e9GiB"])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="such as 4GiB"):
        split.bytes_of(text)
