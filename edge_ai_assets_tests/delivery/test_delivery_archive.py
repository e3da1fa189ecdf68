from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.delivery import archive
from edge_ai_assets.delivery.errors import MalformedError, MismatchError

plain = st.from_regex(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}(/[A-Za-z0-9][A-Za-z0-9._-]{0,20}){0,3}", fullmatch=True
)
files = st.dictionaries(plain, st.binary(max_size=1500), max_size=5)


def packed(content: dict[str, bytes]) -> bytes:
    return b"".join(archive.pack(archive.Member(n, len(d), [d]) for n, d in content.items()))


def unpacked(data: bytes) -> dict[str, bytes]:
    return {m.name: b"".join(m.chunks) for m in archive.members(io.BytesIO(data), "it")}


@given(files)
def test_what_is_packed_comes_back_and_any_tar_reads_it(content):
    data = packed(content)
    assert unpacked(data) == content
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar} == content
        assert all((m.uid, m.gid, m.mtime, m.mode, m.uname) == (0, 0, 0, 0o644, "") for m in tar)


@given(files, st.data())
def test_a_flipped_bit_is_refused_or_in_the_content(content, data):
    good = packed(content)
    position = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        got = unpacked(bytes(bad))
    except MalformedError:
        return
    # Same form, other content: that is for the digest to find. No two byte strings mean the same.
    assert got != content and packed(got) == bytes(bad)


@given(files, st.data())
def test_a_cut_archive_is_refused(content, data):
    good = packed(content)
    with pytest.raises(MalformedError):
        unpacked(good[: data.draw(st.integers(0, len(good) - 1))])


@given(st.binary(max_size=2000))
def test_garbage_is_refused_with_a_reason(data):
    with pytest.raises(MalformedError):
        unpacked(data)


@pytest.mark.parametrize("tail", [b"\0", b"x", bytes(512), bytes(10_000)])
def test_nothing_may_follow_the_end(tail):
    with pytest.raises(MalformedError, match="end"):
        unpacked(packed({"a": b"1"}) + tail)


@pytest.mark.parametrize("size", [512, 1024, 100])
def test_a_member_skipped_by_the_reader_is_still_checked(size):
    data = bytearray(packed({"a": b"1" * size, "b": b"2"}))
    names = [m.name for m in archive.members(io.BytesIO(bytes(data)), "it")]
    assert names == ["a", "b"]


@pytest.mark.parametrize(
    "name", ["", "/a", "../a", "a/../b", "a//b", "a/", ".a", "a/.b", "a\\b", "ä", "a b", "a" * 101]
)
def test_a_name_that_is_not_plain_is_not_written(name):
    with pytest.raises(MalformedError, match="no plain name"):
        packed({name: b""})


@pytest.mark.parametrize(("size", "chunks"), [(3, [b"ab"]), (1, [b"ab"]), (0, [b"a"]), (1, [])])
def test_a_file_that_changes_while_it_is_packed_is_noticed(size, chunks):
    with pytest.raises(MismatchError):
        b"".join(archive.pack([archive.Member("a", size, chunks)]))


def one_header(**changes) -> bytes:
    info = tarfile.TarInfo("model/a")
    for field, value in changes.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "symbolic link"),
        ({"type": tarfile.LNKTYPE, "linkname": "model/b"}, "hard link"),
        ({"type": tarfile.CHRTYPE}, "device"),
        ({"type": tarfile.BLKTYPE}, "device"),
        ({"type": tarfile.FIFOTYPE}, "pipe"),
        ({"type": tarfile.DIRTYPE}, "folder"),
        ({"type": tarfile.GNUTYPE_SPARSE}, "one form"),
        ({"type": tarfile.XHDTYPE}, "one form"),
        ({"type": tarfile.GNUTYPE_LONGNAME}, "one form"),
        ({"name": "../../etc/cron.d/x"}, "no plain name"),
        ({"name": "/etc/passwd"}, "no plain name"),
        ({"name": "model/a\nb"}, "no plain name"),
        ({"mode": 0o4755}, "one form"),
        ({"uid": 1000}, "one form"),
        ({"mtime": 1}, "one form"),
        ({"uname": "root"}, "one form"),
        ({"linkname": "x"}, "one form"),
        ({"size": 1 << 60}, "torn"),
    ],
)
def test_anything_but_a_plain_file_is_refused_by_its_kind(changes, reason):
    with pytest.raises(MalformedError, match=reason):
        unpacked(one_header(**changes))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_another_dialect_of_tar_is_refused(form):
    with pytest.raises(MalformedError, match="one form"):
        unpacked(tarfile.TarInfo("a").tobuf(form) + bytes(1024))


def test_a_header_announcing_more_than_there_is_reads_no_more_than_there_is():
    with pytest.raises(MalformedError, match="torn"):
        unpacked(one_header(size=1 << 40))
