from __future__ import annotations

import hashlib
import json
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.delivery.errors import (
    DeliveryError,
    MalformedError,
    MismatchError,
    MissingError,
    TooLargeError,
)
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import MANIFEST, Descriptor, Manifest, digest_of, encode


def blob_path(layout, digest):
    return layout.path / "blobs" / "sha256" / digest.removeprefix("sha256:")


@pytest.mark.parametrize("data", [b"", b"a", bytes(3 << 20)])
def test_what_is_put_comes_back(registry, data):
    descriptor = registry.put(data)
    assert descriptor.digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert descriptor.size == len(data)
    assert registry.has(descriptor.digest) and registry.intact(descriptor)
    assert registry.get(descriptor.digest, max_bytes=len(data)) == data


def test_it_is_a_layout_as_oci_describes_it(registry):
    registry.tag("a", registry.put(b"x", "text/plain"))
    assert json.loads((registry.path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((registry.path / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert index["manifests"] == [
        {
            "mediaType": "text/plain",
            "digest": "sha256:" + hashlib.sha256(b"x").hexdigest(),
            "size": 1,
            "annotations": {"org.opencontainers.image.ref.name": "a"},
        }
    ]


def test_an_empty_layout_is_read_without_being_made(registry):
    assert registry.tags() == {} and registry.blobs() == frozenset()
    assert not registry.has("sha256:" + "0" * 64)
    assert not registry.path.exists()


def test_the_bound_is_exact(registry):
    digest = registry.put(b"12345").digest
    assert registry.get(digest, max_bytes=5) == b"12345"
    with pytest.raises(TooLargeError):
        registry.get(digest, max_bytes=4)
    with pytest.raises(TooLargeError, match="5 bytes, at most 4"), registry.open(digest, max_bytes=4):
        pass


@pytest.mark.parametrize("damaged", [b"", b"1234", b"12346", b"123456"])
def test_a_damaged_blob_is_never_returned_and_healed_by_put(registry, damaged):
    descriptor = registry.put(b"12345")
    blob_path(registry, descriptor.digest).write_bytes(damaged)
    with pytest.raises(MismatchError, match="damaged"):
        registry.get(descriptor.digest, max_bytes=10)
    with pytest.raises(MismatchError, match="damaged"), registry.open(descriptor.digest, max_bytes=10):
        pass
    assert not registry.intact(descriptor)
    registry.put(b"12345")
    assert registry.get(descriptor.digest, max_bytes=10) == b"12345"


def test_a_missing_blob_is_named(registry):
    with pytest.raises(MissingError, match="0000"):
        registry.get("sha256:" + "0" * 64, max_bytes=1)


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:",
        "sha256:../../etc/passwd",
        "sha512:" + "0" * 64,
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 64 + "\n",
    ],
)
def test_what_is_no_digest_never_becomes_a_path(registry, digest):
    for call in (lambda: registry.get(digest, max_bytes=1), lambda: registry.has(digest)):
        with pytest.raises(MalformedError, match="no digest"):
            call()


@pytest.mark.parametrize("come", [b"", b"12", b"1234", b"124", bytes(1 << 20)])
def test_a_stream_that_is_not_what_was_announced_is_not_kept(registry, come):
    expect = Descriptor("x", digest_of(b"123"), 3)
    with pytest.raises(MismatchError):
        registry.put_chunks([come], expect=expect)
    assert registry.blobs() == frozenset()
    assert sorted(p.name for p in (registry.path / "ingest").iterdir()) == ["blobs.lock", "index.lock"]


def test_an_endless_stream_is_left_at_the_first_byte_too_many(registry):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield b"xx"

    with pytest.raises(MismatchError, match="more than the 3 bytes"):
        registry.put_chunks(endless(), expect=Descriptor("x", digest_of(b"123"), 3))
    assert len(taken) == 2


def test_a_pipe_in_a_foreign_layout_does_not_block(registry):
    digest = digest_of(b"never written")
    registry.put(b"x")
    os.mkfifo(blob_path(registry, digest))
    with pytest.raises(MalformedError, match="not a regular file"):
        registry.get(digest, max_bytes=1)


def test_tags_are_replaced_and_others_kept(registry):
    one, two = registry.put(b"1"), registry.put(b"2")
    registry.tag("a", one)
    registry.tag("b", one)
    registry.tag("a", two)
    assert registry.tags() == {"a": two, "b": one}
    assert Layout(registry.path).resolve("a") == two
    with pytest.raises(MissingError, match="'c'"):
        registry.resolve("c")


@pytest.mark.parametrize("name", ["", "-a", "a-", "a..b", "a b", "../a", "a\n", "a/", "ä", "a" * 5000 + "!"])
def test_a_name_that_oci_does_not_allow_is_refused_at_once(registry, name):
    with pytest.raises(MalformedError, match="no tag"):
        registry.tag(name, registry.put(b"1"))
    assert registry.tags() == {}


@pytest.mark.parametrize("name", ["latest", "release-7", "1.0", "a/b:c@d+e", "a--b", "A_1"])
def test_names_that_oci_allows(registry, name):
    registry.tag(name, registry.put(b"1"))
    assert list(registry.tags()) == [name]


def test_a_tag_for_a_blob_that_is_not_here_is_refused(registry):
    with pytest.raises(MissingError, match="'a' is refused"):
        registry.tag("a", Descriptor("x", digest_of(b"1"), 1))
    assert registry.tags() == {}


def test_an_edit_that_fails_changes_nothing(registry):
    one = registry.put(b"1")
    registry.tag("a", one)
    with pytest.raises(KeyError), registry.editing() as tags:
        tags["b"] = one
        raise KeyError
    assert registry.tags() == {"a": one}


def test_what_others_wrote_into_the_index_stays(registry):
    registry.put(b"1")
    entry = {"mediaType": MANIFEST, "digest": "sha256:" + "1" * 64, "size": 3, "platform": {"os": "linux"}}
    named = {**entry, "annotations": {"org.opencontainers.image.ref.name": "theirs", "x": "y"}}
    index = {"schemaVersion": 2, "manifests": [entry, named], "annotations": {"k": "v"}}
    (registry.path / "index.json").write_text(json.dumps(index))
    registry.tag("mine", registry.put(b"1"))
    after = json.loads((registry.path / "index.json").read_bytes())
    assert entry in after["manifests"] and named in after["manifests"] and after["annotations"] == {"k": "v"}
    assert set(registry.tags()) == {"mine", "theirs"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("index.json", b"", "refused"),
        ("index.json", b"[]", "refused"),
        ("index.json", b'{"manifests": [{"mediaType": "x", "digest": "../../x", "size": 1}]}', "digest"),
        (
            "index.json",
            b'{"manifests": [{"mediaType": "x", "digest": "sha256:' + b"0" * 64 + b'", "size": -1}]}',
            "size",
        ),
        ("index.json", b"\xff", "refused"),
        ("index.json", b"[" * 100_000, "refused"),
        ("index.json", b" " * ((4 << 20) + 1), "more than"),
        ("oci-layout", b'{"imageLayoutVersion": "2.0.0"}', "layout version"),
        ("oci-layout", b"{}", "layout version"),
        ("oci-layout", b"no", "refused"),
    ],
)
def test_a_damaged_layout_is_refused_by_name(registry, name, content, reason):
    registry.put(b"1")
    (registry.path / name).write_bytes(content)
    with pytest.raises(DeliveryError, match=reason) as caught:
        registry.tags()
    assert name in str(caught.value)


def test_a_tag_that_stands_twice_is_refused(registry):
    registry.tag("a", registry.put(b"1"))
    path = registry.path / "index.json"
    index = json.loads(path.read_bytes())
    index["manifests"] *= 2
    path.write_text(json.dumps(index))
    with pytest.raises(MalformedError, match="twice"):
        registry.tags()


def test_a_lost_index_is_no_empty_registry(registry):
    registry.tag("a", registry.put(b"1"))
    (registry.path / "index.json").unlink()
    with pytest.raises(MissingError, match="gone"):
        registry.tags()
    with pytest.raises(MissingError, match="gone"):
        registry.tag("b", registry.put(b"1"))


def test_reading_writes_nothing(registry):
    registry.tag("a", registry.put(b"1"))
    before = {p: p.stat().st_mtime_ns for p in registry.path.rglob("*")}
    other = Layout(registry.path)
    other.get(other.resolve("a").digest, max_bytes=1)
    assert {p: p.stat().st_mtime_ns for p in registry.path.rglob("*")} == before


def test_collect_keeps_what_tags_lead_to_and_nothing_else(registry):
    config, layer, subject_config = (registry.put(data) for data in (b"{}", b"layer", b"{ }"))
    subject = registry.put(encode(Manifest(subject_config, ())), MANIFEST)
    kept = registry.put(encode(Manifest(config, (layer,), subject=subject)), MANIFEST)
    registry.tag("kept", kept)
    loose = registry.put(b"loose")
    assert registry.collect() == [loose.digest]
    assert registry.blobs() == {part.digest for part in (config, layer, subject_config, subject, kept)}


def test_collect_removes_nothing_when_a_tag_leads_nowhere(registry):
    config = registry.put(b"{}")
    registry.tag("a", registry.put(encode(Manifest(config, ())), MANIFEST))
    broken = registry.put(encode(Manifest(config, ())) + b" ", MANIFEST)
    registry.tag("b", broken)
    blob_path(registry, broken.digest).unlink()
    loose = registry.put(b"loose")
    with pytest.raises(MissingError):
        registry.collect()
    assert registry.has(loose.digest)


def test_collect_waits_for_whoever_is_writing(registry):
    done = threading.Event()

    def collect():
        registry.collect()
        done.set()

    with registry.writing():
        loose = registry.put(b"to be tagged soon")
        thread = threading.Thread(target=collect)
        thread.start()
        assert not done.wait(0.1)
        registry.tag("a", loose)
    thread.join(60)
    assert done.is_set() and registry.has(loose.digest)


def test_rest_of_killed_writers_is_cleared_but_not_of_living_ones(registry):
    registry.put(b"1")
    rest = registry.path / "ingest" / "tmpdead"
    rest.write_bytes(b"half")
    with registry.writing():
        assert not rest.exists()
        rest.write_bytes(b"of a living one")
        registry.put(b"2")
        assert rest.exists()


def test_two_processes_tag_at_once_and_lose_nothing(registry):
    children = []
    for child in range(3):
        if (pid := os.fork()) == 0:
            status = 1
            try:
                layout = Layout(registry.path)
                for number in range(15):
                    layout.tag(f"{child}-{number}", layout.put(b"%d" % number))
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    while any(children):
        registry.tags()  # whole at every moment
        children = [pid for pid in children if os.waitpid(pid, os.WNOHANG) == (0, 0)]
    assert set(registry.tags()) == {f"{child}-{number}" for child in range(3) for number in range(15)}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=3)), max_size=8))
def test_tags_are_what_was_said_last(tmp_path_factory, edits):
    layout, model = Layout(tmp_path_factory.mktemp("layout")), {}
    for name, data in edits:
        layout.tag(name, layout.put(data))
        model[name] = digest_of(data)
    assert {name: descriptor.digest for name, descriptor in layout.tags().items()} == model
    assert layout.blobs() == {digest_of(data) for _, data in edits}
