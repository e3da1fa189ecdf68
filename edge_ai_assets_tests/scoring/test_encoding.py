"""Compressed bodies: what went in comes out, a bomb is stopped in time, and nothing is guessed."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_ai_assets.scoring.bodies.encoding import MAX_MEMBERS, WORTH, decoded, encoded
from edge_ai_assets.scoring.refused import Refused

LIMIT = 1_000_000


def raw(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(body) + stream.flush()


PACK = {b"gzip": gzip.compress, b"x-gzip": gzip.compress, b"deflate": zlib.compress, b"Deflate ": raw}


def refusal(body: bytes, name: bytes, limit: int = LIMIT) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        decoded(body, name, limit)
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize("name", PACK)
@given(body=st.binary())
@example(body=b"x" * 900_000)
@example(body=bytes(range(256)) * 2_000)
def test_what_was_compressed_comes_back(name, body):
    assert decoded(PACK[name](body), name, LIMIT) == body


@given(st.lists(st.binary(), min_size=1, max_size=5))
def test_a_gzip_body_may_have_several_members(parts):
    assert decoded(b"".join(map(gzip.compress, parts)), b"gzip", LIMIT) == b"".join(parts)


@pytest.mark.parametrize("name", [b"", b"identity", b" Identity"])
def test_a_body_that_is_not_compressed_is_itself(name):
    assert decoded(b"{}", name, 2) == b"{}"
    assert refusal(b"{} ", name, 2) == (413, "the body has 3 bytes, at most 2 are taken")


@pytest.mark.parametrize("name", PACK)
@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_the_limit_is_met_exactly(name, size):
    body = PACK[name](b"x" * size)
    assert len(decoded(body, name, size)) == size
    if size:
        assert refusal(body, name, size - 1)[0] == 413


@pytest.mark.parametrize("name", PACK)
def test_a_bomb_is_stopped_before_it_is_in_memory(name):
    bomb = PACK[name](bytes(100_000_000))
    tracemalloc.start()
    assert refusal(bomb, name)[0] == 413
    assert tracemalloc.get_traced_memory()[1] < 6 * LIMIT
    tracemalloc.stop()


def test_many_small_members_that_are_large_together_are_stopped():
    assert refusal(gzip.compress(b"x" * 2_000) * 600, b"gzip")[0] == 413


def test_members_are_limited():
    member = gzip.compress(b"")
    assert decoded(member * MAX_MEMBERS, b"gzip", LIMIT) == b""
    assert refusal(member * (MAX_MEMBERS + 1), b"gzip") == (400, "the gzip body has more than 1000 members")


@pytest.mark.parametrize("name", PACK)
def test_a_body_that_is_cut_off_is_incomplete(name):
    whole = PACK[name](b"some readings, some more readings")
    for size in range(len(whole)):
        assert refusal(whole[:size], name)[0] == 400


@pytest.mark.parametrize("name", PACK)
@pytest.mark.parametrize("garbage", [b"\0", b"{}", b"\x1f\x8b", b"x" * 70_000])
def test_what_follows_a_body_is_refused(name, garbage):
    assert refusal(PACK[name](b"x") + garbage, name)[0] == 400


def test_a_wrong_checksum_is_seen():
    packed = bytearray(gzip.compress(b"some readings"))
    packed[-6] ^= 1
    assert refusal(bytes(packed), b"gzip") == (
        400,
        "the gzip body is broken: Error -3 while decompressing data: incorrect data check",
    )


@pytest.mark.parametrize("name", [b"br", b"zstd", b"gzip, gzip", b"gzip;q=1", b"\xff" * 100])
def test_another_encoding_is_refused(name):
    status, message = refusal(b"x", name)
    assert status == 415 and "gzip, deflate and identity" in message and len(message) < 200


@given(st.binary(), st.sampled_from([b"gzip", b"deflate"]))
def test_any_bytes_are_decoded_or_refused(body, name):
    for candidate in (body, gzip.compress(b"x" * 50)[:10] + body, zlib.compress(b"x")[:2] + body):
        try:
            assert len(decoded(candidate, name, 100)) <= 100
        except Refused as error:
            assert error.status in (400, 413)


@pytest.mark.parametrize(
    ("accept", "taken"),
    [
        (b"gzip", True),
        (b"gzip, deflate, br", True),
        (b"br;q=1.0, GZIP;q=0.1", True),
        (b"*", True),
        (b"x-gzip", True),
        (b"gzip ; q = 1", True),
        (b"gzip;q=0", False),
        (b"gzip;q=0.000, *", False),
        (b"*;q=0", False),
        (b"gzip;q=much", False),
        (b"identity", False),
        (b"notgzip", False),
        (b"", False),
    ],
)
def test_an_answer_is_compressed_for_whoever_takes_it(accept, taken):
    body = b'{"score":0.25}' * 1_000
    packed, name = encoded(body, accept)
    assert name == (b"gzip" if taken else None)
    assert (gzip.decompress(packed) if taken else packed) == body


@given(st.binary(max_size=3_000), st.binary(max_size=20))
def test_an_answer_never_grows_and_comes_back(body, accept):
    for header in (accept, b"gzip"):
        packed, name = encoded(body, header)
        assert len(packed) <= len(body)
        assert decoded(packed, name or b"", LIMIT) == body


def test_a_short_answer_leaves_as_it_is():
    assert encoded(b"x" * (WORTH - 1), b"gzip")[1] is None
    assert encoded(b"x" * WORTH, b"gzip")[1] == b"gzip"


def test_the_same_answer_gives_the_same_bytes():
    assert encoded(b"x" * WORTH, b"gzip") == encoded(b"x" * WORTH, b"gzip")
