from __future__ import annotations

import json
import os
import shutil
import tarfile

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_ai_assets.delivery import archive, bundle, image, release
from edge_ai_assets.delivery.errors import (
    DeliveryError,
    ForeignError,
    MalformedError,
    MismatchError,
    MissingError,
    UntrustedError,
)
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets_tests.delivery.conftest import all_releases

STRANGER = [Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()]


@pytest.fixture
def published(registry, publish):
    return publish(registry)


@pytest.fixture
def path(registry, published, keys, tmp_path):
    return bundle.build(registry, 1, tmp_path / "media", keys)


@pytest.fixture
def site(tmp_path):
    return Layout(tmp_path / "site")


def members_of(path):
    with path.open("rb") as file:
        return [(m.name, b"".join(m.chunks)) for m in archive.members(file, "it")]


def rewrite(path, members):
    path.write_bytes(b"".join(archive.pack(archive.Member(n, len(d), [d]) for n, d in members)))


def test_it_is_named_after_its_release_and_begins_with_what_it_holds(path):
    assert path.name == "pump-1.bundle"
    names = [name for name, _ in members_of(path)]
    assert names[:3] == ["bundle.json", "oci-layout", "index.json"]
    listed = [f"blobs/sha256/{blob['digest'][7:]}" for blob in bundle.inspect(path)["blobs"]]
    assert names[3:] == listed


def test_the_same_release_gives_the_same_bytes(path, registry, keys, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(registry.path, copy)
    assert bundle.build(Layout(copy), 1, tmp_path / "other", keys).read_bytes() == path.read_bytes()


def test_inspect_can_be_printed_as_json(path):
    found = json.loads(json.dumps(bundle.inspect(path)))
    assert (found["format"], found["usecase"], found["version"]) == (1, "pump", 1)
    assert found["bytes"] == path.stat().st_size
    assert all(blob["included"] for blob in found["blobs"])


def test_it_brings_the_release(path, published, keys, site):
    assert bundle.verify(path, keys) == published
    assert not site.path.exists()
    assert bundle.import_bundle(path, site, keys) == published
    assert release.latest(site, keys) == release.get(site, 1, keys) == published
    image.unpack(site, published.image, site.path.parent / "out", max_bytes=1 << 20)


def test_a_bundle_is_an_image_layout_that_any_tool_can_read(path, published, keys, tmp_path):
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "extracted", filter="data")
    layout = Layout(tmp_path / "extracted")
    assert release.get(layout, 1, keys) == published
    assert set(layout.tags()) == {"image-1", "release-1"}


def test_importing_twice_changes_nothing(path, keys, site):
    bundle.import_bundle(path, site, keys)
    before = {p: p.stat().st_mtime_ns for p in site.path.rglob("*")}
    bundle.import_bundle(path, site, keys)
    assert {
        p: p.stat().st_mtime_ns for p in site.path.rglob("*") if p.name not in ("ingest",)
    }.items() <= before.items()


def test_what_the_site_has_is_left_out(registry, publish, keys, tmp_path, site):
    publish(registry)
    first = bundle.build(registry, 1, tmp_path / "a", keys)
    bundle.import_bundle(first, site, keys)
    publish(registry, "two")
    again = publish(registry, "one")
    update = bundle.build(registry, 3, tmp_path / "b", keys, have=site.blobs())
    included = [blob["included"] for blob in bundle.inspect(update)["blobs"]]
    assert included == [True] * 3 + [False] * 3
    assert update.stat().st_size < first.stat().st_size - 6000
    assert bundle.verify(update, keys) == again
    assert bundle.import_bundle(update, site, keys) == again
    assert release.latest(site, keys) == again


def test_what_is_left_out_must_be_there_and_intact(registry, published, keys, tmp_path, site):
    path = bundle.build(registry, 1, tmp_path, keys, have=registry.blobs())
    with pytest.raises(MissingError, match="leaves out blob"):
        bundle.import_bundle(path, site, keys)
    assert site.tags() == {}
    left_out = [blob["digest"] for blob in bundle.inspect(path)["blobs"] if not blob["included"]]
    for digest in left_out:
        site.put(registry.get(digest, max_bytes=1 << 20))
    damaged = site.path / "blobs" / "sha256" / left_out[-1][7:]
    good = damaged.read_bytes()
    damaged.write_bytes(bytes(len(good)))
    with pytest.raises(MissingError, match="leaves out blob"):
        bundle.import_bundle(path, site, keys)
    damaged.write_bytes(good)
    assert bundle.import_bundle(path, site, keys) == published


