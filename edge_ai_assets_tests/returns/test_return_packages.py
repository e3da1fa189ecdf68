from __future__ import annotations

import io
import zipfile

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.delivery.signing import envelope
from edge_ai_assets.returns import packages
from edge_ai_assets.returns.packages import PackageError, build, peek, read
from edge_ai_assets.returns.parts import Insight, Word
from edge_ai_assets.returns.policy import Histogram

STRANGER = Ed25519PrivateKey.from_private_bytes(b"x" * 32)


def content(key, **other):
    insights = [
        Insight(3, 1_760_000_000_000_000, "r1", "anomaly", 0.9, True, {"Flow": 1.5, "Type": None}),
        Insight(5, 1_760_000_000_000_001, "r1", "anomaly", None, None, {}),
    ]
    words = [Word(1, 3, 1_760_000_000_000_002, "r1", False, "confirmed", None, {"Flow": 1.5})]
    return {
        "site": "bergen",
        "number": 1,
        "previous": "",
        "policy": "p" * 64,
        "created_at": 12,
        "first": 1,
        "last": 9,
        "insights": insights,
        "feedback": words,
        "histograms": [Histogram("r1", "Flow", 30, (10, 20))],
        "key": key,
        **other,
    }


@pytest.fixture(scope="module")
def data(key) -> bytes:
    return build(**content(key))


@pytest.fixture(scope="module")
def public(key):
    return [key.public_key()]


def test_what_is_read_is_what_was_built(data, public):
    package = read(data, public)
    manifest = package.manifest
    assert (manifest.site, manifest.number, manifest.first, manifest.last) == ("bergen", 1, 1, 9)
    assert manifest.releases == ("r1",)
    assert package.insights.to_pylist()[0]["fields"] == '{"Flow":1.5,"Type":null}'
    assert package.insights["sequence"].to_pylist() == [3, 5]
    assert package.insights["score"].to_pylist() == [0.9, None]
    assert package.feedback.to_pylist()[0]["note"] == "confirmed"
    assert package.histograms.to_pylist() == [
        {"release": "r1", "feature": "Flow", "rows": 30, "counts": [10, 20]}
    ]


def test_the_same_content_gives_the_same_bytes(data, key):
    assert build(**content(key)) == data


def test_an_empty_part_keeps_its_columns(key, public):
    package = read(build(**content(key, insights=[], feedback=[])), public)
    assert package.insights.num_rows == package.feedback.num_rows == 0
    assert package.insights.schema == read(build(**content(key)), public).insights.schema


def test_a_file_must_bear_the_signed_name(tmp_path, data, public):
    right, wrong = tmp_path / "bergen-00000001.zip", tmp_path / "narvik-00000001.zip"
    for path in (right, wrong):
        path.write_bytes(data)
    assert read(right, public).manifest == peek(right)
    with pytest.raises(PackageError, match=r"signed name is bergen-00000001\.zip"):
        read(wrong, public)


def test_a_strangers_signature_is_refused(data):
    with pytest.raises(PackageError, match="signature is refused"):
        read(data, [STRANGER.public_key()])
    with pytest.raises(PackageError, match="signature is refused"):
        read(data, [])


def test_one_of_several_keys_is_enough(data, public):
    read(data, [STRANGER.public_key(), *public])


def test_a_package_that_is_too_large_is_not_read(data, public):
    with pytest.raises(PackageError, match="more than 100 bytes"):
        read(data, public, max_bytes=100)


def test_every_flipped_byte_is_refused(data, public):
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 8)
        with pytest.raises(PackageError):
            read(bytes(changed), public)


@settings(max_examples=100, deadline=None)
@given(st.integers(0), st.integers(1, 255))
def test_every_changed_byte_is_refused(data, public, position, change):
    changed = bytearray(data)
    changed[position % len(data)] ^= change
    with pytest.raises(PackageError):
        read(bytes(changed), public)


@pytest.mark.parametrize("keep", [0, 1, 21, 22, 100, -1, -22, -23, -100])
def test_every_truncation_is_refused(data, public, keep):
    with pytest.raises(PackageError):
        read(data[:keep], public)


@pytest.mark.parametrize("before", [True, False])
def test_bytes_around_the_package_are_refused(data, public, before):
    with pytest.raises(PackageError):
        read(b"hidden" + data if before else data + b"hidden", public)


def rezipped(data: bytes, **replaced: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return packages._zip(parts | {name.replace("_", "."): value for name, value in replaced.items()})


@pytest.mark.parametrize("member", ["insights_parquet", "feedback_parquet", "histograms_parquet"])
def test_a_member_of_another_package_is_refused(data, key, public, member):
    other = build(**content(key, number=2, insights=[], feedback=[], histograms=[]))
    with zipfile.ZipFile(io.BytesIO(other)) as archive:
        part = archive.read(member.replace("_", "."))
    with pytest.raises(PackageError, match="digest or size"):
        read(rezipped(data, **{member: part}), public)


def test_a_member_too_many_is_refused(data, public):
    with pytest.raises(PackageError, match="must hold"):
        read(rezipped(data, hidden_txt=b"x"), public)


def test_a_compressed_member_is_refused(data, public):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name, packages.EPOCH), old.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(PackageError, match="compressed"):
        read(buffer.getvalue(), public)


def manifest_with(data: bytes, key, **changes) -> bytes:
    """The same package with another manifest, rightly signed: what only a faulty site would send."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        import base64

        found = msgspec.json.decode(archive.read(packages.MANIFEST))
        manifest = msgspec.json.decode(base64.b64decode(found["payload"]))
    signed = envelope(msgspec.json.encode(manifest | changes), packages.PAYLOAD_TYPE, key)
    return rezipped(data, manifest_dsse=signed)


@pytest.mark.parametrize("hint", [b"0" * 16, b"CANARY_a_longer_one"])
def test_an_envelope_that_carries_anything_else_is_refused(data, public, hint):
    """The key id is not signed; whatever stands in its place must not get through."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        signed = archive.read(packages.MANIFEST)
    keyid = msgspec.json.decode(signed)["signatures"][0]["keyid"].encode()
    with pytest.raises(PackageError, match="holds more than"):
        read(rezipped(data, manifest_dsse=signed.replace(keyid, hint)), public)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"surprise": 1}, "malformed"),
        ({"number": "one"}, "malformed"),
        ({"members": {}}, "lists"),
    ],
)
def test_a_signed_manifest_must_still_be_right(data, key, public, changes, message):
    with pytest.raises(PackageError, match=message):
        read(manifest_with(data, key, **changes), public)


def test_the_number_of_rows_must_be_right(data, key, public):
    members = msgspec.to_builtins(read(data, public).manifest.members)
    members["insights.parquet"]["rows"] = 7
    with pytest.raises(PackageError, match="2 rows, its manifest says otherwise"):
        read(manifest_with(data, key, members=members), public)


@pytest.mark.parametrize("junk", [b"", b"PK", b"not a zip at all" * 10, b"PK\x05\x06" + bytes(18)])
def test_junk_is_refused(junk, public):
    with pytest.raises(PackageError):
        read(junk, public)
