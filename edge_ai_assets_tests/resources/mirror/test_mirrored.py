"""What is mirrored, as what and in which order: pure rules over names and folders."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.home import Home
from edge_ai_assets.resources.mirror import mirrored, moving
from edge_ai_assets.resources.mirror.home_mirror import HomeMirror
from edge_ai_assets.resources.mirror.mirrored import File, Kind

LOG = "global/insights/_delta_log"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("raw_telemetry/0176a177c91c60ae.parquet", Kind.MADE),
        ("quarantine/0176a177c91c60ae.parquet", Kind.MADE),
        ("training_set/00ac1c6590b75bbc.parquet", Kind.MADE),
        ("training_set/newest.json", Kind.POINTER),
        ("global/insights/part-00000-a089b23b-c000.snappy.parquet", Kind.IMMUTABLE),
        ("global/insights/day=2026-01-01/part-1.parquet", Kind.IMMUTABLE),
        (f"{LOG}/00000000000000000012.json", Kind.LOG),
        (f"{LOG}/00000000000000000010.checkpoint.parquet", Kind.LOG),
        (f"{LOG}/00000000000000000010.checkpoint.0000000001.0000000002.parquet", Kind.LOG),
        (f"{LOG}/_last_checkpoint", Kind.POINTER),
        (f"{LOG}/_commit_2f1a.json.tmp", None),
        (f"{LOG}/00000000000000000012.crc", None),
        ("global/insights/part-00000.parquet#1", None),
        ("global/.inbox.lock", None),
        ("raw_telemetry/.0176a177c91c60ae.parquet.4711", None),
        ("models/candidates/2f1a/model.onnx", Kind.IMMUTABLE),
    ],
)
def test_what_a_name_of_the_lake_is(name, kind):
    assert mirrored.of_lake(name) is kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [("index.html", Kind.POINTER), ("fleet.js", Kind.MADE), (".index.html.4711", None)],
)
def test_what_a_name_of_the_site_is(name, kind):
    assert mirrored.of_site(name) is kind


versions = st.integers(0, 30)
files = st.one_of(
    st.builds("global/{}/part-{}.parquet".format, st.sampled_from("ab"), versions),
    st.builds("global/{}/_delta_log/{:020}.json".format, st.sampled_from("ab"), versions),
    st.builds("global/{}/_delta_log/{:020}.checkpoint.parquet".format, st.sampled_from("ab"), versions),
    st.builds("global/{}/_delta_log/_last_checkpoint".format, st.sampled_from("ab")),
    st.builds("training_set/{}.parquet".format, versions),
    st.just("training_set/newest.json"),
    st.just("models/candidates/one/model.onnx"),
)


def as_file(name: str) -> File:
    kind = mirrored.of_lake(name)
    assert kind is not None
    return File(Path(name), name, kind, 1, 0)


@given(st.sets(files))
def test_nothing_is_moved_before_what_it_needs(names):
    moved: list[File] = []
    lock = threading.Lock()

    def move(file: File) -> bool:
        with lock:
            here = {each.name for each in moved}
            needed = {
                n for n in names if n.startswith(file.name.split("/")[0]) and as_file(n).kind < file.kind
            }
            assert needed <= here
            if file.kind is Kind.LOG:
                earlier = {n for n in names if n.rpartition("/")[0] == file.name.rpartition("/")[0]}
                assert {n for n in earlier if as_file(n).kind is Kind.LOG and n < file.name} <= here
            moved.append(file)
        return len(file.name) % 2 == 0

    work = [(file, lambda file=file: move(file)) for file in sorted(map(as_file, names), key=mirrored.order)]
    done = moving.moved(work)
    assert {file.name for file in moved} == names
    assert done.files == done.bytes == sum(len(name) % 2 == 0 for name in names)


def test_after_an_error_nothing_new_is_begun():
    begun: list[str] = []

    def move(name: str) -> bool:
        begun.append(name)
        if name.endswith("3.json"):
            raise OSError("the link was cut")
        return True

    names = [f"{LOG}/{version:020}.json" for version in range(10)]  # one log: one by one
    work = [(as_file(name), lambda name=name: move(name)) for name in [*names, "training_set/newest.json"]]
    with pytest.raises(OSError, match="cut"):
        moving.moved(work)
    assert begun == names[:4]


@pytest.fixture
def home(tmp_path):
    for name in (
        "models/candidates/one/model.onnx",
        "models/candidates/two/model.onnx",
        "global/t/a.parquet",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "models/champion").symlink_to("candidates/one")
    return tmp_path


def names(found: list[File]) -> list[str]:
    return [file.name for file in found]


def test_a_link_is_its_folder_and_then_itself(home):
    found = mirrored.listed(home, home / "models/champion", mirrored.of_lake)
    assert names(found) == ["models/candidates/one/model.onnx", "models/champion"]
    assert (found[1].link, found[1].data) == (True, b"candidates/one")


def test_a_path_may_be_a_file_or_nothing(home):
    assert names(mirrored.listed(home, home / "global/t/a.parquet", mirrored.of_lake)) == [
        "global/t/a.parquet"
    ]
    assert mirrored.listed(home, home / "quarantine", mirrored.of_lake) == []


def test_a_link_out_of_the_folder_is_refused(home, tmp_path_factory):
    (home / "models/candidate").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(ValueError, match="not below"):
        mirrored.listed(home, home / "models/candidate", mirrored.of_lake)


def test_links_in_a_folder_and_pipes_are_not_followed(home):
    (home / "global/t/link.parquet").symlink_to(home / "global/t/a.parquet")
    os.mkfifo(home / "global/t/pipe.parquet")
    assert names(mirrored.listed(home, home / "global", mirrored.of_lake)) == ["global/t/a.parquet"]


def test_what_comes_while_it_is_listed_is_not_half_seen(home, monkeypatch):
    """An entry of a log that appears after the log was looked through comes with the next push, as its data
    does, or without it: never the entry alone."""
    log = home / "global/t/_delta_log"
    log.mkdir()
    (log / f"{0:020}.json").write_bytes(b"{}")
    walk, walks = os.walk, []

    def grows(place):
        walks.append(place)
        yield from walk(place)
        (home / f"global/t/part-{len(walks)}.parquet").write_bytes(b"x")
        (log / f"{len(walks):020}.json").write_bytes(b"{}")

    monkeypatch.setattr(mirrored.os, "walk", grows)
    found = names(mirrored.listed(home, home / "global/t", mirrored.of_lake))
    entries = [int(Path(name).stem) for name in found if name.endswith(".json")]
    assert len(entries) > 1
    assert {f"global/t/part-{number}.parquet" for number in entries if number} <= set(found)


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ("0 1 2", "0 1 2"),
        ("0 1 2c 2 3", "0 1 2c 2 3"),
        ("0 1 3 4", "0 1"),
        ("0 1 2c 3", "0 1 2c 3"),
        ("2c 2 3", "2c 2 3"),
        ("1 2 3c 3 4", "3c 3 4"),
        ("1 2", ""),
        ("3c 5", "3c"),
        ("0 1 4c 4 5", "4c 4 5"),  # old entries were cleaned away before they were mirrored
        ("0 1 4c 4 5 7", "4c 4 5"),
        ("0 1 3 4 6c 7 8 10", "6c 7 8"),
        ("", ""),
    ],
)
def test_of_a_log_goes_what_is_a_log_by_itself(tmp_path, there, taken):
    """`2c` is the checkpoint of version 2, `2` its entry."""

    def name(short: str) -> str:
        return f"{int(short.removesuffix('c')):020}{'.checkpoint.parquet' if 'c' in short else '.json'}"

    (tmp_path / LOG).mkdir(parents=True)
    for short in there.split():
        (tmp_path / LOG / name(short)).write_bytes(b"x")
    assert names(mirrored.listed(tmp_path, tmp_path, mirrored.of_lake)) == [
        f"{LOG}/{name(short)}" for short in taken.split()
    ]


def test_the_page_says_where_each_folder_goes():
    page = (Path(__file__).parents[3] / "docs/storage.md").read_text("utf-8")
    home = Home(Path("/home"))
    for path in HomeMirror(home).paths:
        assert f"`{path.relative_to(home.root)}`" in page