@pytest.mark.parametrize("trusted", [[], STRANGER])
def test_a_bundle_of_a_stranger_is_refused_and_nothing_written(path, site, trusted):
    for call in (lambda: bundle.verify(path, trusted), lambda: bundle.import_bundle(path, site, trusted)):
        with pytest.raises(UntrustedError, match="no valid signature"):
            call()
    assert not site.path.exists()


def test_a_bundle_of_another_use_case_is_refused(path, publish, keys, tmp_path, site):
    other = Layout(tmp_path / "other")
    publish(other, "two", usecase="valve")
    bundle.import_bundle(path, site, keys)
    before = site.tags()
    with pytest.raises(ForeignError, match="'valve', not 'pump'"):
        bundle.import_bundle(bundle.build(other, 1, tmp_path, keys), site, keys)
    assert site.tags() == before


def test_another_release_of_the_same_version_is_refused(path, publish, keys, tmp_path, site):
    other = Layout(tmp_path / "other")
    publish(other, "two")
    bundle.import_bundle(path, site, keys)
    before = site.tags()
    with pytest.raises(ForeignError, match="another release 1"):
        bundle.import_bundle(bundle.build(other, 1, tmp_path, keys), site, keys)
    assert site.tags() == before


def test_an_older_bundle_does_not_move_latest_back(registry, publish, keys, tmp_path, site):
    releases = [publish(registry, content) for content in ("one", "two")]
    for version in (2, 1):
        bundle.import_bundle(bundle.build(registry, version, tmp_path, keys), site, keys)
    assert release.latest(site, keys) == releases[1]
    assert all_releases(site, keys) == releases


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_flipped_byte_is_refused(path, keys, part):
    size = path.stat().st_size
    with path.open("r+b") as file:
        handle = file.fileno()
        for position in range(size * part // 4, size * (part + 1) // 4):
            (byte,) = os.pread(handle, 1, position)
            os.pwrite(handle, bytes([byte ^ (1 << position % 8)]), position)
            with pytest.raises(DeliveryError):
                bundle.verify(path, keys)
            os.pwrite(handle, bytes([byte]), position)
    bundle.verify(path, keys)


def test_a_flipped_byte_changes_nothing_on_the_site(path, keys, site, registry, publish, tmp_path):
    bundle.import_bundle(path, site, keys)
    publish(registry, "two")
    update = bundle.build(registry, 2, tmp_path, keys)
    good, before = update.read_bytes(), (site.tags(), site.blobs())
    for position in range(0, len(good), 97):
        bad = bytearray(good)
        bad[position] ^= 0xFF
        update.write_bytes(bad)
        with pytest.raises(DeliveryError):
            bundle.import_bundle(update, site, keys)
        assert (site.tags(), site.blobs()) == before


def test_a_bundle_cut_anywhere_is_refused_and_nothing_written(path, keys, site):
    good = path.read_bytes()
    for length in [*range(0, len(good), 97), len(good) - 1]:
        path.write_bytes(good[:length])
        with pytest.raises(MalformedError, match=r"torn|end"):
            bundle.import_bundle(path, site, keys)
    assert not site.path.exists()


@pytest.mark.parametrize("tail", [b"\0", bytes(512), b"x" * 1000])
def test_nothing_may_follow(path, keys, tail):
    path.write_bytes(path.read_bytes() + tail)
    with pytest.raises(MalformedError, match="end"):
        bundle.verify(path, keys)


def _swap(members):
    members[-1], members[-2] = members[-2], members[-1]


def _extra(members):
    members.append(("evil", b"x"))


def _traversal(members):
    members[-1] = ("../evil", members[-1][1])


def _twice(members):
    members.append(members[-1])


def _lost(members):
    members.pop()


def _first(members):
    members.pop(0)


def _index(members):
    members[2] = ("index.json", members[2][1].replace(b"release-1", b"release-9"))


def _layout(members):
    members[1] = ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


def _other_layer(members):
    members[-1] = (members[-1][0], bytes(len(members[-1][1])))


@pytest.mark.parametrize("change", [_swap, _extra, _twice, _lost, _first, _index, _layout, _other_layer])
def test_a_bundle_put_together_otherwise_is_refused(path, keys, site, change):
    members = members_of(path)
    change(members)
    rewrite(path, members)
    with pytest.raises((MalformedError, MismatchError), match="refused"):
        bundle.import_bundle(path, site, keys)
    assert not site.path.exists()


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("format", 4, "format 4.*upgrade"),
        ("format", 3, "belongs to format 3"),
        ("format", None, "format"),
        ("usecase", "valve", "something else"),
        ("version", 2, "something else"),
        ("release", "sha256:" + "0" * 64, "something else"),
        ("release", "x", "release"),
        ("blobs", [], "0 blobs"),
        ("blobs", [{"digest": "sha256:" + "0" * 64, "size": 1, "included": True}] * 1001, "1001 blobs"),
        ("extra", 1, "extra"),
    ],
)
def test_a_bundle_json_that_says_something_else_is_refused(path, keys, field, value, reason):
    members = members_of(path)
    contents = {**json.loads(members[0][1]), field: value}
    rewrite(path, [("bundle.json", json.dumps(contents, separators=(",", ":")).encode()), *members[1:]])
    with pytest.raises(MalformedError, match=reason):
        bundle.verify(path, keys)


def test_the_same_bundle_json_written_otherwise_is_refused(path, keys):
    members = members_of(path)
    rewrite(path, [("bundle.json", members[0][1] + b" "), *members[1:]])
    with pytest.raises(MalformedError, match="one form"):
        bundle.verify(path, keys)


@pytest.mark.parametrize("position", range(6))
@pytest.mark.parametrize("field", ["size", "included", "digest"])
def test_a_list_of_blobs_that_is_not_the_releases_is_refused(path, keys, position, field):
    members = members_of(path)
    contents = json.loads(members[0][1])
    blob = contents["blobs"][position]
    blob[field] = {"size": blob["size"] + 1, "included": False, "digest": "sha256:" + "1" * 64}[field]
    rewrite(path, [("bundle.json", json.dumps(contents, separators=(",", ":")).encode()), *members[1:]])
    with pytest.raises((MalformedError, MismatchError)):
        bundle.verify(path, keys)


def test_blobs_of_one_release_do_not_mix_with_the_statement_of_another(registry, publish, keys, tmp_path):
    publish(registry), publish(registry, "two")
    one, two = (bundle.build(registry, version, tmp_path, keys) for version in (1, 2))
    mixed = members_of(one)[:5] + members_of(two)[5:]
    rewrite(one, mixed)
    with pytest.raises(MalformedError):
        bundle.verify(one, keys)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", bytes(512), bytes(1024), bytes(20_000)])
def test_what_is_no_bundle_is_refused(path, keys, content):
    path.write_bytes(content)
    for call in (lambda: bundle.inspect(path), lambda: bundle.verify(path, keys)):
        with pytest.raises(MalformedError):
            call()


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path, keys):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in (("none", MissingError), (".", MalformedError), ("pipe", MalformedError)):
        with pytest.raises(kind):
            bundle.verify(tmp_path / path, keys)


def test_a_bundle_exchanged_between_checking_and_writing_is_noticed(
    path, keys, site, registry, publish, tmp_path, monkeypatch
):
    publish(registry, "two")
    other = bundle.build(registry, 2, tmp_path / "two", keys).read_bytes()
    checked = bundle.checked

    def exchange(*arguments):
        result = checked(*arguments)
        path.write_bytes(other)
        return result

    monkeypatch.setattr(bundle, "checked", exchange)
    with pytest.raises(MismatchError, match="changed while"):
        bundle.import_bundle(path, site, keys)
    assert site.tags() == {}


@pytest.mark.parametrize("kind", ["missing", "damaged"])
def test_a_registry_with_a_bad_blob_gives_no_bundle(registry, published, keys, tmp_path, kind):
    layer = (
        registry.path
        / "blobs"
        / "sha256"
        / max(registry.blobs(), key=lambda d: len(registry.get(d, max_bytes=1 << 20)))[7:]
    )
    layer.unlink() if kind == "missing" else layer.write_bytes(b"x")
    with pytest.raises((MissingError, MismatchError)):
        bundle.build(registry, 1, tmp_path / "media", keys)
    assert os.listdir(tmp_path / "media") == [".lock"]


def test_an_older_bundle_stays_when_building_anew_fails(path, registry, keys):
    good = path.read_bytes()
    for blob in (registry.path / "blobs" / "sha256").iterdir():
        blob.write_bytes(blob.read_bytes() + b"x")
    with pytest.raises(MismatchError):
        bundle.build(registry, 1, path.parent, keys)
    assert path.read_bytes() == good


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_number_of_changes_is_refused(path, keys, data):
    good = path.read_bytes()
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(good) - 1))
        bad[start : start + data.draw(st.integers(0, 600))] = data.draw(st.binary(max_size=600))
    other = path.with_name("changed")
    other.write_bytes(bad)
    if bytes(bad) == good:
        bundle.verify(other, keys)
    else:
        with pytest.raises(DeliveryError):
            bundle.verify(other, keys)
